"""The neural baselines: networks that are trained in epochs, on the data pipeline of the SGM models.

The epoch of the best validation micro-F1 is kept. Words, batches, checkpoints and what happens at a signal are those
of the models that they are compared with.
"""

import sys
import time
from abc import abstractmethod
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, ClassVar

import numpy as np
import torch
from datasets import Dataset, List, Value
from transformers import (
    AutoConfig,
    AutoModelForSequenceClassification,
    AutoTokenizer,
    BertTokenizer,
    ModernBertConfig,
    PreTrainedConfig,
    PreTrainedModel,
    PreTrainedTokenizerBase,
    set_seed,
)

from sgm_hf.baselines.base import Baseline, Documents
from sgm_hf.baselines.classification import ClassificationTrainer, predict_scores
from sgm_hf.baselines.convolution import (
    CNNConfig,
    CNNForMultiLabelClassification,
    CNNRNNConfig,
    CNNRNNForMultiLabelGeneration,
)
from sgm_hf.data.encoding import encode_dataset
from sgm_hf.modeling import SGMTokenizer
from sgm_hf.modeling.encoders_sgm import position_limit
from sgm_hf.training.arguments import SGMTrainingArguments
from sgm_hf.training.checkpoints import has_complete_checkpoint
from sgm_hf.training.machine import PRECISIONS, choose_precision
from sgm_hf.training.prediction import LabelPredictions, generate_predictions
from sgm_hf.training.progress import with_lines
from sgm_hf.training.resuming import ResumableTrainer
from sgm_hf.training.summary import best_epoch
from sgm_hf.training.trainer import SGMTrainer

# Special tokens that a configuration names by id.
SPECIAL_TOKENS = ("pad", "bos", "eos", "cls", "sep")
TOKENIZER_FILES = ("tokenizer*", "vocab*", "*.model")


