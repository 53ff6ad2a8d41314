"""What all baselines have in common: settings, documents, and a folder that they are saved to.

Shapes: N documents, L labels.
"""

import hashlib
import importlib
import inspect
import json
from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar, NamedTuple, Self

import numpy as np

from sgm_hf.baselines.decisions import Decision, sets_of_scores
from sgm_hf.training.checkpoints import write_text_atomically
from sgm_hf.training.prediction import LabelPredictions

BASELINE_FILE = "baseline.json"


class Documents(NamedTuple):
    """N documents and their true labels.

    Args:
        texts: N in number.
        references: True labels, bool, (N, L).
    """

    texts: Sequence[str]
    references: np.ndarray


class Baseline(ABC):
    """A multi-label text classifier to compare with.

    A subclass takes its settings as keywords of `__init__`, among them `seed`, each with a default, and keeps each as
    the attribute of the same name; it has the `name` of its entry of `BASELINES`, and implements `fit_documents`,
    `predict_scores`, `save_weights` and `load_weights`.

    Attributes:
        label_names: Names of the L labels; set them before `save` for `predict_labels`.
        decision: From scores to label sets, as `fit_decision` finds it; by default the system's own.
        num_labels: L, known after `fit`.
        checkpoint_folder: Where a baseline that is trained in epochs keeps its checkpoints; set it before `fit`, which
            goes on from the last one that is there. It is of one training: other settings need another folder. By
            default nothing is kept.
        reused_seconds: What `reuse` has spared `fit`.
        best_epoch: The one that `fit` has kept, of a baseline that is trained in epochs with validation documents.
        bf16: Whether it multiplies in bfloat16 on this machine.
    """

    name: ClassVar[str]
    # Settings that are tried on validation documents by default, by keyword of __init__; the last varies fastest.
    grid: ClassVar[dict[str, tuple]] = {}

    label_names: Sequence[str] | None = None
    decision: Decision = Decision()
    num_labels: int
    checkpoint_folder: str | Path | None = None
    seed: int
    reused_seconds: float = 0.0
    best_epoch: float | None = None
    bf16: bool = False

    @property
    def settings(self) -> dict[str, Any]:
        """The settings by name, as `__init__` takes them."""
        return {name: getattr(self, name) for name in setting_names(type(self))}

    @abstractmethod
    def __init__(self, *, seed: int = 0) -> None:
        """Keep the settings, each as the attribute of its name."""

    def fit(self, train: Documents, validation: Documents | None = None) -> None:
        """Learn from training documents.

        Args:
            train: The training documents.
            validation: Others, by which a baseline that is trained in epochs chooses the best of them; without them it
                keeps the last.

        Raises:
            TypeError: If references are not a boolean array.
            ValueError: If there are no training documents, or texts and references do not match.
        """
        for title, documents in {"training": train, "validation": validation}.items():
            if documents is not None:
                check_documents(documents, title)
        self.num_labels = train.references.shape[1]
        if validation is not None and validation.references.shape[1] != self.num_labels:
            raise ValueError(
                f"the training documents have {self.num_labels} labels, the validation documents "
                f"{validation.references.shape[1]}; give both a column for the same labels."
            )
        if self.label_names is not None and len(self.label_names) != self.num_labels:
            raise ValueError(
                f"there are {len(self.label_names)} label_names, but the references have {self.num_labels} columns; "
                "give one name for each."
            )
        self.fit_documents(train, validation)

    @abstractmethod
    def fit_documents(self, train: Documents, validation: Documents | None) -> None:
        """Learn from documents that are checked; `num_labels` is set."""

    def reuse(self, other: "Baseline") -> None:  # noqa: B027 (nothing to take over is the rule)
        """Take over from a baseline of other settings what both would make alike of the same documents.

        A search over settings calls it before `fit`. By default nothing is taken over.
        """

    @abstractmethod
    def predict_scores(self, texts: Sequence[str]) -> np.ndarray:
        """A score of each label for each text, float32 in [0, 1], (N, L)."""

    def scores_and_sets(self, texts: Sequence[str]) -> tuple[np.ndarray, list[list[int]]]:
        """What `predict_scores` and `predict_sets` say, in one pass; a system with sets of its own overrides it."""
        scores = self.predict_scores(texts)
        return scores, sets_of_scores(scores, 0.5)

    def predict_sets(self, texts: Sequence[str]) -> list[list[int]]:
        """The label ids that the system itself decides for; by default those of a score from 0.5 on, highest first."""
        return self.scores_and_sets(texts)[1]

    def predict(self, texts: Sequence[str]) -> LabelPredictions:
        """The label sets of each decoding, and calibrated scores; `best_sequences` are the system's own sets."""
        scores, sets = self.scores_and_sets(texts)
        scores = self.decision.calibrated(scores)
        return LabelPredictions(sets, scores, self.decision.expected_f1_sets(scores))

    def predict_labels(self, texts: Sequence[str]) -> list[list[str]]:
        """The names of the labels of each text, by the decision.

        Raises:
            ValueError: If `label_names` is not set.
        """
        if self.label_names is None:
            raise ValueError("the labels have no names; set label_names, or take the ids of predict_sets.")
        sets = self.decision.label_sets(self.predict(texts))
        return [[self.label_names[label] for label in labels] for labels in sets]

    def save(self, folder: str | Path) -> None:
        """Write all to a folder: weights, and `baseline.json` last, so that a folder that has it is complete."""
        folder = Path(folder)
        folder.mkdir(parents=True, exist_ok=True)
        (folder / BASELINE_FILE).unlink(missing_ok=True)
        self.save_weights(folder)
        record = {
            "baseline": self.name,
            "settings": self.settings,
            "num_labels": self.num_labels,
            "label_names": None if self.label_names is None else list(self.label_names),
            "decision": self.decision._asdict(),
        }
        write_text_atomically(folder / BASELINE_FILE, json.dumps(record, indent=2, ensure_ascii=False) + "\n")

    @abstractmethod
    def save_weights(self, folder: Path) -> None:
        """Write what was learned to files of a folder that exists."""

    @classmethod
    def load(cls, folder: str | Path) -> Self:
        """Read what `save` has written; `Baseline.load` finds the class by itself.

        Raises:
            FileNotFoundError: If there is no complete baseline in the folder.
            ValueError: If it is of another class, or of a name or setting that is not known here.
        """
        path = Path(folder, BASELINE_FILE)
        if not path.is_file():
            raise FileNotFoundError(f"{path} is not there; give the folder of a baseline that was saved.")
        record = json.loads(path.read_text(encoding="utf-8"))
        found = BASELINES.get(record["baseline"])
        if found is None:
            raise ValueError(f"{path} is of {record['baseline']!r}; known baselines are {', '.join(BASELINES)}.")
        if not issubclass(found, cls):
            raise ValueError(f"{path} is of a {found.__name__}, not of a {cls.__name__}; take Baseline.load.")
        unknown = sorted(set(record["settings"]) - set(setting_names(found)))
        if unknown:
            raise ValueError(f"{path} has the setting {unknown[0]!r}, which {found.__name__} does not know.")
        baseline = found(**record["settings"])
        baseline.num_labels, baseline.label_names = record["num_labels"], record["label_names"]
        baseline.decision = Decision(**record["decision"])
        baseline.load_weights(Path(folder))
        return baseline

    @abstractmethod
    def load_weights(self, folder: Path) -> None:
        """Read what `save_weights` has written; settings and `num_labels` are set."""


