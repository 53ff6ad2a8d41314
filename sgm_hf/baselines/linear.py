"""Linear classifiers on TF-IDF, and how the papers make multi-label classifiers of them.

1. Binary relevance (BR, Boutell et al. 2004, "Learning multi-label scene classification"): a classifier per label.
2. Label powerset (LP, Tsoumakas and Katakis 2007, "Multi-label classification: an overview"): a class per label set.
3. Classifier chain (CC, Read et al. 2011, "Classifier chains for multi-label classification"): a classifier per label
   that sees the labels before; with probabilities and a search (PCC), or several chains that vote (ECC).

The single classifiers are scikit-learn's `LinearSVC` and `LogisticRegression`, by liblinear; what they learned is kept
as arrays, so predicting is a product of matrices. The margin of a linear SVM becomes a score by the logistic function:
the order of the scores is that of the margins, but they are no probabilities.

Shapes: N documents, F features, L labels, S label sets, C chains, B hypotheses of a beam.
"""

import logging
import warnings
from abc import abstractmethod
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from safetensors.numpy import load_file, save_file
from scipy import sparse
from sklearn.base import ClassifierMixin
from sklearn.exceptions import ConvergenceWarning
from sklearn.linear_model import LogisticRegression
from sklearn.svm import LinearSVC

from sgm_hf.baselines.base import Documents
from sgm_hf.baselines.features import TfidfBaseline
from sgm_hf.training.calibration import probabilities
from sgm_hf.training.progress import shown_progress

logger = logging.getLogger(__name__)

WEIGHTS_FILE = "weights.safetensors"
# Margin of a label that all training documents have; of one that none has, minus this.
CERTAIN = 30.0


class Linear(NamedTuple):
    """K linear classifiers.

    Args:
        weights: (F, K).
        bias: (K).
    """

    weights: np.ndarray
    bias: np.ndarray

    def margins(self, matrix: sparse.csr_matrix) -> np.ndarray:
        """The `decision_function` of each for features (N, F), (N, K)."""
        return matrix @ self.weights + self.bias


class Chain(NamedTuple):
    """L linear classifiers, each of which sees the labels before it.

    Args:
        weights: Of the features, (F, L).
        links: Weight of the label of the row in the classifier of the label of the column, (L, L).
        bias: (L).
        order: Labels in the order of the chain, (L) int64.
    """

    weights: np.ndarray
    links: np.ndarray
    bias: np.ndarray
    order: np.ndarray


# ---- fitting and following ----


def fit_columns(
    new: Callable[[], ClassifierMixin],
    truth: np.ndarray,
    features_of: Callable[[int], sparse.csr_matrix],
    columns: Sequence[int],
) -> Iterator[tuple[int, np.ndarray, float]]:
    """Fit a binary classifier for each column of a matrix, with progress.

    A column that is true, or false, of all documents gets no weights and a bias of ±CERTAIN.

    Args:
        new: Makes a classifier with `coef_` and `intercept_`.
        truth: (N, K) bool.
        features_of: The features for the classifier of a column, (N, F).
        columns: Those to fit, in this order.

    Yields:
        Column, weights (F) and bias.
    """
    unfinished = 0
    with shown_progress(len(columns), "Fitting", unit="classifiers") as progress:
        for column in columns:
            matrix, side = features_of(column), truth[:, column]
            if side.all() or not side.any():
                yield column, np.zeros(matrix.shape[1]), CERTAIN if side.all() else -CERTAIN
            else:
                with warnings.catch_warnings(record=True) as caught:
                    warnings.simplefilter("always", ConvergenceWarning)
                    fitted: Any = new().fit(matrix, side)
                unfinished += any(issubclass(warning.category, ConvergenceWarning) for warning in caught)
                yield column, fitted.coef_[0], float(fitted.intercept_[0])
            progress.update(1)
    if unfinished:
        logger.warning("%d of %d classifiers stopped before they had converged", unfinished, len(columns))


