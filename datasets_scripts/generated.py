"""A generated corpus whose Bayes-optimal label sets are known.

A text is written in three steps:

1. A label set S is drawn from a prior over a list of all 3,394 possible sets. Every set holds the ancestors of its
   labels. Some pairs of labels attract and some repel one another.
2. A length n is drawn uniformly, independently of S.
3. Each of the n words is drawn independently: with probability `topic_share` from the words of one label of S (each
   label of S equally often), otherwise from the background, in which every word has some probability.

Because words are independent given S and the sets can be listed, P(S | text) is exact: prior times word probabilities,
normalised over the list. So is every label's probability, and with it the best decision that any model can take. The
card `cards/generated.md` explains the corpus and states its figures.
"""

import itertools
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property, lru_cache
from typing import Any

import datasets
import numpy as np

from ._corpus import corpus_features

# label: (parent, odds, words from the most to the least frequent). The odds are the label's factor in the weight of
# every set that holds it (see `_label_set_prior`). Words of several labels make texts ambiguous; they come fourth to
# seventh, so that each label also has frequent words of its own and can be learned from few texts.
_TOPICS: dict[str, tuple[str | None, float, str]] = {
    "sport": (None, 0.08, "team coach player match season record training injury league champion stadium medal"),
    "football": ("sport", 0.40, "goal striker penalty match pitch net club transfer keeper defender referee midfield"),
    "tennis": ("sport", 0.20, "serve set racket match court net rally break volley ace clay umpire"),
    "cycling": ("sport", 0.15, "climb sprint rider race tour stage wheel gear mountain chain jersey saddle"),
    "economy": (None, 0.10, "growth bank inflation price interest debt output tax budget demand industry recession"),
    "markets": ("economy", 0.30, "index trader exchange price investor risk rally fund dealer option hedge futures"),
    "bonds": (
        "markets",
        0.30,
        "yield treasury rating interest debt note maturity issuer coupon default credit auction",
    ),
    "shares": (
        "markets",
        0.40,
        "stock dividend profit investor rally quarter earnings split float listing buyout takeover",
    ),
    "trade": ("economy", 0.25, "export tariff import treaty border deal port cargo container customs quota freight"),
    "jobs": (
        "economy",
        0.20,
        "strike union worker contract training wage shift employer hiring pension overtime vacancy",
    ),
    "politics": (
        None,
        0.10,
        "government minister parliament party vote bill power reform cabinet policy coalition senate",
    ),
    "elections": (
        "politics",
        0.30,
        "campaign poll seat vote party race rally ballot candidate turnout district recount",
    ),
    "law": ("politics", 0.30, "judge case charge court trial bill contract appeal sentence verdict lawyer jury"),
    "diplomacy": (
        "politics",
        0.25,
        "talks embassy envoy treaty summit border mission sanction ally peace accord ceasefire",
    ),
    "science": (
        None,
        0.08,
        "study theory experiment model data evidence research laboratory sample paper journal professor",
    ),
    "astronomy": ("science", 0.25, "planet light telescope star mission lens orbit moon galaxy comet crater asteroid"),
    "biology": (
        "science",
        0.30,
        "organism tissue membrane cell species plant virus evolution insect fungus embryo bacteria",
    ),
    "genetics": (
        "biology",
        0.30,
        "gene sequence expression cell code protein mutation trait genome chromosome strand variant",
    ),
    "computing": (
        "science",
        0.35,
        "network memory server code data virus script program chip cloud software password",
    ),
    "health": (
        None,
        0.08,
        "patient care hospital risk doctor disease symptom sleep stress exercise prevention clinic",
    ),
    "medicine": (
        "health",
        0.40,
        "drug operation dose trial virus cell surgery vaccine therapy tablet diagnosis infection",
    ),
    "nutrition": ("health", 0.25, "diet sugar vitamin protein plant fat meal salt iron portion fibre calorie"),
    "arts": (None, 0.10, "festival artist audience stage studio culture critic award gallery exhibition style patron"),
    "music": ("arts", 0.40, "band album song note record tour pitch concert string rhythm chord melody"),
    "cinema": ("arts", 0.30, "film screen scene star script plot lens director actor shot cast trailer"),
    "books": ("arts", 0.30, "novel character volume plot note page author chapter story publisher poem reader"),
    "environment": (None, 0.07, "river water forest species land waste nature pollution soil park air habitat"),
    "climate": (
        "environment",
        0.35,
        "carbon temperature warming model season summit record heat emission drought flood storm",
    ),
    "energy": ("environment", 0.30, "gas oil grid power plant output wind solar fuel nuclear reactor turbine"),
}

