"""What the builders of published corpora share: finding their files, and checks on labels, texts and counts."""

import hashlib
import logging
from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar

import datasets
from datasets.exceptions import DatasetGenerationError

from ._files import find_file, source_fingerprint

logger = logging.getLogger(__name__)


@dataclass(eq=False)
class CorpusConfig(datasets.BuilderConfig):
    """One way to read and to split a published corpus.

    Args:
        split_files: For each split the names, without `.gz`, of the files it is read from. A split exists where its
            files do.
        common_files: Names of the files that every split needs in addition.
        expected_documents: For each split the number of documents in the complete published files.
        expected_total: Number of documents of all splits, where the published files have no splits.
        how_to_obtain: Address, licence and file names, for the error that says a file is missing.
    """

    split_files: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    common_files: tuple[str, ...] = ()
    expected_documents: Mapping[str, int] = field(default_factory=dict)
    expected_total: int | None = None
    how_to_obtain: str = ""

    def find_sources(self) -> dict[str, tuple[Path, ...]]:
        """Find the files of every split that is present: its own, followed by the common ones.

        Raises:
            ValueError: If no `data_dir` was given.
            FileNotFoundError: If the folder or a needed file is missing.
        """
        folder = self.existing_data_dir()
        common = self.require_files(folder, self.common_files, "every split")
        found = {
            split: self.require_files(folder, names, f"the {split} split") + common
            for split, names in self.split_files.items()
            if any(find_file(folder, name) for name in names)
        }
        if not found:
            expected = [", ".join(names) for names in self.split_files.values()]
            raise self.missing(f"{folder} has none of the files {'; '.join(dict.fromkeys(expected))}")
        return found

    def check_split(self, split: str) -> None:
        """Raise a FileNotFoundError if a split of the corpus has none of its files."""
        present = self.find_sources()
        if split in self.split_files and split not in present:
            files = ", ".join(self.split_files[split])
            raise self.missing(
                f"the {split} split needs {files} in {self.data_dir}, which has only {', '.join(present)}"
            )

    def existing_data_dir(self) -> Path:
        """`data_dir` as the path of a folder or file that exists.

        Raises:
            ValueError: If no `data_dir` was given.
            FileNotFoundError: If nothing is there.
        """
        if self.data_dir is None:
            raise ValueError(f"data_dir is missing: this corpus is not downloaded for you. {self.how_to_obtain}")
        path = Path(self.data_dir).expanduser()
        if not path.exists():
            raise self.missing(f"data_dir {path} does not exist")
        return path

    def require_files(self, folder: Path, names: Sequence[str], needed_by: str) -> tuple[Path, ...]:
        """Find files that must all be there; `names` are without `.gz`, `needed_by` is for the error.

        Raises:
            FileNotFoundError: If one is missing; all missing names are listed.
        """
        found = {name: find_file(folder, name) for name in names}
        missing = [name for name, path in found.items() if path is None]
        if missing:
            raise self.missing(f"{folder} lacks {', '.join(missing)} (plain or .gz), needed by {needed_by}")
        return tuple(path for path in found.values() if path is not None)

    def missing(self, problem: str) -> FileNotFoundError:
        """The error for missing data: what is missing, and how to obtain it."""
        return FileNotFoundError(f"{problem}. {self.how_to_obtain}")

    def create_config_id(self, config_kwargs: dict, custom_features: datasets.Features | None = None) -> str:
        """Name the cache folder also after the source files, so that a changed file is read again."""
        sources = source_fingerprint(path for paths in self.find_sources().values() for path in paths)
        return super().create_config_id({**config_kwargs, "sources": sources}, custom_features)


class CorpusBuilder(datasets.GeneratorBasedBuilder):
    """Base of the builders of published corpora.

    A subclass gives `BUILDER_CONFIGS`, the class attributes below, and `_generate_examples(split, files)`. One whose
    columns or labels depend on the configuration or the files overrides `features`.
    """

    BUILDER_CONFIG_CLASS = CorpusConfig
    config: CorpusConfig

    LABEL_NAMES: ClassVar[tuple[str, ...]]
    DESCRIPTION: ClassVar[str]
    HOMEPAGE: ClassVar[str]
    LICENSE: ClassVar[str]
    CITATION: ClassVar[str]

    def _info(self) -> datasets.DatasetInfo:
        return datasets.DatasetInfo(
            description=self.DESCRIPTION,
            features=self.features(),
            homepage=self.HOMEPAGE,
            license=self.LICENSE,
            citation=self.CITATION,
        )

    def features(self) -> datasets.Features | None:
        """The columns of the configuration; None if its labels are known only once files are read."""
        return corpus_features(self.LABEL_NAMES)

    def _split_generators(self, dl_manager: Any) -> list[datasets.SplitGenerator]:
        # A tuple of files, not a list: `datasets` would deal the items of a list out to different workers.
        return [
            datasets.SplitGenerator(name=split, gen_kwargs={"split": split, "files": files})
            for split, files in self.config.find_sources().items()
        ]


