"""Tests of datasets_scripts/rcv1_v2.py."""

import zipfile
from collections import Counter

import pytest

from sgm_hf.datasets_scripts import load
from sgm_hf.datasets_scripts.rcv1_v2 import (
    LABEL_NAMES,
    TOPIC_PARENTS,
    read_topic_hierarchy,
    read_topics,
    with_ancestors,
)

TRAIN, QRELS = "lyrl2004_tokens_train.dat", "rcv1-v2.topics.qrels"
TESTS = [f"lyrl2004_tokens_test_pt{part}.dat" for part in range(4)]
TOPICS = {2286: "E11 ECAT", 2287: "C151 C15 CCAT", 26150: "GSPO GCAT"}
TOPICS |= {26151: "M11 MCAT", 26152: "MCAT", 26153: "CCAT", 810935: "GCAT"}


def tokens(*ids):
    """The lines of a token file: each document has two lines of tokens and a blank one."""
    return [line for number in ids for line in (f".I {number}", ".W", f"first tok{number}", "second line", "")]


def qrels(topics):
    """The lines of a qrels file."""
    return [f"{topic} {number} 1" for number, names in topics.items() for topic in names.split()]


@pytest.fixture
def folder(write):
    """All token files and the qrels, some of them compressed."""
    write(TRAIN, *tokens(2286, 2287, 26150))
    for name, number in zip(TESTS, (26151, 26152, 26153, 810935), strict=True):
        write(f"{name}.gz", *tokens(number))
    return write(f"{QRELS}.gz", *qrels(TOPICS)).parent


def test_token_files_give_the_lyrl2004_split(folder, cache):
    corpus = load("rcv1_v2", data_dir=folder, cache_dir=cache)
    names = corpus["train"].features["labels"].feature.names
    assert names == list(LABEL_NAMES) and len(names) == 103
    assert {split: list(map(int, part["id"])) for split, part in corpus.items()} == {
        "train": [2286, 2287, 26150],
        "test": [26151, 26152, 26153, 810935],
    }
    for part in corpus.values():
        for row in part:
            assert row["text"] == f"first tok{row['id']} second line"
            assert " ".join(names[i] for i in row["labels"]) == TOPICS[int(row["id"])]


def test_streaming_gives_the_same_documents(folder, cache):
    corpus = load("rcv1_v2", data_dir=folder, cache_dir=cache)
    stream = load("rcv1_v2", data_dir=folder, streaming=True)
    for split in corpus:
        assert stream[split].features == corpus[split].features
        assert list(stream[split]) == list(corpus[split])


@pytest.fixture
def large_folder(write):
    """2,005 documents, enough for the held-out parts of the SGM paper's split."""
    train, test = range(26000, 26151), range(26151, 28005)
    write(TRAIN, *tokens(*train))
    for part, name in enumerate(TESTS):
        write(name, *tokens(*test[part::4]))
    return write(QRELS, *qrels({number: "CCAT" for number in (*train, *test)})).parent


def test_the_split_of_the_sgm_paper_holds_out_the_same_thousands_each_time(large_folder, cache, write):
    ids = {split: part["id"][:] for split, part in load("rcv1_v2", "sgm", large_folder, cache_dir=cache).items()}
    assert {split: len(part) for split, part in ids.items()} == {"train": 5, "validation": 1000, "test": 1000}
    assert len({number for part in ids.values() for number in part}) == 2005
    # Another result would be another split than that of earlier versions.
    assert ids["train"] == ["27571", "27576", "27985", "26610", "27466"]
    # The split depends on the documents, not on their order in the files.
    write(QRELS, *reversed(qrels({number: "CCAT" for number in range(26000, 28005)})))
    again = load("rcv1_v2", "sgm", large_folder, streaming=True)
    assert {split: [row["id"] for row in part] for split, part in again.items()} == ids


