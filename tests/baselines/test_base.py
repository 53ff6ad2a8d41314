import json
import sys

import numpy as np
import pytest

from sgm_hf.baselines import Baseline, Decision, Documents, base


class Constant(Baseline):
    """Gives every text the share of training documents of each label, times a factor."""

    name = "constant"

    def __init__(self, *, factor: float = 1.0, seed: int = 0):
        self.factor, self.seed = factor, seed

    def fit_documents(self, train, validation):
        self.shares = (train.references.mean(axis=0) * self.factor).astype(np.float32)

    def predict_scores(self, texts):
        return np.tile(self.shares, (len(texts), 1))

    def save_weights(self, folder):
        (folder / "shares.json").write_text(json.dumps(self.shares.tolist()))

    def load_weights(self, folder):
        self.shares = np.array(json.loads((folder / "shares.json").read_text()), dtype=np.float32)


class Other(Constant):
    """Another class."""

    name = "other"


REFERENCES = np.array([[1, 0, 1], [1, 0, 1], [1, 1, 0], [1, 0, 1]], dtype=bool)
TRAIN = Documents(["a", "b", "c", "d"], REFERENCES)


@pytest.fixture(autouse=True)
def known(monkeypatch):
    monkeypatch.setattr(base, "BASELINES", {"constant": Constant, "other": Other})


def fitted(**settings) -> Constant:
    baseline = Constant(**settings)
    baseline.label_names = ["oil", "gold", "é"]
    baseline.fit(TRAIN)
    return baseline


@pytest.mark.parametrize(
    "decision",
    [
        Decision(),
        Decision("threshold", 0.8, [[0.0, 0.0], [0.5, 0.7], [1.0, 0.9]]),
        Decision("threshold", [0.5, 0.25, 0.8], [1.5, 0.1]),
        Decision("expected_f1"),
    ],
)
def test_what_is_saved_is_loaded_by_the_name_of_its_class(tmp_path, decision):
    baseline = fitted(factor=0.9, seed=3)
    baseline.decision = decision
    baseline.save(tmp_path / "new" / "folder")
    loaded = Baseline.load(tmp_path / "new" / "folder")
    assert type(loaded) is Constant and loaded.settings == {"factor": 0.9, "seed": 3}
    assert (loaded.num_labels, loaded.label_names) == (3, ["oil", "gold", "é"])
    assert loaded.decision == decision._replace(calibration=list(decision.calibration))
    np.testing.assert_array_equal(loaded.predict_scores(["x"]), baseline.predict_scores(["x"]))
    np.testing.assert_array_equal(loaded.predict(["x"]).label_scores, baseline.predict(["x"]).label_scores)
    assert loaded.predict_labels(["x", "y"]) == baseline.predict_labels(["x", "y"])


def test_labels_are_those_of_the_decision():
    baseline = fitted()
    assert baseline.predict_sets(["x"]) == [[0, 2]]
    assert baseline.predict_labels(["x"]) == [["oil", "é"]]
    baseline.decision = Decision("threshold", [0.5, 0.25, 0.8])
    assert baseline.predict_labels(["x"]) == [["oil", "gold"]]
    assert baseline.predict(["x"]).best_sequences == [[0, 2]]
    baseline.label_names = None
    with pytest.raises(ValueError, match="no names"):
        baseline.predict_labels(["x"])


def test_a_folder_whose_writing_was_ended_is_not_loaded(tmp_path, monkeypatch):
    fitted().save(tmp_path)

    def fail(*_):
        raise OSError("disk full")

    monkeypatch.setattr(Constant, "save_weights", fail)
    with pytest.raises(OSError, match="disk full"):
        fitted().save(tmp_path)
    with pytest.raises(FileNotFoundError, match="baseline.json is not there"):
        Baseline.load(tmp_path)


def test_a_folder_of_another_class_name_or_setting_is_refused(tmp_path):
    fitted().save(tmp_path)
    with pytest.raises(ValueError, match="of a Constant, not of a Other"):
        Other.load(tmp_path)
    record = json.loads((tmp_path / "baseline.json").read_text())
    for change, message in (
        ({"baseline": "unheard"}, "'unheard'; known baselines are constant, other"),
        ({"settings": {"factors": 2}}, "setting 'factors', which Constant does not know"),
    ):
        (tmp_path / "baseline.json").write_text(json.dumps(record | change))
        with pytest.raises(ValueError, match=message):
            Baseline.load(tmp_path)


@pytest.mark.parametrize(
    ("documents", "error", "message"),
    [
        (Documents(["a"], np.ones((1, 2))), TypeError, "float64; expected a boolean"),
        (Documents(["a"], [[True]]), TypeError, "list; expected a boolean"),
        (
            Documents(["a"], np.ones((2, 2), dtype=bool)),
            ValueError,
            r"1 training texts and references of shape \(2, 2",
        ),
        (Documents([], np.ones((0, 2), dtype=bool)), ValueError, "at least one of each"),
        (Documents(["a"], np.ones((1, 0), dtype=bool)), ValueError, "at least one of each"),
        (Documents(["a"], np.ones(1, dtype=bool)), ValueError, "expected \\(documents, labels"),
        (Documents(["a"], np.ones((1, 2), dtype=bool)), ValueError, "3 label_names, but the references have 2"),
    ],
)
def test_documents_that_do_not_match_are_refused(documents, error, message):
    with pytest.raises(error, match=message):
        baseline = Constant()
        baseline.label_names = ["oil", "gold", "é"]
        baseline.fit(documents)


def test_validation_documents_of_other_labels_are_refused():
    with pytest.raises(ValueError, match="have 3 labels, the validation documents 2"):
        Constant().fit(TRAIN, Documents(["a"], np.ones((1, 2), dtype=bool)))
    with pytest.raises(ValueError, match="1 validation texts"):
        Constant().fit(TRAIN, Documents(["a"], np.ones((2, 3), dtype=bool)))


def test_a_missing_library_is_named_with_the_extra_that_has_it(monkeypatch):
    monkeypatch.setitem(sys.modules, "napkinxc", None)  # so that it cannot be imported
    monkeypatch.setitem(sys.modules, "sgm_hf.baselines.needing", None)
    classes = base.BaselineClasses({"plain": ("base", "Documents"), "lost": ("needing", "Lost")})
    assert list(classes) == ["plain", "lost"] and classes["plain"] is Documents
    with pytest.raises(ModuleNotFoundError, match="^import of sgm_hf.baselines.needing"):
        classes["lost"]

    def import_napkinxc(name):
        return __import__("napkinxc")

    monkeypatch.setattr(base.importlib, "import_module", import_napkinxc)
    with pytest.raises(ModuleNotFoundError, match=r"lost needs napkinxc: pip install 'sgm_hf\[baselines\]'"):
        classes["lost"]
    assert "unheard" not in classes
