"""How a file is labelled: the keyword arguments of `label_file`, and the options of `sgm-hf predict`."""

from argparse import SUPPRESS, ArgumentParser
from dataclasses import dataclass, fields
from typing import Any, get_args, get_origin

from sgm_hf.modeling.label_sets_sgm import SET_DECODINGS
from sgm_hf.programs.settings import FileArguments, option
from sgm_hf.training.machine import PRECISIONS

# Options of a training file that are taken here too, so that a training's can be given again; no label is read.
NOT_SHOWN = ("labels_column", "labels_columns", "multi_hot_names")


@dataclass
class OutputOptions:
    """What is written."""

    top_k: int | None = option("Write the labels of highest score too, this many, chosen or not.")
    include_text: bool = option("Write the text of each document too.", False)
    overwrite: bool = option("Begin anew where the output exists.", False)


@dataclass
class GenerationOverrides:
    """What `generate()` is to do other than the model's generation config says."""

    num_beams: int | None = option("Beam width. Default: the model's.")
    set_decoding: str | None = option(
        "How the label set is chosen. Default: the model's.", choices=list(SET_DECODINGS)
    )
    label_threshold: float | None = option(
        "Score from which --set_decoding threshold takes a label. Default: the model's."
    )
    min_labels: int | None = option("Fewest labels of a document.")
    max_labels: int | None = option("Most labels of a document.")
    allowed_labels: list[str] | None = option("The only labels that may be given.")
    forbidden_labels: list[str] | None = option("Labels that are never given.")
    required_labels: list[str] | None = option("Labels that every document gets.")


@dataclass
class RunningOptions:
    """Where and how fast."""

    batch_size: int | None = option("Most documents of a batch. Default: 32 on a CPU, 256 on a GPU.")
    max_tokens_per_batch: int = option("Most words of a batch, padding included.", 32768)
    precision: str = option(
        "Of multiplication. bf16 is faster where the device has instructions for it, and its scores are less exact; "
        "auto takes it there.",
        "fp32",
        choices=list(PRECISIONS),
    )
    device: str | None = option("cpu, cuda, cuda:1, …. Default: the first GPU, where there is one.")


METAVARS = {int: "NUMBER", float: "NUMBER", str: "TEXT"}
GROUPS = {
    "reading": FileArguments,
    "labels": GenerationOverrides,
    "output": OutputOptions,
    "running": RunningOptions,
}


@dataclass
class LabellingOptions(RunningOptions, OutputOptions, GenerationOverrides, FileArguments):
    """How a file is labelled: what is read, generated and written, and how fast."""

    def __post_init__(self) -> None:
        for name in ("top_k", "batch_size", "max_tokens_per_batch", "num_beams"):
            value = getattr(self, name)
            if value is not None and value < 1:
                raise ValueError(f"--{name} is {value}; it must be at least 1, or left out.")

    def overrides(self) -> dict[str, Any]:
        """The arguments of `generate()` that were given."""
        given = {f.name: getattr(self, f.name) for f in fields(GenerationOverrides)}
        return {name: value for name, value in given.items() if value is not None}


def add_labelling_options(parser: ArgumentParser) -> None:
    """Give a command line the fields of `LabellingOptions`, in groups."""
    for title, options_class in GROUPS.items():
        group = parser.add_argument_group(title)
        for f in fields(options_class):
            text = f.metadata["help"].replace("%", "%%")  # argparse formats it with %
            if f.type is bool:
                group.add_argument(f"--{f.name}", action="store_true", help=text)
                continue
            kind = next(kind for kind in get_args(f.type) or (f.type,) if kind is not type(None))
            settings: dict[str, Any] = {"type": kind, "metavar": METAVARS.get(kind)}
            if get_origin(kind) is list:
                settings = {"nargs": "+", "metavar": "LABEL"}
            if "choices" in f.metadata:
                settings = {"choices": f.metadata["choices"]}
            if f.default is not None and "default" not in text:
                text += f" Default: {f.default}."
            text = SUPPRESS if f.name in NOT_SHOWN else text
            group.add_argument(f"--{f.name}", default=f.default, help=text, **settings)
