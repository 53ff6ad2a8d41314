"""The lexical branch is fitted to all documents, and without each fold: no document's labels reach its own score."""

import logging

import numpy as np
import pytest
import torch
from datasets import Dataset
from sklearn.feature_extraction.text import TfidfVectorizer
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import f1_score
from sklearn.multiclass import OneVsRestClassifier
from sklearn.svm import LinearSVC
from tiny_training import NUM_LABELS, NUM_WORDS, make_documents

from sgm_hf.modeling.lexical_sgm import UNTRAINED_LOG_ODDS
from sgm_hf.training import lexical
from sgm_hf.training.lexical import LexicalFit, LexicalSettings, choose_lexical_settings, fit_lexical_branch

NUM_DOCUMENTS = 120
SETTINGS = LexicalSettings(bigram_weight=0.5, min_bigram_documents=2, max_bigrams=50)


def fit(dataset: Dataset, settings: LexicalSettings = SETTINGS, num_labels: int = NUM_LABELS) -> LexicalFit:
    return fit_lexical_branch(dataset, NUM_WORDS, num_labels, settings)


def pad(dataset: Dataset) -> tuple[torch.Tensor, torch.Tensor]:
    rows = [torch.tensor(words) for words in dataset["input_ids"]]
    input_ids = torch.nn.utils.rnn.pad_sequence(rows, batch_first=True)
    return input_ids, torch.arange(input_ids.shape[1]) < torch.tensor([[len(row)] for row in rows])


def indicators(dataset: Dataset, num_labels: int = NUM_LABELS) -> np.ndarray:
    found = np.zeros((len(dataset), num_labels), dtype=bool)
    for row, labels in enumerate(dataset["labels"]):
        found[row, labels] = True
    return found


def out_of_fold(fitted: LexicalFit, dataset: Dataset) -> torch.Tensor:
    return fitted.out_of_fold_log_odds(*pad(dataset), torch.arange(len(dataset)))


@pytest.fixture(scope="module")
def documents() -> Dataset:
    return make_documents(NUM_DOCUMENTS)


@pytest.fixture(scope="module")
def fitted(documents) -> LexicalFit:
    return fit(documents)


def svm(train: Dataset, test: Dataset, cost: float) -> tuple[np.ndarray, np.ndarray]:
    """Scores of scikit-learn's linear SVM on words alone, and how it weighs them."""
    vectorizer = TfidfVectorizer(analyzer=lambda words: words, sublinear_tf=True)
    features = vectorizer.fit_transform(train["input_ids"])
    classifier = OneVsRestClassifier(LinearSVC(C=cost, tol=1e-6)).fit(features, indicators(train))
    return classifier.decision_function(vectorizer.transform(test["input_ids"]))


def test_the_branch_is_scikit_learns_linear_svm(documents):
    test = make_documents(200, seed=1)
    found = fit(documents, LexicalSettings(cost=0.5))
    scores = (found.branch()(*pad(test)) - found.intercept) / found.slope
    expected = svm(documents, test, 0.5)
    assert np.abs(scores.numpy() - expected).max() < 0.02 * expected.std()
    truth = indicators(test)
    ours, theirs = (f1_score(truth, x > 0, average="micro") for x in (scores.numpy(), expected))
    assert theirs > 0.8 and abs(ours - theirs) <= 0.002


def test_out_of_fold_scores_are_those_of_a_linear_svm_without_the_fold(documents):
    found = fit(documents, LexicalSettings(cost=0.5, num_folds=3))
    scores = (out_of_fold(found, documents) - found.intercept) / found.slope
    vectorizer = TfidfVectorizer(analyzer=lambda words: words, sublinear_tf=True)
    features, truth = vectorizer.fit_transform(documents["input_ids"]), indicators(documents)
    assert np.bincount(found.folds.numpy()).tolist() == [40, 40, 40]
    for fold in range(3):
        inside = found.folds.numpy() == fold
        classifier = OneVsRestClassifier(LinearSVC(C=0.5, tol=1e-6)).fit(features[~inside], truth[~inside])
        expected = classifier.decision_function(features[inside])
        assert np.abs(scores[inside].numpy() - expected).max() < 0.02 * expected.std()


@pytest.mark.parametrize("row", [17, 64])
def test_a_documents_own_labels_never_reach_its_out_of_fold_score(fitted, documents, row):
    columns = documents.to_dict()
    columns["labels"][row] = sorted({0, 1, 2, 3} - set(columns["labels"][row]))
    changed = fit(Dataset.from_dict(columns))
    ours = fitted.folds == fitted.folds[row]
    expected, found = out_of_fold(fitted, documents), out_of_fold(changed, documents)
    assert not torch.equal(expected[~ours], found[~ours])  # it is in the training documents of all others
    # Before the calibration, whose two numbers all labels of all documents share, the bits are the same.
    for each in (fitted, changed):
        assert each.slope > 0
    changed.slope, changed.intercept = fitted.slope, fitted.intercept
    assert torch.equal(out_of_fold(changed, documents)[ours], expected[ours])
    assert torch.equal(changed.folds, fitted.folds)


