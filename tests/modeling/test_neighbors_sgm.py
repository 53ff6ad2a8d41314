"""Nearest neighbors of the lexical branch: what similar training documents say, document by document and by hand."""

import numpy as np
import pytest
import torch
from test_lexical_sgm import NUM_LABELS, NUM_WORDS, make_branch, make_documents, pad
from tiny_models import build_model

from sgm_hf.modeling import SGMForMultiLabelGeneration
from sgm_hf.modeling.neighbors_sgm import SMOOTHING, TEMPERATURE, SGMNeighbors, ranges

NUM_STORED, NUM_NEIGHBORS = 50, 5


def make_store(seed: int = 0) -> tuple[SGMNeighbors, np.ndarray, np.ndarray]:
    """A store of random documents, their words (N, V) and their labels (N, L), of which none has the last one."""
    random = np.random.default_rng(seed)
    words = random.random((NUM_STORED, NUM_WORDS)) * (random.random((NUM_STORED, NUM_WORDS)) < 0.3)
    words /= np.linalg.norm(words, axis=1, keepdims=True)
    words = words.astype(np.float32)
    labels = random.random((NUM_STORED, NUM_LABELS)) < 0.3
    labels[:, -1] = False
    columns, documents = words.T.nonzero()
    owners, label_ids = labels.nonzero()
    sizes = NUM_STORED, len(documents), len(owners)
    store = SGMNeighbors(NUM_WORDS, NUM_LABELS, NUM_NEIGHBORS, sizes)
    store.starts[1:] = torch.from_numpy(np.bincount(columns, minlength=NUM_WORDS).cumsum())
    store.documents.copy_(torch.from_numpy(documents))
    store.values.copy_(torch.from_numpy(words[documents, columns]))
    store.label_starts[1:] = torch.from_numpy(np.bincount(owners, minlength=NUM_STORED).cumsum())
    store.labels.copy_(torch.from_numpy(label_ids))
    store.prior.copy_(torch.from_numpy(labels.mean(axis=0)))
    store.weight.fill_(0.7)
    return store, words, labels


def with_store(branch, store: SGMNeighbors):
    branch.neighbors = store
    return branch


