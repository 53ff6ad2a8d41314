"""RCV1-V2: Reuters newswire stories of 1996 and 1997 with 103 topics in a hierarchy (Lewis, Yang, Rose and Li 2004).

The texts are read from the public token files (stemmed, without stop words) or from the newsitem XML of the original
CDs. Either way two splits are offered: that of LYRL2004, by date, and one of the sizes that the SGM paper uses.
"""

import hashlib
import heapq
import re
import zipfile
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

from sgm_hf.data.hierarchy import line_pairs
from sgm_hf.data.hierarchy import with_ancestors as with_ancestors_of
from sgm_hf.data.lines import read_lines

from ._corpus import CorpusBuilder, CorpusConfig, EmptyTexts, check_distinct, check_labels
from ._files import find_file, naming_damage

# The order of rcv1.topics.hier, which is by name.
LABEL_NAMES = tuple(
    """
    C11 C12 C13 C14 C15 C151 C1511 C152 C16 C17 C171 C172 C173 C174 C18 C181 C182 C183 C21 C22 C23 C24 C31 C311 C312
    C313 C32 C33 C331 C34 C41 C411 C42 CCAT E11 E12 E121 E13 E131 E132 E14 E141 E142 E143 E21 E211 E212 E31 E311 E312
    E313 E41 E411 E51 E511 E512 E513 E61 E71 ECAT G15 G151 G152 G153 G154 G155 G156 G157 G158 G159 GCAT GCRIM GDEF
    GDIP GDIS GENT GENV GFAS GHEA GJOB GMIL GOBIT GODD GPOL GPRO GREL GSCI GSPO GTOUR GVIO GVOTE GWEA GWELF M11 M12
    M13 M131 M132 M14 M141 M142 M143 MCAT
    """.split()
)
_TOP_LEVEL = ("CCAT", "ECAT", "GCAT", "MCAT")
# The hierarchy is in the codes: C151 is below C15, C15 below CCAT. Equal to what `read_topic_hierarchy` reads.
TOPIC_PARENTS = {
    name: name[:-1] if name[:-1] in LABEL_NAMES else f"{name[0]}CAT" for name in LABEL_NAMES if name not in _TOP_LEVEL
}

LAST_TRAINING_ID = 26_150  # LYRL2004: the training stories are those with the ids 2286 to 26150
HELD_OUT = 1_000  # documents in each of validation and test; the sizes are stated by Lin et al. 2018, section 5.1

_TRAIN_FILE = "lyrl2004_tokens_train.dat"
_TEST_FILES = tuple(f"lyrl2004_tokens_test_pt{part}.dat" for part in range(4))
_QRELS_FILE = "rcv1-v2.topics.qrels"
_DOCUMENT_ID = re.compile(r"[0-9]{1,9}")  # int() refuses thousands of digits
_DOCUMENT_LINE = re.compile(rf"\.I\s+({_DOCUMENT_ID.pattern})\s*")
_NEWSITEM_FILE = re.compile(rf"({_DOCUMENT_ID.pattern})newsML\.xml", re.IGNORECASE)
_LYRL2004_COUNTS = {"train": 23_149, "test": 781_265}
_SGM_COUNTS = {"train": 802_414, "validation": HELD_OUT, "test": HELD_OUT}
_README = "http://www.ai.mit.edu/projects/jmlr/papers/volume5/lewis04a/lyrl2004_rcv1v2_README.htm"
_OBTAIN_TOKENS = (
    f"RCV1-V2 token files: fetch {_TRAIN_FILE}, {_TEST_FILES[0]} to pt3 and {_QRELS_FILE} from appendices 12 and 8 of "
    f"{_README} (for the terms see its section A.2), put them, plain or .gz, into one folder and pass it as data_dir"
)
_OBTAIN_CDS = (
    "RCV1 newsitem XML: request Reuters Corpus Volume 1 at https://trec.nist.gov/data/reuters/reuters.html (under a "
    "signed agreement), put its zip files of NNNNnewsML.xml, or these files, anywhere below one folder and pass it as "
    f"data_dir; with {_QRELS_FILE} (from {_README}, appendix 8) in that folder the labels are read from it"
)


@dataclass(eq=False)
class RCV1V2Config(CorpusConfig):
    """A configuration read from token files.

    Args:
        partition: How documents are divided: "lyrl2004" (by document id), "sgm" (random), or "whole" (no division).
    """

    partition: str = "lyrl2004"


