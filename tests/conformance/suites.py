"""Our model, configuration, tokenizer and pipeline under the common tests of Transformers.

Run by `run.py`, in a process of its own. Each class here lends a few settings to a mixin of Transformers' tests.
"""

import copy
import os
import tempfile
import unittest
from pathlib import Path
from unittest.mock import patch

import stand_ins
import torch
from tests.test_configuration_common import ConfigTester
from tests.test_modeling_common import ModelTesterMixin
from tests.test_pipeline_mixin import PipelineTesterMixin
from tests.test_tokenization_common import TokenizerTesterMixin
from tests.test_tokenizers_backend_mixin import TokenizersBackendTesterMixin
from transformers.models.auto import modeling_auto

from sgm_hf import MultiLabelGenerationPipeline, SGMConfig, SGMForMultiLabelGeneration, SGMTokenizer
from tests import test_pipeline_mixin

NAME = SGMForMultiLabelGeneration.__name__

# Their tests look up by name what kind of model a class is: ours turns texts into sequences.
modeling_auto.MODEL_FOR_SEQ_TO_SEQ_CAUSAL_LM_MAPPING_NAMES[SGMConfig.model_type] = NAME


class ModelTester:
    """Makes small configurations and inputs; as many labels as words, since the tests draw labels from the words."""

    batch_size = 3
    seq_length = encoder_seq_length = 7
    decoder_seq_length = 4
    num_hidden_layers = 2
    hidden_size = 16
    vocab_size = num_labels = 60
    is_training = True

    def __init__(self, **settings):
        self.settings = settings

    def get_config(self) -> SGMConfig:
        sizes = {
            "vocab_size": self.vocab_size,
            "embedding_size": self.hidden_size,
            "encoder_hidden_size": self.hidden_size // 2,
            "encoder_layers": self.num_hidden_layers,
            "decoder_hidden_size": self.hidden_size,
            "decoder_layers": self.num_hidden_layers,
            "num_labels": self.num_labels,
        }
        return SGMConfig(**sizes, **self.settings)

    def prepare_config_and_inputs_for_common(self) -> tuple[SGMConfig, dict[str, torch.Tensor]]:
        config = self.get_config()
        lengths = torch.tensor([[7], [7], [5]])  # the first two have no padding: some tests change their last words
        attention_mask = (torch.arange(self.seq_length) < lengths).long()
        input_ids = torch.randint(1, self.vocab_size, (self.batch_size, self.seq_length)) * attention_mask
        labels = torch.rand(self.batch_size, self.num_labels).argsort(dim=1)[:, : self.decoder_seq_length - 1]
        start = torch.full((self.batch_size, 1), config.bos_label_id)
        inputs = {
            "input_ids": input_ids,
            "attention_mask": attention_mask,
            "decoder_input_ids": torch.cat([start, labels], dim=1),
        }
        return config, inputs


class ModelTests(ModelTesterMixin):
    """The common part of the variants of the model."""

    all_model_classes = (SGMForMultiLabelGeneration,)
    has_attentions = False  # no self-attention; tests/modeling covers the attention over the words
    # No file here is older than 2023.
    test_can_init_all_missing_weights_before_2023 = True
    settings: dict = {}

    def setUp(self):
        self.model_tester = ModelTester(**self.settings)
        self.config_tester = ConfigTester(
            self, config_class=SGMConfig, common_properties=["hidden_size", "num_hidden_layers"], embedding_size=24
        )

    def _prepare_for_class(self, inputs_dict, model_class, return_labels=False):
        inputs = copy.deepcopy(inputs_dict)
        if return_labels:
            labels = inputs["decoder_input_ids"][:, 1:]
            end = torch.full((len(labels), 1), self.model_tester.num_labels)
            inputs["labels"] = torch.cat([labels, end], dim=1)
        return inputs

    def test_config(self):
        self.config_tester.run_common_tests()

    # Tests of base models only: ours is base model and head in one, and other tests pass over base models.

    @patch.dict(modeling_auto.MODEL_MAPPING_NAMES, {SGMConfig.model_type: NAME})
    def test_inputs_embeds_matches_input_ids(self):
        super().test_inputs_embeds_matches_input_ids()

    @patch.dict(modeling_auto.MODEL_MAPPING_NAMES, {SGMConfig.model_type: NAME})
    def test_model_forward_default_config_values(self):
        super().test_model_forward_default_config_values()


