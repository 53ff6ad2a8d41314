"""Comparison of two systems from their prediction files: paired bootstrap over documents and over runs.

How a difference is measured (Efron and Tibshirani 1993, "An Introduction to the Bootstrap", chapters 13 and 16):

1. Documents are drawn with replacement, as many as there are, and the metrics of both systems are computed on the
   same drawn documents. This is repeated; the interval holds the middle 95 % of the differences (percentile method).
2. Where a system has several runs, such as seeds, its metric is the mean over its runs. Of n runs, n - 1 are drawn
   with replacement in each repetition, because drawing n makes the variance too small by the factor (n - 1) / n
   (McCarthy and Snowden 1985, "The bootstrap and finite population sampling"). The two systems' runs are drawn apart:
   the first seed of one has nothing to do with the first of the other.
3. The p-value is that of the interval: twice the share (r + 1) / (R + 1), where r of the R differences lie on the
   rarer side of 0. p-values that are reported together are corrected for their number (Holm 1979).

With one run per system the interval is about these two runs; what other seeds would give it cannot say.
"""

from array import array
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import NamedTuple

import numpy as np

from sgm_hf.data.lines import read_json_lines

# In the order in which they are reported; the names are those of `sgm_hf.metrics.compute_metrics`.
METRICS = (
    *("micro_f1", "macro_f1", "micro_precision", "micro_recall"),
    *("samples_f1", "hamming_loss", "zero_one_loss"),
)
LEVEL = 0.95
# A label set is a sorted array of cells: document << 32 | label.
_SHIFT, _MASK = 32, 2**32 - 1
# The runs that have a label of a document are the bits of a number, below those of the label.
_MOST_RUNS = 32
_EXPECTED = 'Expected the predictions of a document: {"id": …, "gold": ["…"], "labels": ["…"]}.'


@dataclass(frozen=True)
class MetricDifference:
    """A metric of two systems, and how sure its difference is.

    Args:
        metric: Name of the metric.
        a: Value of the first system, the mean over its runs.
        b: Value of the second system.
        difference: `b` - `a`.
        low: Lower end of the 95 % interval of the difference.
        high: Upper end.
        p_value: Of a difference other than 0, by itself.
        p_holm: The same, corrected for all differences that are reported together.
    """

    metric: str
    a: float
    b: float
    difference: float
    low: float
    high: float
    p_value: float
    p_holm: float


@dataclass(frozen=True)
class DocumentDifference:
    """A document on which two systems differ.

    Args:
        id: Its id in the files.
        gold: Its true labels.
        a: What the first run of the first system predicts.
        b: What the first run of the second system predicts.
        f1_a: F1 of the document, the mean over the runs of the first system.
        f1_b: The same of the second system.
    """

    id: str | int
    gold: list[str]
    a: list[str]
    b: list[str]
    f1_a: float
    f1_b: float


@dataclass(frozen=True)
class Comparison:
    """Two systems compared.

    Args:
        a: Files of the first system, one per run.
        b: Files of the second system.
        set_decoding: The field of the files that has the compared label sets.
        documents: Number of documents.
        labels: Number of labels, over which macro-F1 and Hamming loss are means.
        resamples: Number of repetitions of the bootstrap.
        seed: Its seed.
        corrected_for: Number of differences that `p_holm` is corrected for.
        metrics: A difference for each of `METRICS`.
        most_different: The documents with the largest differences of F1, largest first.
    """

    a: list[str]
    b: list[str]
    set_decoding: str
    documents: int
    labels: int
    resamples: int
    seed: int
    corrected_for: int
    metrics: list[MetricDifference]
    most_different: list[DocumentDifference]


class LabelSets(NamedTuple):
    """What a prediction file says of N documents.

    Args:
        path: The file.
        rows: Row of each document, by its id.
        gold: Cells of the true labels.
        predicted: Cells of the predicted labels.
    """

    path: str
    rows: dict[str | int, int]
    gold: np.ndarray
    predicted: np.ndarray


