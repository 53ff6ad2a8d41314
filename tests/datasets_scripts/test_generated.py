import math
import re
from collections import Counter
from dataclasses import replace
from itertools import product

import datasets
import numpy as np
import pytest

from sgm_hf.datasets_scripts import load
from sgm_hf.datasets_scripts.convert import CARDS
from sgm_hf.datasets_scripts.generated import (
    SPLITS,
    GeneratedCorpus,
    GenerativeProcess,
    default_process,
    measure_optimum,
    micro_f1_threshold,
)
from sgm_hf.metrics import compute_metrics

PROCESS = default_process()


@pytest.fixture
def tiny() -> GenerativeProcess:
    """Three labels, four label sets, four words."""
    return GenerativeProcess(
        labels=("animal", "dog", "stone"),
        hierarchy={"dog": "animal"},
        label_sets=np.array([[1, 0, 0], [1, 1, 0], [0, 0, 1], [1, 0, 1]], dtype=bool),
        prior=np.array([0.3, 0.4, 0.2, 0.1]),
        vocabulary=("the", "bark", "fur", "hard"),
        background=np.array([0.7, 0.1, 0.1, 0.1]),
        label_words=np.array([[0, 0.1, 0.9, 0], [0, 0.8, 0.2, 0], [0.1, 0, 0, 0.9]]),
        topic_share=0.4,
        min_words=2,
        max_words=4,
    )


@pytest.fixture(scope="module")
def drawn() -> tuple[list[str], np.ndarray, np.ndarray]:
    """Texts of the default process, their true labels, bool (N, L), and label probabilities, float (N, L)."""
    texts, truth = PROCESS.sample(2000, seed=5)
    return texts, truth, PROCESS.label_marginals(texts)


def expected_micro_f1(chosen, marginals):
    return 2 * (chosen * marginals).sum() / (chosen.sum() + marginals.sum())


# --- sampling


def test_the_same_seed_gives_the_same_texts():
    texts, labels = PROCESS.sample(300, seed=11)
    again, labels_again = PROCESS.sample(300, seed=11)
    assert texts == again and np.array_equal(labels, labels_again)
    assert not set(texts) & set(PROCESS.sample(300, seed=12)[0])


def test_a_smaller_sample_is_the_beginning_of_a_larger_one():
    texts, labels = PROCESS.sample(400, seed=3, stream=1)
    for size in (0, 1, 57):
        fewer, fewer_labels = PROCESS.sample(size, seed=3, stream=1)
        assert fewer == texts[:size] and np.array_equal(fewer_labels, labels[:size])


def test_streams_of_a_seed_share_no_text_and_are_uncorrelated():
    samples = [PROCESS.sample(2000, seed=0, stream=stream) for stream in range(len(SPLITS) + 1)]
    assert len({text for texts, _ in samples for text in texts}) == 2000 * len(samples)
    lengths = np.array([[len(text.split()) for text in texts] for texts, _ in samples])
    sizes = np.array([labels.sum(axis=1) for _, labels in samples])
    for values in (lengths, sizes):
        correlations = np.corrcoef(values) - np.eye(len(samples))
        assert np.abs(correlations).max() < 4 / math.sqrt(2000)


def test_label_sets_are_drawn_as_the_prior_says():
    _, truth = PROCESS.sample(20_000, seed=1)
    expected = len(truth) * PROCESS.prior
    counts = Counter(map(bytes, truth))
    observed = np.array([counts[bytes(row)] for row in PROCESS.label_sets])
    assert observed.sum() == len(truth)
    common = expected >= 5
    observed = np.append(observed[common], observed[~common].sum())
    expected = np.append(expected[common], expected[~common].sum())
    chi_square, freedom = ((observed - expected) ** 2 / expected).sum(), len(expected) - 1
    assert abs(chi_square - freedom) < 4 * math.sqrt(2 * freedom)


