"""Our linear classifiers are those of liblinear, on any number of threads, and see no document that is left out."""

import numpy as np
import pytest
import torch
from sklearn.svm import LinearSVC

from sgm_hf.training import linear
from sgm_hf.training.linear import SparseMatrix, fit_linear

NUM_DOCUMENTS, NUM_FEATURES, NUM_LABELS = 300, 80, 9


def make_features(seed: int = 0, count: int = NUM_DOCUMENTS) -> np.ndarray:
    """Sparse rows of length 1, some of them empty, whose features fall in frequency."""
    random = np.random.default_rng(seed)
    features = (random.random((count, NUM_FEATURES)) < 0.6 / np.sqrt(1 + np.arange(NUM_FEATURES))) * 1.0
    features *= random.uniform(0.5, 3, features.shape)
    features[::50] = 0
    return (features / np.maximum(np.linalg.norm(features, axis=1, keepdims=True), 1e-9)).astype(np.float32)


def make_sides(features: np.ndarray, seed: int = 1) -> torch.Tensor:
    """Labels that a linear rule with noise gives, from frequent to very rare; the last two all have and none."""
    random = np.random.default_rng(seed)
    scores = features @ random.normal(size=(NUM_FEATURES, NUM_LABELS)) + random.normal(0, 0.1, (1, NUM_LABELS))
    shares = np.array([0.6, 0.4, 0.3, 0.2, 0.1, 0.05, 0.01, 1.0, 0.0])
    limits = np.array([np.quantile(scores[:, i], 1 - share) for i, share in enumerate(shares)])
    sides = np.where(scores > limits, 1.0, -1.0)
    sides[:, 7], sides[:, 8] = 1.0, -1.0
    return torch.from_numpy(sides.astype(np.float32))


def make_matrix(features: np.ndarray, block: int = 70) -> SparseMatrix:
    blocks = []
    for first in range(0, len(features), block):
        part = torch.from_numpy(features[first : first + block])
        documents, columns = part.nonzero(as_tuple=True)
        blocks.append((documents, columns, part[documents, columns], len(part)))
    return SparseMatrix(blocks, features.shape[1])


def fit(features: np.ndarray, sides: torch.Tensor, cost: float = 1.0, used: torch.Tensor | None = None):
    used = torch.ones(len(features), dtype=torch.bool) if used is None else used
    weights = torch.zeros(features.shape[1] + 1, sides.shape[1])
    counts = (sides[used] > 0).sum(0)
    for labels, fitted in fit_linear(make_matrix(features), lambda chosen: sides[:, chosen], counts, used, cost):
        weights[:, labels] = fitted
    return weights


def objective(features, sides, cost, weights):
    inputs = torch.cat([torch.from_numpy(features), torch.ones(len(features), 1)], dim=1).double()
    losses = (1 - sides * (inputs @ weights.double())).clamp(min=0).square().sum(0)
    return weights.double().square().sum(0) / 2 + cost * losses


@pytest.mark.parametrize("rows_at_once", [7, 10_000])
def test_products_are_those_of_the_dense_matrix(rows_at_once, monkeypatch):
    monkeypatch.setattr(linear, "_ROWS_AT_ONCE", rows_at_once)
    features = make_features()
    matrix, dense = make_matrix(features), torch.from_numpy(np.hstack([features, np.ones((len(features), 1))])).float()
    torch.manual_seed(0)
    weight, numbers = torch.randn(NUM_FEATURES + 1, 5), torch.randn(NUM_DOCUMENTS, 5)
    torch.testing.assert_close(matrix.times(weight), dense @ weight)
    torch.testing.assert_close(matrix.transposed_times(numbers), dense.T @ numbers, atol=1e-4, rtol=1e-4)
    torch.testing.assert_close(
        matrix.squared_transposed_times(numbers), dense.T.square() @ numbers, atol=1e-4, rtol=1e-4
    )


@pytest.mark.parametrize("cost", [0.03, 0.3, 3.0])
def test_the_classifiers_are_those_of_liblinear(cost):
    features = make_features()
    sides = make_sides(features)
    weights = fit(features, sides, cost)
    others = make_features(seed=5)
    found = np.hstack([others, np.ones((len(others), 1))]) @ weights.numpy()
    ours = objective(features, sides, cost, weights)
    for label in range(NUM_LABELS - 2):
        svc = LinearSVC(C=cost, dual=False, tol=1e-8, max_iter=10_000).fit(features, sides[:, label])
        theirs = torch.from_numpy(np.append(svc.coef_[0], svc.intercept_[0]))[:, None]
        best = objective(features, sides[:, label, None], cost, theirs)
        assert best.item() <= ours[label].item() * (1 + 1e-9)
        assert ours[label].item() <= best.item() * 1.002
        scores = svc.decision_function(others)
        assert np.abs(found[:, label] - scores).max() < 0.05 * scores.std() + 0.01
    assert weights[:-1, NUM_LABELS - 2 :].abs().max() == 0
    assert weights[-1, NUM_LABELS - 2 :].tolist() == [1.0, -1.0]


def test_labels_and_documents_in_blocks_give_the_same(monkeypatch):
    features = make_features()
    sides = make_sides(features)
    expected = fit(features, sides)
    monkeypatch.setattr(linear, "_MOST_LABELS_AT_ONCE", 2)
    torch.testing.assert_close(fit(features, sides), expected, atol=1e-3, rtol=1e-3)


def test_documents_that_are_left_out_change_nothing():
    features = make_features()
    sides = make_sides(features)
    used = torch.arange(NUM_DOCUMENTS) % 3 > 0
    changed = sides.clone()
    changed[::3] *= -1
    assert torch.equal(fit(features, sides, used=used), fit(features, changed, used=used))
    alone = fit(features[used.numpy()], sides[used])
    torch.testing.assert_close(fit(features, sides, used=used), alone, atol=1e-3, rtol=1e-3)


def test_the_bits_are_the_same_on_one_and_two_threads(monkeypatch):
    monkeypatch.setattr(linear, "MOST_NEWTON_STEPS", 2)
    monkeypatch.setattr(linear, "MOST_CG_STEPS", 3)
    features = make_features(count=5000)  # enough that PyTorch shares them out
    sides = make_sides(features)
    threads = torch.get_num_threads()
    try:
        torch.set_num_threads(1)
        expected = fit(features, sides)
        torch.set_num_threads(2)
        assert torch.equal(fit(features, sides), expected)
    finally:
        torch.set_num_threads(threads)


def test_without_features_the_intercept_tells_the_frequencies():
    sides = torch.tensor([[1.0, -1.0]] * 3 + [[-1.0, -1.0]])
    weights = fit(np.zeros((4, 5), dtype=np.float32), sides, cost=1000.0)
    # The mean of the sides minimises the squares within the margin.
    assert weights[:, 0].tolist() == pytest.approx([0, 0, 0, 0, 0, 0.5], abs=1e-3)
    assert weights[:, 1].tolist() == [0, 0, 0, 0, 0, -1]
