"""Several models of other seeds become one, and an interrupted training of them goes on."""

import json

import pytest
import torch
from transformers import AutoTokenizer

from sgm_hf.cli.train import main
from sgm_hf.modeling import SGMForMultiLabelGeneration

TOPICS = {"sport": "ball goal team match", "money": "bank stock price loan", "law": "court judge crime trial"}
TINY = [
    *(
        "--embedding_size",
        "12",
        "--encoder_hidden_size",
        "12",
        "--decoder_hidden_size",
        "16",
        "--disable_tqdm",
        "true",
    ),
    *("--num_train_epochs", "2", "--lexical_cost", "1", "--lexical_bigrams", "0", "--preset", "best"),
    *("--num_models", "2", "--precision", "fp32"),
]


@pytest.fixture
def file(tmp_path):
    lines = ["text,labels"]
    for number in range(40):
        labels = [label for place, label in enumerate(TOPICS) if (number >> place) & 1] or ["law"]
        words = " ".join(TOPICS[label].split()[number % 4] for label in labels)
        lines.append(f"word{number % 7} {words},{'|'.join(labels)}")
    (tmp_path / "my.csv").write_text("\n".join(lines))
    return str(tmp_path / "my.csv")


def test_the_average_of_models_of_other_seeds_is_saved_calibrated(file, tmp_path):
    run = tmp_path / "run"
    metrics = main(["--train_file", file, "--output_dir", str(run), *TINY])
    model = SGMForMultiLabelGeneration.from_pretrained(run)
    assert len(model.config.members) == 2 and model.generation_config.objective == "micro_f1"
    assert model.generation_config.label_calibration
    first, second = (
        SGMForMultiLabelGeneration.from_pretrained(sorted((run / "members" / name).glob("checkpoint-*"))[-1])
        for name in "12"
    )
    assert not torch.equal(first.decoder.output.weight, second.decoder.output.weight)
    assert torch.equal(first.lexical.weight, second.lexical.weight)
    tokens = AutoTokenizer.from_pretrained(run)(["ball court"], return_tensors="pt")
    inputs = {**tokens, "labels": torch.tensor([[0, 1, 3]])}
    one, two = (member.eval()(**inputs).logits.softmax(-1) for member in (first, second))
    torch.testing.assert_close(model(**inputs).logits.softmax(-1), (one + two) / 2)
    assert metrics["validation"]["micro_f1"] >= 0
    summary = json.loads((run / "summary.json").read_text())
    assert summary["settings"]["num_models"] == 2


def test_a_training_that_was_interrupted_between_two_models_goes_on(file, tmp_path, interrupted_at_the_second_model):
    whole, broken = tmp_path / "whole", tmp_path / "broken"
    main(["--train_file", file, "--output_dir", str(whole), *TINY])
    with interrupted_at_the_second_model():
        main(["--train_file", file, "--output_dir", str(broken), *TINY])
    main(["--train_file", file, "--output_dir", str(broken), *TINY, "--resume_from_checkpoint", "true"])
    expected, found = (SGMForMultiLabelGeneration.from_pretrained(run).state_dict() for run in (whole, broken))
    for name, tensor in expected.items():
        assert torch.equal(found[name], tensor), name


def test_several_models_are_refused_where_one_is_given(file, tmp_path):
    with pytest.raises((ValueError, SystemExit), match="num_models is 2, but only new models"):
        main(["--model_name_or_path", "some/model", "--train_file", file, "--do_train", "true", "--num_models", "2"])