@dataclass(eq=False)
class NewsitemConfig(RCV1V2Config):
    """A configuration read from the newsitem XML of the original CDs."""

    def find_sources(self) -> dict[str, tuple[Path, ...]]:
        """Find the zip and XML files below `data_dir`, followed by the qrels in it if they are there."""
        folder = self.existing_data_dir()
        files = sorted(folder.rglob("*"))
        sources = [path for path in files if path.suffix.lower() == ".zip"]
        sources += sorted((path for path in files if _NEWSITEM_FILE.fullmatch(path.name)), key=_document_id)
        if not sources:
            raise self.missing(f"{folder} has neither zip files nor files named NNNNnewsML.xml")
        qrels = find_file(folder, _QRELS_FILE)
        needed = tuple(sources) + ((qrels,) if qrels else ())
        return {split: needed for split in self.expected_documents}


class RCV1V2(CorpusBuilder):
    """Builder of RCV1-V2.

    Configurations `lyrl2004` and `sgm` read the LYRL2004 token files, `lyrl2004_xml` and `sgm_xml` the newsitem XML,
    and `sample` a token file named lyrl2004_tokens_sample.dat, with rcv1-v2.topics.sample.qrels, as one split.

    LYRL2004's split: document ids up to 26150 are the training split, those above the test split. The split of the SGM
    paper (sizes: Lin et al. 2018, section 5.1) is random and which documents it holds out is not published; here the
    document ids are ordered by the SHA-256 of "rcv1-v2 <id>", the first 1,000 are the validation split, the next 1,000
    the test split.

    From XML the text is the headline, a line break and the paragraphs. Labels and the choice of documents come from
    rcv1-v2.topics.qrels. Where that file is absent they are made as RCV1-V2 was made from the CDs: a story without a
    topic or without a region code is left out, and the ancestors of its topics are added.

    A document without text is kept, with a warning.
    """

    BUILDER_CONFIG_CLASS = RCV1V2Config
    DEFAULT_CONFIG_NAME = "lyrl2004"
    BUILDER_CONFIGS = [
        RCV1V2Config(
            name="lyrl2004",
            version="1.0.0",
            description="Token files, split of LYRL2004",
            split_files={"train": (_TRAIN_FILE,), "test": _TEST_FILES},
            common_files=(_QRELS_FILE,),
            expected_documents=_LYRL2004_COUNTS,
            how_to_obtain=_OBTAIN_TOKENS,
        ),
        RCV1V2Config(
            name="sgm",
            version="1.0.0",
            description="Token files, random split of the SGM paper's sizes",
            split_files={split: (_TRAIN_FILE, *_TEST_FILES) for split in _SGM_COUNTS},
            common_files=(_QRELS_FILE,),
            expected_documents=_SGM_COUNTS,
            how_to_obtain=_OBTAIN_TOKENS,
            partition="sgm",
        ),
        NewsitemConfig(
            name="lyrl2004_xml",
            version="1.0.0",
            description="Newsitem XML, split of LYRL2004",
            expected_documents=_LYRL2004_COUNTS,
            how_to_obtain=_OBTAIN_CDS,
        ),
        NewsitemConfig(
            name="sgm_xml",
            version="1.0.0",
            description="Newsitem XML, random split of the SGM paper's sizes",
            expected_documents=_SGM_COUNTS,
            how_to_obtain=_OBTAIN_CDS,
            partition="sgm",
        ),
        RCV1V2Config(
            name="sample",
            version="1.0.0",
            description="A small token file as one split",
            split_files={"train": ("lyrl2004_tokens_sample.dat",)},
            common_files=("rcv1-v2.topics.sample.qrels",),
            how_to_obtain=(
                "RCV1-V2 sample: any documents in the LYRL2004 format, named lyrl2004_tokens_sample.dat and "
                "rcv1-v2.topics.sample.qrels (plain or .gz), in the folder passed as data_dir"
            ),
            partition="whole",
        ),
    ]
    LABEL_NAMES = LABEL_NAMES
    DESCRIPTION = "Reuters newswire stories of 1996 and 1997 with 103 topics in a hierarchy."
    HOMEPAGE = _README
    LICENSE = "Token files: terms in section A.2 of the LYRL2004 README. Newsitem XML: signed agreement with NIST."
    CITATION = (
        "David D. Lewis, Yiming Yang, Tony G. Rose, Fan Li. RCV1: A New Benchmark Collection for Text Categorization "
        "Research. Journal of Machine Learning Research 5 (2004), pages 361-397."
    )
    config: RCV1V2Config

    def _generate_examples(self, split: str, files: tuple[Path, ...]) -> Iterator[tuple[int, dict[str, Any]]]:
        documents = self._newsitems if isinstance(self.config, NewsitemConfig) else self._token_documents
        empty = EmptyTexts()
        for place, number, text, labels in documents(split, files):
            empty.note(text, place)
            yield number, {"id": str(number), "text": text, "labels": labels}
        empty.report()

    def _token_documents(self, split: str, files: Sequence[Path]) -> Iterator[tuple[str, int, str, Sequence[str]]]:
        """Yield place, id, text and labels of the split's documents in the token files."""
        *token_paths, qrels_path = files
        topics = read_topics(qrels_path)
        in_split = _Split(self.config.partition, split, topics)
        for path in token_paths:
            for place, number, text in _read_tokens(path):
                if number not in topics:
                    raise ValueError(
                        f"{place}: document {number} has no topic in {qrels_path}; fetch both files again"
                    )
                if number in in_split:
                    yield place, number, text, topics[number]
                elif self.config.partition == "lyrl2004":
                    raise ValueError(
                        f"{place}: document {number} does not belong to the {split} split, whose ids are "
                        f"{'at most' if split == 'train' else 'above'} {LAST_TRAINING_ID}; check the name of the file"
                    )

    def _newsitems(self, split: str, files: Sequence[Path]) -> Iterator[tuple[str, int, str, Sequence[str]]]:
        """Yield place, id, text and labels of the split's documents in the newsitem files."""
        sources = [path for path in files if not path.name.startswith(_QRELS_FILE)]
        topics = read_topics(files[-1]) if len(sources) < len(files) else None
        ids: Collection[int] = ()
        if self.config.partition == "sgm":
            ids = topics or [item.number for item in _read_newsitems(sources) if item.complete]
        in_split = _Split(self.config.partition, split, ids)
        for item in _read_newsitems(sources, in_split):
            if topics is not None:
                if item.number in topics:
                    yield item.place, item.number, item.text, topics[item.number]
            elif item.complete:
                yield item.place, item.number, item.text, with_ancestors(item.topics)