def compare_predictions(
    a: str | Path | Sequence[str | Path],
    b: str | Path | Sequence[str | Path],
    set_decoding: str = "labels",
    resamples: int = 2000,
    seed: int = 0,
    show: int = 10,
    num_labels: int | None = None,
) -> Comparison:
    """Compare two systems from the predictions that `sgm-hf train` and its like write.

    Args:
        a: Prediction file of the first system with gold labels, or one file per run.
        b: The same of the second system, over the same documents in any order.
        set_decoding: Which label sets to compare: "labels", those that the run chose, or one of its set decodings.
        resamples: Repetitions of the bootstrap.
        seed: Seed of the draws.
        show: How many of the documents where they differ most are returned.
        num_labels: Number L of labels; default: of those that occur in the files. A label that occurs nowhere lowers
            macro-F1 and Hamming loss of both systems by the same factor.

    Raises:
        FileNotFoundError: If a file does not exist.
        ValueError: If a file has a fault, the files differ in their documents or true labels, or a number is out of
            range.
    """
    paths_a, paths_b = ([paths] if isinstance(paths, str | Path) else list(paths) for paths in (a, b))
    if not paths_a or not paths_b or len(paths_a) + len(paths_b) > _MOST_RUNS:
        raise ValueError(
            f"there are {len(paths_a)} and {len(paths_b)} prediction files; give at least one of each system, "
            f"and at most {_MOST_RUNS} in all."
        )
    if resamples < 100 or show < 0:
        raise ValueError(
            f"resamples is {resamples} and show {show}; give at least 100 resamples, and no negative number to show."
        )
    names: dict[str, int] = {}
    runs = list(aligned_runs([*paths_a, *paths_b], set_decoding, names))
    if num_labels is not None and num_labels < len(names):
        raise ValueError(f"num_labels is {num_labels}, but {len(names)} labels occur in the files; give all labels.")
    counts = DocumentCounts(runs, max(num_labels or len(names), 1))
    observed = counts.metrics(np.ones(len(runs[0].rows)))  # (7, runs)
    value_a, value_b = observed[:, : len(paths_a)].mean(axis=1), observed[:, len(paths_a) :].mean(axis=1)
    differences = resampled_differences(counts, len(paths_a), resamples, seed)  # (resamples, 7)
    tail = (1 - LEVEL) / 2
    lows, highs = np.quantile(differences, [tail, 1 - tail], axis=0)
    p = p_values(differences)
    columns = (value_a, value_b, value_b - value_a, lows, highs, p, p)  # the last is corrected below
    metrics = [MetricDifference(name, *map(float, values)) for name, *values in zip(METRICS, *columns, strict=True)]
    return corrected(
        [
            Comparison(
                [str(path) for path in paths_a],
                [str(path) for path in paths_b],
                set_decoding,
                len(runs[0].rows),
                counts.num_labels,
                resamples,
                seed,
                len(metrics),
                metrics,
                most_different(runs, len(paths_a), counts.f1, list(names), show),
            )
        ]
    )[0]


def enough_resamples(num_comparisons: int) -> int:
    """Repetitions with which a clear difference can still be told when its p-value is corrected.

    The smallest p-value of R repetitions is 2 / (R + 1), and Holm multiplies it by the number of differences: of 2,000
    no difference of 8 systems to a ninth would ever be below .05.

    Args:
        num_comparisons: How many comparisons, of all `METRICS`, are corrected together.

    Examples:
        >>> enough_resamples(1), enough_resamples(20)
        (2000, 11200)
    """
    return max(2000, 80 * num_comparisons * len(METRICS))


def corrected(comparisons: Sequence[Comparison]) -> list[Comparison]:
    """The comparisons with p-values that are corrected for all their metrics together.

    Args:
        comparisons: All that are reported together, such as of several systems with the same one.
    """
    holm = iter(holm_p_values([row.p_value for comparison in comparisons for row in comparison.metrics]))
    number = sum(len(comparison.metrics) for comparison in comparisons)
    return [
        replace(
            comparison,
            corrected_for=number,
            metrics=[replace(row, p_holm=next(holm)) for row in comparison.metrics],
        )
        for comparison in comparisons
    ]


