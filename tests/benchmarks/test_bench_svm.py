import csv
import sys
from types import SimpleNamespace

import bench_svm
import numpy as np
import pytest
from sklearn.feature_extraction.text import TfidfVectorizer
from sklearn.metrics import f1_score

from sgm_hf import load_corpus
from sgm_hf.metrics import fit_threshold


def random_ids(seed: int, count: int) -> list[np.ndarray]:
    generator = np.random.default_rng(seed)
    return [generator.integers(0, 12, size=generator.integers(1, 30)) for _ in range(count)]


@pytest.mark.parametrize("min_df", [1, 3])
@pytest.mark.parametrize("ngrams", [(1, 1), (1, 2)])
def test_features_are_those_of_scikit_learn(min_df, ngrams):
    # Without id 0 and 1, which scikit-learn would take for words.
    train, test = ([ids[ids > 1] for ids in random_ids(seed, 40)] for seed in (1, 2))
    train, test = ([ids for ids in part if len(ids)] for part in (train, test))
    features = bench_svm.Features(train, bigram_weight=float(ngrams[1] == 2), min_df=min_df)
    oracle = TfidfVectorizer(
        analyzer="word", token_pattern=r"\S+", ngram_range=ngrams, min_df=min_df, sublinear_tf=True
    )
    expected = oracle.fit([" ".join(map(str, ids)) for ids in train])
    columns = [  # scikit-learn's column of each of ours
        oracle.vocabulary_[str(key) if key < 2**32 else f"{key >> 32} {key % 2**32}"] for key in features.keys
    ]
    assert len(columns) == len(oracle.vocabulary_)
    matrix = expected.transform([" ".join(map(str, ids)) for ids in test])[:, columns]
    assert features.transform(test).toarray() == pytest.approx(matrix.toarray())


def test_padding_and_unknown_words_are_no_features_and_part_pairs():
    features = bench_svm.Features([np.array([2, 3, 1, 4, 0, 2])], bigram_weight=0.5, min_df=1)
    assert features.keys.tolist() == [2, 3, 4, (2 << 32) + 3]
    assert features.transform([np.array([1, 0])]).toarray().tolist() == [[0.0] * 4]


@pytest.mark.parametrize("seed", range(20))
def test_thresholds_reach_the_micro_f1_of_the_exact_search(seed):
    generator = np.random.default_rng(seed)
    truth = generator.random((20, 5)) < 0.3
    truth[0, 0] = True
    scores = (generator.random(truth.shape) + 0.4 * truth).round(generator.integers(1, 4)) / 2
    reached = [
        f1_score(truth.ravel(), (scores >= find(truth, scores)).ravel())
        for find in (fit_threshold, bench_svm.micro_f1_threshold)
    ]
    assert reached[0] == pytest.approx(reached[1])


def test_no_model_scores_a_document_that_it_was_trained_on(monkeypatch):
    seen = []

    def fit(features, truth, cost):
        seen.append(set(features.ravel().tolist()))
        return len(seen) - 1

    def margins(model, features):
        assert not seen[model] & set(features.ravel().tolist())
        return np.full((len(features), 3), model)

    monkeypatch.setattr(bench_svm, "fit", fit)
    monkeypatch.setattr(bench_svm, "margins", margins)
    scores = bench_svm.held_out_margins(np.arange(23)[:, None], np.zeros((23, 3), dtype=bool), 1.0)
    assert np.bincount(scores[:, 0].astype(int)).tolist() == [5, 5, 5, 4, 4]


def test_labels_that_all_or_no_documents_have_keep_that_answer():
    features = bench_svm.sparse.csr_matrix(np.eye(4))
    truth = np.array([[True, False, True], [True, False, False], [True, False, True], [True, False, False]])
    scores = bench_svm.margins(bench_svm.fit(features, truth, 10.0), features)
    assert (scores > 0).tolist() == truth.tolist()


def test_a_csv_is_measured(tmp_path, monkeypatch, capsys):
    corpus = load_corpus("generated")
    names = corpus["train"].features["labels"].feature.names
    for split, rows in (("train", 300), ("test", 60)):
        part = corpus[split].select(range(rows))
        with (tmp_path / f"{split}.csv").open("w", newline="") as file:
            writer = csv.writer(file)
            writer.writerow(["text", "labels"])
            writer.writerows(
                (text, "|".join(names[i] for i in ids)) for text, ids in zip(part["text"], part["labels"], strict=True)
            )
    files = ["--train_file", str(tmp_path / "train.csv"), "--test_file", str(tmp_path / "test.csv")]
    options = ["--costs", "0.1", "1", "--min_dfs", "1", "--refit", "--output", str(tmp_path / "rows.csv")]
    monkeypatch.setattr(sys, "argv", ["bench_svm.py", *files, *options])
    bench_svm.main()
    assert "chosen of 4 settings" in capsys.readouterr().out
    monkeypatch.setattr(sys, "argv", [*sys.argv, "--setting", "0.5", "1", "1"])
    bench_svm.main()
    with (tmp_path / "rows.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert list(rows[0]) == list(bench_svm.COLUMNS)
    assert [row["objective"] for row in rows] == 2 * ["micro_f1", "macro_f1", "exact_match", "micro_f1", "macro_f1"]
    assert {(row["corpus"], row["split"]) for row in rows} == {("train", "test")}
    assert all(0.2 < float(row["micro_f1"]) <= 1 and float(row["cpu_minutes"]) >= 0 for row in rows)


def test_the_validation_documents_of_a_corpus_are_those_of_a_training():
    arguments = SimpleNamespace(corpus="generated", data_dir=None, validation_split_size=0.1, hold_out=None)
    train, validation, test, split = bench_svm.load_splits(arguments)
    assert split == "test" and len(validation) == 1_000
    assert not {*train["id"]} & {*validation["id"]} and not {*test["id"]} & {*validation["id"]}
