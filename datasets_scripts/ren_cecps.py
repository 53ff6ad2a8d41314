"""Ren-CECps: sentences of Chinese blogs with eight emotions and a polarity (Quan and Ren 2009)."""

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from xml.parsers import expat

import datasets

from ._corpus import CorpusBuilder, CorpusConfig, EmptyTexts, check_distinct, corpus_features, random_split
from ._files import read_bytes

# Elements of a sentence with the intensity of an emotion, in the order of the source; the labels are their names.
EMOTIONS = ("Joy", "Hate", "Love", "Sorrow", "Anxiety", "Surprise", "Anger", "Expect")
LABEL_NAMES = tuple(name.lower() for name in EMOTIONS)
# What the element Polarity of a sentence holds.
POLARITIES = {"积极": "positive", "中性": "neutral", "消极": "negative"}

_FILE = re.compile(r"(cet_.*)\.xml(\.gz)?")
_WORD = re.compile(r"[0-9A-Za-zÀ-ɏ]+|\S")  # Latin words and numbers stay whole


@dataclass(eq=False)
class RenCECpsConfig(CorpusConfig):
    """A choice of labels and of how the text is given.

    Args:
        with_polarity: Whether the polarity is a label too.
        characters_as_words: Whether blanks separate the characters; else the text is that of the source.
    """

    with_polarity: bool = False
    characters_as_words: bool = True

    def find_sources(self) -> dict[str, tuple[Path, ...]]:
        """Find the files cet_*.xml, plain or `.gz`, below `data_dir`, for each split its own, by their numbers."""
        folder = self.existing_data_dir()
        found: dict[str, Path] = {}
        for path in sorted(folder.rglob("cet_*")):  # of one folder the plain file comes first
            match = _FILE.fullmatch(path.name)
            if match and found.setdefault(match[1], path).parent != path.parent:
                raise ValueError(f"{path.name} is also in {found[match[1]].parent}; keep one of the two")
        if not found:
            raise self.missing(f"{folder} has none of the files cet_*.xml (plain or .gz), there or in its folders")
        splits: dict[str, list[Path]] = {"train": [], "validation": [], "test": []}
        for name in sorted(found, key=_by_number):
            splits[random_split(f"ren_cecps {name}")].append(found[name])
        return {split: tuple(files) for split, files in splits.items() if files}


def _config(name: str, description: str, **kwargs: Any) -> RenCECpsConfig:
    """A configuration; the corpus is published as one whole of 35,096 sentences."""
    return RenCECpsConfig(
        name=name,
        version="1.0.0",
        description=description,
        expected_total=35_096,
        how_to_obtain=(
            "Ren-CECps: request the corpus from Fuji Ren as http://a1-www.is.tokushima-u.ac.jp/member/ren/Ren-CECps1.0/"
            "Ren-CECps1.0.html says (under a signed agreement; it must not be passed on), put its files cet_*.xml, "
            "plain or .gz, anywhere below one folder and pass it as data_dir"
        ),
        **kwargs,
    )


class RenCECps(CorpusBuilder):
    """Builder of Ren-CECps.

    A document is one sentence. Its labels are the emotions whose intensity is above 0, in the order of the source. A
    sentence without emotion has no label; with its polarity as a label, as Lin et al. 2018 (section 5.1) count eleven
    labels, each has at least one.

    The corpus has no published split. Here the sentences of a file, which is one blog article, are all in one split,
    which the SHA-256 of "ren_cecps <name of the file>" decides.

    Configurations `emotions` and `emotions_polarity` separate the characters by blanks, so that each is a word;
    `emotions_raw` and `emotions_polarity_raw` have the text of the source.
    """

    BUILDER_CONFIG_CLASS = RenCECpsConfig
    DEFAULT_CONFIG_NAME = "emotions"
    BUILDER_CONFIGS = [
        _config("emotions", "8 emotions, characters as words"),
        _config("emotions_polarity", "8 emotions and 3 polarities, characters as words", with_polarity=True),
        _config("emotions_raw", "8 emotions, text of the source", characters_as_words=False),
        _config(
            "emotions_polarity_raw",
            "8 emotions and 3 polarities, text of the source",
            with_polarity=True,
            characters_as_words=False,
        ),
    ]
    LABEL_NAMES = LABEL_NAMES
    DESCRIPTION = "Sentences of Chinese blogs with eight emotions and a polarity."
    HOMEPAGE = "http://a1-www.is.tokushima-u.ac.jp/member/ren/Ren-CECps1.0/Ren-CECps1.0.html"
    LICENSE = "Signed agreement with the authors; the corpus must not be passed on."
    CITATION = (
        "Changqin Quan, Fuji Ren. Construction of a Blog Emotion Corpus for Chinese Emotional Expression Analysis. "
        "EMNLP 2009, pages 1446-1454."
    )
    config: RenCECpsConfig

    def features(self) -> datasets.Features:
        """The columns, with 8 or 11 labels."""
        polarities = tuple(POLARITIES.values()) if self.config.with_polarity else ()
        return corpus_features(LABEL_NAMES + polarities)

    def _generate_examples(self, split: str, files: tuple[Path, ...]) -> Iterator[tuple[str, dict[str, Any]]]:
        empty = EmptyTexts()
        for path in files:
            name = path.name.split(".xml")[0]
            for number, sentence in enumerate(read_sentences(path), start=1):
                place = f"{path}, line {sentence.line}"
                labels = _emotions(sentence, place)
                if self.config.with_polarity:
                    labels.append(_polarity(sentence, place))
                text = as_words(sentence.text) if self.config.characters_as_words else sentence.text.strip()
                empty.note(text, place)
                yield f"{name}-{number}", {"id": f"{name}-{number}", "text": text, "labels": labels}
        empty.report()


