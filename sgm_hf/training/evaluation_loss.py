"""The loss of a whole data set."""

from collections.abc import Sequence

import numpy as np
import torch
from accelerate import PartialState
from accelerate.utils import gather_object
from datasets import Dataset
from transformers import PreTrainedModel

from sgm_hf.data.batching import LengthBucketBatchSampler
from sgm_hf.data.collation import MultiLabelCollator
from sgm_hf.training.machine import autocast


def mean_token_loss(
    model: PreTrainedModel,
    dataset: Dataset,
    max_tokens: int = 32768,
    max_documents: int = 256,
    bf16: bool = False,
) -> float:
    """The cross-entropy a target token of encoded documents, given the true labels before it (teacher forcing).

    The model is in evaluation mode, and there is no label smoothing. Labels stand in the order of the training, by id
    where that is "shuffled", so that the loss of a data set does not depend on draws. Labels that the model does not
    know (ids from L on) are left out, and documents without words. In a distributed run each document counts once.

    Args:
        model: An SGM model.
        dataset: Encoded documents (`input_ids`, `labels`, `length`), see `sgm_hf.data.encoding.encode_dataset`.
        max_tokens: Greatest number of words of a batch, padding included.
        max_documents: Greatest number of documents of a batch.
        bf16: Whether to multiply in bfloat16, see `sgm_hf.training.machine.choose_precision`.

    Returns:
        The loss in nats, the same on all processes; NaN where no document has words.
    """
    lengths = np.asarray(dataset["length"])
    kept = np.flatnonzero(lengths > 0)
    if not len(kept):
        return float("nan")
    config = model.config
    order = "frequency" if config.label_order == "shuffled" else config.label_order
    collate = MultiLabelCollator(config.pad_token_id, config.num_labels, order)
    state = PartialState()
    sampler = LengthBucketBatchSampler(lengths[kept], max_tokens, max_documents, shuffle=False)
    was_training, total, count = model.training, 0.0, 0
    model.eval()
    for rows in [kept[batch].tolist() for batch in sampler][state.process_index :: state.num_processes]:
        documents = dataset.__getitems__(rows)
        batch = collate([{**d, "labels": known_labels(d["labels"], config.num_labels)} for d in documents])
        batch = {name: tensor.to(model.device) for name, tensor in batch.items()}
        with torch.no_grad(), autocast(model.device, bf16):
            total += model(**batch, num_items_in_batch=1, use_cache=False).loss.item()
        count += int((batch["labels"] >= 0).sum())
    model.train(was_training)
    shares = gather_object([(total, count)]) if state.num_processes > 1 else [(total, count)]
    totals, counts = zip(*shares, strict=True)
    return sum(totals) / sum(counts)


def known_labels(labels: Sequence[int], num_labels: int) -> list[int]:
    """The label ids below L, each once, in their order."""
    return [label for label in dict.fromkeys(labels) if label < num_labels]
