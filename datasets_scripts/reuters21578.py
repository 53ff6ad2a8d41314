"""Reuters-21578: newswire stories of 1987 with their topics, in the ModApte split (Lewis 1997)."""

import html
import re
import tarfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ._corpus import CorpusBuilder, CorpusConfig, RepeatedLabels, check_labels, check_text
from ._files import naming_damage, read_bytes

# The topics with at least one training and one test document in the ModApte split, by name.
LABEL_NAMES = tuple(
    """
    acq alum barley bop carcass castor-oil cocoa coconut coconut-oil coffee copper copra-cake corn cotton cotton-oil
    cpi cpu crude dfl dlr dmk earn fuel gas gnp gold grain groundnut groundnut-oil heat hog housing income
    instal-debt interest ipi iron-steel jet jobs l-cattle lead lei lin-oil livestock lumber meal-feed money-fx
    money-supply naphtha nat-gas nickel nkr nzdlr oat oilseed orange palladium palm-oil palmkernel pet-chem platinum
    potato propane rand rape-oil rapeseed reserves retail rice rubber rye ship silver sorghum soy-meal soy-oil
    soybean strategic-metal sugar sun-meal sun-oil sunseed tea tin trade veg-oil wheat wpi yen zinc
    """.split()
)
# The other topics that occur in the 22 files: not labels, but no fault in the data either.
OTHER_TOPICS = tuple(
    """
    austdlr bfr can castorseed citruspulp corn-oil cornglutenfeed cottonseed cruzado dkr f-cattle fishmeal hk
    inventories lin-meal linseed lit peseta plywood pork-belly rape-meal red-bean ringgit rupiah saudriyal sfr skr
    stg tapioca wool
    """.split()
)
ARCHIVE = "reuters21578.tar.gz"
FILES = tuple(f"reut2-{number:03d}.sgm" for number in range(22))

# No pattern here may look for its end beyond the next tag: over unclosed tags that would be quadratic.
_ATTRIBUTE = re.compile(r'\b(\w+)="([^"]*)"')
_TOPIC = re.compile(r"<D>([^<]*)</D>")
_CONTROL_CHARACTER = re.compile(r"&#(?:[0-9]|[12][0-9]|3[01]|127);|[\x00-\x08\x0b-\x1f\x7f]")


@dataclass(eq=False)
class ReutersConfig(CorpusConfig):
    """A configuration whose files may also be in one archive."""

    def find_sources(self) -> dict[str, tuple[Path, ...]]:
        """Find the archive (`data_dir` itself or in it) or the 22 SGML files."""
        location = self.existing_data_dir()
        archive = location if location.is_file() else location / ARCHIVE
        files = (archive,) if archive.is_file() else self.require_files(location, FILES, "both splits")
        return {"train": files, "test": files}


class Reuters21578(CorpusBuilder):
    """Builder of Reuters-21578.

    ModApte: training stories have LEWISSPLIT="TRAIN" and TOPICS="YES", test stories LEWISSPLIT="TEST" and
    TOPICS="YES". Of these the ones with at least one of the 90 labels are kept; other topics are left out of their
    label lists.

    The text is the title, a line break and the body. A BRIEF story (926 of those kept) has no body and is its title;
    in an UNPROC story (61) neither is marked, and its whole text is taken. So no story has an empty text. Two stories
    name a topic twice: the repetition is dropped, with a warning.
    """

    BUILDER_CONFIG_CLASS = ReutersConfig
    BUILDER_CONFIGS = [
        ReutersConfig(
            name="modapte",
            version="1.0.0",
            description="The ModApte split, 90 labels",
            expected_documents={"train": 7_770, "test": 3_019},
            how_to_obtain=(
                "Reuters-21578: fetch reuters21578.tar.gz from "
                "http://www.daviddlewis.com/resources/testcollections/reuters21578/ or "
                "https://archive.ics.uci.edu/dataset/137 (free for research; copyright Reuters Ltd.) and pass the "
                "archive, or a folder with it or with its files reut2-000.sgm to reut2-021.sgm (plain or .gz), as "
                "data_dir"
            ),
        )
    ]
    LABEL_NAMES = LABEL_NAMES
    DESCRIPTION = "Newswire stories of 1987 with the topics that indexers gave them; ModApte split, 90 topics."
    HOMEPAGE = "http://www.daviddlewis.com/resources/testcollections/reuters21578/"
    LICENSE = "Free for research; copyright of the texts Reuters Ltd."
    CITATION = "David D. Lewis. Reuters-21578, Distribution 1.0. 1997."

    def _generate_examples(self, split: str, files: tuple[Path, ...]) -> Iterator[tuple[str, dict[str, Any]]]:
        wanted = {"LEWISSPLIT": split.upper(), "TOPICS": "YES"}
        known, kept = {*LABEL_NAMES, *OTHER_TOPICS}, set(LABEL_NAMES)
        repeats = RepeatedLabels()
        for name, content in _sgml_files(files):
            for place, attributes, story in _stories(name, content):
                if any(attributes[key] != value for key, value in wanted.items()):
                    continue
                topics = repeats.merge(_topics(story, place), place)
                if topics:
                    check_labels(topics, known, place)
                labels = [topic for topic in topics if topic in kept]
                if not labels:
                    continue
                text = _text(story, place)
                check_text(text, place)
                yield attributes["NEWID"], {"id": attributes["NEWID"], "text": text, "labels": labels}
        repeats.report()


