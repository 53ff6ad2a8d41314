"""Nearest neighbors in the fit of the lexical branch: of other folds, and only where they help."""

import logging

import numpy as np
import pytest
import torch
from datasets import Dataset
from sklearn.linear_model import LogisticRegression
from test_lexical import pad

from sgm_hf.training import neighbors
from sgm_hf.training.calibration import fit_logistic
from sgm_hf.training.lexical import LexicalFit, LexicalSettings, fit_lexical_branch

NUM_WORDS, NUM_LABELS, NUM_DOCUMENTS = 400, 6, 240
SETTINGS = LexicalSettings(num_neighbors=4, num_folds=4)


def make_families(seed: int = 0, has_meaning: bool = True) -> Dataset:
    """Families of four similar documents; a family has labels at random, which no single word tells.

    Args:
        seed: Of all that is random.
        has_meaning: Whether a family's documents have the same labels.
    """
    random = np.random.default_rng(seed)
    texts, labels = [], []
    for family in range(NUM_DOCUMENTS // 4):
        own = random.permutation(np.arange(2, NUM_WORDS))[:20]
        chosen = np.flatnonzero(random.random(NUM_LABELS) < 0.4)
        for _ in range(4):
            texts.append([*random.permutation(own)[:12].tolist(), *random.integers(2, NUM_WORDS, 4).tolist()])
            shown = chosen if has_meaning else np.flatnonzero(random.random(NUM_LABELS) < 0.4)
            labels.append(shown.tolist() if family else [])
    order = random.permutation(len(texts)).tolist()
    columns = {"input_ids": [texts[row] for row in order], "labels": [labels[row] for row in order]}
    return Dataset.from_dict({**columns, "index": list(range(len(order)))})


def fit(dataset: Dataset, settings: LexicalSettings = SETTINGS) -> LexicalFit:
    return fit_lexical_branch(dataset, NUM_WORDS, NUM_LABELS, settings)


def out_of_fold(fitted: LexicalFit, dataset: Dataset) -> torch.Tensor:
    return fitted.out_of_fold_log_odds(*pad(dataset), torch.arange(len(dataset)))


@pytest.fixture(scope="module")
def documents() -> Dataset:
    return make_families()


@pytest.fixture(scope="module")
def fitted(documents) -> LexicalFit:
    return fit(documents)


def test_neighbors_know_what_no_word_tells(fitted, documents):
    plain = fit(documents, LexicalSettings(num_folds=4))
    assert fitted.num_neighbors == 4 and plain.num_neighbors == 0
    assert fitted.out_of_fold_f1 > plain.out_of_fold_f1 + 0.1


def test_neighbors_that_do_not_help_are_left_out(caplog):
    caplog.set_level(logging.INFO)
    documents = make_families(has_meaning=False)
    found = fit(documents)
    assert found.nearest is None and found.num_neighbors == 0 and found.branch().neighbors is None
    assert "they are left out" in caplog.text
    plain = fit(documents, LexicalSettings(num_folds=4))
    assert torch.equal(found.branch()(*pad(documents)), plain.branch()(*pad(documents)))


def test_a_documents_own_labels_never_reach_its_out_of_fold_score(fitted, documents):
    row = 17
    columns = documents.to_dict()
    columns["labels"][row] = sorted({*range(NUM_LABELS)} - {*columns["labels"][row]})
    changed = fit(Dataset.from_dict(columns))
    ours = fitted.folds == fitted.folds[row]
    expected, found = out_of_fold(fitted, documents), out_of_fold(changed, documents)
    assert not torch.equal(expected[~ours], found[~ours])  # it is a neighbor of others
    # But for the numbers that all documents share, the bits are the same.
    changed.slope, changed.intercept = fitted.slope, fitted.intercept
    changed.nearest.scale, changed.nearest.offset = fitted.nearest.scale, fitted.nearest.offset
    changed.nearest.store.prior, changed.nearest.store.weight = fitted.nearest.store.prior, fitted.nearest.store.weight
    assert torch.equal(out_of_fold(changed, documents)[ours], expected[ours])


def test_out_of_fold_neighbors_are_those_of_a_store_without_the_fold(fitted, documents):
    words = pad(documents)
    for fold in range(4):
        outside = (fitted.folds != fold).nonzero().squeeze(1)
        own = (fitted.folds == fold).nonzero().squeeze(1)
        values = dict(zip(range(NUM_DOCUMENTS), document_values(fitted, words), strict=True))
        for row in own[:10].tolist():
            products = torch.stack([values[row] @ values[other] for other in outside.tolist()])
            nearest = outside[products.topk(4).indices]
            assert {*fitted.nearest.neighbors[row].tolist()} == {*nearest.tolist()}


def document_values(fitted: LexicalFit, words: tuple[torch.Tensor, torch.Tensor]) -> torch.Tensor:
    """The values of each document's words that are not too frequent, (N, V)."""
    rows, features, values = fitted.branch().features(*words)
    matrix = torch.zeros(NUM_DOCUMENTS, NUM_WORDS)
    matrix[rows, features] = values
    matrix[:, (matrix > 0).sum(dim=0) > neighbors.MOST_FREQUENT * NUM_DOCUMENTS] = 0
    return matrix


def test_what_is_saved_comes_back(fitted, documents, tmp_path):
    fitted.save(tmp_path)
    loaded = LexicalFit.load(tmp_path, documents)
    assert torch.equal(out_of_fold(loaded, documents), out_of_fold(fitted, documents))
    assert torch.equal(loaded.branch()(*pad(documents)), fitted.branch()(*pad(documents)))
    assert loaded.num_neighbors == 4 and loaded.settings == fitted.settings


def test_of_too_many_documents_some_are_stored(fitted, documents, monkeypatch):
    monkeypatch.setattr(neighbors, "MOST_STORED", 100)
    found = fit(documents)
    assert found.nearest.store.sizes[0] == 100 < fitted.nearest.store.sizes[0] == NUM_DOCUMENTS
    assert found.nearest.store.sizes[1] < fitted.nearest.store.sizes[1]
    assert (found.nearest.votes.sum(dim=1) > 0.99).all()  # all documents ask those that are stored


def test_copies_of_a_document_are_of_one_fold_and_no_neighbors_of_each_other(documents):
    rows = [*range(NUM_DOCUMENTS), *range(0, NUM_DOCUMENTS, 3)]
    found = fit(documents.select(rows))
    assert len(found.nearest.neighbors) == NUM_DOCUMENTS
    numbers = torch.tensor(rows)
    own = numbers[found.nearest.neighbors.long()] == torch.arange(NUM_DOCUMENTS)[:, None]
    assert not (own & (found.nearest.votes > 0)).any()


def test_the_mixture_is_scikit_learns_logistic_regression_on_platts_targets():
    random = np.random.default_rng(0)
    inputs = np.stack([*random.normal(size=(2, 3000)), np.ones(3000)])
    targets = random.random(3000) < 1 / (1 + np.exp(-(0.8 * inputs[0] - 0.4 * inputs[1] - 1.0)))
    # Platt's targets: each cell counts as true to one part, as false to the rest.
    true = np.where(targets, (targets.sum() + 1) / (targets.sum() + 2), 1 / (3000 - targets.sum() + 2))
    oracle = LogisticRegression(C=np.inf, fit_intercept=False, tol=1e-8)
    oracle.fit(np.tile(inputs.T, (2, 1)), np.repeat([1, 0], 3000), sample_weight=np.concatenate([true, 1 - true]))
    columns = inputs[:2].reshape(2, -1, 1)  # of 3,000 documents and one label
    found = fit_logistic(lambda rows: columns[:, rows].reshape(2, -1), 2, targets[:, None])
    np.testing.assert_allclose(found, oracle.coef_[0], atol=1e-4)
