"""Made-up documents whose labels depend on their words, and on each other."""

import numpy as np

from sgm_hf.baselines import Documents

WORDS = ["oil", "gas", "gold", "corn", "wheat", "trade", "bank", "rate", "loan", "ship", "port", "the", "of", "u.s."]


def make_documents(count: int = 60, num_labels: int = 5, seed: int = 0) -> Documents:
    """Texts of 3 to 12 words; label i where its two words are, and the last label where the first two are."""
    generator = np.random.default_rng(seed)
    texts = [" ".join(generator.choice(WORDS, generator.integers(3, 13))) for _ in range(count)]
    references = np.zeros((count, num_labels), dtype=bool)
    for row, text in enumerate(texts):
        for label in range(num_labels - 1):
            references[row, label] = any(word in text.split() for word in WORDS[2 * label : 2 * label + 2])
    noise = generator.random(references.shape) < 0.05
    references ^= noise
    references[:, -1] = references[:, 0] & references[:, 1]
    return Documents(texts, references)
