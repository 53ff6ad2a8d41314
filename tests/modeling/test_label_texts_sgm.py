"""Labels that begin as their texts say: new models, and labels added to trained ones."""

import pytest
import torch

from sgm_hf.modeling import SGMConfig, SGMForMultiLabelGeneration, SGMTokenizer
from sgm_hf.modeling.label_texts_sgm import (
    centred,
    mixed_rows,
    rows_like,
    shares_of_labels,
    similarities,
    text_vectors,
    text_words,
    word_likeness,
)

WORDS = "wheat corn grain harvest oil crude barrel ball goal team and"
LABELS = ["grain", "oil", "sport"]


@pytest.fixture
def tokenizer():
    return SGMTokenizer.train_from_texts([WORDS])


def make_model(tokenizer, **settings):
    torch.manual_seed(0)
    sizes = {"embedding_size": 12, "encoder_hidden_size": 8, "encoder_layers": 1, "decoder_hidden_size": 20}
    config = SGMConfig(vocab_size=len(tokenizer), id2label=dict(enumerate(LABELS)), **(sizes | settings))
    model = SGMForMultiLabelGeneration(config).eval()
    if model.lexical is not None:  # as if it were fitted
        model.lexical.scale.uniform_(1, 5)
        model.lexical.weight.normal_()
        model.lexical.bias.fill_(-3.0)
    return model


def set_topics(model, tokenizer):
    """Word vectors in which the words of a topic are alike."""
    topics = ["wheat corn grain harvest", "oil crude barrel", "ball goal team"]
    with torch.no_grad():
        vectors = model.get_input_embeddings().weight
        vectors.normal_(std=0.1)
        for place, topic in enumerate(topics):
            vectors[tokenizer(topic)["input_ids"], place] += 3.0


def test_a_texts_vector_is_the_mean_of_its_known_words(tokenizer):
    words = text_words(["Wheat and corn", "unheard of", ""], tokenizer)
    ids = tokenizer.get_vocab()
    assert words == [[ids["wheat"], ids["and"], ids["corn"]], [], []]
    vectors = torch.randn(len(tokenizer), 4)
    found = text_vectors(vectors, words)
    torch.testing.assert_close(found[0], (vectors[ids["wheat"]] + vectors[ids["and"]] + vectors[ids["corn"]]) / 3)
    assert not found[1:].any()
    assert centred(vectors).mean(dim=0).abs().max() < 1e-6


@pytest.mark.parametrize("row_size", [6, 10, 40])
def test_rows_have_the_usual_length_and_keep_what_is_alike(row_size):
    vectors, rows = torch.randn(7, 10), torch.randn(7, row_size)
    vectors[3] = 0
    made = rows_like(vectors, rows)
    others = [0, 1, 2, 4, 5, 6]
    torch.testing.assert_close(made[3], rows[3])
    torch.testing.assert_close(made[others].norm(dim=1), rows.norm(dim=1).mean().expand(6))
    if row_size >= 10:  # a rotation: no angle changes
        torch.testing.assert_close(
            similarities(made[others], made[others]), similarities(vectors[others], vectors[others])
        )
    assert torch.equal(made, rows_like(vectors, rows))


def test_shares_are_of_the_most_alike_and_else_of_all():
    known = torch.eye(8)
    new = torch.stack([known[2], known[2] + known[5], torch.zeros(8), -known[0]])
    shares = shares_of_labels(new, known)
    torch.testing.assert_close(shares.sum(dim=1), torch.ones(4))
    torch.testing.assert_close(shares[0], known[2])  # the same text: the same label
    assert shares[1].argsort(descending=True)[:2].sort().values.tolist() == [2, 5]
    torch.testing.assert_close(shares[2], torch.full((8,), 1 / 8))
    torch.testing.assert_close(shares[3], torch.full((8,), 1 / 8))
    torch.testing.assert_close(mixed_rows(known, 4, shares), shares)
    assert torch.equal(mixed_rows(known, 2, None), torch.full((2, 8), 1 / 8))
    # Of many labels only some count, besides the average.
    many = torch.randn(50, 6)
    shares = shares_of_labels(many[:1] + 0.5, many)
    assert (shares > shares.min() + 1e-7).sum() <= 5


def test_words_speak_for_a_label_if_they_are_its_own_or_used_like_them(tokenizer):
    model = make_model(tokenizer)
    set_topics(model, tokenizer)
    vectors, ids = centred(model.encoder.word_vectors), tokenizer.get_vocab()
    words = text_words(["corn and"], tokenizer)
    scale = torch.full((len(tokenizer),), 4.0)
    scale[ids["and"]] = 1.0
    likeness = word_likeness(vectors, text_vectors(vectors, words), words, scale)[:, 0]
    assert likeness[ids["corn"]] == 1 and likeness[ids["and"]] == 0.25
    assert likeness[ids["wheat"]] > 5 * max(likeness[ids[word]] for word in ("oil", "ball", "team"))
    assert (likeness >= 0).all() and (likeness <= 1 + 1e-6).all()