def test_out_of_fold_scores_of_batches_are_those_of_all_documents(fitted, documents):
    expected = out_of_fold(fitted, documents)
    batch = torch.tensor([5, 99, 0, 41])
    input_ids, mask = pad(documents.select(batch.tolist()))
    assert torch.equal(fitted.out_of_fold_log_odds(input_ids, mask, batch), expected[batch])
    assert torch.equal(torch.cat(list(fitted.iterate_out_of_fold_log_odds(documents))), expected)
    in_sample = fitted.branch()(*pad(documents))
    truth = torch.from_numpy(indicators(documents))
    # In-sample scores are surer of the truth than those of documents not seen.
    assert torch.where(truth, in_sample, -in_sample).mean() > torch.where(truth, expected, -expected).mean() + 0.1


def test_folds_are_found_by_row_number_in_a_part_of_a_data_set_and_copies_share_one(documents):
    part = documents.select([100, 7, 7, 55, 3, 90, 64, 7, 31, 31, 12])
    found = fit(part, LexicalSettings(num_folds=2))
    index = torch.tensor(part["index"])
    assert set(found.folds[index].tolist()) == {0, 1} and (found.folds == -1).sum() == 101 - 8
    with pytest.raises(ValueError, match="a document has no fold"):
        found.out_of_fold_log_odds(*pad(part), index - 1)
    fit_alone = fit(part.remove_columns("index"), LexicalSettings(num_folds=2))
    assert fit_alone.folds.shape == (11,)
    expected = found.out_of_fold_log_odds(*pad(part), index)
    assert torch.equal(torch.cat(list(found.iterate_out_of_fold_log_odds(part))), expected)
    # Document 7 is in fold k with all its copies: its labels reach none of its scores.
    columns = part.to_dict()
    columns["labels"] = [
        sorted({0, 1, 2, 3} - set(labels)) if number == 7 else labels
        for number, labels in zip(columns["index"], columns["labels"], strict=True)
    ]
    changed = fit(Dataset.from_dict(columns), LexicalSettings(num_folds=2))
    changed.slope, changed.intercept = found.slope, found.intercept
    again = changed.out_of_fold_log_odds(*pad(part), index)
    assert torch.equal(again[index == 7], expected[index == 7])


def test_log_odds_are_calibrated_on_documents_not_seen():
    train, test = make_documents(800), make_documents(2000, seed=1)
    found = fit(train)
    scores, truth = (out_of_fold(found, train) - found.intercept) / found.slope, indicators(train)
    # Platt's targets are a little inside 0 and 1: as weights, every label is true and false.
    targets = np.where(truth, (truth.sum() + 1) / (truth.sum() + 2), 1 / ((~truth).sum() + 2)).reshape(-1)
    twice = np.tile(scores.numpy().reshape(-1, 1), (2, 1))
    sides = np.repeat([1, 0], truth.size)
    regression = LogisticRegression(C=1e9, tol=1e-8).fit(twice, sides, np.concatenate([targets, 1 - targets]))
    assert found.slope == pytest.approx(regression.coef_[0, 0], rel=1e-3)
    assert found.intercept == pytest.approx(regression.intercept_[0], abs=1e-3)
    chances = torch.sigmoid(found.branch()(*pad(test))).numpy()
    assert chances.mean() == pytest.approx(indicators(test).mean(), abs=0.02)


def test_labels_at_random_get_their_frequency_and_nothing_is_turned_round():
    columns = make_documents(60).to_dict()
    random = np.random.default_rng(3)
    columns["labels"] = [np.flatnonzero(random.random(NUM_LABELS) < 0.3).tolist() for _ in range(60)]
    found = fit(Dataset.from_dict(columns))
    assert found.slope > 0
    chances = torch.sigmoid(found.branch()(*pad(Dataset.from_dict(columns))))
    assert chances.mean().item() == pytest.approx(0.3, abs=0.1)


def test_a_label_without_a_training_document_has_no_evidence(documents):
    found = fit(documents, num_labels=NUM_LABELS + 1)
    assert (found.branch()(*pad(documents))[:, -1] == UNTRAINED_LOG_ODDS).all()
    assert (out_of_fold(found, documents)[:, -1] == UNTRAINED_LOG_ODDS).all()


def test_bigrams_are_the_most_frequent_pairs_and_branch_and_fit_agree(fitted, documents):
    pairs: dict[int, int] = {}
    for words in documents["input_ids"]:
        for pair in {first * NUM_WORDS + second for first, second in zip(words, words[1:], strict=False)}:
            pairs[pair] = pairs.get(pair, 0) + 1
    ranked = sorted((pair for pair in pairs if pairs[pair] >= 2), key=lambda pair: (-pairs[pair], pair))
    assert fitted.bigrams.tolist() == sorted(ranked[:50])
    assert fitted.num_bigrams == 50 and fitted.branch().bigrams.tolist() == fitted.bigrams.tolist()
    idf = 1 + np.log((1 + len(documents)) / (1 + np.array([pairs[pair] for pair in fitted.bigrams.tolist()])))
    assert fitted.scale[NUM_WORDS:].tolist() == pytest.approx(0.5 * idf, rel=1e-6)


