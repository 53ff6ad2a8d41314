"""The lexical branch: a sparse linear model of a document's words, whatever the batch it comes in."""

import pytest
import torch
from sklearn.feature_extraction.text import TfidfTransformer

from sgm_hf.modeling.lexical_sgm import UNTRAINED_LOG_ODDS, SGMLexicalBranch

NUM_WORDS, NUM_LABELS = 40, 7


def make_branch(num_bigrams: int = 0, seed: int = 0) -> SGMLexicalBranch:
    """A branch of random weights; the words 0 (padding) and 1 (unknown) were not in training."""
    torch.manual_seed(seed)
    branch = SGMLexicalBranch(NUM_WORDS, NUM_LABELS, num_bigrams)
    branch.scale.uniform_(0.5, 5.0)
    branch.scale[:2] = 0.0
    branch.weight.normal_()
    branch.bias.normal_()
    branch.bigrams.copy_(torch.randperm(NUM_WORDS**2)[:num_bigrams].sort().values)
    return branch


def make_documents(count: int = 20, seed: int = 1) -> list[torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    lengths = torch.randint(0, 60, (count,), generator=generator).tolist()
    return [torch.randint(1, NUM_WORDS, (length,), generator=generator) for length in lengths]


def pad(documents: list[torch.Tensor], width: int = 0, side: str = "right", word: int = 0) -> tuple:
    width = max(width, *(len(document) for document in documents))
    input_ids = torch.full((len(documents), width), word)
    mask = torch.zeros(len(documents), width, dtype=torch.int64)
    for row, document in enumerate(documents):
        place = slice(0, len(document)) if side == "right" else slice(width - len(document), width)
        input_ids[row, place], mask[row, place] = document, 1
    return input_ids, mask


def by_hand(branch: SGMLexicalBranch, document: torch.Tensor) -> torch.Tensor:
    """The log-odds by scikit-learn's weights, one document at a time."""
    words = document.tolist()
    features = [*words]
    for pair in zip(words, words[1:], strict=False):
        found = (branch.bigrams == pair[0] * NUM_WORDS + pair[1]).nonzero().flatten().tolist()
        features += [NUM_WORDS + place for place in found]
    counts = torch.bincount(torch.tensor(features, dtype=torch.int64), minlength=len(branch.scale)).double()[None]
    transformer = TfidfTransformer(sublinear_tf=True, norm="l2")
    transformer.fit(counts.numpy())
    transformer.idf_ = branch.scale.double().numpy()
    values = torch.from_numpy(transformer.transform(counts.numpy()).toarray())
    return (values @ branch.weight.double() + branch.bias.double())[0]


@pytest.mark.parametrize("num_bigrams", [0, 300])
def test_log_odds_are_those_of_scikit_learns_weights(num_bigrams):
    branch, documents = make_branch(num_bigrams), make_documents()
    expected = torch.stack([by_hand(branch, document) for document in documents])
    torch.testing.assert_close(branch(*pad(documents)).double(), expected, rtol=0, atol=1e-5)


@pytest.mark.parametrize("num_bigrams", [0, 300])
def test_padding_and_the_other_documents_never_change_a_bit(num_bigrams):
    branch, documents = make_branch(num_bigrams), make_documents()
    expected = branch(*pad(documents))
    for width, side, word in ((0, "left", 0), (200, "right", 5), (77, "left", 5)):
        assert torch.equal(branch(*pad(documents, width, side, word)), expected)
    for row, document in enumerate(documents):
        assert torch.equal(branch(document[None])[0], expected[row])
    assert torch.equal(branch(*pad(documents[::-1])), expected.flip(0))


def test_words_that_were_not_in_training_contribute_nothing():
    branch, document = make_branch(300), torch.tensor([7, 9, 9, 30])
    branch.bigrams[:2] = torch.tensor([1, NUM_WORDS])  # pairs with an unknown word, which were in training
    branch.bigrams.copy_(branch.bigrams.sort().values)
    pairs = branch.bigrams
    branch.scale[NUM_WORDS:][(pairs % NUM_WORDS < 2) | (pairs // NUM_WORDS < 2)] = 0
    expected = branch(document[None])
    assert torch.equal(branch(torch.cat([torch.ones(5, dtype=torch.int64), document])[None]), expected)


@pytest.mark.parametrize("document", [torch.zeros(0, dtype=torch.int64), torch.ones(9, dtype=torch.int64)])
def test_a_document_without_known_words_gets_the_bias(document):
    branch = make_branch()
    assert torch.equal(branch(document[None])[0], branch.bias)
    assert torch.equal(branch(*pad([document, torch.tensor([5])]))[0], branch.bias)


def test_float32_remains_under_autocast():
    branch, batch = make_branch(300), pad(make_documents())
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert torch.equal(branch(*batch), make_branch(300)(*batch))


@pytest.mark.parametrize(("dtype", "error"), [(torch.bfloat16, 0.06), (torch.float16, 0.01), (torch.float64, 1e-6)])
def test_a_model_that_is_cast_says_nearly_the_same_in_float32(dtype, error):
    batch = pad(make_documents())
    expected, found = make_branch(300)(*batch), make_branch(300).to(dtype)(*batch)
    assert found.dtype == torch.float32
    torch.testing.assert_close(found, expected, rtol=0, atol=error)


def test_added_labels_change_no_other_and_have_no_evidence():
    branch, batch = make_branch(), pad(make_documents())
    expected = branch(*batch)
    branch.add_labels(2)
    found = branch(*batch)
    assert torch.equal(found[:, :NUM_LABELS], expected)
    assert (found[:, NUM_LABELS:] == UNTRAINED_LOG_ODDS).all()


def test_nothing_of_it_is_a_parameter_and_all_is_saved():
    branch = make_branch(3)
    assert not list(branch.parameters())
    assert set(branch.state_dict()) == {"scale", "weight", "bias", "bigrams"}
    assert branch.bigrams.dtype == torch.int64