def test_words_and_lengths_are_drawn_as_the_process_says(tiny):
    texts, truth = tiny.sample(30_000, seed=2)
    lengths = np.bincount([len(text.split()) for text in texts])
    assert lengths[:2].sum() == 0 and len(lengths) == 5
    assert np.abs(lengths[2:] / len(texts) - 1 / 3).max() < 4 * math.sqrt(2 / 9 / len(texts))
    for label_set, probabilities in zip(tiny.label_sets, tiny.word_probabilities, strict=True):
        rows = np.flatnonzero((truth == label_set).all(axis=1))
        words = Counter(" ".join(texts[i] for i in rows).split())
        total = words.total()
        for word, probability in zip(tiny.vocabulary, probabilities, strict=True):
            assert abs(words[word] / total - probability) < 4 * math.sqrt(probability * (1 - probability) / total)


# --- structure of the default process


def test_every_label_set_holds_the_ancestors_of_its_labels():
    position = {label: i for i, label in enumerate(PROCESS.labels)}
    for child, parent in PROCESS.hierarchy.items():
        assert not (PROCESS.label_sets[:, position[child]] & ~PROCESS.label_sets[:, position[parent]]).any()


def test_label_sets_are_distinct_and_of_one_to_seven_labels():
    assert len(np.unique(PROCESS.label_sets, axis=0)) == len(PROCESS.label_sets)
    sizes = PROCESS.label_sets.sum(axis=1)
    assert sizes.min() == 1 and sizes.max() == 7
    assert (PROCESS.prior @ PROCESS.label_sets).min() > 0.01


def test_labels_correlate_beyond_the_hierarchy():
    marginals = PROCESS.prior @ PROCESS.label_sets
    position = {label: i for i, label in enumerate(PROCESS.labels)}

    def lift(first, second):
        i, j = position[first], position[second]
        together = PROCESS.prior @ (PROCESS.label_sets[:, i] & PROCESS.label_sets[:, j])
        return together / (marginals[i] * marginals[j])

    assert lift("genetics", "medicine") > 2 and lift("climate", "diplomacy") > 2
    assert lift("sport", "science") < 0.5 and lift("arts", "health") < 0.5
    # Siblings, among the texts that have their parent.
    assert lift("football", "tennis") * marginals[position["sport"]] < 0.5


def test_some_words_are_shared_and_every_label_has_words_of_its_own():
    holders = (PROCESS.label_words > 0).sum(axis=0)
    assert (holders > 1).sum() == 40
    assert (((PROCESS.label_words > 0) & (holders == 1)).sum(axis=1) >= 5).all()


# --- posterior


def brute_force_posterior(process: GenerativeProcess, text: str) -> list[float]:
    """Bayes' rule written out, label set by label set and word by word."""
    joint = []
    for label_set, prior in zip(process.label_sets, process.prior, strict=True):
        members = [i for i, held in enumerate(label_set) if held]
        probability = prior
        for word in text.split():
            w = process.vocabulary.index(word)
            topical = sum(process.label_words[i][w] for i in members) / len(members)
            probability *= (1 - process.topic_share) * process.background[w] + process.topic_share * topical
        joint.append(probability)
    return [value / sum(joint) for value in joint]


def test_the_posterior_equals_bayes_rule_written_out(tiny):
    texts = [" ".join(words) for length in (1, 2, 3) for words in product(tiny.vocabulary, repeat=length)]
    expected = [brute_force_posterior(tiny, text) for text in texts]
    np.testing.assert_allclose(tiny.posterior(texts), expected, rtol=1e-12)
    np.testing.assert_allclose(tiny.label_marginals(texts), expected @ tiny.label_sets, rtol=1e-12)


def test_the_default_posterior_equals_bayes_rule_written_out():
    texts, _ = PROCESS.sample(1, seed=8)
    expected = [brute_force_posterior(PROCESS, text) for text in texts]
    np.testing.assert_allclose(PROCESS.posterior(texts), expected, rtol=1e-8)


