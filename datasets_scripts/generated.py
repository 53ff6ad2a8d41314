"""A generated corpus whose Bayes-optimal label sets are known.

A text is written in three steps:

1. A label set S is drawn from a prior over a list of all possible sets (about two thousand). Every set holds the
   ancestors of its labels. Some labels of different branches attract and some repel one another.
2. A length n is drawn uniformly, independently of S.
3. Each of the n words is drawn independently: with probability `topic_share` from the words of one label of S (each label
   of S equally often), otherwise from the background, which gives every word of the vocabulary some probability.

Because words are independent given S and the sets can be listed, P(S | text) is exact: prior times word probabilities,
normalised over the list. So is every label's probability, and with it the best decision that any model can take. The
card `cards/generated.md` explains the corpus and states its figures.
"""

import itertools
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property, lru_cache

import datasets
import numpy as np

# label: (parent, odds, words from the most to the least frequent). The odds are the label's factor in the weight of
# every set that holds it (see `_label_set_prior`). Words that stand under several labels make texts ambiguous.
_TOPICS: dict[str, tuple[str | None, float, str]] = {
    "sport": (
        None,
        0.08,
        "match team season coach player record training club injury league champion stadium score fans medal event "
        "final track athlete race",
    ),
    "football": (
        "sport",
        0.50,
        "goal pitch match club striker penalty transfer keeper pass corner net defender foul header referee squad kick "
        "midfield offside derby",
    ),
    "tennis": (
        "sport",
        0.25,
        "court match net serve set racket break volley seed rally ace clay baseline grass umpire doubles smash lob "
        "forehand backhand",
    ),
    "cycling": (
        "sport",
        0.20,
        "stage race tour climb sprint rider wheel gear mountain chain jersey saddle brake helmet pedal road lap peloton "
        "descent breakaway",
    ),
    "economy": (
        None,
        0.10,
        "price growth interest bank inflation rate tax budget debt demand industry income output crisis forecast "
        "spending recession wage currency quarter",
    ),
    "markets": (
        "economy",
        0.40,
        "price rally index trader investor risk exchange fund dealer option hedge futures broker close liquidity sell "
        "buy portfolio benchmark turmoil",
    ),
    "bonds": (
        "markets",
        0.35,
        "yield interest note debt treasury rating maturity issuer coupon default credit auction spread lender principal "
        "basis sovereign junk duration redemption",
    ),
    "shares": (
        "markets",
        0.50,
        "stock rally quarter dividend investor profit earnings split float listing buyout takeover merger valuation "
        "holder board stake ticker equity flotation",
    ),
    "trade": (
        "economy",
        0.30,
        "deal export border treaty tariff import port cargo steel container customs quota shipping goods deficit surplus "
        "supply dumping freight tonnage",
    ),
    "jobs": (
        "economy",
        0.25,
        "strike contract wage union worker shift employer hiring pension training overtime vacancy salary payroll "
        "apprentice layoff skills manager bargain recruit",
    ),
    "politics": (
        None,
        0.10,
        "party government bill minister vote power parliament reform cabinet leader debate policy coalition opposition "
        "senate scandal deputy speaker majority mandate",
    ),
    "elections": (
        "politics",
        0.40,
        "vote party race campaign poll seat ballot candidate rally debate turnout voter district swing primary recount "
        "margin landslide runoff constituency",
    ),
    "law": (
        "politics",
        0.35,
        "court trial case bill judge charge appeal sentence evidence contract verdict lawyer jury bail witness ruling "
        "statute prosecutor plea defendant",
    ),
    "diplomacy": (
        "politics",
        0.30,
        "treaty summit talks border mission deal embassy envoy sanction ally peace accord delegation dialogue ceasefire "
        "veto visa consul mediator neutral",
    ),
    "science": (
        None,
        0.08,
        "study theory model data evidence experiment research laboratory sample scale paper journal professor hypothesis "
        "measurement discovery method result analysis instrument",
    ),
    "astronomy": (
        "science",
        0.30,
        "star mission planet light telescope lens orbit moon galaxy comet probe dust crater nova eclipse spectrum gravity "
        "rocket dwarf asteroid",
    ),
    "biology": (
        "science",
        0.40,
        "cell species plant virus culture organism tissue protein habitat membrane evolution insect fungus embryo "
        "bacteria enzyme fossil nerve predator spore",
    ),
    "genetics": (
        "biology",
        0.40,
        "cell code sequence gene expression protein mutation trait genome chromosome strand variant clone marker helix "
        "splice dominant allele heredity recessive",
    ),
    "computing": (
        "science",
        0.45,
        "code virus network memory data script server program chip cloud software bug file user password browser "
        "processor algorithm encryption interface",
    ),
    "health": (
        None,
        0.08,
        "patient care risk hospital doctor disease symptom sleep stress exercise prevention clinic illness habit pain "
        "nurse ageing treatment recovery wellbeing",
    ),
    "medicine": (
        "health",
        0.50,
        "drug trial virus cell operation dose surgery vaccine therapy tablet diagnosis infection antibiotic scan surgeon "
        "prescription transplant placebo remedy fever",
    ),
    "nutrition": (
        "health",
        0.30,
        "diet plant energy sugar protein fat vitamin meal salt iron portion fibre calorie vegetable grain appetite mineral "
        "snack fasting obesity",
    ),
    "arts": (
        None,
        0.10,
        "stage culture work festival artist audience studio critic award premiere gallery style theme exhibition tradition "
        "prize patron museum performance genre",
    ),
    "music": (
        "arts",
        0.50,
        "note record tour pitch band scale album song key concert string rhythm chord guitar melody drum lyric orchestra "
        "tempo choir",
    ),
    "cinema": (
        "arts",
        0.40,
        "star film script plot screen scene director actor shot cast role lens premiere camera trailer sequel drama "
        "footage editing dialogue",
    ),
    "books": (
        "arts",
        0.35,
        "plot novel character volume note page author chapter story publisher poem reader essay fiction draft cover prose "
        "memoir edition narrator",
    ),
    "environment": (
        None,
        0.07,
        "species river habitat water forest land waste nature pollution soil park air coast plastic wildlife conservation "
        "recycling biodiversity reserve toxin",
    ),
    "climate": (
        "environment",
        0.45,
        "model season summit carbon record temperature warming heat emission drought flood storm ice ocean glacier "
        "rainfall sea monsoon greenhouse adaptation",
    ),
    "energy": (
        "environment",
        0.35,
        "power plant gas oil grid output wind solar fuel nuclear reactor turbine battery pipeline barrel coal storage "
        "electricity drilling watt",
    ),
}