@dataclass(eq=False, kw_only=True)
class NeuralBaseline(Baseline):
    """A network that is trained in epochs.

    A subclass makes tokenizer, model and trainer.

    Args:
        learning_rate: Of Adam.
        num_train_epochs: Most passes over the training documents.
        patience: Epochs without a better validation micro-F1 after which training ends.
        batch_size: Most documents in a training batch.
        max_length: Words (or tokens) after which a text is cut.
        precision: Of multiplication: "fp32", "bf16", or "auto": "bf16" where the device has instructions for it.
        seed: Of initial weights, batches and dropout.
    """

    learning_rate: float = 1e-3
    num_train_epochs: int = 30
    patience: int = 5
    batch_size: int = 64
    max_length: int = 500
    precision: str = "auto"
    seed: int = 0

    # Settings on which the tokenizer and the encoded documents depend.
    encoding: ClassVar[tuple[str, ...]] = ("max_length",)
    tokenizer_class: ClassVar[Any] = AutoTokenizer

    def __post_init__(self) -> None:
        """Check the settings (ValueError)."""
        for name, value in self.settings.items():
            if isinstance(value, int) and value < 1 and name != "seed":
                raise ValueError(f"{name} is {value}; it must be at least 1.")
        if not 0.0 < self.learning_rate < float("inf"):
            raise ValueError(f"learning_rate is {self.learning_rate}; it must be above 0.")
        if self.precision not in PRECISIONS:
            raise ValueError(f"precision is {self.precision!r}; choose one of {', '.join(PRECISIONS)}.")
        self.model: Any = None
        self.tokenizer: Any = None
        self.datasets: tuple[Dataset, Dataset | None] | None = None  # encoded, of the last fit
        self.preparation_seconds = 0.0  # what it took to make tokenizer and encoded documents
        self._reused: Baseline | None = None

    @abstractmethod
    def make_tokenizer(self, texts: Sequence[str]) -> PreTrainedTokenizerBase:
        """The tokenizer, made of the training texts if it is not a given one."""

    @abstractmethod
    def make_model(self, train: Documents) -> PreTrainedModel:
        """A new network for the tokenizer and the labels of the training documents."""

    @abstractmethod
    def load_model(self, folder: Path) -> PreTrainedModel:
        """The network of a folder."""

    def label_columns(self, model: PreTrainedModel) -> np.ndarray:
        """The column of each of the network's labels in references and scores, (L)."""
        return np.arange(self.num_labels)

    def text_length(self, model: PreTrainedModel) -> int:
        """Tokens after which a text is cut."""
        return self.max_length

    def training_settings(self) -> dict[str, Any]:
        """Further settings of `SGMTrainingArguments`."""
        return {}

    def make_trainer(
        self, model: PreTrainedModel, args: SGMTrainingArguments, train: Dataset, validation: Dataset | None
    ) -> ResumableTrainer:
        """What trains the network."""
        return ClassificationTrainer(model, args, train, validation, self.tokenizer)

    def reuse(self, other: Baseline) -> None:
        """Take over tokenizer and encoded documents in the next `fit`, if no setting that they depend on differs."""
        if type(other) is type(self) and all(getattr(other, name) == getattr(self, name) for name in self.encoding):
            self._reused = other

    def fit_documents(self, train: Documents, validation: Documents | None) -> None:
        """Train; see `Baseline.fit`."""
        reused: Any = self._reused
        self._reused = None  # another fit may be of other documents
        start = time.perf_counter()
        self.tokenizer = self.make_tokenizer(train.texts) if reused is None else reused.tokenizer
        set_seed(self.seed)
        model = self.make_model(train)
        if reused is not None:
            self.datasets = reused.datasets
            self.preparation_seconds = self.reused_seconds = reused.preparation_seconds
        else:
            encoded = None if validation is None else self._encode(model, validation)
            self.datasets = self._encode(model, train, training=True), encoded
            self.preparation_seconds, self.reused_seconds = time.perf_counter() - start, 0.0
        with folder_or_temporary(self.checkpoint_folder) as folder:
            args = self._training_arguments(folder, validation is not None)
            trainer = self.make_trainer(model, args, *self.datasets)
            trainer.train(resume_from_checkpoint=has_complete_checkpoint(folder))
        self.best_epoch = best_epoch(trainer.state)
        self.model = model.eval()

    def _encode(self, model: PreTrainedModel, documents: Documents, training: bool = False) -> Dataset:
        """Token ids and the network's label ids."""
        columns = self.label_columns(model)
        labels = [np.flatnonzero(row[columns]).tolist() for row in documents.references]
        encoded = self._encode_texts(model, documents.texts, training)
        return encoded.add_column("labels", labels, feature=List(Value("int64")))

    def _encode_texts(self, model: PreTrainedModel, texts: Sequence[str], training: bool = False) -> Dataset:
        """Token ids."""
        dataset = Dataset.from_dict({"text": list(texts)})
        return encode_dataset(dataset, self.tokenizer, [], self.text_length(model), training)

    def _training_arguments(self, folder: str | Path, evaluates: bool) -> SGMTrainingArguments:
        """The settings of the training."""
        settings: dict[str, Any] = {
            "output_dir": str(folder),
            "learning_rate": self.learning_rate,
            "num_train_epochs": self.num_train_epochs,
            "per_device_train_batch_size": self.batch_size,
            "precision": self.precision,
            "seed": self.seed,
            "early_stopping_patience": self.patience if evaluates else None,
            "eval_strategy": "epoch" if evaluates else "no",
            "save_strategy": "epoch" if evaluates or self.checkpoint_folder is not None else "no",
            "save_total_limit": 1,
        }
        return SGMTrainingArguments(**settings | self.training_settings())

    @property
    def bf16(self) -> bool:  # type: ignore[override]
        """Whether `precision` comes to bfloat16 on the network's device."""
        return choose_precision(self.precision, self.model.device.type) == "bf16"

    def predict_scores(self, texts: Sequence[str]) -> np.ndarray:
        """The probability of each label for each text, float32, (N, L); 0 for a text without words."""
        dataset = self._encode_texts(self.model, texts)
        return predict_scores(self.model, dataset, self.tokenizer, self.bf16)

    def save_weights(self, folder: Path) -> None:
        """Write network and tokenizer."""
        self.model.save_pretrained(folder)
        self.tokenizer.save_pretrained(folder)

    def load_weights(self, folder: Path) -> None:
        """Read network and tokenizer, onto the accelerator if there is one."""
        has_accelerator = torch.accelerator.is_available()
        device = torch.accelerator.current_accelerator() if has_accelerator else torch.device("cpu")
        self.model = self.load_model(folder).to(device).eval()
        self.tokenizer = self.tokenizer_class.from_pretrained(folder)