def by_hand(store: SGMNeighbors, query: np.ndarray, words: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """What is added to the log-odds of a document whose words have these values, (L)."""
    similarities = words @ query
    nearest = [row for row in np.argsort(-similarities)[:NUM_NEIGHBORS] if similarities[row] > 0]
    prior = labels.mean(axis=0)
    shares = prior
    if nearest:
        votes = np.exp(similarities[nearest] / TEMPERATURE)
        shares = (votes / votes.sum()) @ labels[nearest]
    floor = SMOOTHING * np.maximum(prior, 1 / NUM_STORED)
    log_odds = [np.log((share + floor) / (1 - share + SMOOTHING)) for share in (shares, np.zeros_like(prior))]
    return np.where(prior > 0, float(store.weight) * (log_odds[0] - log_odds[1]), 0.0)


def test_what_neighbors_say_is_what_a_loop_over_the_stored_documents_finds():
    store, words, labels = make_store()
    branch, documents = make_branch(num_bigrams=30), make_documents()
    rows, features, values = branch.features(*pad(documents))
    found = store(rows, features, values, len(documents))
    for row in range(len(documents)):
        query = np.zeros(NUM_WORDS)
        own = (rows == row) & (features < NUM_WORDS)  # pairs of words do not count
        query[features[own].numpy()] = values[own].numpy()
        torch.testing.assert_close(
            found[row].double(), torch.from_numpy(by_hand(store, query, words, labels)), rtol=1e-4, atol=1e-4
        )
    log_odds = with_store(make_branch(num_bigrams=30), store)(*pad(documents))
    torch.testing.assert_close(log_odds, branch(*pad(documents)) + found)


def test_padding_and_the_other_documents_never_change_a_bit():
    branch, documents = with_store(make_branch(), make_store()[0]), make_documents()
    expected = branch(*pad(documents))
    assert torch.equal(branch(*pad(documents, width=90, side="left", word=3)), expected)
    for row, document in enumerate(documents):
        if len(document):
            assert torch.equal(branch(*pad([document]))[0], expected[row])


def test_no_neighbor_is_of_the_documents_own_fold():
    store, documents = make_store()[0], make_documents()
    branch, folds = make_branch(), torch.arange(len(documents)) % 3
    stored_folds = torch.arange(NUM_STORED) % 3
    neighbors, votes = store.find(*branch.features(*pad(documents)), len(documents), folds, stored_folds)
    assert not ((stored_folds[neighbors] == folds[:, None]) & (votes > 0)).any()
    torch.testing.assert_close(votes.sum(dim=1), torch.tensor([float(len(document) > 0) for document in documents]))


def test_a_document_with_nothing_in_common_gets_what_is_usual_and_an_unknown_label_nothing():
    store, _, labels = make_store()
    none = torch.zeros(0, dtype=torch.int64)
    found = store(none, none, torch.zeros(0), 2)
    expected = by_hand(store, np.zeros(NUM_WORDS), np.zeros((NUM_STORED, NUM_WORDS)), labels)
    torch.testing.assert_close(found.double(), torch.from_numpy(expected).expand(2, -1), rtol=1e-4, atol=1e-4)
    assert (found[:, -1] == 0).all() and (found[:, :-1] > 0).all()


def test_an_empty_store_says_nothing():
    branch, documents = make_branch(), make_documents()
    expected = branch(*pad(documents))
    empty = with_store(branch, SGMNeighbors(NUM_WORDS, NUM_LABELS, NUM_NEIGHBORS))
    assert torch.equal(empty(*pad(documents)), expected)


def test_more_words_and_labels_change_nothing_and_fewer_words_only_what_they_said():
    branch, documents = with_store(make_branch(), make_store()[0]), make_documents()
    expected = branch(*pad(documents))
    branch.add_labels(2)
    branch.resize_words(NUM_WORDS + 9)
    assert torch.equal(branch(*pad(documents))[:, :NUM_LABELS], expected)
    branch.resize_words(NUM_WORDS // 2)
    short = [document[document < NUM_WORDS // 2] for document in documents]
    shortened = with_store(make_branch(), make_store()[0])
    torch.testing.assert_close(branch(*pad(short))[:, :NUM_LABELS], shortened(*pad(short)))


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_a_saved_model_asks_the_same_neighbors(tmp_path, dtype):
    model = build_model(vocab_size=NUM_WORDS, num_labels=NUM_LABELS, lexical_branch=True, lexical_neighbors=3)
    assert model.config.lexical_datastore is None
    model.set_lexical_branch(with_store(make_branch(), make_store()[0]), "some documents")
    model.to(dtype)
    assert model.config.lexical_neighbors == NUM_NEIGHBORS and model.config.lexical_datastore[0] == NUM_STORED
    model.save_pretrained(tmp_path)
    loaded = SGMForMultiLabelGeneration.from_pretrained(tmp_path)
    documents = pad(make_documents())
    assert torch.equal(loaded.lexical(*documents), model.lexical(*documents))
    ensemble = SGMForMultiLabelGeneration.from_members([model, loaded])
    assert torch.equal(ensemble.lexical(*documents), model.lexical(*documents))
    assert not any("neighbors" in name for name, _ in model.named_parameters())


@pytest.mark.parametrize("name", ["starts", "documents", "label_starts", "labels"])
def test_a_corrupt_store_is_refused(tmp_path, name):
    model = build_model(vocab_size=NUM_WORDS, num_labels=NUM_LABELS, lexical_branch=True, lexical_neighbors=3)
    model.set_lexical_branch(with_store(make_branch(), make_store()[0]), "some documents")
    getattr(model.lexical.neighbors, name)[3] = -1
    model.save_pretrained(tmp_path)
    with pytest.raises(ValueError, match=f"lexical.neighbors.{name} is negative at some place"):
        SGMForMultiLabelGeneration.from_pretrained(tmp_path)


def test_ranges_are_written_one_after_the_other():
    numbers, sources = ranges(torch.tensor([4, 9, 2]), torch.tensor([6, 9, 5]))
    assert numbers.tolist() == [4, 5, 2, 3, 4] and sources.tolist() == [0, 0, 2, 2, 2]