# How much more (above 1) or less (below 1) often two labels stand together than their odds alone would have it.
_AFFINITIES: dict[tuple[str, str], float] = {
    ("football", "tennis"): 0.2,
    ("football", "cycling"): 0.2,
    ("tennis", "cycling"): 0.2,
    ("music", "cinema"): 0.5,
    ("music", "books"): 0.2,
    ("elections", "diplomacy"): 0.3,
    ("astronomy", "biology"): 0.2,
    ("football", "law"): 4.0,
    ("cycling", "nutrition"): 8.0,
    ("sport", "health"): 2.0,
    ("bonds", "politics"): 3.0,
    ("shares", "computing"): 6.0,
    ("trade", "diplomacy"): 8.0,
    ("trade", "energy"): 6.0,
    ("jobs", "law"): 6.0,
    ("elections", "economy"): 2.0,
    ("climate", "diplomacy"): 8.0,
    ("genetics", "medicine"): 10.0,
    ("biology", "environment"): 4.0,
    ("cinema", "books"): 4.0,
    ("sport", "science"): 0.2,
    ("arts", "markets"): 0.2,
    ("arts", "health"): 0.3,
}

# The head of the background distribution, from the most to the least frequent.
_COMMON_WORDS = (
    "the of and to in a is that for it was on with as he be at by had not from are but this have an they which one you "
    "were her all she there would their we him been has when who will more no if out so said what up its about into than "
    "them can only other new some could time these two may then do first any my now such like our over man me even most "
    "made after also did many before must through back years where much your way well down should because each just those "
    "people mr how too little good very make world still own see men long get here between both being under never day same "
    "another know while last might us great old year off come since against go came right used take three"
)

_MAX_SPECIFIC_LABELS = 3
_MAX_LABELS = 7
_BLOCK = 500  # texts whose posterior is held at once: 500 x 3,394 sets are 14 MB


