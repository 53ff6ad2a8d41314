"""Tests of datasets_scripts/reuters21578.py."""

import tarfile
import time

import pytest

from sgm_hf.datasets_scripts import load
from sgm_hf.datasets_scripts._corpus import check_text
from sgm_hf.datasets_scripts.reuters21578 import FILES, LABEL_NAMES, OTHER_TOPICS, _stories, _text, _topics

DOCTYPE = '<!DOCTYPE lewis SYSTEM "lewis.dtd">'
BODY = "<TITLE>GRAIN &lt;GRN> UP</TITLE>\n<DATELINE>  LONDON - </DATELINE><BODY>Wheat &amp; corn\nrose.\n&#3;</BODY>"


def story(number, topics, text=f"<TEXT>&#2;\n{BODY}</TEXT>", split="TRAIN", has_topics="YES"):
    """One story as the collection writes it, on several lines."""
    inner = "".join(f"<D>{topic}</D>" for topic in topics)
    return (
        f'<REUTERS TOPICS="{has_topics}" LEWISSPLIT="{split}" CGISPLIT="TRAINING-SET" OLDID="1" NEWID="{number}">\n'
        f"<DATE>26-FEB-1987 15:01:01.79</DATE>\n<TOPICS>{inner}</TOPICS>\n<PLACES><D>usa</D></PLACES>\n"
        f"<UNKNOWN> \n&#5;&#5;&#5;C T</UNKNOWN>\n{text}\n</REUTERS>"
    )


STORIES = (
    story(1, ["wheat", "grain", "stg"]),
    story(2, ["stg"]),
    story(3, [], has_topics="YES"),
    story(4, ["earn"], has_topics="NO"),
    story(5, ["earn"], split="NOT-USED"),
    story(6, ["earn"], '<TEXT TYPE="BRIEF">&#2;\n***<TITLE>NET 3 MLN\n</TITLE>Blah blah blah.\n&#3;\n\n</TEXT>'),
    story(
        7, ["acq"], '<TEXT TYPE="UNPROC">&#2;\nBID FOR &lt;XY>\n    Caf\xe9 bought,&#127;said\n&#3;\n\n</TEXT>', "TEST"
    ),
)


@pytest.fixture
def folder(write):
    """The 22 files; the stories are spread over the first two, the others have one story that is not used."""
    for number, name in enumerate(FILES):
        stories = {0: STORIES[:4], 1: STORIES[4:]}.get(number, (story(100 + number, [], split="NOT-USED"),))
        path = write(name, DOCTYPE, *stories, encoding="latin-1")
    return path.parent


def pack(folder, archive):
    """Write the files of a folder to an archive beside each other."""
    with tarfile.open(archive, "w:gz") as tar:
        for path in sorted(folder.glob("*.sgm")):
            tar.add(path, arcname=path.name)
    return archive


def test_stories_of_the_split_with_one_of_the_labels_are_kept(folder, cache):
    corpus = load("reuters21578", data_dir=folder, cache_dir=cache)
    names = corpus["train"].features["labels"].feature.names
    assert names == list(LABEL_NAMES) and len(names) == 90 and not set(names) & set(OTHER_TOPICS)
    kept = {split: [(row["id"], [names[i] for i in row["labels"]]) for row in part] for split, part in corpus.items()}
    assert kept == {"train": [("1", ["wheat", "grain"]), ("6", ["earn"])], "test": [("7", ["acq"])]}


def test_text_is_title_and_body_or_the_whole_text_without_markup(folder, cache):
    corpus = load("reuters21578", data_dir=folder, cache_dir=cache)
    assert corpus["train"]["text"][:] == ["GRAIN <GRN> UP\nWheat & corn\nrose.", "NET 3 MLN"]
    assert corpus["test"]["text"][:] == ["BID FOR <XY>\n    Café bought, said"]


def test_folder_archive_and_stream_give_the_same_stories(folder, cache, tmp_path):
    corpus = load("reuters21578", data_dir=folder, cache_dir=cache)
    archive = pack(folder, tmp_path / "reuters21578.tar.gz")
    for data_dir in (archive, tmp_path):
        packed = load("reuters21578", data_dir=data_dir, cache_dir=cache)
        stream = load("reuters21578", data_dir=data_dir, streaming=True)
        for split in corpus:
            assert packed[split][:] == corpus[split][:]
            assert list(stream[split]) == list(corpus[split])
            assert stream[split].features == corpus[split].features


def test_a_topic_that_appears_twice_is_kept_once_with_a_warning(folder, write, cache, caplog):
    write(FILES[3], DOCTYPE, story(9, ["corn", "grain", "corn"]))
    labels = load("reuters21578", data_dir=folder, split="train", cache_dir=cache)["labels"][-1]
    assert [LABEL_NAMES[i] for i in labels] == ["corn", "grain"]
    assert f"{FILES[3]}, line 2: label 'corn'" in caplog.text


GOOD = story(8, ["earn"])
FAULTS = {
    "unknown topic": (story(9, ["earn", "earm"]), 14, "unknown label 'earm'"),
    "story not closed": (story(9, ["earn"]).replace("</REUTERS>", ""), 14, "not closed"),
    "cut off": (story(9, ["earn"])[:200], 14, "the file ends within a <REUTERS> element"),
    "topics not closed": (story(9, ["earn"]).replace("</TOPICS>", ""), 14, "malformed <TOPICS>"),
    "topic not closed": (story(9, ["earn"]).replace("</D></TOPICS>", "</TOPICS>"), 14, "malformed <TOPICS>"),
    "no text element": (story(9, ["earn"], ""), 14, "no <TEXT>"),
    "empty text": (
        story(9, ["earn"], "<TEXT>&#2;\n<TITLE> </TITLE><BODY>&#3;</BODY></TEXT>"),
        14,
        "the text is empty",
    ),
    "text after the stories": (f"{story(9, [])}\nstray", 26, "text after the last </REUTERS>"),
    "no id": (story(9, ["earn"]).replace("NEWID", "ID"), 14, "lacks the attribute NEWID"),
    "text between stories": (f"stray\n{story(9, ['earn'])}", 15, "text outside"),
}