def _sgml_files(files: tuple[Path, ...]) -> Iterator[tuple[str, str]]:
    """Yield name and content of the 22 files, which are separate or in one archive."""
    if len(files) > 1:
        for path in files:
            yield str(path), read_bytes(path).decode("latin-1")
        return
    (archive,) = files
    with naming_damage(archive), tarfile.open(archive) as tar:
        members = {Path(member.name).name: member for member in tar if member.isfile()}
        missing = [name for name in FILES if name not in members]
        if missing:
            raise ValueError(f"{archive} lacks {', '.join(missing)}; fetch the complete archive")
        while tar.fileobj is not None and tar.fileobj.read(2**20):
            pass  # the check sum of what was packed is at the end, after the content of all members
        for name in FILES:
            content = tar.extractfile(members[name])
            assert content is not None  # it is None only for members that are not files
            yield f"{archive}, {name}", content.read().decode("latin-1")


def _stories(name: str, content: str) -> Iterator[tuple[str, dict[str, str], str]]:
    """Yield place (file and line), attributes and inner SGML of each story of one file."""
    start = content.find("<REUTERS")
    if start < 0 or not content.lstrip().startswith(("<!DOCTYPE", "<REUTERS")):
        raise ValueError(
            f"{name}, line 1: no Reuters-21578 SGML, expected <!DOCTYPE lewis …> and <REUTERS …> elements"
        )
    line, counted_to, end = 1, 0, start
    while start >= 0:
        line, counted_to = line + content.count("\n", counted_to, start), start
        place = f"{name}, line {line}"
        opened = content.find(">", start)
        close = content.find("</REUTERS>", opened)
        story, attributes = content[opened + 1 : close], dict(_ATTRIBUTE.findall(content[start:opened]))
        absent = [key for key in ("LEWISSPLIT", "TOPICS", "NEWID") if key not in attributes]
        fault = f"<REUTERS> lacks the attribute {', '.join(absent)}" if absent else None
        if min(opened, close) < 0:
            fault = "the file ends within a <REUTERS> element"
        elif content[end:start].strip() or "<REUTERS" in story:
            fault = "text outside <REUTERS …>…</REUTERS>, or one that is not closed"
        if fault:
            raise ValueError(f"{place}: {fault}; fetch the file again")
        yield place, attributes, story
        end = close + len("</REUTERS>")
        start = content.find("<REUTERS", end)
    if content[end:].strip():
        line += content.count("\n", counted_to, len(content) - len(content[end:].lstrip()))
        raise ValueError(f"{name}, line {line}: text after the last </REUTERS>; the file is cut off, fetch it again")


def _element(story: str, tag: str) -> str | None:
    """The content of the first element of that name, if there is one."""
    opened = re.search(rf"<{tag}(?: [^<>]*)?>", story)
    close = story.find(f"</{tag}>", opened.end()) if opened else -1
    return story[opened.end() : close] if opened and close >= 0 else None


def _topics(story: str, place: str) -> list[str]:
    """The story's topics, in its order."""
    element = _element(story, "TOPICS")
    if element is None or _TOPIC.sub("", element).strip():
        raise ValueError(f"{place}: malformed <TOPICS>, expected <TOPICS><D>…</D>…</TOPICS>; fetch the file again")
    return _TOPIC.findall(element)


def _text(story: str, place: str) -> str:
    """Title and body, or the whole text where neither is marked; without tags, entities and control characters."""
    whole = _element(story, "TEXT")
    if whole is None:
        raise ValueError(f"{place}: no <TEXT>…</TEXT>; fetch the file again")
    parts = [part for part in (_element(whole, "TITLE"), _element(whole, "BODY")) if part is not None] or [whole]
    plain = []
    for part in parts:
        marked, close, rest = part.rpartition(">")  # what follows has no tag, however many "<" it has
        without_tags = re.sub(r"<[^>]*>", " ", marked + close) + rest
        try:
            # Control characters are a lost letter or blank; a blank keeps the words around them apart.
            plain.append(html.unescape(_CONTROL_CHARACTER.sub(" ", without_tags)).strip())
        except ValueError as error:  # &#123…; of thousands of digits
            raise ValueError(
                f"{place}: a character reference has no meaning ({error}); fetch the file again"
            ) from error
    return "\n".join(part for part in plain if part)
