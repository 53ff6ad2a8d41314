import numpy as np
import pytest
from documents import make_documents
from napkinxc.models import PLT
from scipy import sparse

from sgm_hf.baselines import BASELINES, Baseline, Documents
from sgm_hf.baselines.trees import ProbabilisticLabelTree

TRAIN, VALIDATION = make_documents(80), make_documents(30, seed=1)
SETTINGS = {"cost": 10.0, "bigram_weight": 0.5, "min_df": 2, "seed": 3}


def fitted(train=TRAIN, **settings) -> ProbabilisticLabelTree:
    baseline = ProbabilisticLabelTree(**(SETTINGS | settings))
    baseline.fit(train)
    return baseline


def test_it_is_napkinxcs_tree_bit_for_bit(tmp_path):
    baseline = fitted(max_leaves=2)
    train, validation = (baseline.features.transform(part.texts) for part in (TRAIN, VALIDATION))
    solver = {"liblinear_solver": "L2R_LR", "liblinear_eps": 0.01, "liblinear_c": 10.0}
    theirs = PLT(str(tmp_path / "tree"), max_leaves=2, seed=3, threads=1, **solver)
    theirs.fit(train, sparse.csr_matrix(TRAIN.references, dtype=np.float32))
    expected = np.zeros((30, 5), dtype=np.float32)
    for row, labels in enumerate(theirs.predict_proba(validation, top_k=5)):
        for label, probability in labels:
            expected[row, label] = probability
    np.testing.assert_array_equal(baseline.predict_scores(VALIDATION.texts), expected)
    assert len(baseline.tree.get_tree_structure()) > 6  # more than a root and its leaves


def test_it_learns_and_two_fits_are_the_same():
    baseline, again = fitted(), fitted()
    scores = baseline.predict_scores(VALIDATION.texts)
    np.testing.assert_array_equal(again.predict_scores(VALIDATION.texts), scores)
    hits = (scores >= 0.5) & VALIDATION.references
    assert 2 * hits.sum() / ((scores >= 0.5).sum() + VALIDATION.references.sum()) > 0.8
    sets = baseline.predict_sets(VALIDATION.texts)
    assert [sorted(labels) for labels in sets] == [np.flatnonzero(row).tolist() for row in scores >= 0.5]
    assert baseline.predict_scores([]).shape == (0, 5) and baseline.predict_sets([]) == []


@pytest.mark.parametrize("ensemble", [1, 2])
def test_what_is_saved_predicts_the_same_also_after_it_was_saved_again(tmp_path, ensemble):
    assert BASELINES["plt"] is ProbabilisticLabelTree
    texts = [*VALIDATION.texts, "", "unheard words"]
    baseline = fitted(ensemble=ensemble)
    scores = baseline.predict_scores(texts)
    baseline.save(tmp_path)
    del baseline
    loaded = Baseline.load(tmp_path)
    loaded.save(tmp_path)  # into the folder that it comes from
    for one in (loaded, Baseline.load(tmp_path)):
        np.testing.assert_array_equal(one.predict_scores(texts), scores)


@pytest.mark.parametrize("place", [0, 2, 5])
def test_a_label_that_no_document_has_gets_a_score_near_0(place):
    references = np.insert(TRAIN.references, place, False, axis=1)
    scores = fitted(Documents(TRAIN.texts, references)).predict_scores(VALIDATION.texts)
    assert scores.shape == (30, 6) and scores[:, place].max() < 0.01
    assert np.delete(scores, place, axis=1).max(axis=0).min() > 0.3


def test_only_the_best_labels_get_a_score_if_that_is_asked_for():
    every, two = (fitted(top_k=k).predict_scores(VALIDATION.texts) for k in (0, 2))
    assert (every > 0).all() and ((two > 0).sum(axis=1) == 2).all()
    best = np.sort(every, axis=1)[:, -2:]
    np.testing.assert_array_equal(np.sort(two, axis=1)[:, -2:], best)


def test_documents_without_labels_are_learned_from_but_some_must_have_one():
    assert (~TRAIN.references.any(axis=1)).any()
    with pytest.raises(ValueError, match="no training document has a label"):
        fitted(Documents(TRAIN.texts, np.zeros((80, 2), dtype=bool)))


@pytest.mark.parametrize(
    ("setting", "message"),
    [({"max_leaves": 1}, "max_leaves is 1"), ({"top_k": -1}, "top_k is -1"), ({"ensemble": 0}, "ensemble is 0")],
)
def test_wrong_settings_are_refused(setting, message):
    with pytest.raises(ValueError, match=message):
        ProbabilisticLabelTree(**setting)
