"""Damaged source files of the corpora: no document is lost in silence, and every error names its file.

Each small file is cut off at every byte, and each of its bytes is changed to one that means something in the format.
"""

import gzip
import io
import itertools
import json
import random
import re
import tarfile
import zipfile

import pytest

from sgm_hf.datasets_scripts import load_builder
from sgm_hf.datasets_scripts.coco import CATEGORIES
from sgm_hf.datasets_scripts.goemotions import LABEL_NAMES as EMOTIONS
from sgm_hf.datasets_scripts.ren_cecps import EMOTIONS as INTENSITIES
from sgm_hf.datasets_scripts.reuters21578 import FILES

LINES = {
    "text_val": b"a text of one document\nanother \xc3\xa9\n",
    "label_val": b"cs.LG stat.ML\ncs.CL\n",
    "dev.tsv": b'Thank you, it\xe2\x80\x99s fine!\t15\tid1\n"He said ""no"""\t25,2\tid2\n',
    "emotions.txt": "".join(f"{name}\n" for name in EMOTIONS).encode(),
    "lyrl2004_tokens_train.dat": b".I 2286\n.W\nfirst tok\nsecond line\n\n.I 2287\n.W\nthird\n\n",
    "rcv1-v2.topics.qrels": b"E11 2286 1\nECAT 2286 1\nCCAT 2287 1\n",
    # Both businesses are in the training split.
    "yelp_academic_dataset_business.json": (
        b'{"business_id": "b1", "name": "Caf\xc3\xa9", "categories": "Food, Bars"}\n'
        b'{"business_id": "b4", "name": "Shop", "categories": "Shopping"}\n'
    ),
    "yelp_academic_dataset_review.json": (
        b'{"review_id": "r1", "business_id": "b1", "text": "caf\\u00e9 \\"good\\""}\n'
        b'{"review_id": "r2", "business_id": "b4", "text": "bad"}\n'
    ),
}
REUTERS = (
    b'<!DOCTYPE lewis SYSTEM "lewis.dtd">\n<REUTERS TOPICS="YES" LEWISSPLIT="TRAIN" NEWID="1">\n<TOPICS><D>earn</D>'
    b"</TOPICS>\n<TEXT>&#2;\n<TITLE>NET &lt;X></TITLE><BODY>Up &amp; down\n&#3;</BODY></TEXT>\n</REUTERS>\n"
    b'<REUTERS TOPICS="YES" LEWISSPLIT="TEST" NEWID="2">\n<TOPICS><D>acq</D></TOPICS>\n<TEXT>B</TEXT>\n</REUTERS>\n'
)
NEWSITEM = (
    b'<?xml version="1.0" encoding="iso-8859-1" ?>\n<newsitem itemid="2286">\n<headline>A caf\xe9</headline>\n<text>\n'
    b'<p>one &amp; two</p>\n</text>\n<metadata><codes class="bip:countries:1.0"><code code="USA"/></codes>\n'
    b'<codes class="bip:topics:1.0"><code code="E11"/></codes></metadata>\n</newsitem>'
)
# The corpus, its configuration, the split, and the files that it is read from.
CASES = {
    "aapd": ("aapd", None, "validation", ("text_val", "label_val")),
    "goemotions": ("goemotions", None, "validation", ("dev.tsv", "emotions.txt")),
    "rcv1_v2": ("rcv1_v2", "lyrl2004", "train", ("lyrl2004_tokens_train.dat", "rcv1-v2.topics.qrels")),
    "yelp": (
        *("yelp", "businesses", "train"),
        ("yelp_academic_dataset_business.json", "yelp_academic_dataset_review.json"),
    ),
}
ARTICLE = (
    '<?xml version="1.0" encoding="UTF-8"?>\n<document><paragraph>\n'
    + '<sentence S="好 &lt;a">{}<Polarity>中性</Polarity></sentence>\n'.format(
        "".join(f"<{name}>{value}</{name}>" for name, value in zip(INTENSITIES, "00100010", strict=True))
    )
    + "</paragraph></document>\n"
).encode()
COCO_FILES = {
    "instances_val2017.json": {"annotations": [{"image_id": 9, "category_id": 1}, {"image_id": 7, "category_id": 90}]},
    "captions_val2017.json": {"annotations": [{"image_id": 9, "caption": "é"}, {"image_id": 7, "caption": "a b"}]},
}


