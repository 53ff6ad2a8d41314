import itertools
import json
import logging

import numpy as np
import pytest
from documents import make_documents
from sklearn.linear_model import LogisticRegression
from sklearn.multiclass import OneVsRestClassifier
from sklearn.multioutput import ClassifierChain as TheirChain
from sklearn.svm import LinearSVC

from sgm_hf.baselines import BASELINES, Baseline, Documents, features
from sgm_hf.baselines.linear import (
    BinaryRelevanceLogistic,
    BinaryRelevanceSVM,
    ClassifierChain,
    EnsembleOfChains,
    LabelPowerset,
    ProbabilisticClassifierChain,
    beam_paths,
    follow_chain,
    frequency_order,
)

TRAIN, VALIDATION = make_documents(80), make_documents(30, seed=1)
CLASSES = (
    BinaryRelevanceSVM,
    BinaryRelevanceLogistic,
    ClassifierChain,
    LabelPowerset,
    ProbabilisticClassifierChain,
    EnsembleOfChains,
)
SETTINGS = {"cost": 2.0, "bigram_weight": 0.5, "min_df": 2, "sublinear_tf": False, "seed": 3}


def fitted(baseline_class, train=TRAIN, **settings):
    baseline = baseline_class(**(SETTINGS | settings))
    baseline.fit(train)
    return baseline


def matrices(baseline):
    return baseline.features.transform(TRAIN.texts), baseline.features.transform(VALIDATION.texts)


def with_constant_labels() -> Documents:
    references = np.c_[TRAIN.references, np.zeros(80, dtype=bool), np.ones(80, dtype=bool)]
    return Documents(TRAIN.texts, references)


@pytest.mark.parametrize(
    ("baseline_class", "classifier"),
    [
        (BinaryRelevanceSVM, LinearSVC(C=2.0, random_state=3)),
        (BinaryRelevanceLogistic, LogisticRegression(C=2.0, solver="liblinear", random_state=3)),
    ],
)
def test_binary_relevance_is_scikit_learns_one_vs_rest_bit_for_bit(baseline_class, classifier):
    baseline = fitted(baseline_class)
    train, validation = matrices(baseline)
    theirs = OneVsRestClassifier(classifier).fit(train, TRAIN.references.astype(int))
    np.testing.assert_array_equal(baseline.model.margins(validation), theirs.decision_function(validation))
    np.testing.assert_array_equal(baseline.decide(validation)[1], theirs.predict(validation).astype(bool))
    if baseline_class is BinaryRelevanceLogistic:
        np.testing.assert_allclose(baseline.decide(validation)[0], theirs.predict_proba(validation), rtol=1e-12)


def test_a_chain_is_scikit_learns_bit_for_bit_in_the_order_of_frequency():
    baseline = fitted(ClassifierChain)
    train, validation = matrices(baseline)
    order = frequency_order(TRAIN.references)
    counts = TRAIN.references.sum(axis=0)
    assert (np.diff(counts[order]) <= 0).all() and order.tolist() != sorted(order.tolist())
    theirs = TheirChain(LinearSVC(C=2.0, random_state=3), order=order.tolist())
    theirs.fit(train, TRAIN.references.astype(int))
    np.testing.assert_array_equal(baseline.chain.order, order)
    np.testing.assert_array_equal(follow_chain(baseline.chain, validation), theirs.decision_function(validation))
    np.testing.assert_array_equal(baseline.decide(validation)[1], theirs.predict(validation).astype(bool))


def test_equally_frequent_labels_stay_in_their_order():
    truth = np.array([[1, 0, 1, 0], [1, 1, 1, 0], [0, 1, 1, 0]], dtype=bool)
    assert frequency_order(truth).tolist() == [2, 0, 1, 3]


def test_an_ensemble_is_the_mean_vote_of_scikit_learns_chains():
    baseline = fitted(EnsembleOfChains, num_chains=4)
    train, validation = matrices(baseline)
    orders = [chain.order.tolist() for chain in baseline.chains]
    assert len(set(map(tuple, orders))) == 4
    theirs = [TheirChain(LinearSVC(C=2.0, random_state=3), order=order) for order in orders]
    votes = [chain.fit(train, TRAIN.references.astype(int)).predict(validation) for chain in theirs]
    np.testing.assert_array_equal(baseline.decide(validation)[0], np.mean(votes, axis=0))
    assert [c.order.tolist() for c in fitted(EnsembleOfChains, num_chains=4).chains] == orders
    assert [c.order.tolist() for c in fitted(EnsembleOfChains, num_chains=4, seed=4).chains] != orders


def test_a_label_powerset_is_scikit_learns_one_vs_rest_over_the_seen_sets():
    baseline = fitted(LabelPowerset)
    train, validation = matrices(baseline)
    _, classes = np.unique(np.packbits(TRAIN.references, axis=1), axis=0, return_inverse=True)
    classes = classes.reshape(-1)
    theirs = OneVsRestClassifier(LinearSVC(C=2.0, random_state=3)).fit(train, classes)
    np.testing.assert_array_equal(baseline.model.margins(validation), theirs.decision_function(validation))
    first_with = [np.flatnonzero(classes == number)[0] for number in theirs.predict(validation)]
    np.testing.assert_array_equal(baseline.decide(validation)[1], TRAIN.references[first_with])