def test_posteriors_sum_to_one_and_never_underflow():
    texts = [*PROCESS.sample(20, seed=4)[0], " ".join(PROCESS.vocabulary * 10)]
    posterior = PROCESS.posterior(texts)
    assert posterior.shape == (21, len(PROCESS.prior))
    np.testing.assert_allclose(posterior.sum(axis=1), 1.0, rtol=1e-12)


def test_word_order_and_other_texts_do_not_change_a_posterior(drawn):
    texts, _, marginals = drawn
    reversed_text = " ".join(reversed(texts[7].split()))
    np.testing.assert_allclose(PROCESS.label_marginals([reversed_text])[0], marginals[7], atol=1e-10)


def test_label_probabilities_are_calibrated(drawn):
    _, truth, marginals = drawn
    edges = np.linspace(0, 1, 6)
    for low, high in zip(edges[:-1], edges[1:], strict=True):
        inside = (marginals >= low) & (marginals < high)
        p = marginals[inside]
        # Labels of one text depend on each other, so the bound is wider than that of independent cells.
        assert abs(truth[inside].sum() - p.sum()) < 6 * math.sqrt((p * (1 - p)).sum())


def test_no_texts_give_empty_results():
    assert PROCESS.posterior([]).shape == (0, len(PROCESS.prior))
    assert PROCESS.label_marginals([]).shape == (0, len(PROCESS.labels))
    assert PROCESS.bayes_label_sets([], "map").shape == (0, len(PROCESS.labels))


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("zebra quux", r"text 1 has the word 'zebra', which this process never writes \(2 of its 2 words"),
        ("the court quux", r"text 1 has the word 'quux'.*\(1 of its 3 words"),
        ("  ", "text 1 is empty"),
    ],
)
def test_a_text_the_process_cannot_write_is_an_error(text, message):
    for method in (PROCESS.posterior, PROCESS.label_marginals, PROCESS.bayes_label_sets):
        with pytest.raises(ValueError, match=message):
            method(["the court", text])


# --- decisions


def test_the_f1_optimal_sets_beat_every_other_choice(tiny):
    texts = ["bark the", "fur", "hard hard the", "the bark hard"]
    marginals = tiny.label_marginals(texts)
    best = max(
        expected_micro_f1(np.reshape(cells, marginals.shape), marginals)
        for cells in product([False, True], repeat=marginals.size)
    )
    assert expected_micro_f1(tiny.bayes_label_sets(texts), marginals) == pytest.approx(best, rel=1e-12)
    assert micro_f1_threshold(marginals) == pytest.approx(best / 2, rel=1e-12)


def test_the_threshold_is_half_of_the_f1_that_it_gives(drawn):
    _, _, marginals = drawn
    threshold = micro_f1_threshold(marginals)
    assert expected_micro_f1(marginals >= threshold, marginals) == pytest.approx(2 * threshold, rel=1e-12)


def test_no_threshold_perturbation_or_other_decision_beats_the_f1_optimal_sets(drawn):
    texts, truth, marginals = drawn
    best = PROCESS.bayes_label_sets(texts)
    most_probable = PROCESS.bayes_label_sets(texts, "map")
    rng = np.random.default_rng(0)
    others = [marginals >= threshold for threshold in np.linspace(0.02, 0.98, 49)]
    others += [best ^ (rng.random(best.shape) < rate) for rate in (0.0005, 0.002, 0.01)]
    uncertain = np.minimum(marginals, 1 - marginals)
    others += [best ^ ((rng.random(best.shape) < 0.5) & (uncertain > least)) for least in (0.2, 0.3, 0.4)]
    others.append(most_probable)
    for other in others:
        assert expected_micro_f1(other, marginals) <= expected_micro_f1(best, marginals) + 1e-12
        # Against the labels that were drawn, chance may favour another decision a little.
        assert expected_micro_f1(other, truth) <= expected_micro_f1(best, truth) + 0.003