# How much more (above 1) or less (below 1) often two labels appear together than by their odds alone.
_AFFINITIES: dict[tuple[str, str], float] = {
    ("football", "tennis"): 0.1,
    ("football", "cycling"): 0.1,
    ("tennis", "cycling"): 0.1,
    ("music", "cinema"): 0.3,
    ("music", "books"): 0.1,
    ("elections", "diplomacy"): 0.2,
    ("astronomy", "biology"): 0.1,
    ("football", "law"): 8,
    ("cycling", "nutrition"): 20,
    ("sport", "health"): 3,
    ("bonds", "politics"): 5,
    ("shares", "computing"): 15,
    ("trade", "diplomacy"): 20,
    ("trade", "energy"): 15,
    ("jobs", "law"): 15,
    ("elections", "economy"): 3,
    ("climate", "diplomacy"): 20,
    ("genetics", "medicine"): 30,
    ("biology", "environment"): 8,
    ("cinema", "books"): 8,
    ("sport", "science"): 0.1,
    ("arts", "markets"): 0.1,
    ("arts", "health"): 0.2,
}

# The head of the background distribution, from the most to the least frequent.
_COMMON_WORDS = (
    "the of and to in a is that for it was on with as he be at by had not from are but this have an they which "
    "one you were her all she there would their we him been has when who will more no if out so said what up its "
    "about into than them can only other new some could time these two may then do first any my now such like our "
    "over man me even most made after also did many before must through back years where much your way well down "
    "should because each just those people mr how too little good very make world still own see men long get here "
    "between both being under never day same another know while last might us great old year off come since "
    "against go came right used take three"
)

_MAX_SPECIFIC_LABELS = 3
_MAX_LABELS = 7
# Share of the background's words that are topical words in texts which need not have their label.
_STRAY_SHARE = 0.03
SPLITS = ("train", "validation", "test")  # split i is stream i of the corpus' seed
_BLOCK = 500  # texts whose posterior is held at once: 500 x 3,394 sets are 14 MB


