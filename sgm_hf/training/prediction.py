"""Label sets, scores and loss of a whole data set, in batches of similar length."""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
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
from sgm_hf.data.labels import label_matrix
from sgm_hf.metrics import (
    compute_hierarchical_metrics,
    compute_metrics,
    compute_ranking_metrics,
    compute_score_metrics,
    f1_by_frequency,
)
from sgm_hf.modeling.constraints_sgm import LabelConstraints
from sgm_hf.modeling.generation_sgm import expected_f1_sets
from sgm_hf.modeling.label_sets_sgm import checked_set_decoding, label_sets_from_sequences
from sgm_hf.training.machine import autocast
from sgm_hf.training.progress import ProgressLines

# Sorting the scores of a large data set all at once would take many times their memory.
DOCUMENTS_PER_SORT = 4096
# Of every label, for a document without words.
NO_WORDS_LOG_ODDS = -10.0


@dataclass
class LabelPredictions:
    """What one pass of generation says of N documents.

    Args:
        best_sequences: Label ids of each document's best sequence, in generated order.
        label_scores: Probability of each label to be in the document's set, (N, L) float32.
        expected_f1_sets: Label ids of each document's set of highest expected F1, best first.
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
            constraints: What the sets of "threshold" obey: `model.label_constraints()`.
            threshold: Lowest score of a label of "threshold", one for all labels or one per label.

        Raises:
            ValueError: If there is no such decoding, or a threshold is outside (0, 1].
        """
        set_decoding = checked_set_decoding(set_decoding)
        if set_decoding == "best_sequence":
            return self.best_sequences
        if set_decoding == "expected_f1":
            return self.expected_f1_sets
        scores = torch.from_numpy(self.label_scores)
        return [labels for part in scores.split(DOCUMENTS_PER_SORT) for labels in constraints.select(part, threshold)]

    def label_scores_of(self, num_columns: int) -> np.ndarray:
        """The label scores, (N, num_columns) float32: 0 in the columns of labels that the model does not know."""
        unknown = num_columns - self.label_scores.shape[1]
        return np.pad(self.label_scores, ((0, 0), (0, unknown))) if unknown else self.label_scores


@dataclass
class LabelHypotheses:
    """What beam search found for N documents.

    Args:
        hypotheses: Label sequences, (N, K, n) int64: bos, labels, eos, padding.
        log_probs: log p(y|x) of each, (N, K); -inf where there is none.
        lexical_logits: Log-odds of each label by the lexical branch, (N, L) float32, if there is one.
        num_labels: L.
    """

    hypotheses: np.ndarray
    log_probs: np.ndarray
    lexical_logits: np.ndarray | None
    num_labels: int

    def select(self, rows: np.ndarray) -> "LabelHypotheses":
        """Those of some documents, by their places (M); a document may be there more than once."""
        lexical_logits = None if self.lexical_logits is None else self.lexical_logits[rows]
        return LabelHypotheses(self.hypotheses[rows], self.log_probs[rows], lexical_logits, self.num_labels)


def metrics_of_decodings(
    references: np.ndarray,
    label_sets: Mapping[str, Sequence[Sequence[int]]],
    chosen: str,
    scores: np.ndarray,
    parents: np.ndarray | None = None,
    training_counts: np.ndarray | None = None,
) -> dict[str, float]:
    """The metrics of N documents: of each set decoding, of the chosen one also under bare names, and of the scores.

    Args:
        references: True labels, bool, (N, C), C - L of them unknown to the model.
        label_sets: Label ids of each document, by the name of the decoding.
        chosen: One of these.
        scores: Of the labels, in [0, 1], (N, C).
        parents: The column of each label's parent, -1 for none, (C); None without a hierarchy.
        training_counts: Training documents of each label, (L); None where they are not known.
    """
    metrics: dict[str, float] = {}
    for set_decoding, sets in label_sets.items():
        matrix = label_matrix(sets, references.shape[1])
        values = compute_metrics(references, matrix)
        if parents is not None:
            values |= compute_hierarchical_metrics(references, matrix, parents)
        if set_decoding == chosen:
            metrics |= {name: float(value) for name, value in values.items()}
        metrics |= {f"{set_decoding}_{name}": float(value) for name, value in values.items()}
    metrics |= compute_score_metrics(references, scores) | compute_ranking_metrics(references, scores)
    if training_counts is not None:
        unknown = references.shape[1] - len(training_counts)
        matrix = label_matrix(label_sets[chosen], references.shape[1])
        metrics |= f1_by_frequency(references, matrix, np.pad(training_counts, (0, unknown)))
    return metrics