class _Split:
    """The documents of one split, as a container of ids."""

    def __init__(self, partition: str, split: str, ids: Collection[int]) -> None:
        self._partition, self._split = partition, split
        if partition == "sgm":
            if len(ids) <= 2 * HELD_OUT:
                raise ValueError(f"the split of the SGM paper needs over {2 * HELD_OUT} documents, found {len(ids)}")
            # An order that is random, and the same everywhere.
            first = heapq.nsmallest(2 * HELD_OUT, ids, key=lambda i: hashlib.sha256(f"rcv1-v2 {i}".encode()).digest())
            self._held_out = {"validation": set(first[:HELD_OUT]), "test": set(first[HELD_OUT:])}

    def __contains__(self, number: int) -> bool:
        if self._partition == "lyrl2004":
            return (number <= LAST_TRAINING_ID) == (self._split == "train")
        if self._partition == "sgm":
            if self._split in self._held_out:
                return number in self._held_out[self._split]
            return not any(number in held_out for held_out in self._held_out.values())
        return True


def read_topic_hierarchy(path: str | Path) -> dict[str, str]:
    """Read the topic hierarchy, rcv1.topics.hier: lines "parent: C15 child: C151", plain or `.gz`.

    Returns:
        For each topic its parent, in the order of the file. The four topics below "Root" have no entry.

    Raises:
        ValueError: If a line is not of that form, or names an unknown topic.
    """
    parents = {}
    for where, child, parent in line_pairs(Path(path)):
        if parent is not None:
            check_labels([child, parent], LABEL_NAMES, where)
            parents[child] = parent
    return parents


def read_topics(path: str | Path) -> dict[int, list[str]]:
    """Read the topics of all documents, rcv1-v2.topics.qrels: lines "TOPIC ID 1", plain or `.gz`.

    Returns:
        For each document id its topics, in the order of the file.

    Raises:
        ValueError: If a line is not of that form, names an unknown topic, or repeats one, or there is no line.
    """
    names = {name: name for name in LABEL_NAMES}  # one string object per topic, not one per line
    topics: dict[int, list[str]] = {}
    for line_number, line in read_lines(Path(path)):
        topic, _, rest = line.partition(" ")
        number, _, judgement = rest.partition(" ")
        if judgement != "1" or not _DOCUMENT_ID.fullmatch(number):
            raise ValueError(
                f"{path}, line {line_number}: got {line[:40]!r}, expected 'TOPIC ID 1' with blanks between; fetch it "
                "again"
            )
        labels = topics.setdefault(int(number), [])
        if topic not in names or topic in labels:
            check_labels([topic], names, f"{path}, line {line_number}")
            check_distinct([*labels, topic], f"{path}, line {line_number}")
        labels.append(names[topic])
    if not topics:
        raise ValueError(f"{path} has no topic; fetch it again")
    return topics