def fit_linear(new: Callable[[], ClassifierMixin], matrix: sparse.csr_matrix, truth: np.ndarray) -> Linear:
    """A classifier for each column of a matrix (N, K), all with the same features (N, F)."""
    num_columns = truth.shape[1]
    model = Linear(np.zeros((matrix.shape[1], num_columns)), np.zeros(num_columns))
    for column, weights, bias in fit_columns(new, truth, lambda column: matrix, range(num_columns)):
        model.weights[:, column], model.bias[column] = weights, bias
    return model


def fit_chain(
    new: Callable[[], ClassifierMixin], matrix: sparse.csr_matrix, truth: np.ndarray, order: np.ndarray
) -> Chain:
    """A classifier for each label that has the true labels before it in the order as features of 0 and 1."""
    num_features, num_labels = matrix.shape[1], truth.shape[1]
    place_of = np.argsort(order)
    labels = sparse.csr_matrix(truth[:, order], dtype=np.float64)  # (N, L), in the order of the chain

    def augmented(label: int) -> sparse.csr_matrix:
        return sparse.hstack([matrix, labels[:, : place_of[label]]], format="csr")

    chain = Chain(
        np.zeros((num_features, num_labels)), np.zeros((num_labels, num_labels)), np.zeros(num_labels), order
    )
    for label, weights, bias in fit_columns(new, truth, augmented, order.tolist()):
        chain.weights[:, label], chain.bias[label] = weights[:num_features], bias
        chain.links[order[: place_of[label]], label] = weights[num_features:]
    return chain


def frequency_order(truth: np.ndarray) -> np.ndarray:
    """The labels by their number of documents, the most frequent first, of equal ones the lower id."""
    return np.argsort(-truth.sum(axis=0), kind="stable")


def follow_chain(chain: Chain, matrix: sparse.csr_matrix) -> np.ndarray:
    """The margin of each label after the labels that the chain has chosen before it, those above 0; (N, L)."""
    margins = matrix @ chain.weights  # (N, L)
    for label in chain.order:
        margins[:, label] += chain.bias[label]
        margins += np.outer(margins[:, label] > 0, chain.links[label])
    return margins


def beam_paths(chain: Chain, matrix: sparse.csr_matrix, width: int) -> tuple[np.ndarray, np.ndarray]:
    """The most probable label sets that beam search along a chain finds, best first.

    Kumar et al. 2013, "Beam search algorithms for multilabel learning".

    Args:
        chain: Of logistic regressions.
        matrix: Features, (N, F).
        width: Most hypotheses kept, B.

    Returns:
        Whether each set has each label, (N, B, L) bool, and the logarithm of its probability, (N, B).
    """
    margins = (matrix @ chain.weights)[:, None, :]  # (N, 1, L), of features and the labels chosen so far
    chosen = np.zeros(margins.shape, dtype=bool)
    log_probs = np.zeros(margins.shape[:2])  # (N, 1)
    for label in chain.order:
        margin = margins[:, :, label] + chain.bias[label]  # (N, b)
        with_label, without = log_probs - np.logaddexp(0, -margin), log_probs - np.logaddexp(0, margin)
        candidates = np.concatenate([without, with_label], axis=1)  # (N, 2 b)
        kept = np.argsort(-candidates, axis=1, kind="stable")[:, :width]
        takes, parents = kept >= margin.shape[1], kept % margin.shape[1]
        log_probs = np.take_along_axis(candidates, kept, axis=1)
        chosen = np.take_along_axis(chosen, parents[:, :, None], axis=1)
        chosen[:, :, label] = takes
        margins = np.take_along_axis(margins, parents[:, :, None], axis=1) + takes[:, :, None] * chain.links[label]
    return chosen, log_probs


# ---- baselines ----