def holm_p_values(p_values: Sequence[float]) -> list[float]:
    """p-values corrected for their number (Holm 1979, "A simple sequentially rejective multiple test procedure").

    To call those below .05 differences is wrong about any of them with a probability of at most .05, however the
    p-values depend on each other.

    Examples:
        >>> [round(p, 2) for p in holm_p_values([0.01, 0.04, 0.03])]
        [0.03, 0.06, 0.06]
    """
    values = np.asarray(p_values, dtype=float)
    order = values.argsort(kind="stable")
    factors = np.arange(len(values), 0, -1)
    adjusted = np.empty_like(values)
    adjusted[order] = np.minimum(np.maximum.accumulate(values[order] * factors), 1)
    return adjusted.tolist()


def p_values(differences: np.ndarray) -> np.ndarray:
    """Two-sided p-values (columns) that the bootstrap's differences (resamples, columns) give to a true one of 0."""
    differences = differences.round(12)  # what rounding leaves of 0 has a sign
    rarer = np.minimum((differences <= 0).sum(axis=0), (differences >= 0).sum(axis=0))
    return np.minimum(2 * (rarer + 1) / (len(differences) + 1), 1)


# ---- reading ----


def aligned_runs(paths: Sequence[str | Path], set_decoding: str, names: dict[str, int]) -> Iterator[LabelSets]:
    """Read prediction files, with the documents of all in the order of the first.

    Args:
        paths: The files.
        set_decoding: Which field has the predicted labels.
        names: Number of each label; those of new labels are added.

    Raises:
        FileNotFoundError: If a file does not exist.
        ValueError: If a file has a fault, or not the documents and true labels of the first.
    """
    first: LabelSets | None = None
    for path in paths:
        run = read_label_sets(Path(path), set_decoding, names)
        if first is None:
            first = run
        elif run.rows != first.rows:
            check_same_documents(first, run)
            rows = np.array([first.rows[document] for document in run.rows])  # (N), by the row in this file
            gold, predicted = ((rows[s >> _SHIFT] << _SHIFT) | (s & _MASK) for s in (run.gold, run.predicted))
            run = LabelSets(run.path, first.rows, np.sort(gold), np.sort(predicted))
        check_same_gold(first, run, list(names))
        yield run


def read_label_sets(path: Path, set_decoding: str, names: dict[str, int]) -> LabelSets:
    """Read a prediction file: ids, true and predicted labels.

    Args:
        path: A `predictions_<split>.jsonl` with gold labels, or one like it.
        set_decoding: Which field has the predicted labels.
        names: Number of each label; those of new labels are added.

    Raises:
        FileNotFoundError: If the file does not exist.
        ValueError: If it has no documents, a line lacks a field or has something else in it, or an id is there twice.
    """
    if not path.is_file():
        raise FileNotFoundError(f"the predictions {path} do not exist; sgm-hf train and evaluate write them.")
    rows: dict[str | int, int] = {}
    gold, predicted = array("q"), array("q")
    for number, record in read_json_lines(path, expected=_EXPECTED):
        for name in ("id", "gold", set_decoding):
            if name not in record:
                raise ValueError(
                    f"{path}, line {number}: there is no field {name!r} among {', '.join(map(repr, record))}. "
                    "Give the predictions of labelled documents, as sgm-hf train writes them."
                )
        document, row = record["id"], len(rows)
        if not isinstance(document, str | int):
            raise ValueError(f"{path}, line {number}: the id is {document!r}; expected text or an integer.")
        if rows.setdefault(document, row) != row:
            raise ValueError(
                f"{path}, line {number}: the id {document!r} is there twice; expected each document once."
            )
        for name, cells in (("gold", gold), (set_decoding, predicted)):
            labels = record[name]
            if not isinstance(labels, list) or not all(isinstance(label, str) for label in labels):
                raise ValueError(f"{path}, line {number}: {name!r} is {labels!r:.80}; expected a list of label names.")
            cells.extend(row << _SHIFT | names.setdefault(label, len(names)) for label in labels)
    if not rows:
        raise ValueError(f"{path} has no documents; give the predictions of at least one.")
    return LabelSets(
        str(path), rows, *(np.unique(np.frombuffer(cells, dtype=np.int64)) for cells in (gold, predicted))
    )