@dataclass(eq=False, kw_only=True)
class WordNetwork(NeuralBaseline):
    """A convolutional network over words, which are those of an `SGMTokenizer` of the training texts.

    Args:
        vocab_size: Most words.
        embedding_size: Size of the word embeddings.
        widths: Words that a filter of each kind reads.
        feature_maps: Filters of each width.
        dropout: Dropout probability.
    """

    vocab_size: int = 30000
    embedding_size: int = 300
    widths: Sequence[int] = (3, 4, 5)
    feature_maps: int = 100
    dropout: float = 0.5

    encoding: ClassVar[tuple[str, ...]] = ("max_length", "vocab_size")
    tokenizer_class: ClassVar[Any] = SGMTokenizer

    def __post_init__(self) -> None:
        super().__post_init__()
        self.widths = tuple(self.widths)  # a list where they come from a file
        if not self.widths or min(self.widths) < 1:
            raise ValueError(
                f"widths is {list(self.widths)}; give the words of one kind of filter or more, as [3, 4, 5]."
            )
        if not 0.0 <= self.dropout < 1.0:
            raise ValueError(f"dropout is {self.dropout}; it must be in [0, 1).")

    def make_tokenizer(self, texts: Sequence[str]) -> PreTrainedTokenizerBase:
        """A vocabulary of the training texts."""
        lines = with_lines(texts, len(texts), "Counting words")
        return SGMTokenizer.train_from_texts(lines, self.vocab_size, model_max_length=self.max_length)

    def network_settings(self) -> dict[str, Any]:
        """The settings that all networks have in common, as their configurations name them."""
        return {
            "vocab_size": len(self.tokenizer),
            "pad_token_id": self.tokenizer.pad_token_id,
            "embedding_size": self.embedding_size,
            "widths": list(self.widths),
            "feature_maps": self.feature_maps,
            "dropout": self.dropout,
        }


@dataclass(eq=False, kw_only=True)
class CNN(WordNetwork):
    """CNN (Kim 2014): convolutions, max-over-time pooling, and a sigmoid for each label; arguments as of its bases."""

    name: ClassVar[str] = "cnn"
    grid: ClassVar[dict[str, tuple]] = {"dropout": (0.3, 0.5), "learning_rate": (1e-3, 3e-3)}

    def make_model(self, train: Documents) -> PreTrainedModel:
        """A new network."""
        labels = label_settings(self.num_labels, self.label_names)
        return CNNForMultiLabelClassification(CNNConfig(**self.network_settings(), **labels))

    def load_model(self, folder: Path) -> PreTrainedModel:
        """The network of a folder."""
        return load_complete(CNNForMultiLabelClassification, folder)


@dataclass(eq=False, kw_only=True)
class XMLCNN(CNN):
    """XML-CNN (Liu et al. 2017): a CNN that pools several chunks of a text, with a bottleneck layer.

    Args:
        num_chunks: Chunks of a text that are pooled apart.
        bottleneck_size: Units of the hidden layer.
    """

    name: ClassVar[str] = "xml_cnn"
    grid: ClassVar[dict[str, tuple]] = {"num_chunks": (2, 8), "learning_rate": (1e-3, 3e-3)}

    widths: Sequence[int] = (2, 4, 8)
    feature_maps: int = 128
    num_chunks: int = 8
    bottleneck_size: int = 512

    def network_settings(self) -> dict[str, Any]:
        """As those of a CNN, with chunks and bottleneck."""
        return super().network_settings() | {
            "num_chunks": self.num_chunks,
            "bottleneck_size": self.bottleneck_size,
        }


