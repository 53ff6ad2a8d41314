"""Linear classifiers over sparse features, one per label: what scikit-learn's `LinearSVC` fits.

Squared hinge loss with an L2 penalty by a truncated Newton method. The result has the same bits with any number of
threads.

Shapes: N documents, F features (the last one is 1 in every document, its weight the intercept), C labels.
"""

from collections.abc import Callable, Iterable, Iterator

import torch
from torch.nn import functional

# Newton's method ends at this share of the gradient that a label's rarer side has at the start.
GRADIENT_LIMIT = 0.003
MOST_NEWTON_STEPS = 20
# Conjugate gradients end when this share of the gradient is left.
RESIDUAL_LIMIT = 0.1
MOST_CG_STEPS = 50
# Share of the Hessian's diagonal in the preconditioner, the rest is 1 (Hsia et al. 2018, "Preconditioned conjugate
# gradient methods in truncated Newton frameworks for large-scale linear classification", §4.3).
PRECONDITIONER = 0.02
_LINE_SEARCH_STEPS = 5
# Numbers in each of the fifteen or so matrices of N or F times C.
_BLOCK = 2**25
_MOST_LABELS_AT_ONCE = 128
_ROWS_AT_ONCE = 10_000


class SparseMatrix:
    """The features of all documents by rows and by columns, (N, F).

    Args:
        blocks: Document (ascending, counted within the block), feature, value, and the number of documents.
        num_features: F without the feature that is 1 in every document, which is added.
    """

    def __init__(
        self, blocks: Iterable[tuple[torch.Tensor, torch.Tensor, torch.Tensor, int]], num_features: int
    ) -> None:
        self.num_features = num_features + 1
        starts, all_features, all_values, first = [torch.zeros(1, dtype=torch.int64)], [], [], 0
        for documents, features, values, count in blocks:
            documents, order = torch.cat([documents, torch.arange(count)]).sort(stable=True)
            all_features.append(functional.pad(features.int(), (0, count), value=num_features)[order])
            all_values.append(functional.pad(values, (0, count), value=1.0)[order])
            starts.append(torch.bincount(documents, minlength=count).cumsum(0) + first)
            first += len(documents)
        self.row_starts = torch.cat(starts).int()  # (N + 1)
        self.row_features, self.row_values = torch.cat(all_features), torch.cat(all_values)
        self._transpose()

    @property
    def num_documents(self) -> int:
        """N."""
        return len(self.row_starts) - 1

    def _transpose(self) -> None:
        """Order the values by columns, some rows at a time: to sort all at once takes several times their memory."""
        counts = torch.bincount(self.row_features, minlength=self.num_features)
        self.column_starts = functional.pad(counts.cumsum(0), (1, 0)).int()  # (F + 1)
        self.column_documents = torch.empty_like(self.row_features)
        self.column_values = torch.empty_like(self.row_values)
        free = self.column_starts[:-1].long()  # the next place of each column
        for first in range(0, self.num_documents, _ROWS_AT_ONCE):
            starts = self.row_starts[first : first + _ROWS_AT_ONCE + 1].long()
            part = slice(int(starts[0]), int(starts[-1]))
            features, order = self.row_features[part].long().sort(stable=True)
            documents = torch.repeat_interleave(torch.arange(first, first + len(starts) - 1), starts.diff())
            counts = torch.bincount(features, minlength=self.num_features)
            places = (free - counts.cumsum(0) + counts)[features] + torch.arange(len(features))
            self.column_documents[places] = documents[order].int()
            self.column_values[places] = self.row_values[part][order]
            free += counts

    def times(self, weight: torch.Tensor) -> torch.Tensor:
        """Scores (N, C) of weights (F, C)."""
        return _weighted_sums(self.row_starts, self.row_features, self.row_values, weight)

    def transposed_times(self, numbers: torch.Tensor) -> torch.Tensor:
        """Sums of numbers of each document (N, C) over the documents of each feature, (F, C)."""
        return _weighted_sums(self.column_starts, self.column_documents, self.column_values, numbers)

    def squared_transposed_times(self, numbers: torch.Tensor) -> torch.Tensor:
        """The same with the squares of the features' values."""
        return _weighted_sums(self.column_starts, self.column_documents, self.column_values.square(), numbers)


def _weighted_sums(
    starts: torch.Tensor, indices: torch.Tensor, values: torch.Tensor, table: torch.Tensor
) -> torch.Tensor:
    """Sparse times dense. As bags several times as fast as `torch.sparse`, and each is summed by one thread."""
    return functional.embedding_bag(indices, table, starts[:-1], mode="sum", per_sample_weights=values)


