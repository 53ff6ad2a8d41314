"""The lexical branch of the benchmarks: of the size that a fit has, with weights that decide nothing.

So the arms with a branch generate sets of the same sizes as the one without, and differ in time by the branch alone.
"""

import numpy as np
import torch
from datasets import Dataset

from sgm_hf import SGMConfig
from sgm_hf.modeling.neighbors_sgm import SGMNeighbors
from sgm_hf.training.lexical import LexicalFit, LexicalSettings, feature_blocks
from sgm_hf.training.linear import SparseMatrix
from sgm_hf.training.neighbors import NeighborFit, make_store

# Settings of the model by variant of the arms "branch".
VARIANTS = {
    "beside": {"lexical_branch": True},
    "decoder": {"lexical_branch": True, "lexical_in_decoder": True},
    "neighbors": {"lexical_branch": True, "lexical_in_decoder": True, "lexical_neighbors": 30},
}
# Documents that neighbors are looked for among, about as many as AAPD has for training.
STORED = 39_000
# What `SGMTrainer.calibrate` would store.
GENERATION = {"lexical_weight": 2.0, "hypothesis_temperature": 1.5, "label_calibration": [1.0, 0.1]}


def make_fit(texts: Dataset, config: SGMConfig, max_bigrams: int = 200_000) -> LexicalFit:
    """A branch in which every word of the texts is a feature, and every pair of adjacent words, or the first of them.

    Args:
        texts: Encoded documents.
        config: Of the model that it is for.
        max_bigrams: Pairs at most.
    """
    settings = LexicalSettings(bigram_weight=0.5, max_bigrams=max_bigrams)
    rows = [np.asarray(row, dtype=np.int64) for row in texts["input_ids"]]
    pairs = np.unique(np.concatenate([row[:-1] * config.vocab_size + row[1:] for row in rows]))[:max_bigrams]
    num_features, num_labels, num_folds = config.vocab_size + len(pairs), config.num_labels, settings.num_folds
    generator = torch.Generator().manual_seed(0)
    return LexicalFit(
        scale=torch.ones(num_features),
        bigrams=torch.from_numpy(pairs),
        weight=0.01 * torch.randn(num_features, num_labels, generator=generator),
        bias=torch.zeros(num_labels),
        fold_weight=0.01 * torch.randn(num_folds * num_features, num_labels, generator=generator),
        fold_bias=torch.zeros(num_folds, num_labels),
        folds=torch.arange(len(rows)) % num_folds,
        slope=1.0,
        intercept=0.0,
        out_of_fold_f1=0.0,
        settings=settings,
        data_hash="",
    )


def neighbor_store(texts: Dataset, config: SGMConfig) -> SGMNeighbors:
    """Texts to look for neighbors among, whose votes count for nothing.

    Args:
        texts: Encoded documents.
        config: Of the model that it is for.
    """
    scale, none = torch.ones(config.vocab_size), torch.zeros(0, dtype=torch.int64)
    matrix = SparseMatrix(feature_blocks(texts, none, scale), config.vocab_size)
    lengths = torch.tensor([len(labels) for labels in texts["labels"]])
    starts = torch.cat([torch.zeros(1, dtype=torch.int64), lengths.cumsum(0)])
    labels = torch.tensor([label for labels in texts["labels"] for label in labels])
    store, _ = make_store(
        matrix, scale, config.vocab_size, starts, labels, config.num_labels, config.lexical_neighbors
    )
    return store


def add_neighbors(fit: LexicalFit, texts: Dataset, config: SGMConfig) -> None:
    """Gives each of the texts that a branch was fitted to the first ones as neighbors; what is found costs the same.

    Args:
        fit: The branch.
        texts: Encoded documents.
        config: Of the model that it is for.
    """
    store, size = neighbor_store(texts, config), (len(texts), config.lexical_neighbors)
    neighbors = torch.arange(size[1], dtype=torch.int32).expand(size)
    fit.nearest = NeighborFit(store, 1.0, torch.zeros(config.num_labels), neighbors, torch.full(size, 1 / size[1]))