@pytest.mark.parametrize("settings", [{}, {"label_embedding_size": 5}, {"decoder_hidden_size": 8}])
def test_a_new_models_labels_are_alike_as_their_texts_are(tokenizer, settings):
    model = make_model(tokenizer, **settings)
    set_topics(model, tokenizer)
    before = {name: weight.clone() for name, weight in model.state_dict().items()}
    texts = {"grain": "wheat corn", "oil": "grain harvest", "sport": "unheard"}
    assert model.set_label_texts(texts, tokenizer) == 2
    after = model.state_dict()
    changed = {name for name in after if not torch.equal(before[name], after[name])}
    assert changed == {"decoder.feedback.embed_labels.weight", "decoder.output.weight"}
    for name in changed:
        rows, old = after[name], before[name]
        assert torch.equal(rows[2:], old[2:])  # no known word, and what is no label
        torch.testing.assert_close(rows[:2].norm(dim=1), old[:3].norm(dim=1).mean().expand(2))
        if rows.shape[1] >= 12:
            assert similarities(rows[:1], rows[1:2]) > 0.9
    with pytest.raises(ValueError, match="one row for each of 3 labels"):
        model.set_label_vectors(torch.zeros(2, 12))
    with pytest.raises(ValueError, match="finite"):
        model.set_label_vectors(torch.full((3, 12), float("nan")))


@pytest.mark.parametrize("as_list", [False, True])
def test_a_label_with_the_text_of_a_known_one_is_scored_like_it_at_once(tokenizer, as_list):
    model = make_model(tokenizer)
    set_topics(model, tokenizer)
    inputs = tokenizer(["wheat corn ball", "oil"], return_tensors="pt", padding=True)
    old = model(**inputs, labels=torch.tensor([[3], [3]])).logits
    texts = ["oil"] if as_list else {"oil": "crude oil", "petroleum": "crude oil", "other": "ball"}
    model.add_labels(["petroleum"], texts, tokenizer)
    assert model.config.num_untrained_labels == 0 and model.config.id2label[3] == "petroleum"
    new = model(**inputs, labels=torch.tensor([[4], [4]])).logits
    torch.testing.assert_close(new[..., 3], new[..., 1], atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(new[..., [0, 1, 2, 4]], old, atol=1e-5, rtol=1e-5)
    scores = model.generate(**inputs, output_label_scores=True, return_dict_in_generate=True).label_scores
    assert (scores[:, 3] > 0).any()


def test_the_words_of_a_new_label_raise_its_log_odds_in_the_branch(tokenizer):
    model = make_model(tokenizer, lexical_branch=True, lexical_in_decoder=True)
    set_topics(model, tokenizer)
    branch, ids = model.lexical, tokenizer.get_vocab()
    texts = tokenizer(["ball goal harvest", "ball goal corn", "ball goal team"])["input_ids"]
    before, weight = branch(torch.tensor(texts)), branch.weight.clone()
    model.add_labels(["farming"], {"farming": "harvest", "grain": "crude", "oil": "crude", "sport": "team"}, tokenizer)
    after = branch(torch.tensor(texts))
    assert after.shape == (3, 4) and torch.equal(after[:, :3], before)
    assert after[0, 3] > after[2, 3] and after[1, 3] > after[2, 3]  # its word, and one that is used like it
    # Its text is like that of no known label: it is an average one, but for what its words say.
    own = branch.weight[:, 3] - weight.mean(dim=1)
    assert own.argmax() == ids["harvest"] and own.argmin() != ids["corn"]
    torch.testing.assert_close(own.norm(), weight.norm(dim=0).mean())
    assert branch.bias[3] == -3


def test_members_of_an_ensemble_get_the_label_too(tokenizer, tmp_path):
    members = [make_model(tokenizer, decoder_hidden_size=size) for size in (10, 14)]
    for member in members:
        set_topics(member, tokenizer)
    model = SGMForMultiLabelGeneration.from_members(members)
    model.add_labels(["petroleum"], {"petroleum": "oil"}, tokenizer)
    inputs = tokenizer(["oil and corn"], return_tensors="pt")
    logits = model(**inputs, labels=torch.tensor([[4]])).logits
    torch.testing.assert_close(logits[..., 3], logits[..., 1], atol=1e-5, rtol=1e-5)
    model.save_pretrained(tmp_path)
    loaded = SGMForMultiLabelGeneration.from_pretrained(tmp_path)
    assert torch.equal(loaded(**inputs, labels=torch.tensor([[4]])).logits, logits)


def test_vectors_of_another_encoder_take_the_place_of_the_words(tokenizer):
    model = make_model(tokenizer)
    vectors = torch.tensor([[1.0, 0], [0, 1], [-1, 0], [0, 2]])
    rows = model.decoder.output.weight.clone()
    model.add_labels(["new"], vectors=vectors)
    torch.testing.assert_close(model.decoder.output.weight[3], rows[1])
    assert model.config.num_untrained_labels == 0


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((["new"], {"new": "oil"}), "the tokenizer None"),
        ((["new", "newer"], ["oil"], "tokenizer"), "1 texts for 2 names"),
        ((["new"], {"new": "unheard of"}, "tokenizer"), "new label 'new', 'unheard of', has no word"),
        ((["new"], None, None, torch.zeros(3, 2)), "one row for each of 4 labels"),
        ((["new"], None, None, torch.full((4, 2), float("inf"))), "finite"),
    ],
)
def test_what_texts_need_is_said_and_nothing_is_changed(tokenizer, arguments, message):
    model = make_model(tokenizer)
    before = {name: weight.clone() for name, weight in model.state_dict().items()}
    arguments = [tokenizer if isinstance(one, str) else one for one in arguments]
    with pytest.raises(ValueError, match=message):
        model.add_labels(*arguments)
    assert model.config.num_labels == 3
    assert all(torch.equal(before[name], weight) for name, weight in model.state_dict().items())


def test_labels_with_texts_do_not_follow_untrained_ones(tokenizer):
    model = make_model(tokenizer)
    model.add_labels(["new"])
    with pytest.raises(ValueError, match="up to 'new', were added without texts"):
        model.add_labels(["petroleum"], ["oil"], tokenizer)
    model.mark_labels_trained()
    model.add_labels(["petroleum"], ["oil"], tokenizer)
    assert model.config.num_untrained_labels == 0