def changes(content, seed=0, cuts=True):
    """The content cut off at every byte, and with every byte changed."""
    generator = random.Random(seed)
    if cuts:
        yield from (content[:end] for end in range(len(content)))
    for position in range(len(content)):
        changed = bytearray(content)
        changed[position] = generator.choice(b'\0\t\n\r "<>/&=;.,0IW\x80\xc3\xff')
        yield bytes(changed)


def number_of_documents(name, content):
    """How many documents a text file holds, counted without reading them."""
    lines = content.split(b"\n")
    if name.endswith(".dat"):
        return sum(line.startswith(b".I") for line in lines)
    return len(lines) - (lines[-1] == b"")


def read(builder, split, files):
    """The documents of a split, or None where the data has a fault, whose error must name the file."""
    try:
        return [document for _, document in builder._generate_examples(split, files)]
    except ValueError as error:
        assert any(str(path) in str(error) for path in files), error
        return None


@pytest.mark.parametrize("packed", [False, True], ids=["plain", "gzip"])
@pytest.mark.parametrize("case", CASES)
def test_no_damage_to_a_line_based_corpus_loses_a_document_in_silence(tmp_path, case, packed):
    corpus, config, split, names = CASES[case]
    files = tuple(tmp_path / (f"{name}.gz" if packed else name) for name in names)
    content = {
        path: gzip.compress(LINES[name], mtime=0) if packed else LINES[name]
        for path, name in zip(files, names, strict=True)
    }
    for path in files:
        path.write_bytes(content[path])
    builder = load_builder(corpus, config, tmp_path, cache_dir=tmp_path / "cache")
    assert len(read(builder, split, files)) == 2
    for path in files:
        for changed in changes(content[path]):
            path.write_bytes(changed)
            documents = read(builder, split, files)
            if documents is not None:
                assert all(document["labels"] for document in documents)
                assert all(document["text"] for document in documents) or corpus == "rcv1_v2"  # which warns
                first = gzip.decompress(files[0].read_bytes()) if packed else files[0].read_bytes()
                assert len(documents) == number_of_documents(names[0], first) > 0
            if packed and len(changed) < len(content[path]):
                assert documents is None
        path.write_bytes(content[path])


@pytest.fixture
def reuters(tmp_path):
    """A folder with the 22 files, of which the first holds two stories and the others one that is not used."""
    for name in FILES:
        (tmp_path / name).write_bytes(b'<REUTERS TOPICS="NO" LEWISSPLIT="X" NEWID="9"></REUTERS>\n')
    (tmp_path / FILES[0]).write_bytes(REUTERS)
    return tmp_path


def test_no_damage_to_a_reuters_file_loses_a_story_in_silence(reuters):
    files = tuple(reuters / name for name in FILES)
    builder = load_builder("reuters21578", data_dir=reuters, cache_dir=reuters / "cache")
    assert [len(read(builder, split, files)) for split in ("train", "test")] == [1, 1]
    for changed in changes(REUTERS):
        files[0].write_bytes(changed)
        found = [read(builder, split, files) for split in ("train", "test")]
        if None not in found:
            text = changed.decode("latin-1")
            stories = re.findall(r"<REUTERS([^>]*)>.*?</REUTERS>", text, re.DOTALL)
            wanted = [story for story in stories if re.search(r'\bTOPICS="YES"', story)]
            used = [story for story in wanted if re.search(r'\bLEWISSPLIT="(TRAIN|TEST)"', story)]
            labelled = [labels for split in found for labels in split]
            # A story with a changed topic has an unknown label, so that each story counted is either read or refused.
            assert len(labelled) == len(used), text