def test_the_split_of_the_sgm_paper_needs_enough_documents(folder, cache):
    with pytest.raises(ValueError, match="needs over 2000 documents, found 7"):
        load("rcv1_v2", "sgm", folder, cache_dir=cache)


def test_without_test_files_only_the_training_split_is_there(folder, cache):
    for name in TESTS:
        (folder / f"{name}.gz").unlink()
    assert list(load("rcv1_v2", data_dir=folder, cache_dir=cache)) == ["train"]


def test_missing_parts_are_listed_with_where_to_get_them(folder, cache):
    for name in TESTS[1:3]:
        (folder / f"{name}.gz").unlink()
    with pytest.raises(
        FileNotFoundError, match=rf"lacks {TESTS[1]}, {TESTS[2]} .*needed by the test.*lyrl2004_rcv1v2"
    ):
        load("rcv1_v2", data_dir=folder, cache_dir=cache)
    (folder / f"{QRELS}.gz").unlink()
    with pytest.raises(FileNotFoundError, match=rf"lacks {QRELS} "):
        load("rcv1_v2", data_dir=folder, cache_dir=cache)


@pytest.mark.parametrize(
    ("lines", "line", "message"),
    [
        (["tokens", *tokens(2286)], 1, r"got 'tokens', expected '\.I <document id>'"),
        ([*tokens(2286), ".I x", ".W", "a"], 6, r"got '\.I x', expected '\.I <document id>'"),
        ([*tokens(2286), f".I {'9' * 5000}", ".W"], 6, r"got '\.I 9+', expected '\.I <document id>'"),
        ([*tokens(2286), ".I 2287", "tokens"], 7, r"got 'tokens', expected '\.W'"),
        ([*tokens(2286), ".I 2287"], 6, r"document 2287 has no '\.W' line"),
        ([*tokens(2286), ".I 2287", ".I 26150"], 6, r"document 2287 has no '\.W' line"),
        (tokens(2286, 2288), 6, "document 2288 has no topic in"),
        (tokens(2286, 26151), 6, "document 26151 does not belong to the train split"),
    ],
)
@pytest.mark.parametrize("streaming", [False, True])
def test_a_fault_in_a_token_file_is_named_with_file_and_line(folder, write, cache, lines, line, message, streaming):
    write(TRAIN, *lines)
    with pytest.raises(ValueError, match=rf"{TRAIN}, line {line}: {message}"):
        list(load("rcv1_v2", data_dir=folder, split="train", streaming=streaming, cache_dir=cache))
    assert [path for path in cache.rglob("*") if path.is_file() and path.suffix != ".lock"] == []


def test_a_token_file_without_documents_is_an_error(folder, write, cache):
    write(TRAIN)
    with pytest.raises(ValueError, match=rf"{TRAIN} has no document"):
        load("rcv1_v2", data_dir=folder, cache_dir=cache)


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("E11\t2286\t1", "expected 'TOPIC ID 1'"),
        ("E11 2286", "expected 'TOPIC ID 1'"),
        ("E11 2286 0", "expected 'TOPIC ID 1'"),
        ("E11 doc 1", "expected 'TOPIC ID 1'"),
        ("", "expected 'TOPIC ID 1'"),
        ("E11 ² 1", "expected 'TOPIC ID 1'"),
        (f"E11 {'9' * 5000} 1", "expected 'TOPIC ID 1'"),
        ("E99 2286 1", "unknown label 'E99'"),
        ("Root 2286 1", "unknown label 'Root'"),
        ("ECAT 2286 1", "the label 'ECAT' appears twice"),
    ],
)
def test_a_fault_in_the_qrels_is_named_with_file_and_line(write, line, message):
    path = write(QRELS, "ECAT 2286 1", "CCAT 2287 1", line, "E11 2287 1")
    with pytest.raises(ValueError, match=rf"{QRELS}, line 3: .*{message}"):
        read_topics(path)


