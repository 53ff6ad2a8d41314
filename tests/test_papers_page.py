"""Statements of the documentation that can be looked up in the sources."""

import json
import re
from pathlib import Path

from transformers import TrainingArguments

ROOT = Path(__file__).resolve().parents[1]
SOURCES = "".join(
    path.read_text(encoding="utf-8")
    for folder in ("sgm_hf", "modeling", "examples", "datasets_scripts")
    for path in sorted((ROOT / folder).rglob("*.py"))
)
# Of the released code, as the page says where it names them.
OF_OTHERS = {"hacc", "linear", "param_init", "tau", "UNK", "pad", "unk"}


def settings(name: str) -> dict:
    return json.loads((ROOT / "examples" / "configs" / f"{name}.json").read_text(encoding="utf-8"))


def test_the_page_of_the_papers_names_only_settings_and_fields_that_exist():
    page = (ROOT / "docs" / "papers.md").read_text(encoding="utf-8")
    names = set(re.findall(r"`([A-Za-z_]\w*(?:\.[a-z]\w*)?)(?:=[^`]*)?`", page)) - OF_OTHERS
    assert {"SGMDecoderState.rows", "masked", "attention_size"} <= names
    files = {path.name for path in ROOT.glob("examples/configs/*.json")} | {"rewards.py"}
    missing = {name for name in names - files if not exists(name)}
    assert missing == set()


def exists(name: str) -> bool:
    """Whether our sources, or Transformers' settings, have a name; of `Class.member` also the member."""
    owner, _, member = name.partition(".")
    if member and not re.search(rf"(self\.|def ){member}\b", SOURCES):
        return False
    is_commit = re.fullmatch("[0-9a-f]{7}", name)
    return bool(is_commit or owner in TrainingArguments.__dataclass_fields__ or re.search(rf"\b{owner}\b", SOURCES))


def test_the_page_of_the_papers_tells_the_dropout_and_epochs_of_aapd_as_they_are():
    page = " ".join((ROOT / "docs" / "papers.md").read_text(encoding="utf-8").split())
    sgm, ge = (
        json.loads((ROOT / "examples" / "configs" / f"aapd_{name}.json").read_text()) for name in ("sgm", "sgm_ge")
    )
    assert f"{sgm['dropout']} in `examples/configs/aapd_sgm.json`, {ge['dropout']} in `aapd_sgm_ge.json`" in page
    assert f"For SGM dropout is {sgm['dropout']} and there are {sgm['num_train_epochs']} epochs." in page
    assert f"dropout {ge['dropout']}, label smoothing {ge['label_smoothing_factor']}" in page
    assert f"{sgm['threshold_split_size']:,} (SGM) or {ge['threshold_split_size']:,} (SGM+GE)" in page


def test_the_seq2set_configurations_are_those_of_the_paper():
    """Yang et al. (2019), section 3.2 and eq. 3; what the paper leaves open is named on the page."""
    likelihood, tuned = settings("rcv1_v2_seq2set_likelihood"), settings("rcv1_v2_seq2set")
    paper = {
        "vocab_size": 50000,
        "per_device_train_batch_size": 64,
        "embedding_size": 512,
        "encoder_layers": 2,
        "encoder_hidden_size": 512,
        "decoder_layers": 2,
        "decoder_hidden_size": 512,
        "context_input": "current",
        "num_train_epochs": 20,
        "learning_rate": 1e-3,
        "max_grad_norm": 8.0,
    }
    assert {name: likelihood[name] for name in paper} == paper
    assert (tuned["learning_rate"], tuned["max_grad_norm"], tuned["reward"]) == (1e-5, 8.0, "f1")
    page = " ".join((ROOT / "docs" / "papers.md").read_text(encoding="utf-8").split())
    assert f"Epochs of RL: {tuned['num_train_epochs']}," in page
    assert f"Dropout: {likelihood['dropout']}, kept on while sampling" in page and tuned["dropout_in_sampling"]
    assert f"Beam width: {tuned['num_beams']}," in page


def test_the_sgm_mlc_configuration_has_the_parts_that_the_paper_names():
    """Patel: self-attention, attention over labels, alphabetical order, binary cross-entropy, schedule, early stop."""
    chosen = settings("reuters21578_sgm_mlc")
    parts = {
        "dataset_name": "reuters21578",
        "encoder": "self_attentive",
        "attention": "word",
        "label_attention": True,
        "label_order": "alphabetical",
        "label_loss": "binary_cross_entropy",
        "lr_scheduler_type": "linear",
        "early_stopping_patience": 3,
    }
    assert {name: chosen[name] for name in parts} == parts
    sizes = ("vocab_size", "embedding_size", "encoder_hidden_size", "decoder_hidden_size", "attention_size")
    assert {name: chosen[name] for name in sizes} == {name: settings("reuters21578_sgm_ge")[name] for name in sizes}


def test_the_bert_configuration_is_what_the_page_says_of_it():
    chosen, sgm_ge = settings("reuters21578_bert"), settings("reuters21578_sgm_ge")
    assert (chosen["encoder_learning_rate"], chosen["layerwise_lr_decay"]) == (2e-5, 0.95)
    assert chosen["label_embedding_size"] == sgm_ge["embedding_size"]
    same = ("decoder_hidden_size", "decoder_layers", "attention", "attention_size", "label_feedback", "label_order")
    assert {name: chosen[name] for name in same} == {name: sgm_ge[name] for name in same}
    assert f"and {chosen['num_train_epochs']} epochs are a guess" in (ROOT / "docs" / "papers.md").read_text("utf-8")