def with_ancestors(topics: Sequence[str]) -> list[str]:
    """The topics, each once, and the ancestors that they lack, as RCV1-V2 was made from the original codes."""
    return with_ancestors_of(topics, TOPIC_PARENTS)


def _read_tokens(path: Path) -> Iterator[tuple[str, int, str]]:
    """Yield place, id and text of each document of a token file: ".I <id>", ".W", lines of tokens."""
    place, number = "", -1  # of the document that is being read
    lines: list[str] | None = None  # None before its ".W"
    for line_number, line in read_lines(path):
        is_expected = True
        if line.startswith(".I"):
            if number >= 0:
                yield _token_document(place, number, lines)
            place, lines = f"{path}, line {line_number}", None
            match = _DOCUMENT_LINE.fullmatch(line)
            is_expected = match is not None
            number = int(match[1]) if match else -1
        elif lines is not None:
            lines.append(line)
        elif line == ".W" and number >= 0:
            lines = []
        else:
            is_expected = not line.strip()
        if not is_expected:
            expected = "'.W'" if number >= 0 else "'.I <document id>'"
            raise ValueError(
                f"{path}, line {line_number}: got {line[:40]!r}, expected {expected}; fetch the file again"
            )
    if number < 0:
        raise ValueError(f"{path} has no document; fetch the file again")
    yield _token_document(place, number, lines)


def _token_document(place: str, number: int, lines: list[str] | None) -> tuple[str, int, str]:
    """Join a document's lines of tokens; None where no '.W' came."""
    if lines is None:
        raise ValueError(
            f"{place}: document {number} has no '.W' line; the file is cut off or damaged, fetch it again"
        )
    return place, number, " ".join(" ".join(lines).split())


@dataclass
class _Newsitem:
    """A story of the CDs: its file, id, text, topic codes, and whether it keeps the minimum code policy."""

    place: str
    number: int
    text: str
    topics: list[str]
    complete: bool


def _document_id(path: Path) -> int:
    """The document id in a newsitem's file name."""
    match = _NEWSITEM_FILE.fullmatch(path.name)
    return int(match[1]) if match else -1


def _read_newsitems(sources: Sequence[Path], in_split: _Split | None = None) -> Iterator[_Newsitem]:
    """Yield the stories of XML files and of zip files of them; only those of a split, if one is given."""
    for source in sources:
        if source.suffix.lower() != ".zip":
            number = _document_id(source)
            if in_split is None or number in in_split:
                yield _parse_newsitem(source.read_bytes(), str(source), number)
            continue
        with naming_damage(source), zipfile.ZipFile(source) as archive:
            numbers = {name: _document_id(Path(name)) for name in archive.namelist()}
            for name in sorted((name for name, number in numbers.items() if number >= 0), key=numbers.__getitem__):
                if in_split is None or numbers[name] in in_split:
                    yield _parse_newsitem(archive.read(name), f"{source}, {name}", numbers[name])


def _parse_newsitem(content: bytes, place: str, number: int) -> _Newsitem:
    """Read one newsitem; `number` is the document id in its file name."""
    try:
        root = ElementTree.fromstring(content)
    except ElementTree.ParseError as error:
        raise ValueError(
            f"{place}, line {error.position[0]}: malformed XML ({error}); copy the file from the CD again"
        ) from error
    except (LookupError, ValueError) as error:  # an encoding that Python or expat does not know
        raise ValueError(
            f"{place}, line 1: the encoding that the XML declares cannot be read ({error}); the CDs' files declare "
            "iso-8859-1, copy the file from the CD again"
        ) from error
    if root.tag != "newsitem" or root.get("itemid") != str(number) or root.find("text") is None:
        raise ValueError(
            f"{place}: got <{root.tag} itemid={root.get('itemid')!r}>, expected <newsitem itemid='{number}'> with a "
            "<text> element; copy the file from the CD again"
        )
    headline = root.findtext("headline") or root.findtext("title") or ""
    parts = [headline, *("".join(paragraph.itertext()) for paragraph in root.iterfind("text/p"))]
    topics, regions = (
        [code.get("code", "") for code in root.iterfind(f"metadata/codes[@class='{kind}']/code")]
        for kind in ("bip:topics:1.0", "bip:countries:1.0")
    )
    if topics:
        check_labels(topics, LABEL_NAMES, place)
    text = "\n".join(" ".join(part.split()) for part in parts if part.strip())
    return _Newsitem(place, number, text, topics, complete=bool(topics and regions))