@dataclass(frozen=True, eq=False)
class GenerativeProcess:
    """A known distribution over (text, label set), with its exact posterior and optimal decisions.

    S is the number of possible label sets, L of labels, V of words.

    Args:
        labels: L label names.
        hierarchy: {child: parent}; a set that holds the child holds the parent.
        label_sets: bool (S, L), the possible sets, none of them empty.
        prior: float (S,), their probabilities, all positive.
        vocabulary: V words without white space.
        background: float (V,), the background distribution; positive everywhere, so no text is impossible.
        label_words: float (L, V), each label's own distribution over words.
        topic_share: probability in (0, 1) that a word is drawn from a label and not from the background.
        min_words: fewest words of a text, at least 1.
        max_words: most words of a text; the length is uniform between the two.

    Raises:
        ValueError: shapes disagree, a distribution is none, or a set lacks the parent of one of its labels.
    """

    labels: tuple[str, ...]
    hierarchy: Mapping[str, str]
    label_sets: np.ndarray
    prior: np.ndarray
    vocabulary: tuple[str, ...]
    background: np.ndarray
    label_words: np.ndarray
    topic_share: float = 0.35
    min_words: int = 20
    max_words: int = 60

    def __post_init__(self) -> None:
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
            raise ValueError(f"got min_words {self.min_words} and max_words {self.max_words}, expected 1 <= min <= max")
        self._check_label_sets()

    def _check_label_sets(self) -> None:
        """Raise ValueError where a set is empty or lacks the parent of one of its labels."""
        if not self.label_sets.any(axis=1).all():
            raise ValueError("label_sets has an empty set; every text needs at least one label")
        for child, parent in self.hierarchy.items():
            if (self.label_sets[:, self._label_ids[child]] & ~self.label_sets[:, self._label_ids[parent]]).any():
                raise ValueError(f"label_sets has a set with {child!r} but without its parent {parent!r}; add the parent")

    @cached_property
    def _label_ids(self) -> dict[str, int]:
        return {label: i for i, label in enumerate(self.labels)}

    @cached_property
    def _word_ids(self) -> dict[str, int]:
        return {word: i for i, word in enumerate(self.vocabulary)}

    @cached_property
    def word_probabilities(self) -> np.ndarray:
        """Probability of each word given each label set, float (S, V)."""
        weights = self.label_sets / self.label_sets.sum(axis=1, keepdims=True)
        return (1 - self.topic_share) * self.background + self.topic_share * (weights @ self.label_words)

    def sample(self, num_texts: int, seed: int, stream: int = 0) -> tuple[list[str], np.ndarray]:
        """Draw texts with their label sets.

        The first texts of a larger sample are those of a smaller one with the same seed and stream.

        Args:
            num_texts: number of texts N.
            seed: not negative; the same seed gives the same texts.
            stream: not negative; streams of one seed are independent (the corpus' splits are streams 0, 1, 2).

        Returns:
            N texts, words separated by one space, and their label sets as bool (N, L).
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
        """Draw one word for each entry of `set_ids`, int (W,): first its source, then the word."""
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
        """Probability of every possible label set given each text.

        Args:
            texts: N texts of this process.

        Returns:
            float (N, S), each row sums to 1. For many texts prefer `label_marginals`, which needs less memory.

        Raises:
            ValueError: a text is empty or has a word that is not in the vocabulary.
        """
        return np.concatenate([np.empty((0, len(self.prior))), *self._posterior_blocks(texts)])

    def label_marginals(self, texts: Sequence[str]) -> np.ndarray:
        """Probability of every label given each text.

        Args:
            texts: N texts of this process.

        Returns:
            float (N, L).

        Raises:
            ValueError: a text is empty or has a word that is not in the vocabulary.
        """
        blocks = (block @ self.label_sets for block in self._posterior_blocks(texts))
        return np.concatenate([np.empty((0, len(self.labels))), *blocks])

    def _posterior_blocks(self, texts: Sequence[str]) -> Iterator[np.ndarray]:
        """Yield the posterior of at most `_BLOCK` texts at a time, float (<= _BLOCK, S)."""
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
        """Count the words of one text, float (V,); `number` names the text in errors."""
        words = text.split()
        if not words:
            raise ValueError(f"text {number} is empty; this process writes at least {self.min_words} words")
        unknown = [word for word in words if word not in self._word_ids]
        if unknown:
            raise ValueError(
                f"text {number} has the word {unknown[0]!r}, which this process never writes ({len(unknown)} of its "
                f"{len(words)} words are unknown), so it has no posterior; pass texts of the generated corpus unchanged"
            )
        return np.bincount([self._word_ids[word] for word in words], minlength=len(self.vocabulary)).astype(float)

    def bayes_label_sets(
        self, texts: Sequence[str], decision: str = "max_f1", threshold: float | None = None
    ) -> np.ndarray:
        """Choose each text's optimal label set.

        Args:
            texts: N texts of this process.
            decision: "max_f1", the labels whose probability reaches the threshold (maximises micro-F1), or "map", the
                most probable set (maximises the share of texts with exactly the right set).
            threshold: probability in [0, 1] for "max_f1"; None takes the optimum for these texts, see
                `max_f1_threshold`.

        Returns:
            bool (N, L).

        Raises:
            ValueError: unknown decision, or a text without posterior.
        """
        if decision == "max_f1":
            marginals = self.label_marginals(texts)
            return marginals >= (max_f1_threshold(marginals) if threshold is None else threshold)
        if decision == "map":
            best = [block.argmax(axis=1) for block in self._posterior_blocks(texts)]
            return self.label_sets[np.concatenate([np.empty(0, dtype=int), *best])]
        raise ValueError(f"decision is {decision!r}, expected 'max_f1' or 'map'")

    def optimal_micro_f1(self, texts: Sequence[str], references: Sequence[Sequence[str]]) -> float:
        """Score the F1-optimal label sets against the true ones: what a perfect model reaches on these texts.

        It is the best in expectation; on a small sample a model can pass it by luck.

        Args:
            texts: N texts of this process.
            references: the label names of each text.

        Returns:
            Micro-F1 in [0, 1].

        Raises:
            ValueError: lengths differ, a label is unknown, or a text has no posterior.
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
        """Give the prior that keeps each label's frequency but knows only the hierarchy, not which labels correlate.

        Returns:
            float (S,), proportional over the possible sets to the product, over the labels whose parent is in the set,
            of P(label | parent) or 1 - P(label | parent).
        """
        marginals = self.prior @ self.label_sets
        log_prior = np.zeros(len(self.prior))
        for i, label in enumerate(self.labels):
            parent = self.hierarchy.get(label)
            possible = np.ones(len(self.prior), bool) if parent is None else self.label_sets[:, self._label_ids[parent]]
            share = marginals[i] / (self.prior @ possible)
            log_prior += np.where(possible, np.log(np.where(self.label_sets[:, i], share, 1 - share)), 0.0)
        weights = np.exp(log_prior)
        return weights / weights.sum()


