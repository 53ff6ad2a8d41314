"""Probabilistic label trees by napkinXC, for very many labels.

Jasinska et al. 2016, "Extreme F-measure maximization using sparse probability estimates"; Wydmuch et al. 2018, "A
no-regret generalization of hierarchical softmax to extreme multi-label classification". The labels are the leaves of a
tree, whose inner nodes gather labels of like documents (hierarchical k-means, as in Parabel, Prabhu et al. 2018); a
logistic regression at each node says whether a label below it holds, given that one below its parent does. It stands
in for FastXML (Prabhu and Varma 2014), trees over documents, which no library that is kept has: a label tree, no
FastXML.
"""

import shutil
import tempfile
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from napkinxc.models import PLT
from scipy import sparse

from sgm_hf.baselines.features import TfidfBaseline

TREE_FOLDER = "plt"


@dataclass(eq=False, kw_only=True)
class ProbabilisticLabelTree(TfidfBaseline):
    """napkinXC's `PLT` on TF-IDF features. The score of a label is its probability.

    With at most `max_leaves` labels the tree is one node with a leaf for each: binary relevance below the probability
    that a document has a label.

    Args:
        max_leaves: Most labels below one of the lowest inner nodes.
        top_k: Labels that get a score, the most probable ones, others get 0; 0 for all.
        ensemble: Trees, whose probabilities are averaged.
        cost: As of the linear baselines, like those that follow.
    """

    name = "plt"
    grid = {"bigram_weight": (0.0, 0.5), "min_df": (3,), "max_leaves": (20, 100), "cost": (10.0, 30.0, 100.0, 300.0)}

    cost: float = 10.0
    max_leaves: int = 100
    top_k: int = 0
    ensemble: int = 1

    def __post_init__(self) -> None:
        super().__post_init__()
        for name, least in (("max_leaves", 2), ("top_k", 0), ("ensemble", 1)):
            value = getattr(self, name)
            if value < least:
                raise ValueError(f"{name} is {value}; it must be at least {least}.")

    def new_tree(self, folder: Path) -> PLT:
        """A tree whose files are in a folder."""
        return PLT(
            str(folder),
            max_leaves=self.max_leaves,
            ensemble=self.ensemble,
            liblinear_c=float(self.cost),
            # In the dual, napkinXC's default, the outcome depends on threads and on what was trained before.
            liblinear_solver="L2R_LR",
            liblinear_eps=0.01,  # liblinear's own for this solver
            seed=self.seed,
            threads=torch.get_num_threads(),
        )

    def fit_matrix(self, matrix: sparse.csr_matrix, truth: np.ndarray) -> None:
        """Fit the tree, whose files lie in a temporary folder until they are saved.

        Raises:
            ValueError: If no document has a label.
        """
        if not truth.any():
            raise ValueError("no training document has a label, so there is no tree to make; give some that have.")
        self._folder = tempfile.TemporaryDirectory(prefix="sgm_hf_plt_")
        self.tree = self.new_tree(Path(self._folder.name))
        self.tree.fit(matrix, sparse.csr_matrix(truth, dtype=np.float32))
        self.tree.load()

    def decide(self, matrix: sparse.csr_matrix) -> tuple[np.ndarray, np.ndarray]:
        """The probabilities, and the labels of one from 0.5 on."""
        scores = np.zeros((matrix.shape[0], self.num_labels), dtype=np.float32)
        if matrix.shape[0]:
            found = self.tree.predict_proba(matrix, top_k=self.top_k or self.num_labels)
            for row, labels in zip(scores, found, strict=True):
                for label, probability in labels:
                    row[label] = probability
        return scores.clip(0, 1), scores >= 0.5

    def cells_per_document(self) -> int:
        """Labels with their probabilities, as Python's objects."""
        return 10 * self.num_labels

    def save_weights(self, folder: Path) -> None:
        """Write the features, and napkinXC's files to the folder `plt`."""
        self.features.save(folder)
        target = folder / TREE_FOLDER
        shutil.rmtree(target, ignore_errors=True)
        shutil.copytree(self._folder.name, target)

    def load_weights(self, folder: Path) -> None:
        """Read what `save_weights` has written."""
        self.features.load(folder)
        self._folder = tempfile.TemporaryDirectory(prefix="sgm_hf_plt_")
        shutil.copytree(folder / TREE_FOLDER, self._folder.name, dirs_exist_ok=True)
        self.tree = self.new_tree(Path(self._folder.name))
        self.tree.load()
