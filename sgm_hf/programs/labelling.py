"""Label the documents of a file of any size.

1. The file is read through once, which finds faults and the number of documents; of those already labelled, whether
   they are still the same.
2. Window by window the documents are read, cut into batches of similar length, labelled, and appended to the output
   in the order of the file. Memory holds one window.
"""

import csv
import hashlib
import io
import json
import logging
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import torch

from sgm_hf.data.batching import cut_batches
from sgm_hf.data.collation import MultiLabelCollator
from sgm_hf.data.documents import Document, iterate_documents
from sgm_hf.data.encoding import TextEncoder
from sgm_hf.data.images import read_pixels
from sgm_hf.modeling.label_sets_sgm import label_sets_from_sequences
from sgm_hf.programs.labelling_options import LabellingOptions
from sgm_hf.programs.models import load_checkpoint, reads_images
from sgm_hf.programs.resumable import Progress, ResumableFile, alone_with, begin, new_digest
from sgm_hf.training.fingerprint import DESCRIPTIVE, describe_vocabulary
from sgm_hf.training.machine import autocast, choose_precision
from sgm_hf.training.progress import shown_progress

logger = logging.getLogger(__name__)

# A window is at most this many documents, and ends with the one that reaches this many characters.
WINDOW_DOCUMENTS, WINDOW_CHARACTERS = 2048, 2**24
# Documents of a batch: a CPU is fastest with what its caches hold, unless the model is very small.
BATCH_SIZES = {"cpu": 32, "other": 256}
DELIMITERS = {".csv": ",", ".tsv": "\t"}  # of outputs; all else is JSON Lines
OUTPUTS = (".jsonl", *DELIMITERS)
DIGITS = 6  # of scores
# What is counted, and what is said of it.
TOLD = {
    "without_words": "have no word: their label set is empty",
    "unknown_words_only": "have unknown words only: their labels rest on their length alone",
}


@dataclass
class LabelledFile:
    """What `label_file` did.

    Args:
        output: The file of predictions.
        documents: Documents in it.
        labelled_now: Those of them that this call has labelled.
        seconds: Time that labelling them took.
        without_words: Documents without a word, whose label set is empty.
        unknown_words_only: Documents with unknown words only, whose labels rest on their length alone.
    """

    output: Path
    documents: int
    labelled_now: int
    seconds: float
    without_words: int
    unknown_words_only: int


@dataclass
class Labelled:
    """The labels of one document: ids and scores of its set and, where asked for, of the k labels of highest score."""

    labels: list[int]
    scores: list[float]
    top_labels: list[int] | None = None
    top_scores: list[float] | None = None


def label_file(model: str | Path, file: str | Path, output: str | Path | None = None, **options: Any) -> LabelledFile:
    """Label the documents of a file, in memory that does not grow with it.

    Each document becomes a line of the output, in the order of the file: id, label set, scores; on request the text,
    and the labels of highest score. After an interruption or a kill the same call goes on, and each document is in the
    output once; documents that were corrected or added behind the labelled ones are labelled then. Where nothing is
    left to do, nothing is done.

    Args:
        model: A checkpoint folder, or the name of a model on the Hub.
        file: Documents in a format of `load_files`; labels in it are not read. For a model that reads images, the
            paths of images, relative to the file's folder.
        output: A file that ends in `.jsonl`, `.csv` or `.tsv`; default `FILE.predictions.jsonl` next to the file,
            without the file's extension.
        **options: Fields of `LabellingOptions`.

    Returns:
        What was done.

    Raises:
        FileNotFoundError: If there is no such model or file.
        FileExistsError: If the output was made with another model, settings or file, or is being written.
        ValueError: If an option is out of its range, or a file or record is damaged; names the line.

    Examples:
        >>> from sgm_hf.programs import label_file
        >>> label_file("runs/mine", "new.csv", top_k=5).documents
        400000
    """
    given = LabellingOptions(**options)
    path = checked_output(file, default_output(file) if output is None else output)
    folder = Path(file).parent if reads_images(str(model)) else None  # of the images
    read_documents(file, given, folder)  # what is wrong with the file as a whole is told before the model is loaded
    labeller = Labeller(str(model), given) if folder is None else ImageLabeller(str(model), given, folder)
    separator = given.layout().label_separator
    check_separator(path, labeller.names, separator)
    path.parent.mkdir(parents=True, exist_ok=True)
    with alone_with(path):
        progress = begin(path, labeller.described() | described_output(path, given), given.overwrite)
        done, start = progress.documents, time.monotonic()
        logger.info("counting the documents of %s", file)
        total, input_hash, fault = survey(read_documents(file, given, folder), progress, path, folder)
        if done:
            logger.info("%s has %s of the %s documents already", path, f"{done:,}", f"{total:,}")
        if fault is not None:
            logger.warning("%s (the %s documents before are labelled first)", fault, f"{total:,}")
        if done < total or fault is not None:
            documents = islice(read_documents(file, given, folder), done, None)
            with ResumableFile(path, progress) as opened, shown_progress(total, "Labelling", done) as bar:
                for window in windows(documents):
                    labelled, counts = labeller.label([document.text for document in window], bar.update)
                    records = make_records(window, labelled, labeller.names, given.include_text)
                    lines = written(path, records, separator, with_header=progress.size == 0)
                    update_hash(input_hash, window, folder)
                    opened.append(lines, len(window), input_hash.hexdigest(), **counts)
    for name, what in TOLD.items():
        if progress.counts.get(name):
            logger.warning("%s of the %s documents %s", f"{progress.counts[name]:,}", f"{progress.documents:,}", what)
    seconds = time.monotonic() - start
    return LabelledFile(path, progress.documents, progress.documents - done, seconds, **progress.counts)


