"""Writes the checkpoints beside this file, with what the code that wrote them predicted.

    python tests/modeling/checkpoints/make_checkpoints.py NAME

`test_old_checkpoints.py` loads them with later code. Those without a lexical branch were written at commit a432182,
when the model was a single file, `sgm_lexical` when the branch was new; written again by later code they would prove
nothing.
"""

import json
import os
import platform
import sys
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from transformers import pipeline

from sgm_hf import SGMConfig, SGMForMultiLabelGeneration, SGMTokenizer
from sgm_hf.modeling.lexical_sgm import SGMLexicalBranch

FOLDER = Path(__file__).parent
# Variables that keep libraries from using all instructions.
LIMITS = ("ATEN_CPU_CAPABILITY", "MKL_CBWR", "MKL_ENABLE_INSTRUCTIONS", "ONEDNN_MAX_CPU_ISA")
LABELS = ["grain", "cocoa", "coffee", "sugar", "trade", "rates"]
TEXTS = [
    "shipments of cocoa and coffee rose in the week",
    "interest rates fell",
    "the trade in grain , sugar and cocoa was slow , said the board of trade in a note on the week",
    "grain grain grain",
]
SIZES: dict[str, Any] = {
    "embedding_size": 6,
    "encoder_hidden_size": 5,
    "encoder_layers": 1,
    "decoder_hidden_size": 8,
    "initializer_range": 1.0,
}
# Every value of a setting, every kind of tensor and every entry of a generation config is in one of them.
SETTINGS: dict[str, dict[str, Any]] = {
    "s2s": {"attention": "none", "label_order": "alphabetical"},
    "sgm_ge": {
        "label_feedback": "global_embedding",
        "gate_activation": "sigmoid",
        "encoder_layers": 2,
        "decoder_layers": 2,
    },
    "sgm_mixture_bf16": {
        "label_feedback": "fixed_mixture",
        "mixture_lambda": 0.3,
        "attention_size": 7,
        "label_embedding_size": 4,
    },
    "sgm_lexical": {
        "label_feedback": "global_embedding",
        "lexical_branch": True,
        "lexical_bigrams": 8,
        "lexical_in_decoder": True,
        "encoder_max_length": 6,
    },
}
GENERATION: dict[str, dict[str, Any]] = {
    "s2s": {"num_beams": 1, "length_penalty": 1.0},
    "sgm_ge": {
        "set_decoding": "threshold",
        "label_threshold": 0.2,
        "label_hierarchy": {"cocoa": "trade", "coffee": "trade"},
        "max_labels": 4,
    },
    "sgm_mixture_bf16": {"num_beams": 3, "set_decoding": "expected_f1", "forbidden_labels": ["sugar"]},
    "sgm_lexical": {
        "objective": "macro_f1",
        "set_decoding": "threshold",
        "label_threshold": [0.4, 0.2, 0.3, 0.25, 0.35, 0.5],
        "lexical_weight": 0.8,
        "hypothesis_temperature": 1.5,
        "label_calibration": [0.9, -0.2],
    },
}


def machine() -> str:
    """What the last bits of a result depend on: torch, the processor, and the instructions that may be used."""
    cpu = Path("/proc/cpuinfo")
    names = [line for line in cpu.read_text().splitlines() if line.startswith("model name")] if cpu.is_file() else []
    name = names[0].split(":")[1].strip() if names else platform.processor()
    capabilities = getattr(torch.cpu, "get_capabilities", dict)()  # torch 2.11 has it
    instructions = [name for name, there in sorted(capabilities.items()) if there is True]
    limits = [f"{variable}={os.environ[variable]}" for variable in LIMITS if variable in os.environ]
    return "; ".join([f"torch {torch.__version__}", name, " ".join(instructions), *limits])


def make_model(name: str, vocab_size: int) -> SGMForMultiLabelGeneration:
    """A model of random weights; `sgm_ge` has a label that was added and not trained."""
    torch.manual_seed(0)
    labels = LABELS[:-1] if name == "sgm_ge" else LABELS
    config = SGMConfig(vocab_size=vocab_size, id2label=dict(enumerate(labels)), **{**SIZES, **SETTINGS[name]})
    model = SGMForMultiLabelGeneration(config).eval()
    for parameter in model.parameters():
        parameter.data.mul_(1.5)  # so that labels differ from text to text
    model.decoder.output.bias.data[-1] = -0.4  # eos: so that sets have some labels
    if name == "sgm_ge":
        model.add_labels(LABELS[-1:])
    if config.lexical_branch:
        model.set_lexical_branch(make_branch(config), "no documents")
    for setting, value in GENERATION[name].items():
        setattr(model.generation_config, setting, value)
    return model.bfloat16() if name.endswith("bf16") else model


def make_branch(config: SGMConfig) -> SGMLexicalBranch:
    """A branch of random weights; its bigrams are the first that the texts can have."""
    branch = SGMLexicalBranch(config.vocab_size, config.num_labels, config.lexical_bigrams)
    branch.scale = torch.rand(len(branch.scale)) + 0.5
    branch.weight = torch.randn(len(branch.scale), config.num_labels)
    branch.bias = torch.randn(config.num_labels) - 0.5
    words = torch.arange(2, 2 + config.lexical_bigrams)
    branch.bigrams = words * config.vocab_size + words + 1
    return branch


@torch.no_grad()
def predict(model: SGMForMultiLabelGeneration, tokenizer: SGMTokenizer) -> dict[str, torch.Tensor]:
    """What a model says of the texts, by several ways of asking."""
    inputs = tokenizer(TEXTS, padding=True, truncation=True, return_tensors="pt")
    eos = model.config.eos_label_id
    labels = torch.tensor([[1, 2, eos], [4, eos, -100], [0, 3, 1], [eos, -100, -100]])
    output = model(**inputs, labels=labels, output_attentions=True, output_hidden_states=True)
    beams = model.generate(
        **inputs,
        num_beams=4,
        num_return_sequences=4,
        set_decoding="best_sequence",
        return_dict_in_generate=True,
        output_label_scores=True,
    )
    tensors = {
        "loss": output.loss,
        "logits": output.logits,
        "encoder_states": output.encoder_last_hidden_state,
        "decoder_states": output.decoder_hidden_states[-1],
        "generated": model.generate(**inputs),
        "greedy": model.generate(**inputs, num_beams=1, set_decoding="best_sequence"),
        "required": model.generate(**inputs, num_beams=4, required_labels=["grain"], set_decoding="best_sequence"),
        "beams": beams.sequences,
        "beam_scores": beams.sequences_scores,
        "label_scores": beams.label_scores,
    }
    if output.cross_attentions is not None:
        tensors["attention"] = output.cross_attentions[0]
    return {name: tensor.contiguous() for name, tensor in tensors.items()}


def main(names: list[str]) -> None:
    """Write those of these names."""
    tokenizer = SGMTokenizer.train_from_texts(TEXTS, model_max_length=20)
    for name in names:
        folder = FOLDER / name
        model = make_model(name, len(tokenizer))
        model.save_pretrained(folder)
        tokenizer.save_pretrained(folder)
        for code in folder.glob("*.py"):  # the checkpoint's own copy of the code is not what is tested
            code.unlink()
        model = SGMForMultiLabelGeneration.from_pretrained(folder)
        save_file(predict(model, tokenizer), folder / "expected.safetensors", metadata={"machine": machine()})
        answers = pipeline("multi-label-generation", model=str(folder))(TEXTS)
        (folder / "expected_pipeline.json").write_text(json.dumps(answers, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main(sys.argv[1:])