@dataclass(eq=False, kw_only=True)
class CNNRNN(WordNetwork):
    """CNN-RNN (after Chen et al. 2017): an LSTM generates the labels, started from the features of a CNN.

    A label's score is the probability that beam search gives it, as of the SGM models; the labels are generated in the
    order of their frequency in the training documents.

    Args:
        text_size: Size of the layer over the features, from which the decoder starts.
        decoder_hidden_size: Size of the decoder.
        num_beams: Width of the beam search.
    """

    name: ClassVar[str] = "cnn_rnn"
    grid: ClassVar[dict[str, tuple]] = {"dropout": (0.3, 0.5), "learning_rate": (5e-4, 1e-3)}

    text_size: int = 256
    decoder_hidden_size: int = 512
    num_beams: int = 5

    def make_model(self, train: Documents) -> PreTrainedModel:
        """A new network, whose labels are named by their columns."""
        columns = np.argsort(-train.references.sum(axis=0), kind="stable")  # (L)
        config = CNNRNNConfig(
            **self.network_settings(),
            id2label={label: str(column) for label, column in enumerate(columns)},
            attention="none",
            text_size=self.text_size,
            decoder_hidden_size=self.decoder_hidden_size,
        )
        return CNNRNNForMultiLabelGeneration(config)

    def label_columns(self, model: PreTrainedModel) -> np.ndarray:
        """The column of each label in the order of generation, (L)."""
        return np.array([int(model.config.id2label[label]) for label in range(self.num_labels)])

    def training_settings(self) -> dict[str, Any]:
        """The width of the beam search of evaluations."""
        return {"generation_num_beams": self.num_beams}

    def make_trainer(
        self, model: PreTrainedModel, args: SGMTrainingArguments, train: Dataset, validation: Dataset | None
    ) -> ResumableTrainer:
        """That of the SGM models."""
        return SGMTrainer(model, args, train, validation, processing_class=self.tokenizer)

    def _generate(self, texts: Sequence[str]) -> LabelPredictions:
        """What beam search says of texts, of labels in the order of generation."""
        shown = sys.stderr.isatty()
        return generate_predictions(
            self.model,
            self._encode_texts(self.model, texts),
            bf16=self.bf16,
            show_progress=shown,
            show_lines=not shown,
            description="Predicting",
            num_beams=self.num_beams,
        )

    def predict_scores(self, texts: Sequence[str]) -> np.ndarray:
        """The probability of each label to be generated for each text, float32 in [0, 1], (N, L)."""
        return self.scores_and_sets(texts)[0]

    def scores_and_sets(self, texts: Sequence[str]) -> tuple[np.ndarray, list[list[int]]]:
        """Scores, and the label ids of each text's most probable sequence, in the order of generation."""
        found, columns = self._generate(texts), self.label_columns(self.model)
        scores = np.zeros((len(texts), self.num_labels), dtype=np.float32)
        scores[:, columns] = found.label_scores.clip(0, 1)
        return scores, [columns[labels].tolist() for labels in found.best_sequences]

    def load_model(self, folder: Path) -> PreTrainedModel:
        """The network of a folder."""
        return CNNRNNForMultiLabelGeneration.from_pretrained(folder)


