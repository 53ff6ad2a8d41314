"""Used by two_processes.py in each of two processes: word vectors, with a number of threads of its own."""

import torch
from accelerate import PartialState
from accelerate.utils import gather
from datasets import Dataset

from sgm_hf import SGMConfig, SGMForMultiLabelGeneration, SGMTokenizer
from sgm_hf.programs.models import set_initial_vectors


def gather_vectors() -> torch.Tensor:
    """The word vectors that each process begins with, (processes, words, embedding)."""
    state = PartialState(cpu=True)
    threads = torch.get_num_threads()
    torch.set_num_threads(1 + state.process_index)
    tokenizer = SGMTokenizer.train_from_texts(["a b c d e f g h"])
    sizes = {"embedding_size": 4, "encoder_hidden_size": 4, "encoder_layers": 1, "decoder_hidden_size": 4}
    model = SGMForMultiLabelGeneration(SGMConfig(vocab_size=len(tokenizer), id2label={0: "x", 1: "y"}, **sizes))
    train = Dataset.from_dict({"input_ids": [[2, 3, 4, 5], [6, 7, 8, 9]], "length": [4, 4]})
    # A process that made vectors of its own would make others.
    set_initial_vectors(model, tokenizer, train, "ppmi", seed=state.process_index)
    torch.set_num_threads(threads)
    return gather(model.get_input_embeddings().weight.detach()[None])