def evaluation_sets(dataset: Any, name: str) -> dict[str, Any]:
    """The data sets of one evaluation by name: `name` alone, or `name_key` for each key of a dictionary of them."""
    if isinstance(dataset, dict):
        return {f"{name}_{key}": part for key, part in dataset.items()}
    return {name: dataset}


@contextmanager
def evaluation_batches(
    model: PreTrainedModel, dataset: Dataset, max_tokens: int, max_documents: int
) -> Iterator[list[list[int]]]:
    """Cut a data set into batches of documents of similar length, with the model in evaluation mode within the block.

    Yields:
        The row numbers of the documents of each batch of this process; none has no words.
    """
    lengths = np.asarray(dataset["length"])
    kept = np.flatnonzero(lengths > 0)
    batches: list[list[int]] = []
    if len(kept):
        sampler = LengthBucketBatchSampler(lengths[kept], max_tokens, max_documents, shuffle=False)
        batches = [kept[batch].tolist() for batch in sampler]
    state, was_training = PartialState(), model.training
    model.eval()
    try:
        yield batches[state.process_index :: state.num_processes]
    finally:
        model.train(was_training)


def gather_rows(rows: list[Any]) -> list[Any]:
    """The rows of all processes, in each of them."""
    return gather_object(rows) if PartialState().num_processes > 1 else rows


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

    The processes of a distributed run share the work, and each returns the predictions of all documents. A document
    without words gets no label.

    Args:
        model: An SGM model.
        dataset: Documents of `sgm_hf.data.encoding.encode_dataset`.
        max_tokens: Most words of a batch, padding included.
        max_documents: Most documents of a batch.
        bf16: Whether to multiply in bfloat16 (autocast); in fp32, with a warning, where the device cannot.
        show_progress: Whether to show a progress bar.
        show_lines: Whether to write a line every 30 seconds instead.
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
    config = model.config
    rows: list[tuple[int, list[int], np.ndarray, list[int]]] = []
    constraints = model.label_constraints(**generation_arguments)
    shown: dict[str, Any] = {"show_progress": show_progress, "show_lines": show_lines, "description": description}
    for batch, output in generated_batches(
        model, dataset, max_tokens, max_documents, bf16, **shown, **generation_arguments
    ):
        best_sequences = label_sets_from_sequences(output.sequences.cpu(), config.num_labels)
        scores = output.label_scores.float().cpu().numpy()
        rows += zip(batch, best_sequences, scores, expected_f1_sets(output, constraints), strict=True)
    predictions = LabelPredictions(
        [[] for _ in range(len(dataset))],
        np.zeros((len(dataset), config.num_labels), dtype=np.float32),
        [[] for _ in range(len(dataset))],
    )
    for row, best_sequence, scores, expected_f1_set in gather_rows(rows):
        predictions.best_sequences[row], predictions.label_scores[row] = best_sequence, scores
        predictions.expected_f1_sets[row] = expected_f1_set
    return predictions