@pytest.mark.parametrize("mode", ["w", "w:gz", "w:xz", "w:bz2"])
def test_a_damaged_archive_of_reuters_is_named(reuters, mode):
    stream = io.BytesIO()
    with tarfile.open(fileobj=stream, mode=mode) as archive:
        for name in FILES:
            archive.add(reuters / name, arcname=name)
    content = stream.getvalue()
    path = reuters / "reuters21578.tar.gz"
    path.write_bytes(content)
    builder = load_builder("reuters21578", data_dir=path, cache_dir=reuters / "cache")
    expected = read(builder, "train", (path,))
    assert len(expected) == 1
    if mode == "w:gz":
        path.write_bytes(content[:-8] + bytes([content[-8] ^ 1]) + content[-7:])  # the check sum of all members
        assert read(builder, "train", (path,)) is None
    generator = random.Random(0)
    for end in generator.sample(range(len(content)), 60):
        path.write_bytes(content[:end])
        assert read(builder, "train", (path,)) in (None, expected)
    for position in generator.sample(range(len(content)), 120):
        changed = bytearray(content)
        changed[position] ^= generator.randrange(1, 256)
        path.write_bytes(changed)
        documents = read(builder, "train", (path,))
        assert documents is None or len(documents) <= 1
        if mode != "w":  # packed data has a check sum
            assert documents in (None, expected)


@pytest.mark.parametrize("packed", [False, True], ids=["plain", "gzip"])
def test_no_damage_to_an_article_of_ren_cecps_loses_a_sentence_in_silence(tmp_path, packed):
    path = tmp_path / ("cet_1.xml.gz" if packed else "cet_1.xml")
    content = gzip.compress(ARTICLE, mtime=0) if packed else ARTICLE
    path.write_bytes(content)
    builder = load_builder("ren_cecps", "emotions_polarity", tmp_path, cache_dir=tmp_path / "cache")
    (expected,) = read(builder, "train", (path,))
    assert expected == {"id": "cet_1-1", "text": "好 < a", "labels": ["love", "anger", "neutral"]}
    for changed in changes(content):
        path.write_bytes(changed)
        documents = read(builder, "train", (path,))
        assert documents is None or len(documents) == 1
        if documents is not None and len(changed) < len(content):
            assert documents == [expected] and changed == content[:-1]  # the line break at the end


def test_no_damage_to_a_file_of_coco_loses_an_image_in_silence(tmp_path):
    images = [{"id": 9, "file_name": "9.jpg"}, {"id": 7, "file_name": "7.jpg"}]
    categories = [{"id": number, "name": name} for number, name in CATEGORIES.items()]
    paths = tuple(tmp_path / name for name in COCO_FILES)
    contents = [json.dumps({"images": images, **content}) for content in COCO_FILES.values()]
    contents[0] = f'{contents[0][:-1]}, "categories": {json.dumps(categories)}}}'
    for path, content in zip(paths, contents, strict=True):
        path.write_text(content)
    builder = load_builder("coco", None, tmp_path, cache_dir=tmp_path / "cache")
    expected = read(builder, "validation", paths)
    assert expected == [
        {"id": "9", "text": "é", "labels": ["person"]},
        {"id": "7", "text": "a b", "labels": ["toothbrush"]},
    ]
    for path, content in zip(paths, contents, strict=True):
        for end in range(0, len(content), 7):
            path.write_text(content[:end])
            assert read(builder, "validation", paths) is None
        # A changed byte of the long list of categories is a case of its own in the tests of the builder.
        for changed in itertools.islice(changes(content.encode(), cuts=False), 220):
            path.write_bytes(changed)
            documents = read(builder, "validation", paths)
            assert documents is None or [document["text"] != "" for document in documents] == [True, True]
        path.write_text(content)


def test_a_damaged_newsitem_or_archive_of_them_is_named(tmp_path):
    item = tmp_path / "2286newsML.xml"
    item.write_bytes(NEWSITEM)
    builder = load_builder("rcv1_v2", "lyrl2004_xml", tmp_path, cache_dir=tmp_path / "cache")
    expected = read(builder, "train", (item,))
    assert expected == [{"id": "2286", "text": "A café\none & two", "labels": ["E11", "ECAT"]}]
    for changed in changes(NEWSITEM):
        item.write_bytes(changed)
        documents = read(builder, "train", (item,))
        # Only a story whose region codes are gone is left out, as RCV1-V2 was made.
        assert (
            documents is None or len(documents) == 1 or b'"bip:countries:1.0"' not in changed or b"<code " in changed
        )
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("2286newsML.xml", NEWSITEM)
    path = tmp_path / "a.zip"
    for changed in changes(stream.getvalue()):
        path.write_bytes(changed)
        assert read(builder, "train", (path,)) in (None, [], expected)