@dataclass(frozen=True, eq=False)
class GenerativeProcess:
    """A known distribution over (text, label set), with its exact posterior and optimal decisions.

    Shapes: S possible label sets, L labels, V words; and N texts of a call.

    Args:
        labels: The label names.
        hierarchy: {child: parent}; a set that holds the child holds the parent.
        label_sets: The possible sets, (S, L) bool, none of them empty.
        prior: Their probabilities, (S,), all positive.
        vocabulary: Words without white space.
        background: The background distribution, (V,); positive everywhere, so no text is impossible.
        label_words: Each label's own distribution over words, (L, V).
        topic_share: Probability in (0, 1) that a word is drawn from a label and not from the background.
        min_words: Fewest words of a text, at least 1.
        max_words: Most words of a text; the length is uniform between the two.

    Raises:
        ValueError: If shapes disagree, a distribution is invalid, or a set lacks the parent of one of its labels.
    """

    labels: tuple[str, ...]
    hierarchy: Mapping[str, str]
    label_sets: np.ndarray
    prior: np.ndarray
    vocabulary: tuple[str, ...]
    background: np.ndarray
    label_words: np.ndarray
    topic_share: float = 0.35
    min_words: int = 15
    max_words: int = 35

    def __post_init__(self) -> None:
        if len(self._label_ids) < len(self.labels) or len(self._word_ids) < len(self.vocabulary):
            raise ValueError("labels and vocabulary must not name a label or word twice")
        num_sets, num_labels, num_words = len(self.prior), len(self.labels), len(self.vocabulary)
        for name, shape in (
            ("label_sets", (num_sets, num_labels)),
            ("prior", (num_sets,)),
            ("background", (num_words,)),
            ("label_words", (num_labels, num_words)),
        ):
            if getattr(self, name).shape != shape:
                raise ValueError(f"{name} has shape {getattr(self, name).shape}, expected {shape}")
        for name in ("prior", "background", "label_words"):
            values = getattr(self, name)
            if (values < 0).any() or not np.allclose(values.sum(axis=-1), 1.0):
                raise ValueError(f"{name} must hold probabilities that sum to 1, got sum {values.sum(axis=-1)}")
        if not (self.prior > 0).all() or not (self.background > 0).all():
            raise ValueError("prior and background must be positive everywhere; leave out impossible sets and words")
        if not 0 < self.topic_share < 1:
            raise ValueError(f"topic_share is {self.topic_share}, expected a number between 0 and 1")
        if not 1 <= self.min_words <= self.max_words:
            raise ValueError(
                f"got min_words {self.min_words} and max_words {self.max_words}, expected 1 <= min <= max"
            )
        if not self.label_sets.any(axis=1).all():
            raise ValueError("label_sets has an empty set; every text needs at least one label")
        for child, parent in self.hierarchy.items():
            if not {child, parent} <= set(self.labels):
                raise ValueError(f"hierarchy puts {child!r} below {parent!r}, expected both to be labels")
            if (self.label_sets[:, self._label_ids[child]] & ~self.label_sets[:, self._label_ids[parent]]).any():
                raise ValueError(
                    f"label_sets has a set with {child!r} but without its parent {parent!r}; add the parent"
                )

    @cached_property
    def _label_ids(self) -> dict[str, int]:
        return {label: i for i, label in enumerate(self.labels)}

    @cached_property
    def _word_ids(self) -> dict[str, int]:
        return {word: i for i, word in enumerate(self.vocabulary)}

    @cached_property
    def word_probabilities(self) -> np.ndarray:
        """Probability of each word given each label set, (S, V)."""
        weights = self.label_sets / self.label_sets.sum(axis=1, keepdims=True)
        return (1 - self.topic_share) * self.background + self.topic_share * (weights @ self.label_words)

    def sample(self, num_texts: int, seed: int, stream: int = 0) -> tuple[list[str], np.ndarray]:
        """Draw texts with their label sets.

        The first texts of a larger sample are those of a smaller one with the same seed and stream.

        Args:
            num_texts: N.
            seed: Not negative; the same seed gives the same texts.
            stream: Not negative; streams of one seed are independent (the corpus' splits are streams 0, 1, 2).

        Returns:
            The texts, words separated by one space, and their label sets, (N, L) bool.
        """
        set_rng, length_rng, word_rng = (
            np.random.default_rng(np.random.SeedSequence(seed, spawn_key=(stream, part))) for part in range(3)
        )
        set_ids = _draw(self.prior, set_rng.random(num_texts))
        lengths = self.min_words + np.floor(
            length_rng.random(num_texts) * (self.max_words - self.min_words + 1)
        ).astype(int)
        words = self._draw_words(np.repeat(set_ids, lengths), word_rng)
        ends = np.cumsum(lengths)
        texts = [" ".join(words[end - length : end]) for end, length in zip(ends, lengths, strict=True)]
        return texts, self.label_sets[set_ids]

    def _draw_words(self, set_ids: np.ndarray, rng: np.random.Generator) -> list[str]:
        """Draw one word for each entry of `set_ids`, (W,): first its source, then the word."""
        uniform = rng.random((len(set_ids), 2))
        sizes = self.label_sets.sum(axis=1)[set_ids]
        # The labels of each set come first in its row of `members`.
        members = np.argsort(~self.label_sets, axis=1, kind="stable")
        rank = np.minimum((uniform[:, 0] / self.topic_share * sizes).astype(int), sizes - 1)
        from_background = uniform[:, 0] >= self.topic_share
        source = np.where(from_background, len(self.labels), members[set_ids, rank])
        word_ids = np.empty(len(set_ids), dtype=int)
        for i, distribution in enumerate([*self.label_words, self.background]):
            word_ids[source == i] = _draw(distribution, uniform[source == i, 1])
        return [self.vocabulary[i] for i in word_ids]

    def posterior(self, texts: Sequence[str]) -> np.ndarray:
        """Probability of every possible label set given each text, (N, S); `label_marginals` needs less memory.

        Raises:
            ValueError: If a text is empty or has a word that is not in the vocabulary.
        """
        return np.concatenate([np.empty((0, len(self.prior))), *self._posterior_blocks(texts)])

    def label_marginals(self, texts: Sequence[str]) -> np.ndarray:
        """Probability of every label given each text, (N, L).

        Raises:
            ValueError: If a text is empty or has a word that is not in the vocabulary.
        """
        blocks = (block @ self.label_sets for block in self._posterior_blocks(texts))
        return np.concatenate([np.empty((0, len(self.labels))), *blocks])

    def _posterior_blocks(self, texts: Sequence[str]) -> Iterator[np.ndarray]:
        """Yield the posterior of at most `_BLOCK` texts at a time, (<= _BLOCK, S)."""
        log_words = np.log(self.word_probabilities).T
        for start in range(0, len(texts), _BLOCK):
            counts = np.stack(
                [self._word_counts(text, i) for i, text in enumerate(texts[start : start + _BLOCK], start)]
            )
            log_joint = np.log(self.prior) + counts @ log_words
            # Subtracting the largest term keeps exp() from underflowing for every set at once.
            joint = np.exp(log_joint - log_joint.max(axis=1, keepdims=True))
            yield joint / joint.sum(axis=1, keepdims=True)

    def _word_counts(self, text: str, number: int) -> np.ndarray:
        """Count the words of one text, (V,); `number` names the text in errors."""
        words = text.split()
        if not words:
            raise ValueError(f"text {number} is empty; this process writes at least {self.min_words} words")
        unknown = [word for word in words if word not in self._word_ids]
        if unknown:
            raise ValueError(
                f"text {number} has the word {unknown[0]!r}, which this process never writes ({len(unknown)} of its "
                f"{len(words)} words are unknown), so it has no posterior; pass texts drawn from this process"
            )
        return np.bincount([self._word_ids[word] for word in words], minlength=len(self.vocabulary)).astype(float)

    def bayes_label_sets(
        self, texts: Sequence[str], decision: str = "micro_f1", threshold: float | None = None
    ) -> np.ndarray:
        """Choose each text's optimal label set, (N, L) bool.

        Args:
            texts: Texts of this process.
            decision: What is maximised: "micro_f1", by the labels whose probability reaches the threshold, or "map",
                the share of texts with exactly the right set, by the most probable set.
            threshold: Probability in [0, 1] for "micro_f1"; default the optimum for these texts, see
                `micro_f1_threshold`.

        Raises:
            ValueError: If there is no such decision, or a text has no posterior.
        """
        if decision == "micro_f1":
            marginals = self.label_marginals(texts)
            return marginals >= (micro_f1_threshold(marginals) if threshold is None else threshold)
        if decision == "map":
            best = [block.argmax(axis=1) for block in self._posterior_blocks(texts)]
            return self.label_sets[np.concatenate([np.empty(0, dtype=int), *best])]
        raise ValueError(f"decision is {decision!r}, expected 'micro_f1' or 'map'")

    def optimal_micro_f1(self, texts: Sequence[str], references: Sequence[Collection[str]]) -> float:
        """The micro-F1 that a perfect model reaches on these texts, of which `references` are the label names.

        It is the best in expectation; on a small sample a model can exceed it by luck.

        Raises:
            ValueError: If lengths differ, a label is unknown, or a text has no posterior.
        """
        if len(texts) != len(references):
            raise ValueError(f"got {len(texts)} texts and {len(references)} label lists, expected as many of each")
        truth = np.zeros((len(texts), len(self.labels)), dtype=bool)
        for i, names in enumerate(references):
            for name in names:
                if name not in self._label_ids:
                    raise ValueError(f"text {i} has the label {name!r}, expected one of {', '.join(self.labels)}")
                truth[i, self._label_ids[name]] = True
        return _micro_f1(self.bayes_label_sets(texts), truth)

    def independent_prior(self) -> np.ndarray:
        """The prior, (S,), that keeps each label's frequency but knows of no correlation except the hierarchy."""
        # Proportional to the product, over the labels whose parent is in the set, of P(label | parent) or 1 minus it.
        marginals = self.prior @ self.label_sets
        log_prior = np.zeros(len(self.prior))
        for i, label in enumerate(self.labels):
            parent = self.hierarchy.get(label)
            possible = (
                np.ones(len(self.prior), bool) if parent is None else self.label_sets[:, self._label_ids[parent]]
            )
            share = marginals[i] / (self.prior @ possible)
            log_prior += np.where(possible, np.log(np.where(self.label_sets[:, i], share, 1 - share)), 0.0)
        weights = np.exp(log_prior)
        return weights / weights.sum()