class LinearBaseline(TfidfBaseline):
    """A baseline of linear classifiers on TF-IDF features, whose weights are arrays."""

    @abstractmethod
    def new_classifier(self) -> ClassifierMixin:
        """One of scikit-learn's classifiers with these settings."""

    @abstractmethod
    def tensors(self) -> dict[str, np.ndarray]:
        """What was learned, by name."""

    @abstractmethod
    def set_tensors(self, tensors: dict[str, np.ndarray]) -> None:
        """Take over what `tensors` gave."""

    def save_weights(self, folder: Path) -> None:
        """Write the features, and the weights to `weights.safetensors`."""
        self.features.save(folder)
        save_file({name: np.ascontiguousarray(t) for name, t in self.tensors().items()}, folder / WEIGHTS_FILE)

    def load_weights(self, folder: Path) -> None:
        """Read what `save_weights` has written."""
        self.features.load(folder)
        self.set_tensors(load_file(folder / WEIGHTS_FILE))


class SVMClassifiers(LinearBaseline):
    """Linear SVMs as single classifiers: squared hinge loss and L2 penalty."""

    def new_classifier(self) -> LinearSVC:
        """scikit-learn's `LinearSVC`."""
        return LinearSVC(C=self.cost, random_state=self.seed)


class LogisticClassifiers(LinearBaseline):
    """Logistic regressions as single classifiers, with an L2 penalty."""

    def new_classifier(self) -> LogisticRegression:
        """scikit-learn's `LogisticRegression` by liblinear, as the SVMs are."""
        return LogisticRegression(C=self.cost, solver="liblinear", random_state=self.seed)


class BinaryRelevance(LinearBaseline):
    """A classifier for each label: scikit-learn's `OneVsRestClassifier`."""

    model: Linear

    def fit_matrix(self, matrix: sparse.csr_matrix, truth: np.ndarray) -> None:
        """Fit one classifier after the other."""
        self.model = fit_linear(self.new_classifier, matrix, truth)

    def decide(self, matrix: sparse.csr_matrix) -> tuple[np.ndarray, np.ndarray]:
        """The logistic function of the margins, and the labels with a margin above 0."""
        margins = self.model.margins(matrix)  # (N, L)
        return probabilities(margins), margins > 0

    def cells_per_document(self) -> int:
        """Margins."""
        return self.num_labels

    def tensors(self) -> dict[str, np.ndarray]:
        """Weights and bias."""
        return self.model._asdict()

    def set_tensors(self, tensors: dict[str, np.ndarray]) -> None:
        """Take over weights and bias."""
        self.model = Linear(**tensors)


class BinaryRelevanceSVM(SVMClassifiers, BinaryRelevance):
    """Binary relevance with linear SVMs."""

    name = "br_svm"
    grid = {"bigram_weight": (0.0, 0.5, 1.0), "min_df": (1, 3), "cost": (0.1, 0.3, 1.0, 2.0, 4.0)}


class BinaryRelevanceLogistic(LogisticClassifiers, BinaryRelevance):
    """Binary relevance with logistic regressions."""

    name = "br_logistic"
    grid = {"bigram_weight": (0.0, 0.5), "min_df": (3,), "cost": (3.0, 10.0, 30.0, 100.0, 300.0)}


class ChainBaseline(LinearBaseline):
    """One chain of classifiers in the order of the labels' frequency, the most frequent first."""

    chain: Chain

    def fit_matrix(self, matrix: sparse.csr_matrix, truth: np.ndarray) -> None:
        """Fit one classifier after the other, with the true labels before it."""
        self.chain = fit_chain(self.new_classifier, matrix, truth, frequency_order(truth))

    def tensors(self) -> dict[str, np.ndarray]:
        """Those of the chain."""
        return self.chain._asdict()

    def set_tensors(self, tensors: dict[str, np.ndarray]) -> None:
        """Take over those of a chain."""
        self.chain = Chain(**tensors)


class ClassifierChain(SVMClassifiers, ChainBaseline):
    """A chain of linear SVMs, of which each sees what those before it have decided: scikit-learn's `ClassifierChain`.

    The score of a label is that along the chain's own path.
    """

    name = "cc"
    grid = {"bigram_weight": (0.0, 0.5), "min_df": (3,), "cost": (0.1, 0.3, 1.0, 2.0, 4.0)}

    def decide(self, matrix: sparse.csr_matrix) -> tuple[np.ndarray, np.ndarray]:
        """The logistic function of the margins along the path, and the path."""
        margins = follow_chain(self.chain, matrix)
        return probabilities(margins), margins > 0

    def cells_per_document(self) -> int:
        """Margins, and what a label adds to them."""
        return 2 * self.num_labels