class SGM(ModelTests, unittest.TestCase):
    """SGM as in the paper."""


class GlobalEmbedding(ModelTests, unittest.TestCase):
    """SGM+GE."""

    settings = {"label_feedback": "global_embedding", "gate_activation": "sigmoid"}


class SequenceToSequence(ModelTests, unittest.TestCase):
    """Plain S2S: no attention, no mask."""

    settings = {"attention": "none", "label_mask": False}


CORPUS = [
    "This is a test. I was born in 92000, and this is false.",
    "Hello, how are you doing? He is very happy, running. It was not wanted!",
    "wonderful no inspiration example with subtoken: a sentence, another sentence and a third one",
    "Tokenizers cut texts into words (low, lower, newer, wider) or into pieces of words.",
]


def train_tokenizer() -> SGMTokenizer:
    # Their tests pad to multiples of 8 and truncate.
    return SGMTokenizer.train_from_texts(CORPUS, model_max_length=512)


class Tokenizer(TokenizersBackendTesterMixin, TokenizerTesterMixin, unittest.TestCase):
    """The word-level tokenizer."""

    tokenizer_class = SGMTokenizer
    rust_tokenizer_class = SGMTokenizer

    @classmethod
    def setUpClass(cls):
        folder = tempfile.mkdtemp()
        train_tokenizer().save_pretrained(folder)
        cls.from_pretrained_id = folder
        super().setUpClass()


class MultiLabelGenerationPipelineTests:
    """How the common pipeline tests make the pipeline of a task, and its expected output."""

    def get_test_pipeline(self, model, tokenizer, dtype="float32", **processors):
        classifier = MultiLabelGenerationPipeline(model=model, tokenizer=tokenizer, dtype=dtype)
        return classifier, ["This is a test.", "Hello, how are you doing?"]

    def run_pipeline_test(self, classifier, examples):
        case = unittest.TestCase()
        answers = classifier(examples)
        case.assertEqual(len(answers), len(examples))
        case.assertEqual(answers, [classifier(text) for text in examples])
        for entry in [entry for answer in answers for entry in answer]:
            case.assertEqual(set(entry), {"label", "score"})
            case.assertIn(entry["label"], classifier.model.config.label2id)
            case.assertTrue(0.0 <= entry["score"] <= 1.0 + 1e-6)


class Pipelines(PipelineTesterMixin, unittest.TestCase):
    """The pipeline of our task under the common pipeline tests."""

    pipeline_model_mapping = {"multi-label-generation": SGMForMultiLabelGeneration}

    @classmethod
    def setUpClass(cls):
        path = f"{__name__}.{MultiLabelGenerationPipelineTests.__name__}"
        test_pipeline_mixin.pipeline_test_mapping["multi-label-generation"] = {"test": path}
        # They take tokenizers by name from the package.
        stand_ins.transformers.SGMTokenizer = SGMTokenizer
        folder = Path(os.environ["TRANSFORMERS_TINY_MODEL_PATH"], SGMConfig.model_type, NAME)
        tokenizer = train_tokenizer()
        config = ModelTester().get_config()
        config.vocab_size = len(tokenizer)
        torch.manual_seed(0)
        SGMForMultiLabelGeneration(config).save_pretrained(folder)
        tokenizer.save_pretrained(folder)

    def test_pipeline_multi_label_generation(self):
        self.run_task_tests("multi-label-generation")

    def test_pipeline_multi_label_generation_fp16(self):
        self.run_task_tests("multi-label-generation", dtype="float16")