def test_the_most_probable_sets_are_those_of_the_posterior_and_most_often_exact(drawn):
    texts, truth, _ = drawn
    most_probable = PROCESS.bayes_label_sets(texts, "map")
    posterior = PROCESS.posterior(texts[:50])
    assert np.array_equal(most_probable[:50], PROCESS.label_sets[posterior.argmax(axis=1)])
    exact = (most_probable == truth).all(axis=1).mean()
    assert exact >= (PROCESS.bayes_label_sets(texts) == truth).all(axis=1).mean()


def test_a_given_threshold_is_used(drawn):
    texts, _, marginals = drawn
    chosen = PROCESS.bayes_label_sets(texts[:100], threshold=0.9)
    assert np.array_equal(chosen, PROCESS.label_marginals(texts[:100]) >= 0.9)
    with pytest.raises(ValueError, match="decision is 'best', expected 'micro_f1' or 'map'"):
        PROCESS.bayes_label_sets(texts[:1], "best")


def test_the_optimal_micro_f1_is_the_metric_of_the_optimal_sets(drawn):
    texts, truth = drawn[0][:300], drawn[1][:300]
    references = [{PROCESS.labels[i] for i in np.flatnonzero(row)} for row in truth]
    metrics = compute_metrics(truth, PROCESS.bayes_label_sets(texts))
    assert PROCESS.optimal_micro_f1(texts, references) == pytest.approx(metrics["micro_f1"], rel=1e-12)


def test_wrong_references_are_errors():
    with pytest.raises(ValueError, match="text 1 has the label 'chess', expected one of sport, football"):
        PROCESS.optimal_micro_f1(["the", "the"], [["sport"], ["chess"]])
    with pytest.raises(ValueError, match="got 1 texts and 2 label lists"):
        PROCESS.optimal_micro_f1(["the"], [["sport"], ["sport"]])


# --- label correlations


def test_a_prior_without_further_correlations_is_its_own_independent_prior(tiny):
    # Of the sets of a root with at most one child, each is allowed: nothing but the hierarchy ties the labels.
    process = replace(
        tiny,
        hierarchy={"dog": "animal", "stone": "animal"},
        label_sets=np.array([[1, 0, 0], [1, 1, 0], [1, 0, 1], [1, 1, 1]], dtype=bool),
        prior=np.array([0.6 * 0.3, 0.4 * 0.3, 0.6 * 0.7, 0.4 * 0.7]),
    )
    with np.errstate(divide="raise"):
        np.testing.assert_allclose(process.independent_prior(), process.prior, rtol=1e-12)


def test_the_figures_of_the_card_are_true():
    card = (CARDS / "generated.md").read_text(encoding="utf-8")
    stated = dict(re.findall(r"^\| ([a-zA-Z][^|]*) \| ([\d.]+) \|$", card, re.MULTILINE))
    figures = measure_optimum(PROCESS)
    expected = {
        "labels": len(PROCESS.labels),
        "label sets": len(PROCESS.prior),
        "vocabulary": len(PROCESS.vocabulary),
        "labels per text": PROCESS.prior @ PROCESS.label_sets.sum(axis=1),
        "optimum micro-F1": figures["optimum"],
        "micro-F1 of the most probable sets": figures["most_probable_set"],
        "micro-F1 of the best decision that ignores label correlations": figures["without_correlations"],
        "share of texts whose most probable set is the true one": figures["exact_sets"],
    }
    assert stated.keys() == expected.keys()
    for name, value in expected.items():
        assert float(stated[name]) == pytest.approx(value, abs=0.00051), name
    assert figures["optimum"] - figures["without_correlations"] > 0.003
    assert figures["optimum"] >= figures["most_probable_set"]


def test_the_example_of_the_card_is_the_first_training_text():
    card = (CARDS / "generated.md").read_text(encoding="utf-8")
    (text,), (label_set,) = PROCESS.sample(1, seed=0, stream=SPLITS.index("train"))
    assert f"\n> {text}\n" in card
    names = ", ".join(f"`{PROCESS.labels[i]}`" for i in np.flatnonzero(label_set))
    assert f"The first training text, labelled {names}:" in card