def fit_linear(
    matrix: SparseMatrix,
    sides: Callable[[torch.Tensor], torch.Tensor],
    counts: torch.Tensor,
    used: torch.Tensor,
    cost: float,
) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
    """Fit a classifier for each label: the minimum of |w|² / 2 + cost * Σ max(0, 1 - y x w)² over documents.

    Labels of similar frequency, which take similarly many steps, are fitted together.

    Args:
        matrix: x, (N, F).
        sides: Returns y of some labels, 1 or -1, (N, C).
        counts: Of the documents used those of each label, (L).
        used: Which documents to fit to, (N) bool.
        cost: C of `LinearSVC`.

    Yields:
        Some labels, (C), and their weights, (F, C), until all labels were fitted.
    """
    largest = max(1, min(_MOST_LABELS_AT_ONCE, _BLOCK // max(matrix.num_documents, matrix.num_features)))
    for labels in counts.argsort(descending=True, stable=True).split(largest):
        yield labels, _fit_block(matrix, sides(labels), used.float()[:, None], cost)


def _fit_block(matrix: SparseMatrix, sides: torch.Tensor, used: torch.Tensor, cost: float) -> torch.Tensor:
    """Newton's method on the documents within the margin, of which the loss is a square (Keerthi and DeCoste 2005, "A
    modified finite Newton method for fast solution of large scale linear SVMs", §3); labels leave once converged.
    """
    positive, negative = ((sides * used == side).sum(0) for side in (1, -1))
    weights = torch.zeros(matrix.num_features, sides.shape[1])
    # A label that all documents have, or none, stays as it is: without evidence the score is its side.
    weights[-1] = torch.where(negative == 0, 1.0, -1.0)
    columns = ((positive > 0) & (negative > 0)).nonzero().squeeze(1)  # of the labels that have not converged
    sides, weight = sides[:, columns], weights[:, columns]
    rarer = torch.where((positive < negative)[columns], 1.0, -1.0) == sides
    first_gradient = 2 * cost * matrix.transposed_times(torch.where(rarer, sides, 0) * used)
    limits = GRADIENT_LIMIT * first_gradient.square().sum(0).sqrt()
    for step in range(MOST_NEWTON_STEPS):
        scores = matrix.times(weight)
        # From a start where most documents lie on the margin itself, the first step goes by all.
        within = ((sides * scores < 1) | (step == 0)) * used
        gradient = weight + 2 * cost * matrix.transposed_times(within * (scores - sides))
        live = gradient.square().sum(0).sqrt() > limits
        if step and not live.all():
            weights[:, columns[~live]] = weight[:, ~live]
            columns, limits = columns[live], limits[live]
            sides, weight, scores, within, gradient = (x[:, live] for x in (sides, weight, scores, within, gradient))
        if not len(columns):
            return weights
        direction, change = _newton_direction(matrix, within, gradient, cost)
        weight = weight + direction * _step_length(weight, direction, scores, change, sides, used, cost)
    weights[:, columns] = weight
    return weights


def _newton_direction(
    matrix: SparseMatrix, within: torch.Tensor, gradient: torch.Tensor, cost: float
) -> tuple[torch.Tensor, torch.Tensor]:
    """Solve (I + 2 cost xᵀ D x) d = -gradient by preconditioned conjugate gradients; returns d and x d."""
    diagonal = 1 + 2 * cost * matrix.squared_transposed_times(within)
    preconditioner = PRECONDITIONER * diagonal + (1 - PRECONDITIONER)
    direction, change = torch.zeros_like(gradient), torch.zeros_like(within)
    residual = -gradient
    towards = residual / preconditioner
    product = (residual * towards).sum(0)
    limits = RESIDUAL_LIMIT**2 * product
    for _ in range(MOST_CG_STEPS):
        # A label whose residual is small enough stands still while the others go on.
        moves = product > limits
        if not moves.any():
            break
        towards_scores = matrix.times(towards)
        curved = towards + 2 * cost * matrix.transposed_times(within * towards_scores)
        step = torch.where(moves, product / (towards * curved).sum(0), 0)
        direction += step * towards
        change += step * towards_scores
        residual -= step * curved
        conditioned = residual / preconditioner
        new_product = (residual * conditioned).sum(0)
        towards = conditioned + torch.where(moves, new_product / product, 0) * towards
        product = torch.where(moves, new_product, product)
    return direction, change


def _step_length(
    weight: torch.Tensor,
    direction: torch.Tensor,
    scores: torch.Tensor,
    change: torch.Tensor,
    sides: torch.Tensor,
    used: torch.Tensor,
    cost: float,
) -> torch.Tensor:
    """The minimum along the direction, where the slope of the piecewise square objective is 0; (C)."""
    length, lowest = weight.new_ones(weight.shape[1]), weight.new_zeros(weight.shape[1])
    highest = torch.full_like(length, torch.inf)
    inner, square = (weight * direction).sum(0), direction.square().sum(0)
    for _ in range(_LINE_SEARCH_STEPS):
        there = scores + length * change
        within = (sides * there < 1) * used
        slope = inner + length * square + 2 * cost * (within * (there - sides) * change).sum(0)
        curvature = square + 2 * cost * (within * change.square()).sum(0)
        lowest = torch.where(slope < 0, length, lowest)
        highest = torch.where(slope < 0, highest, length)
        length = length - slope / curvature
        # Newton's step on one number; by halves where it leaves the interval that holds the minimum.
        outside = (length < lowest) | (length > highest)
        length = torch.where(outside, (lowest + highest) / 2, length)
    return length