def setting_names(baseline_class: type[Baseline]) -> list[str]:
    """The keywords of a baseline's `__init__`."""
    return [name for name in inspect.signature(baseline_class).parameters]


def digest_texts(texts: Iterable[str]) -> "hashlib.blake2b":
    """The digest of texts in their order, to which more may be added."""
    digest = hashlib.blake2b(digest_size=16)
    for text in texts:
        encoded = text.encode("utf-8", "surrogatepass")
        digest.update(len(encoded).to_bytes(8, "little"))
        digest.update(encoded)
    return digest


def check_documents(documents: Documents, title: str) -> None:
    """Refuse documents whose texts and true labels do not match; arguments and errors as of `Baseline.fit`."""
    texts, references = documents
    if not isinstance(references, np.ndarray) or references.dtype != bool:
        kind = getattr(references, "dtype", type(references).__name__)
        raise TypeError(f"the {title} references are {kind}; expected a boolean numpy array (documents, labels).")
    if references.ndim != 2 or len(texts) != len(references) or 0 in references.shape:
        raise ValueError(
            f"there are {len(texts)} {title} texts and references of shape {references.shape}; expected (documents, "
            "labels), with at least one of each."
        )


class BaselineClasses(Mapping[str, type[Baseline]]):
    """The class of each baseline by its name; its module is imported when it is asked for.

    Args:
        places: Module below `sgm_hf.baselines` and class of each name.
    """

    def __init__(self, places: Mapping[str, tuple[str, str]]):
        self.places = places

    def __getitem__(self, name: str) -> type[Baseline]:
        """The class of a name.

        Raises:
            KeyError: If there is no baseline of that name.
            ModuleNotFoundError: If a library of the extra "baselines" is missing.
        """
        module, class_name = self.places[name]
        try:
            return getattr(importlib.import_module(f"sgm_hf.baselines.{module}"), class_name)
        except ModuleNotFoundError as error:
            if (error.name or "").startswith("sgm_hf"):
                raise
            raise ModuleNotFoundError(
                f"the baseline {name} needs {error.name}: pip install 'sgm_hf[baselines]'", name=error.name
            ) from error

    def __iter__(self) -> Iterator[str]:
        return iter(self.places)

    def __len__(self) -> int:
        return len(self.places)


BASELINES = BaselineClasses(
    {
        "br_svm": ("linear", "BinaryRelevanceSVM"),
        "br_logistic": ("linear", "BinaryRelevanceLogistic"),
        "cc": ("linear", "ClassifierChain"),
        "lp": ("linear", "LabelPowerset"),
        "pcc": ("linear", "ProbabilisticClassifierChain"),
        "ecc": ("linear", "EnsembleOfChains"),
        "plt": ("trees", "ProbabilisticLabelTree"),
        "cnn": ("neural", "CNN"),
        "cnn_rnn": ("neural", "CNNRNN"),
        "xml_cnn": ("neural", "XMLCNN"),
        "sequence_classification": ("neural", "SequenceClassification"),
    }
)