def test_pairs_are_counted_block_by_block(fitted, documents, monkeypatch):
    monkeypatch.setattr(lexical, "_DOCUMENTS_AT_ONCE", 7)
    found = fit(documents)
    assert torch.equal(found.bigrams, fitted.bigrams) and torch.equal(found.scale, fitted.scale)
    torch.testing.assert_close(found.weight, fitted.weight, atol=1e-3, rtol=1e-3)


def test_pairs_that_occurred_once_are_forgotten_when_there_are_too_many(fitted, documents, monkeypatch):
    monkeypatch.setattr(lexical, "_MOST_PAIRS", 10)
    assert torch.equal(fit(documents).bigrams, fitted.bigrams)  # in one block: no count is lost


def test_many_labels_leave_room_for_the_most_frequent_words_only(documents, monkeypatch, caplog):
    monkeypatch.setattr(lexical, "MAX_WEIGHTS", 12 * NUM_LABELS)
    with caplog.at_level(logging.WARNING):
        found = fit(documents)
    assert "the 12 most frequent of 28 words" in caplog.text
    assert found.weight.shape == (12, NUM_LABELS) and found.num_bigrams == 0
    frequencies = np.bincount([word for words in documents["input_ids"] for word in set(words)], minlength=NUM_WORDS)
    assert set(np.flatnonzero(found.scale)) == set(np.argsort(-frequencies, kind="stable")[:12])


def test_the_same_seed_gives_the_same_bits_and_another_other_folds(fitted, documents):
    again = fit(documents)
    for name in ("weight", "bias", "fold_weight", "fold_bias", "folds"):
        assert torch.equal(getattr(again, name), getattr(fitted, name))
    assert not torch.equal(fit(documents, LexicalSettings(seed=1)).folds, fitted.folds)


def test_what_is_saved_comes_back_and_other_documents_are_refused(fitted, documents, tmp_path):
    fitted.save(tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["_lexical_folds.safetensors"]
    loaded = LexicalFit.load(tmp_path, documents)
    assert torch.equal(out_of_fold(loaded, documents), out_of_fold(fitted, documents))
    assert torch.equal(loaded.branch()(*pad(documents)), fitted.branch()(*pad(documents)))
    assert loaded.settings == SETTINGS and loaded.out_of_fold_f1 == fitted.out_of_fold_f1
    with pytest.raises(ValueError, match="is of training documents with hash"):
        LexicalFit.load(tmp_path, documents.select(range(NUM_DOCUMENTS - 1)))
    with pytest.raises(FileNotFoundError, match="fit it again"):
        LexicalFit.load(tmp_path / "elsewhere", documents)


def test_settings_are_chosen_on_documents_that_were_not_fitted_to(documents):
    arguments = {"costs": (1e-6, 1.0), "bigram_weights": (0.0,)}
    for validation in (None, make_documents(100, seed=1)):
        chosen = choose_lexical_settings(documents, NUM_WORDS, NUM_LABELS, validation, **arguments)
        assert chosen == LexicalSettings(cost=1.0)
    # Only the order of two words tells the label.
    random = np.random.default_rng(0)
    labels = random.integers(0, 2, 300)
    words = [[*random.integers(10, 30, 4), *((5, 6) if label else (6, 5))] for label in labels]
    ordered = Dataset.from_dict({"input_ids": words, "labels": [[int(label)] for label in labels]})
    chosen = choose_lexical_settings(ordered, NUM_WORDS, 2, costs=(1.0,), bigram_weights=(0.0, 0.5))
    assert chosen.bigram_weight == 0.5


def test_progress_is_shown(documents, capsys, monkeypatch):
    monkeypatch.setattr("sgm_hf.training.progress.SECONDS", 0.0)
    fit_lexical_branch(documents, NUM_WORDS, NUM_LABELS, show_lines=True)
    assert "Fitting the lexical branch: 24 of 24 linear models" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"input_ids": [[3, NUM_WORDS]] * 9}, "word ids from 3 to 30, but the vocabulary has 30"),
        ({"labels": [[0, NUM_LABELS]] * 9}, "label ids from 0 to 4, but the model has 4"),
        ({"input_ids": [[3]] * 4, "labels": [[0]] * 4}, "There are 4 training documents for 5 folds"),
    ],
)
def test_documents_of_another_model_are_refused(change, message):
    columns = {"input_ids": [[3, 4]] * 9, "labels": [[0]] * 9} | change
    with pytest.raises(ValueError, match=message):
        fit(Dataset.from_dict(columns))


def test_a_stream_is_refused(documents):
    with pytest.raises(ValueError, match="are a stream"):
        fit(documents.to_iterable_dataset())


@pytest.mark.parametrize(
    "settings", [{"cost": 0}, {"bigram_weight": -1}, {"num_folds": 1}, {"num_folds": 128}, {"max_bigrams": 0}]
)
def test_settings_out_of_range_are_refused(settings):
    with pytest.raises(ValueError, match=f"{next(iter(settings))} is {next(iter(settings.values()))}"):
        LexicalSettings(**settings)