def test_qrels_without_a_line_are_named(write):
    with pytest.raises(ValueError, match=rf"{QRELS} has no topic"):
        read_topics(write(QRELS))


def test_truncated_files_are_named(folder, truncate, cache):
    truncate(folder / f"{TESTS[3]}.gz")
    with pytest.raises(ValueError, match=rf"{TESTS[3]}\.gz, line \d+: the gzip stream breaks off"):
        load("rcv1_v2", data_dir=folder, cache_dir=cache)
    truncate(folder / f"{QRELS}.gz")
    with pytest.raises(ValueError, match=rf"{QRELS}\.gz, line \d+: the gzip stream breaks off"):
        load("rcv1_v2", data_dir=folder, cache_dir=cache)


def test_a_document_without_text_is_kept_with_a_warning(folder, write, cache, caplog):
    write(TRAIN, ".I 2286", ".W", "", *tokens(2287, 26150))
    assert load("rcv1_v2", data_dir=folder, split="train", cache_dir=cache)["text"][0] == ""
    assert f"1 document(s) have no text (first: {folder / TRAIN}, line 1)" in caplog.text


def newsitem(number, topics, regions=("USA",)):
    """One story as the CDs write it."""

    def codes(kind, values):
        inner = "".join(f'<code code="{value}"><editdetail attribution="x"/></code>\n' for value in values)
        return f'<codes class="bip:{kind}:1.0">\n{inner}</codes>\n' if values else ""

    return (
        f'<?xml version="1.0" encoding="iso-8859-1" ?>\n<newsitem itemid="{number}" id="root" date="1996-08-20" '
        'xml:lang="en">\n<title>USA: A café</title>\n<headline>A café</headline>\n<dateline>NEW YORK</dateline>\n'
        "<text>\n<p>one &amp; two</p>\n<p>three</p>\n</text>\n<copyright>(c) Reuters Limited 1996</copyright>\n"
        f"<metadata>\n{codes('countries', regions)}"
        f'{codes("industries", ["I10"])}{codes("topics", topics)}<dc element="dc.publisher" value="Reuters"/>\n'
        "</metadata>\n</newsitem>"
    ).encode("latin-1")


ITEMS = {number: newsitem(number, names.split()) for number, names in TOPICS.items()}


@pytest.fixture
def discs(tmp_path):
    """A folder with one zip file and some XML files, as if from two CDs."""
    (tmp_path / "cd1").mkdir()
    (tmp_path / "cd2").mkdir()
    with zipfile.ZipFile(tmp_path / "cd1" / "19960820.zip", "w", zipfile.ZIP_DEFLATED) as archive:
        for number in (26150, 2287, 2286):
            archive.writestr(f"{number}newsML.xml", ITEMS[number])
    for number in (26151, 26152, 26153, 810935):
        (tmp_path / "cd2" / f"{number}newsML.xml").write_bytes(ITEMS[number])
    return tmp_path


def documents(corpus):
    """Labels of every document, by split and id."""
    names = LABEL_NAMES
    return {
        split: {int(row["id"]): " ".join(names[i] for i in row["labels"]) for row in part}
        for split, part in corpus.items()
    }


def test_newsitem_xml_is_read_from_zip_and_xml_files(discs, cache):
    corpus = load("rcv1_v2", "lyrl2004_xml", discs, cache_dir=cache)
    assert list(map(int, corpus["train"]["id"])) == [2286, 2287, 26150]
    assert documents(corpus) == {
        "train": {number: names for number, names in TOPICS.items() if number <= 26150},
        "test": {number: names for number, names in TOPICS.items() if number > 26150},
    }
    assert set(corpus["train"]["text"]) == {"A café\none & two\nthree"}
    stream = load("rcv1_v2", "lyrl2004_xml", discs, streaming=True)
    assert {split: list(part) for split, part in stream.items()} == {s: list(part) for s, part in corpus.items()}