def measure_optimum(process: GenerativeProcess, num_texts: int = 4000, seed: int = 0) -> dict[str, float]:
    """Estimate what is attainable on texts of a process, from a fresh sample.

    The F1 figures are expectations under the posterior of each text, which vary less than scores against drawn labels.

    Args:
        process: The process.
        num_texts: Size of the sample.
        seed: Seed of the sample; its stream is not one of the corpus' splits.

    Returns:
        "optimum": micro-F1 of the sets that maximise it, the highest that is possible; "most_probable_set": micro-F1
        of the most probable sets; "without_correlations": micro-F1, with its best threshold, of a reader who knows all
        but the correlations of labels (`independent_prior`); "exact_sets": share of texts whose most probable set is
        the true one.
    """
    texts, truth = process.sample(num_texts, seed, stream=len(SPLITS))
    marginals = process.label_marginals(texts)
    most_probable = process.bayes_label_sets(texts, "map")
    uncorrelated = replace(process, prior=process.independent_prior()).label_marginals(texts)
    return {
        "optimum": 2 * micro_f1_threshold(marginals),
        "most_probable_set": _micro_f1(most_probable, marginals),
        "without_correlations": max(_micro_f1(uncorrelated >= t, marginals) for t in np.linspace(0.01, 0.99, 99)),
        "exact_sets": float((most_probable == truth).all(axis=1).mean()),
    }