def test_a_label_powerset_never_predicts_a_set_that_it_has_not_seen(caplog):
    train = Documents(TRAIN.texts[:20], TRAIN.references[:20])
    sets = [tuple(np.flatnonzero(row)) for row in train.references]
    unseen = sum(tuple(np.flatnonzero(row)) not in sets for row in VALIDATION.references)
    texts = [*TRAIN.texts, *VALIDATION.texts, "", "unheard"]
    for min_documents in (1, 2):
        with caplog.at_level(logging.INFO):
            baseline = LabelPowerset(**SETTINGS, min_documents=min_documents)
            baseline.fit(train, VALIDATION)
        kept = {own for own in sets if sets.count(own) >= min_documents}
        assert 1 < len(kept) < len({*sets}) or min_documents == 1
        assert {tuple(sorted(labels)) for labels in baseline.predict_sets(texts)} <= kept
        assert {tuple(np.flatnonzero(row)) for row in baseline.sets} == kept
        if min_documents == 1:
            assert unseen and f"{unseen} of 30 validation documents have another set" in caplog.text


def test_the_scores_of_a_label_powerset_compare_the_best_sets_with_and_without_a_label():
    baseline = fitted(LabelPowerset)
    _, validation = matrices(baseline)
    margins, (scores, chosen) = baseline.model.margins(validation), baseline.decide(validation)
    for row, label in itertools.product(range(30), range(5)):
        best = {
            has: max(m for m, own in zip(margins[row], baseline.sets, strict=True) if own[label] == has)
            for has in (True, False)
        }
        assert scores[row, label] == pytest.approx(1 / (1 + np.exp(best[False] - best[True])))
    np.testing.assert_array_equal(scores > 0.5, chosen)


def enumerated(chain, matrix) -> np.ndarray:
    """The log-probability of each set of three labels, (N, 8), by the chain rule over the chain's own classifiers."""
    sets = list(itertools.product((0, 1), repeat=3))
    values = np.zeros((matrix.shape[0], 8))
    for place, own in enumerate(sets):
        for label in chain.order:
            before = chain.order[: list(chain.order).index(label)]
            margin = matrix @ chain.weights[:, label] + chain.bias[label]
            margin = margin + sum(own[other] * chain.links[other, label] for other in before)
            probability = 1 / (1 + np.exp(-margin))
            values[:, place] += np.log(probability if own[label] else 1 - probability)
    return values


def test_the_beam_of_a_probabilistic_chain_equals_enumeration_on_three_labels():
    train = Documents(TRAIN.texts, TRAIN.references[:, [0, 1, 4]])
    baseline = fitted(ProbabilisticClassifierChain, train, beam_width=8)
    _, validation = matrices(baseline)
    log_probs = enumerated(baseline.chain, validation)
    np.testing.assert_allclose(np.exp(log_probs).sum(axis=1), 1)
    chosen, found = beam_paths(baseline.chain, validation, 8)
    places = chosen @ np.array([4, 2, 1])  # of each hypothesis among the enumerated sets
    assert (np.sort(places, axis=1) == np.arange(8)).all()
    np.testing.assert_allclose(found, np.take_along_axis(log_probs, places, axis=1))
    assert (np.diff(found, axis=1) <= 0).all()
    sets = np.array(list(itertools.product((0, 1), repeat=3)))
    np.testing.assert_allclose(baseline.decide(validation)[0], np.exp(log_probs) @ sets)
    np.testing.assert_array_equal(baseline.decide(validation)[1], sets[log_probs.argmax(axis=1)].astype(bool))
    # A narrower one of 4 already holds the best of 8: none of its prefixes is ever dropped.
    best = beam_paths(baseline.chain, validation, 4)[0][:, 0]
    np.testing.assert_array_equal(best, sets[log_probs.argmax(axis=1)].astype(bool))


def test_the_labels_of_a_probabilistic_chain_follow_those_before():
    baseline = fitted(ProbabilisticClassifierChain)
    order, links = baseline.chain.order, baseline.chain.links
    place_of = np.argsort(order)
    later = place_of[:, None] < place_of[None, :]
    assert (links[~later] == 0).all() and (links[later] != 0).all()
    greedy = beam_paths(baseline.chain, matrices(baseline)[1], 1)[0][:, 0]
    np.testing.assert_array_equal(greedy, follow_chain(baseline.chain, matrices(baseline)[1]) > 0)