def check_same_documents(first: LabelSets, other: LabelSets) -> None:
    """Raise ValueError unless two files have the same ids."""
    for one, two in ((first, other), (other, first)):
        missing = [document for document in one.rows if document not in two.rows]
        if missing:
            raise ValueError(
                f"{two.path} lacks {len(missing):,} of the {len(one.rows):,} documents of {one.path}, such as "
                f"{missing[0]!r}: only predictions of the same documents can be compared."
            )


def check_same_gold(first: LabelSets, other: LabelSets, names: Sequence[str]) -> None:
    """Raise ValueError unless two files, aligned, have the same true labels."""
    differing = np.setxor1d(first.gold, other.gold, assume_unique=True)
    if len(differing):
        row = int(differing[0]) >> _SHIFT
        document = next(document for document, place in first.rows.items() if place == row)
        one, two = (labels_of_row(sets.gold, row, names) for sets in (first, other))
        number = len(np.unique(differing >> _SHIFT))
        raise ValueError(
            f"{other.path} has other true labels than {first.path} for {number:,} documents; of {document!r} it has "
            f"{two}, not {one}. Only predictions for the same labelled documents can be compared."
        )


def labels_of_row(cells: np.ndarray, row: int, names: Sequence[str]) -> list[str]:
    """The names of the labels of a document, in the order of their numbers."""
    start, end = np.searchsorted(cells, [row << _SHIFT, (row + 1) << _SHIFT])
    return [names[label] for label in cells[start:end] & _MASK]


# ---- resampling ----


