"""Label sets and scores of a whole data set, by generation in batches of similar length."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from accelerate import PartialState
from accelerate.utils import gather_object
from datasets import Dataset
from tqdm.auto import tqdm
from transformers import PreTrainedModel

from sgm_hf.data.batching import LengthBucketBatchSampler
from sgm_hf.data.collation import MultiLabelCollator
from sgm_hf.modeling.constraints_sgm import LabelConstraints
from sgm_hf.modeling.label_sets_sgm import checked_set_decoding, label_sets_from_sequences
from sgm_hf.training.machine import autocast
from sgm_hf.training.progress import ProgressLines

# Sorting the scores of a large data set all at once would take many times their memory.
DOCUMENTS_A_SORT = 4096


@dataclass
class LabelPredictions:
    """What one pass of generation says of N documents.

    Args:
        best_sequences: Label ids of each document's best sequence, in generated order.
        label_scores: Probability that each label is in the document's set, (N, L) float32.
        expected_f1_sets: Label ids of the set of greatest expected F1 of each document, best first.
    """

    best_sequences: list[list[int]]
    label_scores: np.ndarray
    expected_f1_sets: list[list[int]]

    def label_sets(
        self, set_decoding: str, constraints: LabelConstraints, threshold: float | Sequence[float] = 0.5
    ) -> list[list[int]]:
        """Each document's label ids under one set decoding.

        Args:
            set_decoding: "best_sequence" (ids in generated order), "threshold" (the labels whose score reaches the
                threshold, highest first) or "expected_f1" (best first).
            constraints: What the sets of "threshold" obey, as all hypotheses must have: `model.label_constraints()`.
            threshold: Least score of a label of "threshold", one for all or one a label.

        Raises:
            ValueError: If there is no such decoding, or a threshold is outside (0, 1].
        """
        set_decoding = checked_set_decoding(set_decoding)
        if set_decoding == "best_sequence":
            return self.best_sequences
        if set_decoding == "expected_f1":
            return self.expected_f1_sets
        scores = torch.from_numpy(self.label_scores)
        return [labels for part in scores.split(DOCUMENTS_A_SORT) for labels in constraints.select(part, threshold)]


def generate_predictions(
    model: PreTrainedModel,
    dataset: Dataset,
    max_tokens: int = 32768,
    max_documents: int = 256,
    bf16: bool = False,
    show_progress: bool = False,
    show_lines: bool = False,
    description: str = "Generating",
    **generation_arguments: Any,
) -> LabelPredictions:
    """Generate the labels of every document of an encoded data set, in the data set's order.

    Documents are generated in batches of similar length, shared between the processes of a distributed run; each
    process returns the predictions of all documents, each exactly once. A document of no words gets no label.

    Args:
        model: An SGM model.
        dataset: Encoded documents (`input_ids`, `length`), see `sgm_hf.data.encoding.encode_dataset`.
        max_tokens: Greatest number of words of a batch, padding included.
        max_documents: Greatest number of documents of a batch.
        bf16: Whether to multiply in bfloat16 (autocast); in fp32, with a warning, where the device cannot.
        show_progress: Whether to show a progress bar.
        show_lines: Whether to write a line every 30 seconds in place of it.
        description: Title of bar or lines.
        **generation_arguments: Passed to `model.generate`, such as `num_beams`.

    Returns:
        The predictions of the N documents, for each set decoding.

    Raises:
        ValueError: If a `set_decoding` is given.
    """
    if "set_decoding" in generation_arguments:
        raise ValueError(
            f"set_decoding={generation_arguments['set_decoding']!r} is given, but predictions hold the sets of every "
            "decoding; leave it out, and choose with label_sets()."
        )
    lengths = np.asarray(dataset["length"])
    kept = np.flatnonzero(lengths > 0)
    rows: list[tuple[int, list[int], np.ndarray, list[int]]] = []
    if len(kept):
        sampler = LengthBucketBatchSampler(lengths[kept], max_tokens, max_documents, shuffle=False)
        state = PartialState()
        batches = [kept[batch].tolist() for batch in sampler][state.process_index :: state.num_processes]
        was_training = model.training
        model.eval()
        total = sum(map(len, batches))
        bar = tqdm(total=total, desc=description, disable=not show_progress, leave=False)
        with ProgressLines(total, description) if show_lines else bar as progress:
            for batch in batches:
                rows += _generate_batch(model, dataset, batch, bf16, generation_arguments)
                progress.update(len(batch))
        model.train(was_training)
        rows = gather_object(rows) if state.num_processes > 1 else rows
    best_sequences: list[list[int]] = [[] for _ in range(len(lengths))]
    expected_f1_sets: list[list[int]] = [[] for _ in range(len(lengths))]
    label_scores = np.zeros((len(lengths), model.config.num_labels), dtype=np.float32)
    for row, best_sequence, scores, expected_f1_set in rows:
        best_sequences[row], label_scores[row], expected_f1_sets[row] = best_sequence, scores, expected_f1_set
    return LabelPredictions(best_sequences, label_scores, expected_f1_sets)


def _generate_batch(
    model: PreTrainedModel, dataset: Dataset, indices: list[int], bf16: bool, generation_arguments: dict[str, Any]
) -> list[tuple[int, list[int], np.ndarray, list[int]]]:
    """The row number, best sequence, label scores and set of greatest expected F1 of each document of one batch."""
    collate = MultiLabelCollator(model.config.pad_token_id, model.config.num_labels)
    inputs = collate.pad_texts(dataset.__getitems__(indices))
    with torch.no_grad(), autocast(model.device, bf16):
        output = model.generate(
            **{name: tensor.to(model.device) for name, tensor in inputs.items()},
            return_dict_in_generate=True,
            output_label_scores=True,
            set_decoding="best_sequence",
            **generation_arguments,
        )
    best_sequences = label_sets_from_sequences(output.sequences.cpu(), model.config.num_labels)
    scores = output.label_scores.float().cpu().numpy()
    constraints = model.label_constraints(**generation_arguments)
    expected_f1_sets = constraints.select_expected_f1(output.hypotheses, output.hypothesis_log_probs)
    return list(zip(indices, best_sequences, scores, expected_f1_sets, strict=True))