def generate_hypotheses(model: PreTrainedModel, dataset: Dataset, **settings: Any) -> LabelHypotheses:
    """What beam search finds for every document of an encoded data set, before both sources are weighed.

    Args:
        model: An SGM model.
        dataset: Documents of `sgm_hf.data.encoding.encode_dataset`.
        **settings: As of [`generate_predictions`].

    Returns:
        The hypotheses of the N documents, in the data set's order, the same on all processes.
    """
    rows: list[tuple[int, np.ndarray, np.ndarray, np.ndarray | None]] = []
    neutral: dict[str, Any] = {"lexical_weight": 0.0, "hypothesis_temperature": 1.0}
    for batch, output in generated_batches(model, dataset, **settings, **neutral):
        log_odds = [None] * len(batch)
        if output.lexical_logits is not None:
            log_odds = output.lexical_logits.float().cpu().numpy()
        hypotheses, log_probs = output.hypotheses.cpu().numpy(), output.hypothesis_log_probs.float().cpu().numpy()
        rows += zip(batch, hypotheses, log_probs, log_odds, strict=True)
    found = gather_rows(rows)
    num_labels, count = model.config.num_labels, len(dataset)
    width = max((hypotheses.shape[1] for _, hypotheses, _, _ in found), default=1)
    num_beams = max((len(log_probs) for _, _, log_probs, _ in found), default=1)
    # A document without words has one hypothesis, that without labels.
    result = LabelHypotheses(
        np.full((count, num_beams, width), model.config.pad_label_id),
        np.where(np.arange(num_beams) == 0, 0.0, -np.inf) * np.ones((count, 1)),
        None if model.lexical is None else np.full((count, num_labels), NO_WORDS_LOG_ODDS, dtype=np.float32),
        num_labels,
    )
    for row, hypotheses, log_probs, log_odds in found:
        result.hypotheses[row, :, : hypotheses.shape[1]], result.log_probs[row] = hypotheses, log_probs
        if result.lexical_logits is not None:
            result.lexical_logits[row] = log_odds
    return result


def generated_batches(
    model: PreTrainedModel,
    dataset: Dataset,
    max_tokens: int = 32768,
    max_documents: int = 256,
    bf16: bool = False,
    show_progress: bool = False,
    show_lines: bool = False,
    description: str = "Generating",
    **generation_arguments: Any,
) -> Iterator[tuple[list[int], Any]]:
    """Generate batch by batch, with label scores and hypotheses; arguments as of [`generate_predictions`].

    Yields:
        The row numbers of the documents of a batch of this process, and what `generate` returned for them.
    """
    collate = MultiLabelCollator(model.config.pad_token_id, model.config.num_labels)
    with evaluation_batches(model, dataset, max_tokens, max_documents) as batches:
        total = sum(map(len, batches))
        bar = tqdm(total=total, desc=description, disable=not show_progress, leave=False)
        with ProgressLines(total, description) if show_lines else bar as progress:
            for batch in batches:
                inputs = collate.pad_texts(dataset.__getitems__(batch))
                with torch.no_grad(), autocast(model.device, bf16):
                    output = model.generate(
                        **{name: tensor.to(model.device) for name, tensor in inputs.items()},
                        return_dict_in_generate=True,
                        output_label_scores=True,
                        set_decoding="best_sequence",
                        **generation_arguments,
                    )
                yield batch, output
                progress.update(len(batch))


def mean_token_loss(
    model: PreTrainedModel,
    dataset: Dataset,
    max_tokens: int = 32768,
    max_documents: int = 256,
    bf16: bool = False,
) -> float:
    """The cross-entropy per target token of encoded documents, given the true labels before it (teacher forcing).

    Labels that the model does not know (ids from L on) and documents without words are left out, and there is no label
    smoothing. In a distributed run each document counts once.

    Args:
        model: An SGM model.
        dataset: Documents of `sgm_hf.data.encoding.encode_dataset`, with labels.
        max_tokens: Most words of a batch, padding included.
        max_documents: Most documents of a batch.
        bf16: Whether to multiply in bfloat16 (autocast).

    Returns:
        The loss in nats, the same on all processes; NaN where no document has words.
    """
    config = model.config
    # Labels come as in training, but by id where they are shuffled there: the loss must not depend on draws.
    order = "frequency" if config.label_order == "shuffled" else config.label_order
    collate = MultiLabelCollator(config.pad_token_id, config.num_labels, order)
    total, count = 0.0, 0
    with evaluation_batches(model, dataset, max_tokens, max_documents) as batches:
        for rows in batches:
            documents = [
                {**document, "labels": [i for i in dict.fromkeys(document["labels"]) if i < config.num_labels]}
                for document in dataset.__getitems__(rows)
            ]
            batch = collate(documents)
            batch = {name: tensor.to(model.device) for name, tensor in batch.items()}
            with torch.no_grad(), autocast(model.device, bf16):
                total += model(**batch, num_items_in_batch=1, use_cache=False).loss.item()
            count += int((batch["labels"] >= 0).sum())
    totals, counts = zip(*gather_rows([(total, count)]), strict=True)
    return sum(totals) / sum(counts) if sum(counts) else float("nan")
