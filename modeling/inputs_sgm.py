"""What the pipeline makes of its inputs: of texts word ids, of images pixel values, and batches of either.

A model reads one kind or the other; each kind is a class here, and the pipeline asks no further.
"""

import os
import warnings
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

import numpy as np
import torch
from torch.nn.utils.rnn import pad_sequence
from transformers.image_utils import load_image


class TextReader:
    """Reads texts.

    Args:
        tokenizer: The model's tokenizer.
    """

    one, many = "a string", "a list of strings"
    by_length: ClassVar[bool] = True  # whether inputs of similar length are to be batched together

    def __init__(self, tokenizer: Any):
        self.tokenizer = tokenizer

    def is_one(self, inputs: Any) -> bool:
        """Whether it is one text, and not a collection of them."""
        return isinstance(inputs, str)

    def read(self, text: str, index: int = 0, truncation: bool = True, return_offsets: bool = False) -> dict[str, Any]:
        """Encodes one text.

        Args:
            text: The text.
            index: Its place in the input, for messages.
            truncation: Whether to cut it at the tokenizer's `model_max_length` words.
            return_offsets: Whether to keep the place of each word.

        Returns:
            `text`, `input_ids` (list of T word ids; empty for a text without words), what else the tokenizer gives the
            model, and on request `offset_mapping`.

        Raises:
            TypeError: If the text is not a string.
        """
        if not isinstance(text, str):
            hint = " Of a data set pass the text column, e.g. dataset['text']." if isinstance(text, Mapping) else ""
            raise TypeError(f"Input {index} is {text!r:.80} of type {type(text).__name__}, expected a string.{hint}")
        encoding = self.tokenizer(
            text,
            truncation=truncation,
            return_offsets_mapping=return_offsets,
            return_attention_mask=False,
            verbose=False,
        )
        word_ids = encoding["input_ids"]
        num_words = len(word_ids) - self.tokenizer.num_special_tokens_to_add()  # [CLS], [SEP], of ours none
        if num_words <= 0:
            warnings.warn(f"Input {index} has no word and gets an empty label set: {text!r:.80}", stacklevel=2)
            return {"text": text, **dict.fromkeys(encoding, [])}
        if word_ids.count(self.tokenizer.unk_token_id) == num_words:
            warnings.warn(
                f"Input {index} has unknown words only, so its labels rest on its length alone: {text!r:.80}",
                stacklevel=2,
            )
        return {"text": text, **encoding}

    def length(self, encoded: Mapping[str, Any]) -> int:
        """The words of an encoded text; one of none has an empty label set."""
        return len(encoded["input_ids"])

    def collate(self, encoded: Sequence[Mapping[str, Any]]) -> dict[str, torch.Tensor]:
        """Pads the word ids of texts, and what else the tokenizer gives the model; (B, T) each, with the mask."""
        padding = {"input_ids": self.tokenizer.pad_token_id or 0, "token_type_ids": self.tokenizer.pad_token_type_id}
        texts = [{**text, "attention_mask": [1] * len(text["input_ids"])} for text in encoded]
        return {
            name: pad_sequence(
                [torch.tensor(text[name]) for text in texts], batch_first=True, padding_value=padding.get(name, 0)
            )
            for name in ("attention_mask", *self.tokenizer.model_input_names)
            if name in texts[0]
        }


class ImageReader:
    """Reads images.

    Args:
        image_processor: The model's image processor.
    """

    one, many = "an image (PIL image, array, path or URL)", "a list of them"
    by_length: ClassVar[bool] = False

    def __init__(self, image_processor: Any):
        self.image_processor = image_processor

    def is_one(self, inputs: Any) -> bool:
        """Whether it is one image, and not a collection of them."""
        is_array = hasattr(inputs, "ndim") and inputs.ndim <= 3
        return is_array or isinstance(inputs, str | os.PathLike) or hasattr(inputs, "convert")  # a PIL image

    def read(
        self, image: Any, index: int = 0, truncation: bool | None = None, return_offsets: bool = False
    ) -> dict[str, Any]:
        """Encodes one image.

        Args:
            image: A PIL image, an array (height, width[, channels]), a path, or a URL (`http:`, `data:`).
            index: Its place in the input, for messages.
            truncation: Not of images.
            return_offsets: Not of images.

        Returns:
            `pixel_values`, (channels, height, width) float32.

        Raises:
            TypeError: If it is nothing that an image can be.
            ValueError: If it cannot be read, or an argument is not of images.
        """
        if truncation is not None or return_offsets:
            name = "truncation" if truncation is not None else "return_attention"
            raise ValueError(f"{name} is for models that read texts, and this one reads images; leave it out.")
        if not self.is_one(image):
            hint = " Of a data set pass the column, e.g. dataset['image']." if isinstance(image, Mapping) else ""
            raise TypeError(
                f"Input {index} is {described(image)} of type {type(image).__name__}, expected {self.one}.{hint}"
            )
        try:
            return {"pixel_values": torch.from_numpy(pixel_values_of([image], self.image_processor)[0])}
        except Exception as error:  # of whatever kind: a broken file can raise SyntaxError
            reason = " ".join(str(error).split())[:200] or type(error).__name__
            raise ValueError(f"Input {index}, {described(image)}, cannot be read as an image: {reason}") from error

    def length(self, encoded: Mapping[str, Any]) -> int:
        """All images count alike."""
        return 1

    def collate(self, encoded: Sequence[Mapping[str, Any]]) -> dict[str, torch.Tensor]:
        """Puts images together, (B, channels, height, width).

        Raises:
            ValueError: If they are not of one size.
        """
        shapes = {tuple(image["pixel_values"].shape) for image in encoded}
        if len(shapes) > 1:
            raise ValueError(
                f"The image processor makes images of different sizes, {sorted(shapes)[:3]}; call with batch_size=1, "
                "or set its size to a height and a width."
            )
        return {"pixel_values": torch.stack([image["pixel_values"] for image in encoded])}


def described(item: Any) -> str:
    """What an input is called in errors, on one line."""
    if isinstance(item, os.PathLike):
        return os.fspath(item)  # whole: its end is the file's name
    return f"an array of shape {tuple(item.shape)}" if hasattr(item, "shape") else f"{item!r:.80}"


def open_image(image: Any) -> Any:
    """An image, RGB and upright, as an image processor takes it.

    Args:
        image: A PIL image, a path or URL of one, or an array: with channels as it is, without them grey.

    Raises:
        FileNotFoundError: If it is a path and there is no such file.
        OSError: If the file is no image.
    """
    if hasattr(image, "convert"):
        return load_image(image)
    if not isinstance(image, str | os.PathLike):
        array = np.asarray(image)
        return np.stack([array] * 3, axis=-1) if array.ndim == 2 else array
    path = os.fspath(image)
    if not path.startswith(("http://", "https://", "data:image/")) and not os.path.isfile(path):
        raise FileNotFoundError(f"there is no file {path!r:.80}; this model reads images, give the path of one.")
    return load_image(path)


def pixel_values_of(images: Sequence[Any], image_processor: Any) -> np.ndarray:
    """The pixel values of images, (B, channels, height, width) float32, in training as in prediction."""
    opened = [open_image(image) for image in images]
    return np.asarray(image_processor(images=opened, return_tensors="np")["pixel_values"], dtype=np.float32)


__all__ = ["ImageReader", "TextReader", "open_image", "pixel_values_of"]