@dataclass(eq=False, kw_only=True)
class ProbabilisticClassifierChain(LogisticClassifiers, ChainBaseline):
    """A chain of logistic regressions and a beam search for the most probable label set.

    Dembczyński et al. 2010, "Bayes optimal multilabel classification via probabilistic classifier chains", with the
    inference of Kumar et al. 2013. The score of a label is the share of the probability of the sets found that is of
    sets with the label.

    Args:
        beam_width: Label sets that the search keeps, B.
        cost: As of the other linear baselines, like those that follow.
    """

    name = "pcc"
    grid = {"bigram_weight": (0.0, 0.5), "min_df": (3,), "cost": (3.0, 10.0, 30.0, 100.0, 300.0)}

    cost: float = 10.0
    beam_width: int = 10

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.beam_width < 1:
            raise ValueError(f"beam_width is {self.beam_width}; it must be at least 1.")

    def decide(self, matrix: sparse.csr_matrix) -> tuple[np.ndarray, np.ndarray]:
        """The marginals of the sets found, and the most probable of these."""
        chosen, log_probs = beam_paths(self.chain, matrix, self.beam_width)
        share = np.exp(log_probs - log_probs[:, :1])  # (N, B), of the best, so that none underflows
        share /= share.sum(axis=1, keepdims=True)
        scores = np.einsum("nb,nbl->nl", share, chosen).clip(0, 1)  # a sum of shares may round to above 1
        return scores, chosen[:, 0]

    def cells_per_document(self) -> int:
        """Margins of each hypothesis and its candidates."""
        return 3 * self.beam_width * self.num_labels


@dataclass(eq=False, kw_only=True)
class EnsembleOfChains(SVMClassifiers):
    """Chains of linear SVMs in random orders that vote (Read et al. 2011, section 4).

    The score of a label is the share of the chains that choose it. All chains see all documents: their orders differ.

    Args:
        num_chains: C.
        seed: Of the orders too.
        cost: As of the other linear baselines, like those that follow.
    """

    name = "ecc"
    grid = {"bigram_weight": (0.0, 0.5), "min_df": (3,), "cost": (0.3, 1.0, 2.0)}

    num_chains: int = 10
    chains: list[Chain] = field(init=False, repr=False)

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.num_chains < 1:
            raise ValueError(f"num_chains is {self.num_chains}; it must be at least 1.")

    def num_columns(self, truth: np.ndarray) -> int:
        """A weight for each label of each chain."""
        return truth.shape[1] * self.num_chains

    def fit_matrix(self, matrix: sparse.csr_matrix, truth: np.ndarray) -> None:
        """Fit one chain after the other."""
        generator = np.random.default_rng(self.seed)
        orders = [generator.permutation(truth.shape[1]) for _ in range(self.num_chains)]
        self.chains = [fit_chain(self.new_classifier, matrix, truth, order) for order in orders]

    def decide(self, matrix: sparse.csr_matrix) -> tuple[np.ndarray, np.ndarray]:
        """The share of the votes, and the labels that at least half of the chains choose."""
        votes = np.zeros((matrix.shape[0], self.num_labels))
        for chain in self.chains:
            votes += follow_chain(chain, matrix) > 0
        return votes / self.num_chains, 2 * votes >= self.num_chains

    def cells_per_document(self) -> int:
        """Margins, votes, and what a label adds to them."""
        return 3 * self.num_labels

    def tensors(self) -> dict[str, np.ndarray]:
        """Those of each chain, by its number."""
        return {f"{i}.{name}": t for i, chain in enumerate(self.chains) for name, t in chain._asdict().items()}

    def set_tensors(self, tensors: dict[str, np.ndarray]) -> None:
        """Take over those of all chains."""
        self.chains = [
            Chain(**{name: tensors[f"{i}.{name}"] for name in Chain._fields}) for i in range(self.num_chains)
        ]


