"""GoEmotions: Reddit comments with 27 emotions and "neutral" (Demszky et al. 2020)."""

import csv
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from sgm_hf.data.lines import read_lines

from ._corpus import CorpusBuilder, CorpusConfig, check_distinct, check_text

# The order of emotions.txt, to which the data's indices refer.
LABEL_NAMES = tuple(
    """
    admiration amusement anger annoyance approval caring confusion curiosity desire disappointment disapproval
    disgust embarrassment excitement fear gratitude grief joy love nervousness optimism pride realization relief
    remorse sadness surprise neutral
    """.split()
)


_INDEX = re.compile(r"[0-9]{1,9}")  # int() refuses thousands of digits


class GoEmotions(CorpusBuilder):
    """Builder of GoEmotions.

    A line holds the text, comma-separated indices into emotions.txt, and the comment's id, separated by tabs. Texts
    with quotation marks are in quotation marks, with inner ones doubled, as in CSV; both are undone.
    """

    BUILDER_CONFIGS = [
        CorpusConfig(
            name="default",
            version="1.0.0",
            description="The official split of the comments on whose labels at least two raters agree",
            split_files={"train": ("train.tsv",), "validation": ("dev.tsv",), "test": ("test.tsv",)},
            common_files=("emotions.txt",),
            expected_documents={"train": 43_410, "validation": 5_426, "test": 5_427},
            how_to_obtain=(
                "GoEmotions: fetch train.tsv, dev.tsv, test.tsv and emotions.txt from "
                "https://github.com/google-research/google-research/tree/master/goemotions/data (Apache-2.0), put "
                "them, plain or .gz, into one folder and pass it as data_dir"
            ),
        )
    ]
    LABEL_NAMES = LABEL_NAMES
    DESCRIPTION = 'English Reddit comments with 27 emotions and "neutral".'
    HOMEPAGE = "https://github.com/google-research/google-research/tree/master/goemotions"
    LICENSE = "Apache-2.0"
    CITATION = (
        "Dorottya Demszky, Dana Movshovitz-Attias, Jeongwoo Ko, Alan Cowen, Gaurav Nemade, Sujith Ravi. GoEmotions: A "
        "Dataset of Fine-Grained Emotions. ACL 2020, pages 4040-4054."
    )

    def _generate_examples(self, split: str, files: tuple[Path, ...]) -> Iterator[tuple[str, dict[str, Any]]]:
        data_path, emotions_path = files
        _check_emotions(emotions_path)
        number = 0
        for number, line in read_lines(data_path):
            text, indices, comment_id = _parse_line(line, f"{data_path}, line {number}")
            labels = [LABEL_NAMES[index] for index in indices]
            yield comment_id, {"id": comment_id, "text": text, "labels": labels}
        if number == 0:
            raise ValueError(f"{data_path} has no document; fetch it again")


def _check_emotions(path: Path) -> None:
    """Raise if emotions.txt is not the published list, since indices would then mean other labels."""
    number = 0
    for number, name in read_lines(path):
        expected = LABEL_NAMES[number - 1] if number <= len(LABEL_NAMES) else "the end of the file"
        if name != expected:
            raise ValueError(f"{path}, line {number}: got {name!r}, expected {expected}; fetch the published file")
    if number < len(LABEL_NAMES):
        raise ValueError(f"{path} ends after line {number}, expected {len(LABEL_NAMES)}; fetch the published file")


def _parse_line(line: str, place: str) -> tuple[str, list[int], str]:
    """Split a line into text, label indices and comment id; `place` names file and line in errors."""
    try:
        (fields,) = csv.reader([line], delimiter="\t", strict=True)
    except (csv.Error, ValueError) as error:
        raise ValueError(
            f"{place}: no line of tab-separated fields ({error}); expected text, label indices and id"
        ) from error
    if len(fields) != 3:
        raise ValueError(
            f"{place}: {len(fields)} field(s) between tabs, expected 3: text, comma-separated label indices, id; "
            "check that the separator is a tab"
        )
    text, indices, comment_id = fields
    check_text(text, place)
    last = len(LABEL_NAMES) - 1
    for index in indices.split(","):
        if not (_INDEX.fullmatch(index) and int(index) <= last):
            raise ValueError(
                f"{place}: unknown label index {index[:40]!r}, expected numbers from 0 to {last} between commas"
            )
    labels = [int(index) for index in indices.split(",")]
    check_distinct([LABEL_NAMES[label] for label in labels], place)
    return text, labels, comment_id