# ---- documents ----


def read_documents(file: str | Path, options: LabellingOptions, folder: Path | None = None) -> Iterator[Document]:
    """The documents of the input, without their labels; images in a folder have their paths for a text."""
    documents = iterate_documents(file, options.layout(images=folder is not None), labels="ignored")
    return documents if folder is None else existing_images(documents, folder)


def existing_images(documents: Iterable[Document], folder: Path) -> Iterator[Document]:
    """Pass documents on whose texts are the paths of images from a folder.

    Raises:
        ValueError: If there is no such file.
    """
    for document in documents:
        if not (folder / document.text).is_file():
            raise ValueError(f"{document.place}: there is no image {document.text!r} in {folder}; correct its path.")
        yield document


def survey(
    documents: Iterable[Document], progress: Progress, output: Path, folder: Path | None = None
) -> tuple[int, hashlib.blake2b, ValueError | None]:
    """Read the input through, and compare what is labelled already with what was labelled.

    Args:
        documents: All documents of the input.
        progress: How far its output is.
        output: The output, for the error.
        folder: Of the images, if the documents are such.

    Returns:
        The number of documents, the hash of those labelled already, and the fault that ends the file before its time.

    Raises:
        FileExistsError: If the documents labelled already are others now.
    """
    digest, total, fault = new_digest(), 0, None
    try:
        for total, document in enumerate(documents, start=1):
            if total <= progress.documents:
                update_hash(digest, [document], folder)
    except ValueError as error:
        fault = error
    if fault is not None and total < progress.documents:
        raise fault
    if digest.hexdigest() != progress.input_hash:
        raise FileExistsError(
            f"the {progress.documents:,} documents in {output} are not the first ones of the file as it is now; give "
            "the same file and options again, give --overwrite to begin anew, or another --output."
        )
    return total, digest, fault


def update_hash(digest: hashlib.blake2b, documents: Iterable[Document], folder: Path | None = None) -> None:
    """Add the ids and texts of documents to a hash; of images in a folder the files, too."""
    for document in documents:
        # The lengths keep apart what ends in an id and what begins a text.
        digest.update(f"{len(document.id)} {len(document.text)} {document.id}{document.text}".encode())
        if folder is not None:
            content = (folder / document.text).read_bytes()
            digest.update(f"{len(content)} ".encode() + content)


def windows(documents: Iterable[Document]) -> Iterator[list[Document]]:
    """Cut documents into lists that memory can hold; what was read before a fault comes before it."""
    window: list[Document] = []
    num_characters = 0
    try:
        for document in documents:
            window.append(document)
            num_characters += len(document.text)
            if len(window) >= WINDOW_DOCUMENTS or num_characters >= WINDOW_CHARACTERS:
                yield window
                window, num_characters = [], 0
    except ValueError:
        if window:
            yield window
        raise
    if window:
        yield window


# ---- labels ----