# --- faults of a hand-made process


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"prior": np.array([0.5, 0.5])}, r"label_sets has shape \(4, 3\), expected \(2, 3\)"),
        ({"prior": np.array([0.3, 0.4, 0.2, 0.2])}, "prior must hold probabilities that sum to 1"),
        ({"prior": np.array([0.6, 0.4, 0.0, 0.0])}, "prior and background must be positive everywhere"),
        ({"background": np.array([0.8, 0.1, 0.1, 0.0])}, "prior and background must be positive everywhere"),
        ({"label_sets": np.eye(4, 3, dtype=bool)}, "label_sets has an empty set"),
        ({"hierarchy": {"stone": "dog"}}, "has a set with 'stone' but without its parent 'dog'"),
        ({"hierarchy": {"cat": "animal"}}, "hierarchy puts 'cat' below 'animal'"),
        ({"labels": ("animal", "dog", "dog")}, "must not name a label or word twice"),
        ({"topic_share": 1.0}, "topic_share is 1.0"),
        ({"min_words": 5}, "got min_words 5 and max_words 4"),
    ],
)
def test_an_inconsistent_process_is_an_error(tiny, change, message):
    with pytest.raises(ValueError, match=message):
        replace(tiny, **change)


# --- builder


def test_the_builder_gives_the_data_of_the_process(cache):
    sizes = {"train": 30, "validation": 20, "test": 10}
    builder = GeneratedCorpus(cache_dir=str(cache), seed=6, **{f"{split}_size": n for split, n in sizes.items()})
    builder.download_and_prepare()
    corpus = builder.as_dataset()
    assert list(corpus) == list(SPLITS)
    for stream, (split, size) in enumerate(sizes.items()):
        texts, label_sets = PROCESS.sample(size, seed=6, stream=stream)
        assert corpus[split]["text"][:] == texts
        assert corpus[split]["labels"][:] == [np.flatnonzero(row).tolist() for row in label_sets]
        assert corpus[split]["id"][:] == [f"{split}-{i}" for i in range(size)]


def test_the_corpus_loads_by_name_with_the_features_of_all_corpora(cache):
    corpus = load("generated", cache_dir=cache)
    assert {split: len(rows) for split, rows in corpus.items()} == {"train": 20_000, "validation": 1000, "test": 1000}
    assert corpus["train"].features == datasets.Features(
        {
            "id": datasets.Value("string"),
            "text": datasets.Value("string"),
            "labels": datasets.List(datasets.ClassLabel(names=list(PROCESS.labels))),
        }
    )
    streamed = load("generated", split="test", streaming=True, cache_dir=cache)
    assert list(streamed.take(5)) == corpus["test"].select(range(5)).to_list()
    with pytest.raises(ValueError, match="the generated corpus reads no files"):
        load("generated", data_dir="x", cache_dir=cache)


def test_the_optimum_shown_in_the_card_is_that_of_the_test_split():
    card = (CARDS / "generated.md").read_text(encoding="utf-8")
    texts, label_sets = PROCESS.sample(1000, seed=0, stream=SPLITS.index("test"))
    references = [[PROCESS.labels[i] for i in np.flatnonzero(row)] for row in label_sets]
    assert f"# {PROCESS.optimal_micro_f1(texts, references):.4f}\n" in card


@pytest.mark.parametrize(
    ("arguments", "message"),
    [({"train_size": 0}, "train_size is 0, expected at least 1"), ({"seed": -1}, "seed is -1, expected 0 or more")],
)
def test_impossible_sizes_and_seeds_are_errors(cache, arguments, message):
    with pytest.raises(ValueError, match=message):
        GeneratedCorpus(cache_dir=str(cache), **arguments)


def test_an_unknown_configuration_is_an_error(cache):
    with pytest.raises(ValueError, match="'other' not found"):
        load("generated", config="other", cache_dir=cache)