def micro_f1_threshold(marginals: np.ndarray) -> float:
    """Find the probability threshold, in (0, 0.5], whose label sets maximise the micro-F1 of the expected counts.

    Over many texts that is the micro-F1 itself.

    Args:
        marginals: Label probabilities given each text, (N, L), not all zero.
    """
    # A cell is a text and a label, p its probability, d = 1 if the label is chosen for the text and 0 if not. Then
    # F = 2 sum(d p) / (sum(d) + sum(p)). A choice reaches F or more exactly when sum(d (2 p - F)) >= F sum(p), and
    # d = [p >= F / 2] makes the left side largest. So the greatest F, F*, is reached by the threshold F* / 2. Since
    # the best choice takes the cells from the most probable down, F* is the best over the number of cells taken.
    descending = np.sort(marginals, axis=None)[::-1]
    chosen = np.arange(1, descending.size + 1)
    return float((np.cumsum(descending) / (chosen + descending.sum())).max())


def _micro_f1(chosen: np.ndarray, truth: np.ndarray) -> float:
    """Micro-F1 of `chosen`, (N, L) bool, against `truth`: bool, or probabilities, which give the expected micro-F1."""
    return float(2 * truth[chosen].sum() / (chosen.sum() + truth.sum()))


def _draw(probabilities: np.ndarray, uniform: np.ndarray) -> np.ndarray:
    """Draw one index of `probabilities`, (K,), for each number of `uniform` in [0, 1)."""
    cumulative = np.cumsum(probabilities)
    return np.searchsorted(cumulative / cumulative[-1], uniform, side="right")


def _zipf(size: int) -> np.ndarray:
    """Probabilities proportional to 1 / rank, (size,)."""
    weights = 1 / np.arange(1, size + 1)
    return weights / weights.sum()


def _ancestors(label: str) -> set[str]:
    """The label and all labels above it."""
    parent = _TOPICS[label][0]
    return {label} if parent is None else {label} | _ancestors(parent)


def _possible_label_sets() -> np.ndarray:
    """List the sets of at most three labels with their ancestors, at most seven in all, (S, L)."""
    labels = list(_TOPICS)
    found = {
        tuple(label in closure for label in labels)
        for size in range(1, _MAX_SPECIFIC_LABELS + 1)
        for specific in itertools.combinations(labels, size)
        if len(closure := set().union(*map(_ancestors, specific))) <= _MAX_LABELS
    }
    return np.array(sorted(found, reverse=True))