def test_without_qrels_rcv1_v2_is_made_from_the_codes(discs, cache):
    for number, topics, regions in ((2300, [], ["USA"]), (2301, ["C15"], []), (2302, ["C1511", "GSPO"], ["USA"])):
        (discs / f"{number}newsML.xml").write_bytes(newsitem(number, topics, regions))
    train = documents(load("rcv1_v2", "lyrl2004_xml", discs, cache_dir=cache))["train"]
    assert set(train) == {2286, 2287, 2302, 26150}
    assert train[2302] == "C1511 GSPO C151 C15 CCAT GCAT"


def test_with_qrels_labels_and_documents_come_from_them(discs, write, cache):
    other = {number: "GCAT" for number in TOPICS if number != 2287}
    (discs / QRELS).write_text("\n".join(qrels(other)) + "\n")
    corpus = documents(load("rcv1_v2", "lyrl2004_xml", discs, cache_dir=cache))
    assert corpus["train"] | corpus["test"] == other


def test_the_splits_of_xml_and_token_files_are_the_same(large_folder, tmp_path, cache):
    folder = tmp_path / "cds"
    folder.mkdir()
    with zipfile.ZipFile(folder / "all.zip", "w") as archive:
        for number in range(26000, 28005):
            archive.writestr(f"{number}newsML.xml", newsitem(number, ["CCAT"]))
        archive.writestr("2400newsML.xml", newsitem(2400, []))
    xml = load("rcv1_v2", "sgm_xml", folder, cache_dir=cache)
    token_files = load("rcv1_v2", "sgm", large_folder, cache_dir=cache)
    assert {split: set(part["id"]) for split, part in xml.items()} == {
        split: set(part["id"]) for split, part in token_files.items()
    }


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (ITEMS[2286][:-20], r", line \d+: malformed XML"),
        (ITEMS[2286].replace(b"<p>", b"<q>", 1), r", line 7: malformed XML"),
        (b"", r", line 1: malformed XML"),
        (ITEMS[2286].replace(b"iso-8859-1", b"klingon"), r", line 1: the encoding .*unknown encoding: klingon"),
        (ITEMS[2286].replace(b"iso-8859-1", b"utf-7"), r", line 1: the encoding .*multi-byte encodings"),
        (ITEMS[2287], "expected <newsitem itemid='2286'>"),
        (b"<html><body/></html>", "got <html"),
        (ITEMS[2286].replace(b"text>", b"txt>"), "with a <text> element"),
        (ITEMS[2286].replace(b"E11", b"E99"), "unknown label 'E99'"),
    ],
)
def test_a_fault_in_a_newsitem_is_named_with_its_file(tmp_path, cache, content, message):
    with zipfile.ZipFile(tmp_path / "19960820.zip", "w") as archive:
        archive.writestr("2286newsML.xml", content)
    with pytest.raises(ValueError, match=rf"19960820\.zip, 2286newsML\.xml.*{message}"):
        load("rcv1_v2", "lyrl2004_xml", tmp_path, cache_dir=cache)
    assert [path for path in cache.rglob("*") if path.is_file() and path.suffix != ".lock"] == []


def test_a_truncated_zip_file_and_a_folder_without_newsitems_are_named(discs, cache, truncate, tmp_path_factory):
    truncate(discs / "cd1" / "19960820.zip")
    with pytest.raises(ValueError, match=r"19960820\.zip is truncated or damaged"):
        load("rcv1_v2", "lyrl2004_xml", discs, cache_dir=cache)
    with pytest.raises(FileNotFoundError, match=r"has neither zip files nor files named NNNNnewsML\.xml.*trec\.nist"):
        load("rcv1_v2", "lyrl2004_xml", tmp_path_factory.mktemp("empty"), cache_dir=cache)