@dataclass
class Sentence:
    """A sentence of the XML.

    Args:
        line: The line of its element, from 1.
        text: Its text, the attribute S.
        elements: Name and content of the elements in it, in their order.
    """

    line: int
    text: str
    elements: list[tuple[str, str]] = field(default_factory=list)


class _SentenceHandler:
    """Collects the sentences of a file while expat reads it."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.sentences: list[Sentence] = []
        self._inside: list[str] = []  # the open elements from that of the sentence on
        self._content: list[str] = []
        self.parser = expat.ParserCreate()
        self.parser.buffer_text = True
        self.parser.StartElementHandler = self._start
        self.parser.EndElementHandler = self._end
        self.parser.CharacterDataHandler = self._content.append

    def _start(self, name: str, attributes: dict[str, str]) -> None:
        line = self.parser.CurrentLineNumber
        if name == "sentence":
            if self._inside or "S" not in attributes:
                fault = "is within another one" if self._inside else "lacks the attribute S, its text"
                raise ValueError(f"{self.path}, line {line}: <sentence> {fault}; fetch the file again")
            self.sentences.append(Sentence(line, attributes["S"]))
        if name == "sentence" or self._inside:
            self._inside.append(name)
            self._content.clear()

    def _end(self, name: str) -> None:
        if not self._inside:
            return
        self._inside.pop()
        if len(self._inside) == 1:
            self.sentences[-1].elements.append((name, "".join(self._content).strip()))


def read_sentences(path: Path) -> list[Sentence]:
    """Read the sentences of one article, an XML file, plain or `.gz`.

    Raises:
        ValueError: If the file is damaged or no such XML, or has no sentence.
    """
    handler = _SentenceHandler(path)
    content = read_bytes(path)
    try:
        handler.parser.Parse(content, True)
    except expat.ExpatError as error:
        raise ValueError(f"{path}, line {error.lineno}: malformed XML ({error}); fetch the file again") from error
    except (LookupError, UnicodeError) as error:
        raise _unreadable(path, error) from error
    except ValueError as error:
        # expat itself says this of encodings such as GB2312; our own errors name the file.
        raise (error if str(path) in str(error) else _unreadable(path, error)) from error
    if not handler.sentences:
        raise ValueError(f"{path} has no element <sentence>; give the annotated files of the corpus")
    return handler.sentences


def as_words(text: str) -> str:
    """The text with its characters as words, separated by blanks; words in Latin letters and numbers stay whole."""
    return " ".join(_WORD.findall(text))


def _unreadable(path: Path, error: Exception) -> ValueError:
    return ValueError(
        f"{path}, line 1: the encoding that the XML declares cannot be read ({error}); convert the file to UTF-8 and "
        "correct its first line"
    )


def _by_number(name: str) -> list[tuple[int, str]]:
    """A key that sorts cet_2 before cet_10."""
    return [(int(part), "") if part.isdecimal() else (-1, part) for part in re.split(r"([0-9]{1,18})", name)]


def _only(sentence: Sentence, names: Sequence[str], place: str) -> list[tuple[str, str]]:
    """The elements of these names, each of which a sentence has once."""
    elements = [(name, content) for name, content in sentence.elements if name in names]
    check_distinct([name for name, _ in elements], place)
    missing = [name for name in names if name not in dict(elements)]
    if missing:
        raise ValueError(f"{place}: the sentence lacks {', '.join(f'<{name}>' for name in missing)}; fetch it again")
    return elements


def _emotions(sentence: Sentence, place: str) -> list[str]:
    """The labels of a sentence, without its polarity."""
    intensities = _only(sentence, EMOTIONS, place)
    for name, content in intensities:
        try:
            is_intensity = 0 <= float(content) <= 1
        except ValueError:
            is_intensity = False
        if not is_intensity:
            raise ValueError(f"{place}: <{name}> holds {content[:40]!r}, expected an intensity from 0.0 to 1.0")
    return [name.lower() for name, content in intensities if float(content) > 0]


def _polarity(sentence: Sentence, place: str) -> str:
    """The label of a sentence's polarity."""
    ((_, content),) = _only(sentence, ["Polarity"], place)
    if content not in POLARITIES:
        raise ValueError(f"{place}: <Polarity> holds {content[:40]!r}, expected one of {', '.join(POLARITIES)}")
    return POLARITIES[content]
