"""What `import sgm_hf` gives, and that Transformers knows SGM models after it, in every order.

Each order of imports needs an interpreter of its own.
"""

import json
import subprocess
import sys

import pytest

import sgm_hf

PIPELINE = "from transformers import pipeline"
USE_PIPELINE = (
    "classifier = pipeline('multi-label-generation', model=folder, device='cpu')\n"
    "result = [type(classifier).__name__, isinstance(classifier('oil')[0]['score'], float)]"
)


def run(code: str) -> object:
    """The value of `result` after the code, run in a new interpreter."""
    code += "\nimport json; print('result:' + json.dumps(result))"
    finished = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert finished.returncode == 0, finished.stderr
    return json.loads(finished.stdout.rpartition("result:")[2])


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory) -> str:
    folder = tmp_path_factory.mktemp("checkpoint")
    tokenizer = sgm_hf.SGMTokenizer.train_from_texts(["oil rose", "gold fell"])
    sizes = {"embedding_size": 4, "encoder_hidden_size": 4, "encoder_layers": 1, "decoder_hidden_size": 4}
    config = sgm_hf.SGMConfig(vocab_size=len(tokenizer), id2label={0: "oil", 1: "gold"}, **sizes)
    model = sgm_hf.SGMForMultiLabelGeneration(config)
    model.decoder.output.bias.data[-1] = -20.0  # eos last: every answer has both labels
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return str(folder)


def test_every_public_name_is_there_and_listed():
    assert sorted(sgm_hf.__all__) == sgm_hf.__all__
    for name in sgm_hf.__all__:
        assert name in dir(sgm_hf)
        assert getattr(sgm_hf, name).__doc__, name


def test_the_names_of_modeling_are_those_of_its_modules():
    modeling = sgm_hf.SGMConfig.__module__.rpartition(".")[0]
    for name in sys.modules[modeling].__all__:
        assert getattr(sys.modules[modeling], name).__name__ == name


@pytest.mark.parametrize(
    "imports",
    [
        f"import sgm_hf\n{PIPELINE}",
        f"{PIPELINE}\nimport sgm_hf",
        f"from sgm_hf import MultiLabelGenerationPipeline\n{PIPELINE}",
    ],
    ids=lambda imports: imports.replace("\n", "; "),
)
def test_the_pipeline_is_known_in_every_order_of_imports(checkpoint, imports):
    assert run(f"folder = {checkpoint!r}\n{imports}\n{USE_PIPELINE}") == ["MultiLabelGenerationPipeline", True]


def test_the_auto_classes_load_checkpoints_of_ours_and_of_others(checkpoint):
    code = (
        "import sgm_hf\n"
        "from transformers import PreTrainedModel\n"  # its module loads AutoConfig's before it is complete itself
        "from transformers import AutoConfig, AutoTokenizer, AutoModel, AutoModelForSeq2SeqLM, BertConfig\n"
        "classes = AutoConfig, AutoTokenizer, AutoModel, AutoModelForSeq2SeqLM\n"
        f"result = [type(auto.from_pretrained({checkpoint!r})).__name__ for auto in classes]\n"
        "bert = BertConfig(hidden_size=4, num_attention_heads=1, num_hidden_layers=1, intermediate_size=4)\n"
        "result.append(type(AutoModel.from_config(bert)).__name__)"
    )
    ours = ["SGMConfig", "SGMTokenizer", "SGMForMultiLabelGeneration", "SGMForMultiLabelGeneration"]
    assert run(code) == [*ours, "BertModel"]