def test_a_zip_file_that_is_encrypted_or_packed_in_an_unknown_way_is_named(discs, cache):
    path = discs / "cd1" / "19960820.zip"
    content = bytearray(path.read_bytes())
    for header, field in ((b"PK\x03\x04", 6), (b"PK\x01\x02", 8)):
        content[content.index(header) + field] |= 1  # general purpose flag, bit 0: encrypted
    path.write_bytes(content)
    with pytest.raises(ValueError, match=r"19960820\.zip is truncated or damaged .*encrypted"):
        load("rcv1_v2", "lyrl2004_xml", discs, cache_dir=cache)
    for header, field in ((b"PK\x03\x04", 6), (b"PK\x01\x02", 8)):
        content[content.index(header) + field] = 0
        content[content.index(header) + field + 2] = 99
    path.write_bytes(content)
    with pytest.raises(ValueError, match=r"19960820\.zip is truncated or damaged .*compression"):
        load("rcv1_v2", "lyrl2004_xml", discs, cache_dir=cache)


def test_names_in_capitals_are_also_found(discs, cache):
    expected = documents(load("rcv1_v2", "lyrl2004_xml", discs, cache_dir=cache))
    (discs / "cd1" / "19960820.zip").rename(discs / "cd1" / "19960820.ZIP")
    (discs / "cd2" / "26151newsML.xml").rename(discs / "cd2" / "26151NEWSML.XML")
    assert documents(load("rcv1_v2", "lyrl2004_xml", discs, cache_dir=cache)) == expected


def test_the_hierarchy_is_read_without_its_root(write):
    lines = ("parent: CCAT child: C15", "parent: C15 child: C151", "parent: Root child: CCAT")
    assert read_topic_hierarchy(write("a.hier", *lines)) == {"C15": "CCAT", "C151": "C15"}
    path = write("b.hier", *lines, "CCAT C11")
    with pytest.raises(ValueError, match=r"b\.hier, line 4: got 'CCAT C11', expected 'parent: P child: C'"):
        read_topic_hierarchy(path)
    path = write("c.hier", "parent: CCAT child: C99")
    with pytest.raises(ValueError, match=r"c\.hier, line 1: unknown label 'C99'"):
        read_topic_hierarchy(path)


def test_ancestors_are_added_once_and_leave_the_order_of_topics():
    assert with_ancestors(["C1511", "C15", "GSPO", "C1511"]) == ["C1511", "C15", "GSPO", "C151", "CCAT", "GCAT"]
    for topic in LABEL_NAMES:
        closed = with_ancestors([topic])
        assert with_ancestors(closed) == closed and closed[-1].endswith("CAT")


def test_labels_and_hierarchy_are_those_of_the_real_file(real_data):
    path = real_data / "rcv1" / "rcv1.topics.hier"
    lines = path.read_text().splitlines()
    assert [line.split()[3] for line in lines] == list(LABEL_NAMES)
    assert read_topic_hierarchy(path) == TOPIC_PARENTS


def test_the_real_sample_is_read(real_data, cache, caplog):
    corpus = load("rcv1_v2", "sample", real_data / "rcv1", split="train", cache_dir=cache)
    counts = Counter(label for labels in corpus["labels"] for label in labels)
    assert (corpus.num_rows, len(counts)) == (2316, 98)
    assert sum(counts.values()) / 2316 == pytest.approx(3.20, abs=0.005)
    assert sum(len(text.split()) for text in corpus["text"]) / 2316 == pytest.approx(135.3, abs=0.05)
    assert not caplog.records


def test_the_real_topics_have_the_published_counts_and_all_ancestors(real_data):
    topics = read_topics(real_data / "rcv1" / "rcv1-v2.topics.qrels.gz")
    assert len(topics) == 804_414
    assert sum(number <= 26150 for number in topics) == 23_149
    assert sum(map(len, topics.values())) / len(topics) == pytest.approx(3.24, abs=0.005)
    assert all(TOPIC_PARENTS.get(topic, topic) in labels for labels in topics.values() for topic in labels)
