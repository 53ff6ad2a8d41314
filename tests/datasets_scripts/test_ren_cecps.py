"""Tests of datasets_scripts/ren_cecps.py, on files in the published format with sentences of our own."""

import gzip
import itertools

import datasets
import pytest

from sgm_hf.datasets_scripts import convert, load
from sgm_hf.datasets_scripts._corpus import random_split
from sgm_hf.datasets_scripts.ren_cecps import EMOTIONS, LABEL_NAMES, POLARITIES, as_words, read_sentences

SPLITS = ("train", "validation", "test")
HEAD = '<?xml version="1.0" encoding="UTF-8"?>'


def sentence(text, polarity="中性", **intensities):
    """The element of a sentence on one line, with a keyword as the source has it."""
    elements = "".join(f"<{name}>{intensities.get(name, '0.0')}</{name}>" for name in EMOTIONS)
    keyword = '<Keywords Joy="1.0" Hate="0.0">好</Keywords>'
    return f'<sentence S="{text}">{elements}<Polarity>{polarity}</Polarity>{keyword}</sentence>'


def article(*sentences):
    """The lines of a file; the paragraph has intensities too, which are no labels."""
    return (
        HEAD,
        "<document>",
        "<title>题</title>",
        "<paragraph><Joy>0.9</Joy>",
        *sentences,
        "</paragraph>",
        "</document>",
    )


def name_in(split, skip=0):
    """The name of a file whose article is in a split."""
    names = (f"cet_{number}" for number in itertools.count(1) if random_split(f"ren_cecps cet_{number}") == split)
    return next(itertools.islice(names, skip, None))


@pytest.fixture
def folder(write):
    """One article in each split, that of the training split with two sentences; one file is gzip."""
    lines = article(sentence("今天 很好!", "积极", Joy="0.5", Expect="1.0"), sentence("桌子。"))
    write(f"xml/{name_in('train')}.xml", *lines)
    write(f"xml/{name_in('validation')}.xml.gz", *article(sentence("我爱Python3 &amp; 你", "积极", Love="0.8")))
    write(f"xml/{name_in('test')}.xml", *article(sentence("气死了", "消极", Hate="0.1", Anger="0.9")))
    return write("readme.txt", "not a sentence").parent


def test_sentences_have_their_emotions_and_characters_as_words(folder, cache):
    corpus = load("ren_cecps", data_dir=folder, cache_dir=cache)
    assert corpus["train"].features["labels"].feature.names == list(LABEL_NAMES)
    first = name_in("train")
    assert list(corpus["train"]) == [
        {"id": f"{first}-1", "text": "今 天 很 好 !", "labels": [0, 7]},
        {"id": f"{first}-2", "text": "桌 子 。", "labels": []},
    ]
    assert corpus["validation"]["text"][:] == ["我 爱 Python3 & 你"]
    assert corpus["test"]["labels"][:] == [[1, 6]]


def test_configurations_add_the_polarity_or_leave_the_text_as_it_is(folder, cache):
    corpus = load("ren_cecps", "emotions_polarity_raw", folder, cache_dir=cache)
    names = corpus["train"].features["labels"].feature.names
    assert names == [*LABEL_NAMES, *POLARITIES.values()]
    assert corpus["train"]["text"][:] == ["今天 很好!", "桌子。"]
    assert [[names[label] for label in labels] for labels in corpus["train"]["labels"]] == [
        ["joy", "expect", "positive"],
        ["neutral"],
    ]
    assert load("ren_cecps", "emotions_raw", folder, "test", cache_dir=cache)["labels"][:] == [[1, 6]]
    words = load("ren_cecps", "emotions_polarity", folder, "test", cache_dir=cache)
    assert words[0]["text"] == "气 死 了" and words[0]["labels"] == [1, 6, 10]


def test_streaming_gives_the_same_as_loading_and_gzip_the_same_as_plain(folder, cache):
    corpus = load("ren_cecps", data_dir=folder, cache_dir=cache)
    stream = load("ren_cecps", data_dir=folder, streaming=True)
    assert all(list(stream[split]) == list(corpus[split]) for split in SPLITS)
    for path in list(folder.rglob("*.xml")):
        path.with_name(f"{path.name}.gz").write_bytes(gzip.compress(path.read_bytes()))
        path.unlink()
    packed = load("ren_cecps", data_dir=folder, cache_dir=cache)
    assert all(list(packed[split]) == list(corpus[split]) for split in SPLITS)


def test_sentences_are_in_the_order_of_the_files_numbers(write, cache):
    names = [name_in("train", skip) for skip in range(12)]
    assert names != sorted(names)
    for name in reversed(names):
        folder = write(f"{name}.xml", *article(sentence("一"), sentence("二"))).parent
    ids = load("ren_cecps", data_dir=folder, split="train", cache_dir=cache)["id"][:]
    assert ids == [f"{name}-{number}" for name in names for number in (1, 2)]


def test_an_article_is_in_one_split_and_of_ten_eight_are_for_training():
    splits = [random_split(f"ren_cecps cet_{number}") for number in range(1, 10_001)]
    shares = [splits.count(split) / len(splits) for split in SPLITS]
    assert shares == pytest.approx([0.8, 0.1, 0.1], abs=0.01)