class DocumentCounts:
    """What the metrics of weighted documents are computed from, for M runs at once.

    A *cell* is a document and a label that is true or predicted by a run. All that matters of it is its *kind*: its
    label, whether it is true, and which runs predict it. There are few kinds, so the weights of the documents are
    summed by kind, and all counts come from these sums; macro-F1 needs them for each label.

    Args:
        runs: The runs, aligned.
        num_labels: Number of labels.
    """

    def __init__(self, runs: Sequence[LabelSets], num_labels: int):
        self.num_documents, self.num_labels = len(runs[0].rows), num_labels
        sets = [runs[0].gold, *(run.predicted for run in runs)]
        cells = np.unique(np.concatenate(sets))  # (C)
        bits = np.zeros(len(cells), dtype=np.int64)  # (C), bit 0: is true; bit m: run m predicts it
        for number, own in enumerate(sets):
            bits[np.searchsorted(cells, own)] |= 1 << number
        labels, documents = cells & _MASK, cells >> _SHIFT
        kinds, self.kind_of_cell = np.unique(labels << len(sets) | bits, return_inverse=True)  # (K), (C)
        member = (kinds[:, None] >> np.arange(len(sets)) & 1).astype(float)  # (K, 1 + M)
        relevant, predicted = member[:, :1], member[:, 1:]
        self.columns = np.hstack([relevant, predicted, relevant * predicted])  # (K, 1 + 2M)
        # A kind's label is in its high bits, so the kinds of a label are neighbors.
        self.starts = np.flatnonzero(np.diff(kinds >> len(sets), prepend=-1))  # (labels that occur)
        self.cells_of_document = np.bincount(documents, minlength=self.num_documents)  # (N)

        sizes = np.column_stack(
            [
                np.bincount(documents, weights=self.columns[self.kind_of_cell, column], minlength=self.num_documents)
                for column in range(self.columns.shape[1])
            ]
        )  # (N, 1 + 2M)
        relevant, predicted, hits = self.split(sizes)  # (N, 1), (N, M), (N, M)
        self.wrong = (predicted + relevant > 2 * hits).astype(float)  # (N, M)
        self.f1 = ratio(2 * hits, predicted + relevant, where_empty=1.0)  # (N, M)

    def split(self, counts: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """True labels (…, 1), predicted labels (…, M) and hits (…, M) of columns of counts (…, 1 + 2M)."""
        num_runs = counts.shape[-1] // 2
        return counts[..., :1], counts[..., 1 : 1 + num_runs], counts[..., 1 + num_runs :]

    def metrics(self, weights: np.ndarray) -> np.ndarray:
        """`METRICS` (7, M) of each run on documents that are there as often as their weights (N) say."""
        of_cells = np.repeat(weights, self.cells_of_document)  # (C)
        of_kinds = np.bincount(self.kind_of_cell, weights=of_cells, minlength=len(self.columns))  # (K)
        per_label = np.add.reduceat(of_kinds[:, None] * self.columns, self.starts)  # (labels that occur, 1 + 2M)
        relevant, predicted, hits = self.split(per_label)
        macro_f1 = ratio(2 * hits, predicted + relevant).sum(axis=0) / self.num_labels
        relevant, predicted, hits = self.split(per_label.sum(axis=0))
        total = weights.sum()
        by_name = {
            "micro_f1": ratio(2 * hits, predicted + relevant),
            "macro_f1": macro_f1,
            "micro_precision": ratio(hits, predicted),
            "micro_recall": ratio(hits, np.broadcast_to(relevant, hits.shape)),
            "samples_f1": weights @ self.f1 / total,
            "hamming_loss": (predicted + relevant - 2 * hits) / (total * self.num_labels),
            "zero_one_loss": weights @ self.wrong / total,
        }
        return np.array([by_name[name] for name in METRICS])


def ratio(numerator: np.ndarray, denominator: np.ndarray, where_empty: float = 0.0) -> np.ndarray:
    """Divide elementwise, with a given value where the denominator is 0."""
    return np.divide(numerator, denominator, out=np.full(denominator.shape, where_empty), where=denominator > 0)


def resampled_differences(counts: DocumentCounts, num_a: int, resamples: int, seed: int) -> np.ndarray:
    """Differences of the metrics (resamples, 7), second system minus first, on drawn documents and runs.

    Args:
        counts: Of all runs.
        num_a: How many runs, the first ones, are of the first system.
        resamples: Number of draws.
        seed: Seed of the draws.
    """
    generator = np.random.default_rng(seed)
    size, num_b = counts.num_documents, counts.f1.shape[1] - num_a
    differences = np.empty((resamples, len(METRICS)))
    for draw in range(resamples):
        weights = np.bincount(generator.integers(size, size=size), minlength=size)  # (N)
        of_a, of_b = drawn_shares(generator, num_a), drawn_shares(generator, num_b)
        metrics = counts.metrics(weights)  # (7, M)
        differences[draw] = metrics[:, num_a:] @ of_b - metrics[:, :num_a] @ of_a
    return differences


def drawn_shares(generator: np.random.Generator, num_runs: int) -> np.ndarray:
    """The share of each run (num_runs) in a mean over drawn runs: one fewer than there are, with replacement."""
    if num_runs == 1:
        return np.ones(1)
    drawn = generator.integers(num_runs, size=num_runs - 1)
    return np.bincount(drawn, minlength=num_runs) / (num_runs - 1)


def most_different(
    runs: Sequence[LabelSets], num_a: int, f1: np.ndarray, names: Sequence[str], count: int
) -> list[DocumentDifference]:
    """The documents whose F1 differs most, and of equals those with more labels that only one of the systems has.

    Args:
        runs: The runs, aligned.
        num_a: How many runs, the first ones, are of the first system.
        f1: F1 of each document in each run (N, M).
        names: Names of the labels.
        count: How many documents.
    """
    f1_a, f1_b = f1[:, :num_a].mean(axis=1), f1[:, num_a:].mean(axis=1)  # (N)
    only_one = np.setxor1d(runs[0].predicted, runs[num_a].predicted, assume_unique=True)
    num_only_one = np.bincount(only_one >> _SHIFT, minlength=len(f1))
    order = np.lexsort((-num_only_one, -np.abs(f1_b - f1_a)))[:count]
    ids = list(runs[0].rows)
    compared = (runs[0].gold, runs[0].predicted, runs[num_a].predicted)
    found = []
    for row in order.tolist():
        if f1_a[row] != f1_b[row] or num_only_one[row]:
            gold, a, b = (labels_of_row(cells, row, names) for cells in compared)
            found.append(DocumentDifference(ids[row], gold, a, b, float(f1_a[row]), float(f1_b[row])))
    return found
