"""The pipeline "multi-label-generation": from texts, or images, to label sets with scores.

It keeps the call conventions of Transformers' "text-classification" and differs in three points: the answer to one
text is a list of labels (in the order the model generated them), keyword arguments that are not the pipeline's own go
to `generate()`, and inputs whose number is known are batched by length.
"""

from collections.abc import Iterable, Iterator, Mapping, Sized
from difflib import get_close_matches
from inspect import signature
from itertools import islice
from typing import Any, Literal

import torch
from torch.utils.data import Dataset
from transformers import (
    AutoImageProcessor,
    AutoTokenizer,
    GenerationConfig,
    GenerationMixin,
    Pipeline,
    PreTrainedModel,
)

from .configuration_sgm import SGMConfig
from .inputs_sgm import ImageReader, TextReader
from .label_sets_sgm import label_sets_from_sequences
from .private_sgm import commit_hash

DEFAULT_BATCH_SIZE = 32
SORTED_BATCHES = 64  # texts are sorted by length within as many batches, so that a large data set still streams

Prediction = list[dict[str, Any]]


class MultiLabelGenerationPipeline(Pipeline):
    """Predicts the label sets of texts, or of images, with an SGM model; task identifier `"multi-label-generation"`.

    Args:
        model: An SGM model; it is put into evaluation mode.
        tokenizer: The tokenizer of the same checkpoint, if its encoder reads texts.
        image_processor: The image processor of the same checkpoint, if its encoder reads images.
        batch_size: Texts or images per forward pass; default 32, of a generator 1.
        device, task, ...: As of every Transformers pipeline. `num_workers` is accepted and not used.
        **kwargs: Defaults for the arguments of a call.

    Raises:
        ValueError: If it is no SGM model, tokenizer and model do not have the same words, or there is no tokenizer,
            or image processor, for what the model reads.

    Examples:
        >>> import sgm_hf
        >>> from transformers import pipeline

        >>> classifier = pipeline("multi-label-generation", model="path/to/checkpoint")
        >>> classifier("Cocoa shipments rose while coffee fell.")
        [{'label': 'cocoa', 'score': 0.98}, {'label': 'coffee', 'score': 0.91}]
        >>> classifier(["First text.", "Second text."], top_k=3, num_beams=9, forbidden_labels=["coffee"])
        >>> pipeline("multi-label-generation", model="path/to/model_of_images")("street.jpg")
        [{'label': 'car', 'score': 0.97}, {'label': 'person', 'score': 0.88}]
    """

    # pipeline() loads what there is; what the model reads, which it does not know, must be there (`_load_reader`).
    _load_tokenizer = None
    _load_image_processor = None
    _load_processor = False
    _load_feature_extractor = False
    _load_video_processor = False

    def __init__(self, *args: Any, **kwargs: Any):
        kwargs.pop("local_files_only", None)  # pipeline() obeys it and passes it on
        self.has_batch_size = kwargs.get("batch_size") is not None
        super().__init__(*args, **kwargs)
        if self.model.config.model_type != "sgm":
            raise ValueError(
                f"The model is of type {self.model.config.model_type!r}, expected 'sgm'; give an SGM checkpoint, or "
                "leave the task to a pipeline of that model."
            )
        self.reader = self._load_reader()
        self.model.eval()

    @property
    def reads_images(self) -> bool:
        """Whether the model reads images, and not texts."""
        return self.model.encoder.main_input_name == "pixel_values"

    def _load_reader(self) -> TextReader | ImageReader:
        """What reads the inputs, with the tokenizer or the image processor that was given or `pipeline()` has loaded.

        Raises:
            ValueError: If there is none, or it is not the model's.
        """
        name, auto = ("image_processor", AutoImageProcessor) if self.reads_images else ("tokenizer", AutoTokenizer)
        if getattr(self, name) is None:
            checkpoint, what = self.model.name_or_path, name.replace("_", " ")
            try:  # pipeline() keeps to itself why it could not
                setattr(self, name, auto.from_pretrained(checkpoint, revision=commit_hash(self.model.config)))
            except Exception as error:
                raise ValueError(
                    f"The model reads {'images' if self.reads_images else 'texts'}, but {checkpoint or 'it'} comes "
                    f"without the {what} for them ({' '.join(str(error).split())[:300]}); give {name}=..., or save "
                    f"the {what} beside the model."
                ) from error
        if self.reads_images:
            return ImageReader(self.image_processor)
        check_vocabulary(len(self.tokenizer), self.model.config, "The tokenizer")
        return TextReader(self.tokenizer)

    def __call__(self, inputs: Any, **kwargs: Any) -> Prediction | list[Prediction] | Iterator[Prediction]:
        """Predict the labels of one text or image, or of many.

        Args:
            inputs: A text; a list or other collection, a torch `Dataset` or a generator of texts. Of a
                `datasets.Dataset` pass a column: `dataset["text"]`, or `KeyDataset(dataset, "text")` to stream.
                To a model that reads images, in place of each text, an image: a PIL image, an array (height, width,
                channels), the path of a file or a URL.
            **kwargs: Of the pipeline:
                top_k: "generated" (default): the generated label set, in generated order. An integer: the k labels of
                    highest score. `None`: all labels by descending score. In a model with a lexical branch every label
                    has a score above 0 and below 1, unless the constraints decide it; without one, labels that no
                    beam has are all 0.
                return_attention: Whether each label comes with `attention`, how much the decoder looked at each word
                    when it generated the label (α of SGM eq. 5). Default `False`; not of images.
                truncation: Whether texts are cut at the tokenizer's `model_max_length` words. Default `True`; not of
                    images.
                batch_size: Texts or images per forward pass, in place of the pipeline's.
                Of `generate()`: `num_beams`, `set_decoding`, `label_threshold`, `allowed_labels` (names or ids),
                `min_labels`, ... `max_length` is that of the label sequence, not of the text.

        Returns:
            For one text or image a list of `{"label": str, "score": float}`; `score` is the probability that the label
            is in the set. With `return_attention` each has `"attention"` in addition: a list of `{"word", "start",
            "end", "weight"}` with the word's place in the text, `None` for a label not generated. Words after
            `config.encoder_max_length`, which the decoder does not see, are not listed, nor are tokens that the
            tokenizer of a pre-trained encoder puts around a text: weights sum to 1 only without such tokens.
            For a collection a list of such lists. For a `Dataset` or generator an iterator over them, in input order.

        Raises:
            TypeError: If an input is not a string, or of a model of images not an image; names its index.
            ValueError: If there is no such argument, one has no such value or no effect, the constraints exclude each
                other, or an image cannot be read.
        """
        if self.reader.is_one(inputs):
            return super().__call__(inputs, **kwargs)
        if isinstance(inputs, Sized):
            if not self.has_batch_size:
                kwargs.setdefault("batch_size", DEFAULT_BATCH_SIZE)
            if len(inputs) == 0:
                return iter(()) if isinstance(inputs, Dataset) else []
        return super().__call__(self._as_pipeline_input(inputs), **kwargs)

    def _as_pipeline_input(self, inputs: Any) -> Any:
        """Make a list or generator of what the base class would take for a single input: a tuple, column, iterator."""
        if isinstance(inputs, Dataset):
            return inputs
        if isinstance(inputs, Mapping | bytes) or not isinstance(inputs, Iterable):
            raise TypeError(
                f"The pipeline got {inputs!r:.80} of type {type(inputs).__name__}, expected {self.reader.one}, "
                f"{self.reader.many}, a Dataset (e.g. KeyDataset) or a generator."
            )
        return list(inputs) if isinstance(inputs, Sized) else (item for item in inputs)

    def _sanitize_parameters(
        self, return_attention: bool | None = None, truncation: bool | None = None, **generate_kwargs: Any
    ) -> tuple[dict[str, Any], dict[str, Any], dict[str, Any]]:
        """Sort the arguments of a call (or of the constructor) into those of the three steps."""
        preprocess_params: dict[str, Any] = {}
        postprocess_params: dict[str, Any] = {}
        if "top_k" in generate_kwargs:  # None has a meaning, so a default of None would not tell whether it was given
            top_k = postprocess_params["top_k"] = generate_kwargs.pop("top_k")
            is_count = isinstance(top_k, int) and not isinstance(top_k, bool) and top_k >= 1
            if top_k is not None and top_k != "generated" and not is_count:
                raise ValueError(
                    f"top_k is {top_k!r}; expected a number of labels from 1 on, None for all, or 'generated' for the "
                    "set."
                )
        if return_attention is not None:
            preprocess_params["return_offsets"] = return_attention
            generate_kwargs["return_attention"] = return_attention
        if truncation is not None:
            preprocess_params["truncation"] = truncation
        if generate_kwargs:  # most calls have none, and making the list of names takes time
            self._check_names(generate_kwargs)
        num_sets = generate_kwargs.get("num_return_sequences", 1)
        if num_sets != 1:
            raise ValueError(
                f"num_return_sequences is {num_sets}, but the pipeline returns one label set per text; "
                "call model.generate() for several."
            )
        return preprocess_params, generate_kwargs, postprocess_params

    def _check_names(self, generate_kwargs: Mapping[str, Any]) -> None:
        """Refuse what neither the pipeline nor `generate()` takes, before anything is predicted."""
        own = getattr(type(self.model), "generate", GenerationMixin.generate)  # other models are refused after this
        functions = (own, GenerationMixin.generate, type(self.model).forward)
        known = {name for function in functions for name in signature(function).parameters} - {"self", "kwargs"}
        known |= {*vars(GenerationConfig()), "top_k", "return_attention", "truncation", "batch_size"}
        for name in sorted({*generate_kwargs} - known):
            similar = get_close_matches(name, known, n=1)
            hint = f"; did you mean {similar[0]!r}?" if similar else "."
            raise ValueError(f"Neither the pipeline nor generate() has an argument {name!r}{hint}")

    def get_iterator(
        self,
        inputs: Any,
        num_workers: int,
        batch_size: int,
        preprocess_params: dict[str, Any],
        forward_params: dict[str, Any],
        postprocess_params: dict[str, Any],
    ) -> Iterator[Prediction]:
        """Predict in batches of similar length and yield in the order of the input.

        Images, and inputs whose number is unknown, are batched as they come, reading no further ahead than one batch.
        `num_workers` is not used: tokenizing takes a small part of the time.

        Returns:
            An iterator of predictions, which knows its length if `inputs` does.
        """
        is_sized = isinstance(inputs, Sized)
        items = (inputs[index] for index in range(len(inputs))) if is_sized else inputs
        window_size = batch_size * SORTED_BATCHES if is_sized and self.reader.by_length else batch_size

        def predictions() -> Iterator[Prediction]:
            """Yield window by window."""
            numbered = enumerate(items)
            while window := list(islice(numbered, window_size)):
                encoded = [self.preprocess(item, index=index, **preprocess_params) for index, item in window]
                yield from self._predict(encoded, batch_size, forward_params, postprocess_params)

        return _SizedIterator(predictions(), len(inputs)) if is_sized else predictions()

    def run_single(
        self,
        inputs: Any,
        preprocess_params: dict[str, Any],
        forward_params: dict[str, Any],
        postprocess_params: dict[str, Any],
    ) -> Prediction:
        """Predict one text or image, the way a list of it would be."""
        return next(self.get_iterator([inputs], 0, 1, preprocess_params, forward_params, postprocess_params))

    def preprocess(self, item: Any, index: int = 0, **options: Any) -> dict[str, Any]:
        """Encode one text or image; arguments, result and errors as of `TextReader.read` and `ImageReader.read`."""
        return self.reader.read(item, index, **options)

    def _forward(
        self, model_inputs: dict[str, torch.Tensor], return_attention: bool = False, **generate_kwargs: Any
    ) -> dict[str, torch.Tensor]:
        """Generate the label sets of a batch.

        Args:
            model_inputs: `input_ids`, `attention_mask` and what else the tokenizer gives the model, (B, T) each; of
                images `pixel_values`, (B, channels, height, width).
            return_attention: Whether to compute the attention over the words.
            **generate_kwargs: Passed on to `generate()`.

        Returns:
            `sequences` (B, n + 1): bos, labels, eos, padding; `label_scores` (B, L); on request `attention` (B, n, T),
            where step t is what label t + 1 of `sequences` looked at.
        """
        output = self.model.generate(
            **model_inputs, **{**generate_kwargs, "return_dict_in_generate": True, "output_label_scores": True}
        )
        result = {"sequences": output.sequences, "label_scores": output.label_scores.float()}
        if return_attention:
            result["attention"] = attention_to_words(self.model, model_inputs, output.sequences)  # (B, n, T)
        return result

    def postprocess(
        self, model_outputs: dict[str, Any], top_k: int | None | Literal["generated"] = "generated"
    ) -> Prediction:
        """Name the labels of one text or image.

        Args:
            model_outputs: What `preprocess` returned for it, with its row of what `_forward` returned.
            top_k: See `__call__`.

        Returns:
            A list of `{"label", "score"}`, each with "attention" if that was asked for.
        """
        num_labels = self.model.config.num_labels
        scores = model_outputs["label_scores"].tolist()  # (L)
        sequence = model_outputs["sequences"].tolist()  # (n + 1)
        chosen = label_sets_from_sequences(model_outputs["sequences"][None], num_labels)[0]
        if top_k != "generated":
            chosen = sorted(range(num_labels), key=lambda label_id: -scores[label_id])[:top_k]
        prediction = [{"label": self.model.config.id2label[i], "score": scores[i]} for i in chosen]
        if "attention" in model_outputs:
            for label_id, entry in zip(chosen, prediction, strict=True):
                entry["attention"] = None
                if label_id in sequence:
                    step = sequence.index(label_id) - 1  # bos comes first: the label at place t is of step t - 1
                    weights = model_outputs["attention"][step]  # (T)
                    entry["attention"] = word_weights(model_outputs["text"], model_outputs["offset_mapping"], weights)
        return prediction

    def _predict(
        self, encoded: list[dict[str, Any]], batch_size: int, forward_params: dict, postprocess_params: dict
    ) -> list[Prediction]:
        """Predict encoded inputs in batches of similar length; the result keeps their order."""
        predictions: list[Prediction] = [[] for _ in encoded]  # what a text without words gets
        lengths = list(map(self.reader.length, encoded))
        # Longest first, so that a batch too large for the memory fails at the start.
        order = sorted((i for i, length in enumerate(lengths) if length), key=lambda i: -lengths[i])
        for start in range(0, len(order), batch_size):
            batch = order[start : start + batch_size]
            outputs = self.forward(self.reader.collate([encoded[i] for i in batch]), **forward_params)
            for row, i in enumerate(batch):
                own = {name: values[row] for name, values in outputs.items()}
                predictions[i] = self.postprocess({**encoded[i], **own}, **postprocess_params)
        return predictions