def test_converted_files_give_the_same_with_plain_datasets(folder, tmp_path, cache):
    statistics = convert.convert("ren_cecps", tmp_path / "out", data_dir=folder)
    converted = datasets.load_dataset(str(tmp_path / "out"), cache_dir=str(cache))
    corpus = load("ren_cecps", data_dir=folder, cache_dir=cache)
    assert converted["train"].features == corpus["train"].features
    assert all(converted[split][:] == corpus[split][:] for split in SPLITS)
    assert statistics["train"].words == 8 and statistics["train"].label_counts.sum() == 2


def test_another_number_of_sentences_than_the_published_one_is_a_warning(folder, cache, caplog):
    load("ren_cecps", data_dir=folder, cache_dir=cache)
    assert "the splits have 4 documents together, the complete published files have 35,096" in caplog.text


@pytest.mark.parametrize(
    ("faulty", "message"),
    [
        ("<sentence>", r"line 6: .*(lacks the attribute S|mismatched)"),
        ("<sentence/>", "line 6: <sentence> lacks the attribute S"),
        (f'<sentence S="a">{sentence("b")}</sentence>', "line 6: <sentence> is within another one"),
        ('<sentence S="a"><Joy>0.0</Joy></sentence>', "line 6: the sentence lacks <Hate>, <Love>"),
        (sentence("a", Joy="much"), "line 6: <Joy> holds 'much', expected an intensity from 0.0 to 1.0"),
        (sentence("a", Joy="1.5"), "line 6: <Joy> holds '1.5'"),
        (sentence("a", Joy="nan"), "line 6: <Joy> holds 'nan'"),
        (sentence("a", Joy=""), "line 6: <Joy> holds ''"),
        (sentence("a").replace("<Hate>0.0</Hate>", "<Hate>0.0</Hate><Joy>1</Joy>"), "line 6: the label 'Joy' appears"),
        (sentence("a & b"), "line 6: malformed XML"),
        (sentence("a", "好"), "line 6: <Polarity> holds '好', expected one of 积极"),
        (sentence("a").replace("Polarity", "Other"), "line 6: the sentence lacks <Polarity>"),
    ],
)
@pytest.mark.parametrize("streaming", [False, True])
def test_a_fault_is_named_with_file_and_line_and_leaves_nothing(write, cache, faulty, message, streaming):
    name = name_in("train")
    folder = write(f"{name}.xml", *article(sentence("好"), faulty)).parent
    with pytest.raises(ValueError, match=rf"{name}\.xml, {message}"):
        list(load("ren_cecps", "emotions_polarity", folder, "train", streaming=streaming, cache_dir=cache))
    assert [path for path in cache.rglob("*") if path.is_file() and path.suffix != ".lock"] == []


def test_a_sentence_without_text_is_kept_with_a_warning(write, cache, caplog):
    folder = write(f"{name_in('train')}.xml", *article(sentence("好"), sentence(" "))).parent
    assert load("ren_cecps", data_dir=folder, split="train", cache_dir=cache)["text"][:] == ["好", ""]
    assert "1 document(s) have no text" in caplog.text and "line 6" in caplog.text


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (f"{HEAD}<document/>".encode(), "has no element <sentence>"),
        (
            '<?xml version="1.0" encoding="GB2312"?><document>好</document>'.encode("gb2312"),
            "encoding .*convert the file",
        ),
        (b'<?xml version="1.0" encoding="no-such"?><document/>', "line 1: "),
        (b"", "malformed XML"),
    ],
)
def test_a_file_that_is_no_annotated_article_is_named(tmp_path, content, message):
    path = tmp_path / "cet_1.xml"
    path.write_bytes(content)
    with pytest.raises(ValueError, match=rf"cet_1\.xml.*{message}"):
        read_sentences(path)


def test_a_truncated_gzip_file_is_named(folder, truncate):
    (path,) = folder.rglob("*.gz")
    truncate(path)
    with pytest.raises(ValueError, match=r"cet_\d+\.xml\.gz is truncated or damaged"):
        read_sentences(path)


def test_utf_16_and_long_files_are_read(tmp_path):
    path = tmp_path / "cet_1.xml"
    lines = "\n".join(article(*(sentence(f"第{number}句") for number in range(2000))))
    path.write_bytes(lines.replace("UTF-8", "UTF-16").encode("utf-16"))
    sentences = read_sentences(path)
    assert [found.text for found in sentences] == [f"第{number}句" for number in range(2000)]
    assert [found.line for found in sentences] == list(range(5, 2005))


def test_an_article_in_two_folders_is_an_error_but_plain_and_gzip_of_one_folder_are_not(write, cache):
    name, lines = name_in("train"), article(sentence("好"))
    folder = write(f"a/{name}.xml", *lines).parent.parent
    write(f"a/{name}.xml.gz", *lines)
    assert load("ren_cecps", data_dir=folder, split="train", cache_dir=cache).num_rows == 1
    write(f"b/{name}.xml", *lines)
    with pytest.raises(ValueError, match=rf"{name}\.xml is also in .*a; keep one of the two"):
        load("ren_cecps", data_dir=folder, split="train", cache_dir=cache)


def test_latin_words_and_numbers_stay_whole_as_words():
    assert as_words("  我在café 用GPT4，花了12.5元😀") == "我 在 café 用 GPT4 ， 花 了 12 . 5 元 😀"
    assert as_words("") == ""