@dataclass(eq=False, kw_only=True)
class SequenceClassification(NeuralBaseline):
    """What a user would pick today: `AutoModelForSequenceClassification` for several labels, around any encoder.

    Args:
        encoder_name_or_path: A pre-trained encoder, by folder or name on the Hub; or a configuration's .json file, of
            which the weights are random. Default: a small random ModernBERT.
        vocab_size: Most pieces of words, where there is no tokenizer beside the encoder; one is then made of the
            training texts.
    """

    name: ClassVar[str] = "sequence_classification"
    grid: ClassVar[dict[str, tuple]] = {"learning_rate": (3e-5, 3e-4, 1e-3)}
    encoding: ClassVar[tuple[str, ...]] = ("max_length", "vocab_size", "encoder_name_or_path")

    encoder_name_or_path: str | None = None
    vocab_size: int = 20000
    learning_rate: float = 1e-4
    num_train_epochs: int = 20
    batch_size: int = 32

    def make_tokenizer(self, texts: Sequence[str]) -> PreTrainedTokenizerBase:
        """The encoder's tokenizer; where it has none, one of WordPiece with a vocabulary of the training texts.

        Raises:
            FileNotFoundError: If a pre-trained encoder has none.
            ValueError: If it has no padding token.
        """
        name = self.encoder_name_or_path
        folder = Path(name or "").parent
        if name is None or name.endswith(".json") and not any(any(folder.glob(kind)) for kind in TOKENIZER_FILES):
            limit = self.vocab_size if name is None else self._make_config().vocab_size
            lines = with_lines(texts, len(texts), "Counting pieces of words")
            return BertTokenizer(model_max_length=self.max_length).train_new_from_iterator(
                lines, limit, show_progress=False
            )
        name = str(folder) if name.endswith(".json") else name
        try:
            tokenizer = AutoTokenizer.from_pretrained(name)
        except (OSError, ValueError) as error:
            raise FileNotFoundError(
                f"{name} has no tokenizer that can be read, or is not on the Hub or not in reach: "
                f"{' '.join(str(error).split())}"
            ) from error
        if tokenizer.pad_token_id is None:
            raise ValueError(f"the tokenizer of {name} has no padding token; save it with one, as its pad_token.")
        return tokenizer

    def _make_config(self) -> PreTrainedConfig:
        """The configuration of a network that begins with random weights."""
        if self.encoder_name_or_path is not None:
            return AutoConfig.from_pretrained(self.encoder_name_or_path)
        # Not BERT: a random one of this size learned nothing of a text in its first epochs. Here layers are normalised
        # before they add to the states, and the mean of all states is classified, not one of them.
        return ModernBertConfig(
            vocab_size=self.vocab_size,
            hidden_size=128,
            num_hidden_layers=2,
            num_attention_heads=4,
            intermediate_size=256,
            classifier_pooling="mean",
            **{f"{part}_dropout": 0.1 for part in ("embedding", "mlp", "attention", "classifier")},
            bos_token_id=None,
            eos_token_id=None,
        )

    def make_model(self, train: Documents) -> PreTrainedModel:
        """A new network, with the weights of a pre-trained encoder or random ones.

        Raises:
            FileNotFoundError: If there is no such encoder.
            ValueError: If it lacks words of the tokenizer.
        """
        name = self.encoder_name_or_path
        labels = label_settings(self.num_labels, self.label_names) | {"problem_type": "multi_label_classification"}
        if name is not None and not name.endswith(".json"):
            try:
                model = AutoModelForSequenceClassification.from_pretrained(
                    name, use_safetensors=True, dtype=torch.float32, **labels
                )
            except OSError as error:
                raise FileNotFoundError(
                    f"{name} is no model of Transformers with weights in safetensors that can be read: "
                    f"{' '.join(str(error).split())}"
                ) from error
        else:
            config = self._make_config()
            ids = {f"{token}_token_id": getattr(self.tokenizer, f"{token}_token_id") for token in SPECIAL_TOKENS}
            config.update(labels | {token: number for token, number in ids.items() if number is not None})
            if name is None:
                config.vocab_size = len(self.tokenizer)
            model = AutoModelForSequenceClassification.from_config(config, dtype=torch.float32)
        known = model.get_input_embeddings().num_embeddings
        if len(self.tokenizer) > known:
            raise ValueError(
                f"the tokenizer has {len(self.tokenizer)} tokens, but {name} has embeddings for {known}; give the "
                "encoder's own tokenizer."
            )
        return model

    def text_length(self, model: PreTrainedModel) -> int:
        """`max_length`, or what the encoder has positions for."""
        return min(self.max_length, position_limit(model) or self.max_length)

    def training_settings(self) -> dict[str, Any]:
        """As BERT is fine-tuned: a rate that rises and falls, weight decay, small gradients."""
        return {"lr_scheduler_type": "linear", "warmup_steps": 0.1, "weight_decay": 0.01, "max_grad_norm": 1.0}

    def load_model(self, folder: Path) -> PreTrainedModel:
        """The network of a folder."""
        return load_complete(AutoModelForSequenceClassification, folder)


def label_settings(num_labels: int, label_names: Sequence[str] | None) -> dict[str, Any]:
    """What a configuration says of the labels."""
    if label_names is None:
        return {"num_labels": num_labels}
    return {
        "id2label": dict(enumerate(label_names)),
        "label2id": {name: label for label, name in enumerate(label_names)},
    }


def load_complete(model_class: Any, folder: Path) -> PreTrainedModel:
    """Load a network whose weights are all in a folder.

    Raises:
        ValueError: If some are missing.
    """
    model, info = model_class.from_pretrained(folder, use_safetensors=True, output_loading_info=True)
    if info["missing_keys"]:
        raise ValueError(f"the weights of {folder} lack {min(info['missing_keys'])}; save the baseline again.")
    return model


@contextmanager
def folder_or_temporary(folder: str | Path | None) -> Iterator[str | Path]:
    """A folder, or one that is removed after the block."""
    if folder is not None:
        yield folder
        return
    with TemporaryDirectory() as temporary:
        yield temporary