@dataclass(eq=False, kw_only=True)
class LabelPowerset(SVMClassifiers):
    """A class for each label set of the training documents, and a linear SVM for each class against the rest.

    It never predicts a set that no training document has: a document of another set gets the seen one that fits best,
    so its set is never right, its labels may be. The score of a label is the logistic function of the margin of the
    best set with it less that of the best without it: at least 0.5 in the set predicted, at most that outside of it.

    Args:
        min_documents: Training documents that a set must have to be a class; those of rarer sets are left out (the
            pruning of Read et al. 2008, "Multi-label classification using ensembles of pruned sets").
        cost: As of the other linear baselines, like those that follow.
    """

    name = "lp"
    grid = {"bigram_weight": (0.0, 0.5), "min_df": (3,), "cost": (0.3, 1.0, 2.0)}

    min_documents: int = 1
    model: Linear = field(init=False, repr=False)
    sets: np.ndarray = field(init=False, repr=False)  # (S, L) bool

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.min_documents < 1:
            raise ValueError(f"min_documents is {self.min_documents}; a set has at least 1.")

    def fit_documents(self, train: Documents, validation: Documents | None) -> None:
        """Learn from the training documents; says how many validation documents have a set that is no class."""
        super().fit_documents(train, validation)
        if validation is not None:
            known = {row.tobytes() for row in self.sets}
            unseen = sum(row.tobytes() not in known for row in np.ascontiguousarray(validation.references))
            logger.info(
                "%s label sets are classes; %s of %s validation documents have another set, which is never predicted",
                *(f"{count:,}" for count in (len(self.sets), unseen, len(validation.references))),
            )

    def num_columns(self, truth: np.ndarray) -> int:
        """A weight for each set."""
        return len(self._classes(truth)[0])

    def _classes(self, truth: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """The sets that are classes, (S, L) bool, and the class of each document, -1 for none, (N)."""
        packed, class_of, counts = np.unique(
            np.packbits(truth, axis=1), axis=0, return_inverse=True, return_counts=True
        )
        kept = counts >= self.min_documents
        if not kept.any():
            raise ValueError(
                f"min_documents is {self.min_documents}, but no label set has more than {counts.max()} documents."
            )
        new_number = np.where(kept, np.cumsum(kept) - 1, -1)
        sets = np.unpackbits(packed[kept], axis=1, count=truth.shape[1]).astype(bool)
        return sets, new_number[class_of.reshape(-1)]

    def fit_matrix(self, matrix: sparse.csr_matrix, truth: np.ndarray) -> None:
        """Fit one class after the other."""
        self.sets, class_of = self._classes(truth)
        used = np.flatnonzero(class_of >= 0)
        matrix = matrix if len(used) == len(truth) else matrix[used]
        is_class = np.zeros((len(used), len(self.sets)), dtype=bool)
        is_class[np.arange(len(used)), class_of[used]] = True
        self.model = fit_linear(self.new_classifier, matrix, is_class)

    def decide(self, matrix: sparse.csr_matrix) -> tuple[np.ndarray, np.ndarray]:
        """By how much the best set with each label is above the best one without, and the best of all."""
        margins = self.model.margins(matrix)  # (N, S)
        difference = np.empty((len(margins), self.num_labels))
        for label in range(self.num_labels):
            has_label = self.sets[:, label]
            best_with, best_without = (
                margins[:, of_sets].max(axis=1, initial=-np.inf) for of_sets in (has_label, ~has_label)
            )
            difference[:, label] = best_with - best_without
        return probabilities(difference), self.sets[margins.argmax(axis=1)]

    def cells_per_document(self) -> int:
        """Margins and shares of the sets."""
        return 2 * len(self.sets) + self.num_labels

    def tensors(self) -> dict[str, np.ndarray]:
        """The sets, and the weights and bias of each."""
        return {**self.model._asdict(), "sets": self.sets}

    def set_tensors(self, tensors: dict[str, np.ndarray]) -> None:
        """Take over sets, weights and bias."""
        self.sets = tensors.pop("sets")
        self.model = Linear(**tensors)