class Labeller:
    """A model and its tokenizer, ready to label texts.

    Args:
        name: A checkpoint folder, or the name of a model on the Hub.
        options: How to label.

    Raises:
        FileNotFoundError: If there is no such model.
        ValueError: If there is no such device, or the model cannot generate so.
    """

    def __init__(self, name: str, options: LabellingOptions):
        self.options, self.generation = options, options.overrides()
        self.model: Any
        self.model, self.tokenizer = load_checkpoint(name)
        device = options.device or ("cuda" if torch.cuda.is_available() else "cpu")
        try:
            self.model.eval().to(device)
        except (AssertionError, RuntimeError) as error:
            raise ValueError(f"--device {device} cannot be used: {str(error).splitlines()[0]}") from error
        self.precision = choose_precision(options.precision, self.model.device.type)
        config = self.model.config
        self.names = [config.id2label[label] for label in range(config.num_labels)]
        self.generate([self.first_example()])  # refuses arguments that cannot be before anything is read

    def first_example(self) -> dict[str, Any]:
        """Make ready to read documents; returns a short one."""
        self.encoder = TextEncoder(self.tokenizer)
        self.collate = MultiLabelCollator(self.model.config.pad_token_id, self.model.config.num_labels)
        return self.encode(["a"])[0][0]

    def described_reader(self) -> Any:
        """What the inputs depend on beside the documents."""
        return describe_vocabulary(self.tokenizer), self.tokenizer.model_max_length

    def described(self) -> dict[str, Any]:
        """All of the model that its labels depend on, as plain values by name."""
        digest = new_digest()
        for name, tensor in sorted(self.model.state_dict().items()):
            digest.update(name.encode())
            digest.update(tensor.cpu().contiguous().flatten().view(torch.uint8).numpy())
        fields_of_config = {n: v for n, v in self.model.config.to_dict().items() if n not in DESCRIPTIVE}
        described = [self.names, fields_of_config, self.described_reader()]
        digest.update(json.dumps(described, sort_keys=True, default=str).encode())
        generation = {**self.model.generation_config.to_dict(), **self.generation}
        kept = {n: v for n, v in generation.items() if n not in DESCRIPTIVE and v is not None}
        return {"model": digest.hexdigest(), "precision": self.precision, **kept}

    def encode(self, texts: Sequence[str]) -> tuple[list[dict[str, Any]], list[int], int]:
        """The words of each text, their number (0 where there is none), and how many texts have unknown ones only."""
        around, unknown = self.tokenizer.num_special_tokens_to_add(), self.tokenizer.unk_token_id  # [CLS], [SEP]
        columns = {name: [np.asarray(row).tolist() for row in rows] for name, rows in self.encoder(texts).items()}
        lengths = list(map(len, columns["input_ids"]))
        pairs = zip(columns["input_ids"], lengths, strict=True)
        unknown_only = sum(0 < length == ids.count(unknown) + around for ids, length in pairs)
        rows = zip(*columns.values(), strict=True)
        return [dict(zip(columns, row, strict=True)) for row in rows], lengths, unknown_only

    def label(self, texts: Sequence[str], report: Callable[[int], object]) -> tuple[list[Labelled], dict[str, int]]:
        """Label texts in batches of similar length.

        Args:
            texts: The texts.
            report: Gets the number of texts of each batch that is done.

        Returns:
            Their labels, in their order, and the counts of `LabelledFile`.
        """
        encoded, lengths, unknown_only = self.encode(texts)
        order = sorted((row for row, length in enumerate(lengths) if length), key=lengths.__getitem__)
        nothing: list[Any] | None = None if self.options.top_k is None else []
        labelled = [Labelled([], [], nothing, nothing) for _ in texts]  # what a text without a word gets
        default = BATCH_SIZES.get(self.model.device.type, BATCH_SIZES["other"])
        caps = (self.options.max_tokens_per_batch, self.options.batch_size or default)
        # Longest first, so that a batch too large for the memory fails at the start.
        for first, last in reversed(cut_batches([lengths[row] for row in order], *caps)):
            rows = order[first:last]
            for row, labels in zip(rows, self.generate([encoded[row] for row in rows]), strict=True):
                labelled[row] = labels
            report(len(rows))
        without_words = len(texts) - len(order)
        if without_words:
            report(without_words)
        return labelled, {"without_words": without_words, "unknown_words_only": unknown_only}

    def inputs(self, encoded: Sequence[dict[str, Any]]) -> dict[str, torch.Tensor]:
        """The model's inputs of a batch."""
        return self.collate.pad_texts(encoded)

    def generate(self, encoded: Sequence[dict[str, Any]]) -> list[Labelled]:
        """The labels of a batch of texts that have words."""
        inputs = {name: tensor.to(self.model.device) for name, tensor in self.inputs(encoded).items()}
        with autocast(self.model.device, self.precision == "bf16"):
            output = self.model.generate(
                **inputs, return_dict_in_generate=True, output_label_scores=True, **self.generation
            )
        scores = output.label_scores.float()  # (B, L)
        chosen = label_sets_from_sequences(output.sequences, scores.shape[1])
        # As whole numbers in the order of the scores, ties by id: topk alone takes any of those that are equal.
        ranks = scores.view(torch.int32).long() * scores.shape[1] - torch.arange(scores.shape[1]).to(scores.device)
        best = ranks.topk(min(self.options.top_k or 0, scores.shape[1]), dim=1).indices.tolist()  # (B, k)
        scores = scores.cpu().numpy()
        labelled = []
        for row, (labels, top) in enumerate(zip(chosen, best, strict=True)):
            labelled.append(Labelled(labels, scores[row, labels].tolist()))
            if self.options.top_k is not None:
                labelled[-1].top_labels, labelled[-1].top_scores = top, scores[row, top].tolist()
        return labelled