def corpus_features(label_names: Sequence[str]) -> datasets.Features:
    """The columns of every corpus of texts."""
    labels = datasets.List(datasets.ClassLabel(names=list(label_names)))
    return datasets.Features({"id": datasets.Value("string"), "text": datasets.Value("string"), "labels": labels})


def prepare(builder: datasets.DatasetBuilder, **kwargs: Any) -> None:
    """Generate a corpus into its cache or a folder by `builder.download_and_prepare(**kwargs)`.

    After a fault in the data nothing is left there. A split whose number of documents is not that of the complete
    published files is logged.

    Raises:
        ValueError: If the data has a fault; the message names file and line.
    """
    try:
        builder.download_and_prepare(**kwargs)
    except DatasetGenerationError as error:
        # `datasets` hides the sentence about the file and line behind a general one.
        if isinstance(error.__cause__, ValueError | OSError):
            raise error.__cause__ from None
        raise
    expected = getattr(builder.config, "expected_documents", {})
    for name, split in (builder.info.splits or {}).items():
        if name in expected and split.num_examples != expected[name]:
            logger.warning(
                "%s, configuration %s: the %s split has %s documents, the complete published files have %s; figures "
                "from this copy are not comparable with published ones",
                builder.dataset_name,
                builder.config.name,
                name,
                f"{split.num_examples:,}",
                f"{expected[name]:,}",
            )
    total = sum(split.num_examples for split in (builder.info.splits or {}).values())
    expected_total = getattr(builder.config, "expected_total", None)
    if expected_total not in (None, total):
        logger.warning(
            "%s, configuration %s: the splits have %s documents together, the complete published files have %s; "
            "figures from this copy are not comparable with published ones",
            builder.dataset_name,
            builder.config.name,
            f"{total:,}",
            f"{expected_total:,}",
        )


def random_split(name: str) -> str:
    """The split of a document in a corpus that is published without splits: by chance, but the same everywhere.

    The SHA-256 of the name decides. Of ten documents eight are for training, one for validation and one for testing,
    on average.
    """
    tenth = int.from_bytes(hashlib.sha256(name.encode()).digest()[:8]) % 10
    return {8: "validation", 9: "test"}.get(tenth, "train")


def check_labels(labels: Sequence[str], known: Collection[str], place: str) -> None:
    """Check one document's labels; `place` is its file and line, for the error.

    Raises:
        ValueError: If there is no label, or one is not among the known ones.
    """
    if not labels:
        raise ValueError(f"{place}: no label, expected at least one; fetch the file again or complete the line")
    for label in labels:
        if label not in known:
            raise ValueError(
                f"{place}: unknown label {label!r}, expected some of the corpus' {len(known)} labels; correct the "
                "line or fetch the file again"
            )


def check_text(text: str, place: str) -> None:
    """Check that a document has a text; `place` is its file and line, for the error.

    Raises:
        ValueError: If the text is empty or white space.
    """
    if not text.strip():
        raise ValueError(
            f"{place}: the text is empty; the published corpus has no empty text, so fetch the file again"
        )


def check_distinct(labels: Sequence[str], place: str) -> None:
    """Check that no label of a document appears twice, in corpora whose published files have no such case.

    Raises:
        ValueError: If a label is repeated.
    """
    for label, count in Counter(labels).items():
        if count > 1:
            raise ValueError(f"{place}: the label {label!r} appears twice; remove one of the two")


class EmptyTexts:
    """Counts documents without text, in corpora of which it is not known that they have none."""

    def __init__(self) -> None:
        self._places: list[str] = []

    def note(self, text: str, place: str) -> None:
        """Take note of a document if its text is empty or white space; `place` is for the warning."""
        if not text.strip():
            self._places.append(place)

    def report(self) -> None:
        """Log one warning, with the number of documents and the first place, if any has no text."""
        if self._places:
            logger.warning(
                "%d document(s) have no text (first: %s); leave them out of training",
                len(self._places),
                self._places[0],
            )


class RepeatedLabels:
    """Merges labels that appear twice in one document, in corpora whose published files have such cases."""

    def __init__(self) -> None:
        self._places: list[str] = []

    def merge(self, labels: Sequence[str], place: str) -> list[str]:
        """The labels of one document, each once, in the order of first mention; `place` is for the warning."""
        counts = Counter(labels)
        if len(counts) < len(labels):
            repeated = next(label for label, count in counts.items() if count > 1)
            self._places.append(f"{place}: label {repeated!r}")
        return list(counts)

    def report(self) -> None:
        """Log one warning, with the number of documents and the first place, if any label was dropped."""
        if self._places:
            logger.warning(
                "%d document(s) name a label twice (first: %s); the repetition is dropped, no action is needed",
                len(self._places),
                self._places[0],
            )