class _SizedIterator(Iterator[Prediction]):
    """An iterator that knows how many items there are in all, for progress bars."""

    def __init__(self, items: Iterator[Prediction], number: int):
        self.items = items
        self.number = number

    def __len__(self) -> int:
        return self.number

    def __next__(self) -> Prediction:
        return next(self.items)


def check_vocabulary(num_words: int, config: SGMConfig, tokenizer: str) -> None:
    """Refuses a tokenizer that is not the model's.

    Args:
        num_words: How many words the tokenizer has.
        config: The model's.
        tokenizer: What it is called in the error.

    Raises:
        ValueError: If it has more words than the model, or fewer: only pre-trained encoders have embeddings to spare,
            often to a multiple of 8.
    """
    is_pretrained = config.encoder_config is not None
    if num_words > config.vocab_size or (num_words < config.vocab_size and not is_pretrained):
        raise ValueError(
            f"{tokenizer} has {num_words} words, the model {config.vocab_size}; load both from the same checkpoint."
        )


def attention_to_words(
    model: PreTrainedModel, model_inputs: Mapping[str, torch.Tensor], sequences: torch.Tensor
) -> torch.Tensor:
    """How much the decoder looked at each word when it generated each label (α of Yang et al. 2018, eq. 5).

    Args:
        model: An SGM model in evaluation mode.
        model_inputs: What the tokenizer gives the model, (B, T) each.
        sequences: bos, then labels, (B, n + 1): by teacher forcing, so that it is the same for every way of decoding.

    Returns:
        (B, n, T) float32: step t is what label t + 1 of `sequences` looked at; of the words that the encoder reads.

    Raises:
        ValueError: If the model has no attention over words.
    """
    if not model.attends_to_words:
        raise ValueError(
            f"The model has no attention over the words (config.attention is {model.config.attention!r}); leave "
            "return_attention and attention figures out."
        )
    with torch.no_grad():
        steps = model(**model_inputs, decoder_input_ids=sequences[:, :-1], output_attentions=True)
    return steps.cross_attentions[0].float()  # (B, n, T)


def word_weights(text: str, offsets: Iterable[tuple[int, int]], weights: torch.Tensor) -> list[dict[str, Any]]:
    """The words of a text with what one decoder step gave them.

    Args:
        text: The text.
        offsets: Start and end of each of its T words.
        weights: (T); with padding behind, longer; shorter where the encoder cuts the text.

    Returns:
        One `{"word", "start", "end", "weight"}` per word that the encoder reads; tokens that stand for no part of the
        text, such as [CLS], are left out.
    """
    return [
        {"word": text[start:end], "start": start, "end": end, "weight": weight}
        for (start, end), weight in zip(offsets, weights.tolist(), strict=False)
        if start < end
    ]


__all__ = ["MultiLabelGenerationPipeline", "attention_to_words", "check_vocabulary", "word_weights"]
