"""Label sets and scores of a whole data set, by generation in batches of similar length."""

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
from sgm_hf.modeling.label_sets_sgm import checked_set_decoding, label_sets_from_sequences, select_labels
from sgm_hf.training.machine import autocast
from sgm_hf.training.progress import ProgressLines


@dataclass
class LabelPredictions:
    """What one pass of generation says of N documents.

    Args:
        best_sequences: Label ids of each document's best sequence, in generated order.
        label_scores: Probability that each label is in the document's set, (N, L) float32.
    """

    best_sequences: list[list[int]]
    label_scores: np.ndarray

    def label_sets(
        self, set_decoding: str, threshold: float = 0.5, min_labels: int = 0, max_labels: int | None = None
    ) -> list[list[int]]:
        """Each document's label ids under one set decoding.

        Args:
            set_decoding: "best_sequence" (ids in generated order) or "threshold" (the labels whose score reaches the
                threshold, highest first).
            threshold: Least score of a label; this and the next two are for "threshold".
            min_labels: Fewest labels.
            max_labels: Most labels; default no limit.

        Raises:
            ValueError: If there is no such decoding.
        """
        set_decoding = checked_set_decoding(set_decoding)
        if set_decoding == "best_sequence":
            return self.best_sequences
        return select_labels(torch.from_numpy(self.label_scores), threshold, min_labels, max_labels)


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
        The predictions of the N documents.
    """
    lengths = np.asarray(dataset["length"])
    kept = np.flatnonzero(lengths > 0)
    rows: list[tuple[int, list[int], np.ndarray]] = []
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
    label_scores = np.zeros((len(lengths), model.config.num_labels), dtype=np.float32)
    for row, labels, scores in rows:
        best_sequences[row], label_scores[row] = labels, scores
    return LabelPredictions(best_sequences, label_scores)


def _generate_batch(
    model: PreTrainedModel, dataset: Dataset, indices: list[int], bf16: bool, generation_arguments: dict[str, Any]
) -> list[tuple[int, list[int], np.ndarray]]:
    """The row number, best sequence and label scores of each document of one batch."""
    collate = MultiLabelCollator(model.config.pad_token_id, model.config.num_labels)
    inputs = collate([{"input_ids": ids} for ids in dataset[indices]["input_ids"]])
    with torch.no_grad(), autocast(model.device, bf16):
        output = model.generate(
            **{name: tensor.to(model.device) for name, tensor in inputs.items()},
            return_dict_in_generate=True,
            output_label_scores=True,
            **{"set_decoding": "best_sequence", **generation_arguments},
        )
    label_sets = label_sets_from_sequences(output.sequences.cpu(), model.config.num_labels)
    scores = output.label_scores.float().cpu().numpy()
    return list(zip(indices, label_sets, scores, strict=True))