def _label_set_prior(label_sets: np.ndarray) -> np.ndarray:
    """Weigh each set by the odds of its labels times the affinities of its pairs, (S,)."""
    labels = list(_TOPICS)
    weights = np.prod(np.where(label_sets, [odds for _, odds, _ in _TOPICS.values()], 1.0), axis=1)
    for (first, second), factor in _AFFINITIES.items():
        together = label_sets[:, labels.index(first)] & label_sets[:, labels.index(second)]
        weights = weights * np.where(together, factor, 1.0)
    return weights / weights.sum()


@lru_cache(maxsize=1)
def default_process() -> GenerativeProcess:
    """Build the process of the generated corpus: 29 labels, 3,394 possible label sets."""
    words_of_label = {label: words.split() for label, (_, _, words) in _TOPICS.items()}
    topical = sorted({word for words in words_of_label.values() for word in words})
    common = _COMMON_WORDS.split()
    vocabulary = (*common, *topical)
    background = np.concatenate(
        [(1 - _STRAY_SHARE) * _zipf(len(common)), np.full(len(topical), _STRAY_SHARE / len(topical))]
    )
    label_words = np.zeros((len(_TOPICS), len(vocabulary)))
    for row, words in zip(label_words, words_of_label.values(), strict=True):
        row[[vocabulary.index(word) for word in words]] = _zipf(len(words))
    label_sets = _possible_label_sets()
    return GenerativeProcess(
        labels=tuple(_TOPICS),
        hierarchy={label: parent for label, (parent, _, _) in _TOPICS.items() if parent is not None},
        label_sets=label_sets,
        prior=_label_set_prior(label_sets),
        vocabulary=vocabulary,
        background=background,
        label_words=label_words,
    )


@dataclass(eq=False)
class GeneratedCorpusConfig(datasets.BuilderConfig):
    """Sizes and seed of the generated corpus.

    A split does not depend on the sizes of the others, and a smaller one is the beginning of a larger one.

    Args:
        train_size: Number of training texts, at least 1.
        validation_size: Number of validation texts, at least 1.
        test_size: Number of test texts, at least 1.
        seed: Seed of the texts, not negative.
    """

    version: datasets.Version | str | None = "1.0.0"
    train_size: int = 20_000
    validation_size: int = 1_000
    test_size: int = 1_000
    seed: int = 0

    def check(self) -> None:
        """Raise a ValueError if a size is below 1 or the seed is negative."""
        for split in SPLITS:
            if (size := getattr(self, f"{split}_size")) < 1:
                raise ValueError(f"{split}_size is {size}, expected at least 1")
        if self.seed < 0:
            raise ValueError(f"seed is {self.seed}, expected 0 or more")


class GeneratedCorpus(datasets.GeneratorBasedBuilder):
    """Builder of the generated corpus; it needs no files.

    Sizes and seed are arguments: `GeneratedCorpus(train_size=50_000, seed=1)`, see `GeneratedCorpusConfig`.
    """

    BUILDER_CONFIG_CLASS = GeneratedCorpusConfig
    BUILDER_CONFIGS = [GeneratedCorpusConfig(description="Texts from `default_process()`, seed 0")]
    config: GeneratedCorpusConfig

    def _info(self) -> datasets.DatasetInfo:
        # Not in the configuration's __post_init__: `datasets` sets sizes and seed on a copy made before.
        self.config.check()
        return datasets.DatasetInfo(
            description="Texts from a known generative process with correlated, hierarchical labels.",
            features=corpus_features(default_process().labels),
            license="Apache-2.0",
        )

    def _split_generators(self, dl_manager: Any) -> list[datasets.SplitGenerator]:
        return [datasets.SplitGenerator(name=split, gen_kwargs={"split": split}) for split in SPLITS]

    def _generate_examples(self, split: str) -> Iterator[tuple[str, dict[str, Any]]]:
        size = getattr(self.config, f"{split}_size")
        texts, label_sets = default_process().sample(size, self.config.seed, SPLITS.index(split))
        for i, (text, label_set) in enumerate(zip(texts, label_sets, strict=True)):
            name = f"{split}-{i}"
            yield name, {"id": name, "text": text, "labels": np.flatnonzero(label_set).tolist()}