def max_f1_threshold(marginals: np.ndarray) -> float:
    """Find the probability threshold whose label sets maximise expected micro-F1.

    Choosing sets d(x) gives F = 2 sum_x,l d p / (sum_x,l d + sum_x,l p) with p the marginals. A choice reaches F or more
    exactly when sum d (2 p - F) >= F sum p, and d = [p >= F / 2] makes the left side largest. So the greatest F,
    F*, is reached by the threshold F* / 2: it is half of the best F1 over all numbers of cells taken from the top.

    Args:
        marginals: float (N, L), label probabilities given each text, not all zero.

    Returns:
        The threshold, F* / 2, in (0, 0.5].
    """
    descending = np.sort(marginals, axis=None)[::-1]
    chosen = np.arange(1, descending.size + 1)
    return float((np.cumsum(descending) / (chosen + descending.sum())).max())


def _micro_f1(chosen: np.ndarray, truth: np.ndarray) -> float:
    """Micro-F1 of `chosen`, bool (N, L), against true labels; expected micro-F1 if `truth` holds their probabilities."""
    return float(2 * truth[chosen].sum() / (chosen.sum() + truth.sum()))


def _draw(probabilities: np.ndarray, uniform: np.ndarray) -> np.ndarray:
    """Draw one index of `probabilities`, (K,), for each number of `uniform` in [0, 1): int, as long as `uniform`."""
    cumulative = np.cumsum(probabilities)
    return np.searchsorted(cumulative / cumulative[-1], uniform, side="right")


def _zipf(size: int) -> np.ndarray:
    """Probabilities proportional to 1 / rank, float (size,)."""
    weights = 1 / np.arange(1, size + 1)
    return weights / weights.sum()


def _ancestors(label: str) -> set[str]:
    """The label and all labels above it."""
    parent = _TOPICS[label][0]
    return {label} if parent is None else {label} | _ancestors(parent)


def _possible_label_sets() -> np.ndarray:
    """List the sets of at most three labels with their ancestors, at most seven in all: bool (S, L)."""
    labels = list(_TOPICS)
    found = {
        tuple(label in closure for label in labels)
        for size in range(1, _MAX_SPECIFIC_LABELS + 1)
        for specific in itertools.combinations(labels, size)
        if len(closure := set().union(*map(_ancestors, specific))) <= _MAX_LABELS
    }
    return np.array(sorted(found, reverse=True))


def _label_set_prior(label_sets: np.ndarray) -> np.ndarray:
    """Weigh each set by the odds of its labels times the affinities of its pairs: float (S,)."""
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
    # Topical words end the background's list: now and then one appears in a text that does not have its label.
    vocabulary = (*_COMMON_WORDS.split(), *topical)
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
        background=_zipf(len(vocabulary)),
        label_words=label_words,
    )