@pytest.mark.parametrize(("faulty", "line", "message"), FAULTS.values(), ids=FAULTS.keys())
def test_a_fault_is_named_with_file_and_line_and_leaves_nothing(folder, write, cache, faulty, line, message):
    tail = () if "ends within" in message or "text after" in message else (GOOD,)
    write(FILES[2], DOCTYPE, GOOD, faulty, *tail)
    with pytest.raises(ValueError, match=rf"{FILES[2]}, line {line}: .*{message}"):
        load("reuters21578", data_dir=folder, cache_dir=cache)
    assert [path for path in cache.rglob("*") if path.is_file() and path.suffix != ".lock"] == []


UNCLOSED = {
    "stories": ("<REUTERS>" * 60_000, "ends within"),
    "story tags": ("<REUTERS " * 60_000, "ends within"),
    "attributes": (f'<REUTERS {"a" * 60_000} LEWISSPLIT="x">{GOOD}', "not closed"),
    "topics elements": (story(9, []).replace("</TOPICS>", "<TOPICS>" * 60_000), "malformed <TOPICS>"),
    "topics tags": (story(9, []).replace("<TOPICS>", "<TOPICS " * 60_000), "malformed <TOPICS>"),
    "topics": (story(9, ["earn", *["<D>"] * 60_000]), "malformed <TOPICS>"),
    "titles": (story(9, ["earn"], f"<TEXT>{'<TITLE>' * 60_000}</TEXT>"), "the text is empty"),
    "tags in the text": (story(9, ["earn"], f"<TEXT><BODY>{'<' * 60_000}</BODY> {GOOD}"), "not closed"),
}


@pytest.mark.parametrize(("content", "message"), UNCLOSED.values(), ids=UNCLOSED.keys())
def test_unclosed_tags_are_reported_without_delay(content, message):
    start = time.process_time()
    with pytest.raises(ValueError, match=f"f.sgm, line [12]: .*{message}"):
        for place, _, inner in _stories("f.sgm", f"{DOCTYPE}\n{content}"):
            _topics(inner, place)
            check_text(_text(inner, place), place)
    assert time.process_time() - start < 3  # a search to the end of the file from each tag takes minutes


def test_a_text_of_less_than_signs_is_read_without_delay():
    inner = f"<TEXT><BODY>a > <b>{'<' * 200_000}</BODY></TEXT>"
    start = time.process_time()
    assert _text(inner, "here") == "a >  " + "<" * 200_000
    assert time.process_time() - start < 3


def test_a_character_reference_of_thousands_of_digits_is_named_with_its_place(folder, write, cache):
    write(FILES[2], DOCTYPE, story(9, ["earn"], f"<TEXT>&#{'9' * 5000};</TEXT>"))
    with pytest.raises(ValueError, match=f"{FILES[2]}, line 2: a character reference has no meaning"):
        load("reuters21578", data_dir=folder, cache_dir=cache)


def test_a_file_that_is_not_sgml_is_named(folder, write, cache):
    write(FILES[21], "<html>Not found</html>")
    with pytest.raises(ValueError, match=rf"{FILES[21]}, line 1: no Reuters-21578 SGML"):
        load("reuters21578", data_dir=folder, cache_dir=cache)


def test_missing_files_are_listed(folder, cache, tmp_path):
    (folder / FILES[4]).unlink()
    (folder / FILES[7]).unlink()
    with pytest.raises(FileNotFoundError, match=rf"lacks {FILES[4]}, {FILES[7]} .*daviddlewis.*research"):
        load("reuters21578", data_dir=folder, cache_dir=cache)
    with pytest.raises(ValueError, match=rf"tar\.gz lacks {FILES[4]}, {FILES[7]}"):
        load("reuters21578", data_dir=pack(folder, tmp_path / "reuters21578.tar.gz"), cache_dir=cache)


def test_a_truncated_or_foreign_archive_is_named(folder, cache, tmp_path, truncate):
    archive = pack(folder, tmp_path / "reuters21578.tar.gz")
    truncate(archive)
    with pytest.raises(ValueError, match=r"reuters21578\.tar\.gz is truncated or damaged"):
        load("reuters21578", data_dir=archive, cache_dir=cache)
    archive.write_bytes(b"<html>404</html>")
    with pytest.raises(ValueError, match=r"reuters21578\.tar\.gz is truncated or damaged"):
        load("reuters21578", data_dir=archive, cache_dir=cache)


def test_the_real_corpus_has_the_expected_counts_and_no_empty_text(real_data, cache, caplog):
    corpus = load("reuters21578", data_dir=real_data / "reuters21578.tar.gz", cache_dir=cache)
    assert {split: part.num_rows for split, part in corpus.items()} == {"train": 7770, "test": 3019}
    for part in corpus.values():
        assert {label for labels in part["labels"] for label in labels} == set(range(90))
        assert all(text.strip() and not set(text) & {"\x02", "\x03", "\x7f", "\r"} for text in part["text"])
        assert len(set(part["id"])) == part.num_rows
    lengths = [len(labels) for part in corpus.values() for labels in part["labels"]]
    assert sum(lengths) / len(lengths) == pytest.approx(1.24, abs=0.005)
    assert [record.getMessage().split(":")[0] for record in caplog.records] == [
        "1 document(s) name a label twice (first",
    ] * 2