class ImageLabeller(Labeller):
    """A model that reads images, ready to label those at some paths; a batch of them is opened at a time.

    Args:
        name: As of `Labeller`.
        options: As of `Labeller`.
        folder: What the paths begin at.
    """

    def __init__(self, name: str, options: LabellingOptions, folder: Path):
        self.folder = folder
        super().__init__(name, options)

    def first_example(self) -> dict[str, Any]:
        """A small black image."""
        self.collate = MultiLabelCollator(None, self.model.config.num_labels)
        return {"image": np.zeros((8, 8, 3), dtype=np.uint8)}

    def described_reader(self) -> Any:
        """The settings of the image processor."""
        return self.tokenizer.to_dict()

    def encode(self, texts: Sequence[str]) -> tuple[list[dict[str, Any]], list[int], int]:
        """The paths of images; all count alike."""
        return [{"image": self.folder / path} for path in texts], [1] * len(texts), 0

    def inputs(self, encoded: Sequence[dict[str, Any]]) -> dict[str, torch.Tensor]:
        """The pixel values of a batch.

        Raises:
            ValueError: If an image cannot be read.
        """
        images = (image["image"] for image in encoded)
        pixel_values = [read_pixels(image, self.tokenizer, f"the image {image}") for image in images]
        return self.collate.pad_texts([{"pixel_values": values} for values in pixel_values])


# ---- output ----


def default_output(file: str | Path) -> Path:
    """Where predictions go that no other place was named for.

    Examples:
        >>> default_output("data/new.csv.gz").as_posix()
        'data/new.predictions.jsonl'
    """
    path = Path(file)
    return path.with_name(f"{Path(path.name.removesuffix('.gz')).stem}.predictions.jsonl")


def checked_output(file: str | Path, output: str | Path) -> Path:
    """The path of the output.

    Raises:
        ValueError: If its extension names no format, or it is the input.
    """
    path = Path(output)
    if path.suffix.lower() not in OUTPUTS:
        raise ValueError(f"--output {path} has an extension that does not tell its format; give {', '.join(OUTPUTS)}.")
    if path.resolve() == Path(file).resolve():
        raise ValueError(f"--output {path} is the file to be labelled; give another.")
    return path


def check_separator(output: Path, names: Iterable[str], separator: str) -> None:
    """Refuse labels that one cell could not tell apart.

    Raises:
        ValueError: If a label has the separator in it.
    """
    if output.suffix.lower() in DELIMITERS:
        for name in names:
            if separator in name:
                raise ValueError(
                    f"the label {name!r} contains {separator!r}, which stands between two labels in {output.suffix}; "
                    "give another --label_separator, or an --output that ends in .jsonl."
                )


def described_output(output: Path, options: LabellingOptions) -> dict[str, Any]:
    """The options that decide what the output looks like."""
    described: dict[str, Any] = {"top_k": options.top_k, "include_text": options.include_text}
    if output.suffix.lower() in DELIMITERS:
        described["label_separator"] = options.layout().label_separator
    return described


def make_records(
    window: Sequence[Document], labelled: Sequence[Labelled], names: Sequence[str], include_text: bool
) -> Iterator[dict[str, Any]]:
    """What the output says of each document, by column."""
    for document, found in zip(window, labelled, strict=True):
        record: dict[str, Any] = {"id": document.id}
        if include_text:
            record["text"] = document.text
        record["labels"] = [names[label] for label in found.labels]
        record["scores"] = list(map(rounded, found.scores))
        if found.top_labels is not None and found.top_scores is not None:
            record["top_labels"] = [names[label] for label in found.top_labels]
            record["top_scores"] = list(map(rounded, found.top_scores))
        yield record


def rounded(score: float) -> float:
    """A score as it is written: to as many significant digits that a small one is not written as 0."""
    return float(f"{score:.{DIGITS}g}")


def written(output: Path, records: Iterable[dict[str, Any]], separator: str, with_header: bool) -> bytes:
    """Records as they stand in the output.

    Args:
        output: Its extension tells the format.
        records: At least one.
        separator: Text between two labels, or scores, of one cell.
        with_header: Whether the names of the columns come first, where the format has them.
    """
    delimiter = DELIMITERS.get(output.suffix.lower())
    if delimiter is None:
        return "".join(json.dumps(record, ensure_ascii=False) + "\n" for record in records).encode()
    lines = io.StringIO()
    table = csv.writer(lines, delimiter=delimiter, lineterminator="\n")
    for record in records:
        if with_header:
            table.writerow(record)
            with_header = False
        cells = (separator.join(map(str, v)) if isinstance(v, list) else v for v in record.values())
        table.writerow(cells)
    return lines.getvalue().encode()