@pytest.mark.parametrize("baseline_class", CLASSES)
def test_what_is_saved_predicts_with_the_same_bits(baseline_class, tmp_path):
    assert BASELINES[baseline_class.name] is baseline_class
    baseline = fitted(baseline_class, with_constant_labels())
    baseline.label_names = [f"label {i}" for i in range(7)]
    baseline.save(tmp_path)
    loaded = Baseline.load(tmp_path)
    assert type(loaded) is baseline_class and loaded.settings == baseline.settings
    texts = [*VALIDATION.texts, "", "unheard words"]
    scores = baseline.predict_scores(texts)
    np.testing.assert_array_equal(loaded.predict_scores(texts), scores)
    assert loaded.predict_sets(texts) == baseline.predict_sets(texts)
    assert {path.suffix for path in tmp_path.iterdir()} == {".json", ".safetensors"}
    assert json.loads((tmp_path / "baseline.json").read_text())["baseline"] == baseline_class.name
    assert scores.dtype == np.float32 and scores.shape == (32, 7)
    assert (0 <= scores).all() and (scores <= 1).all()
    # Labels that no training document has, and that all have.
    assert (scores[:, 5] < 1e-6).all() and (scores[:, 6] > 1 - 1e-6).all()


@pytest.mark.parametrize("baseline_class", CLASSES)
def test_labels_are_learned_and_neither_blocks_nor_company_change_a_prediction(baseline_class, monkeypatch):
    baseline = fitted(baseline_class, cost=10.0)
    scores, sets = baseline.predict_scores(VALIDATION.texts), baseline.predict_sets(VALIDATION.texts)
    matrix = np.array([[label in labels for label in range(5)] for labels in sets])
    assert 2 * (matrix & VALIDATION.references).sum() / (matrix.sum() + VALIDATION.references.sum()) > 0.8
    monkeypatch.setattr(features, "MOST_CELLS", 7 * baseline.cells_per_document())
    np.testing.assert_array_equal(baseline.predict_scores(VALIDATION.texts), scores)
    assert baseline.predict_sets(VALIDATION.texts) == sets
    np.testing.assert_array_equal(baseline.predict_scores(VALIDATION.texts[4:5]), scores[4:5])
    assert baseline.predict_scores([]).shape == (0, 5) and baseline.predict_sets([]) == []
    for labels, row in zip(sets, scores, strict=True):
        assert (np.diff(row[labels]) <= 0).all()


def test_features_are_taken_over_only_where_they_are_the_same():
    first = fitted(BinaryRelevanceSVM)
    same, other = BinaryRelevanceSVM(**(SETTINGS | {"cost": 0.1})), BinaryRelevanceSVM(**(SETTINGS | {"min_df": 1}))
    for baseline in (same, other):
        baseline.reuse(first)
        baseline.fit(TRAIN)
    assert same.features is first.features and other.features is not first.features
    alone = fitted(BinaryRelevanceSVM, cost=0.1)
    np.testing.assert_array_equal(same.predict_scores(TRAIN.texts), alone.predict_scores(TRAIN.texts))
    # And other documents are not taken for those of before.
    half = Documents(TRAIN.texts[:40], TRAIN.references[:40])
    again = BinaryRelevanceSVM(**SETTINGS)
    again.reuse(first)
    again.fit(half)
    np.testing.assert_array_equal(
        again.predict_scores(TRAIN.texts), fitted(BinaryRelevanceSVM, half).predict_scores(TRAIN.texts)
    )


def test_features_are_as_many_as_the_weights_allow(monkeypatch):
    monkeypatch.setattr(features, "MAX_WEIGHTS", 50)
    assert fitted(BinaryRelevanceSVM).model.weights.shape == (10, 5)
    assert fitted(EnsembleOfChains, num_chains=2).chains[0].weights.shape == (5, 5)


def test_classifiers_that_have_not_converged_are_counted(monkeypatch, caplog):
    monkeypatch.setattr(
        BinaryRelevanceSVM, "new_classifier", lambda self: LinearSVC(max_iter=1, C=1e6, tol=1e-12, dual=True)
    )
    fitted(BinaryRelevanceSVM)
    assert "5 of 5 classifiers stopped before they had converged" in caplog.text


@pytest.mark.parametrize(
    ("baseline_class", "setting", "message"),
    [
        (BinaryRelevanceSVM, {"cost": 0.0}, "cost is 0"),
        (BinaryRelevanceSVM, {"cost": float("nan")}, "cost is nan"),
        (ClassifierChain, {"bigram_weight": -0.5}, "bigram_weight is -0.5"),
        (ProbabilisticClassifierChain, {"beam_width": 0}, "beam_width is 0"),
        (EnsembleOfChains, {"num_chains": 0}, "num_chains is 0"),
        (LabelPowerset, {"min_documents": 0}, "min_documents is 0"),
    ],
)
def test_wrong_settings_are_refused(baseline_class, setting, message):
    with pytest.raises(ValueError, match=message):
        baseline_class(**setting)


def test_a_powerset_without_frequent_sets_is_refused():
    with pytest.raises(ValueError, match="no label set has more than"):
        fitted(LabelPowerset, min_documents=1000)


@pytest.mark.parametrize("baseline_class", CLASSES)
def test_every_setting_of_the_grid_makes_a_baseline(baseline_class):
    for values in itertools.product(*baseline_class.grid.values()):
        setting = dict(zip(baseline_class.grid, values, strict=True))
        assert baseline_class(**setting).settings.items() >= setting.items()
