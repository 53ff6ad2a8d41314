"""Builders of the corpora: published ones, read from files that the user has, and a generated one.

`datasets` runs no loading scripts any more, so the builders are ordinary classes:

    from sgm_hf.datasets_scripts import load

    corpus = load("reuters21578", data_dir="/data/reuters21578")

`sgm-hf convert` writes a corpus as Parquet files with a dataset card, which plain
`datasets.load_dataset` reads.
"""

import importlib
import os
import re

import datasets

from ._corpus import CorpusBuilder, prepare
from .generated import default_process

# Name of the corpus, which is also its module, and its builder in that module.
CORPORA = {
    "aapd": "AAPD",
    "coco": "COCO",
    "generated": "GeneratedCorpus",
    "goemotions": "GoEmotions",
    "rcv1_v2": "RCV1V2",
    "ren_cecps": "RenCECps",
    "reuters21578": "Reuters21578",
    "yelp": "Yelp",
}

__all__ = ["CORPORA", "default_process", "load", "load_builder"]


def load_builder(
    name: str,
    config: str | None = None,
    data_dir: str | os.PathLike[str] | None = None,
    cache_dir: str | os.PathLike[str] | None = None,
) -> datasets.GeneratorBasedBuilder:
    """Make the builder of a corpus, without reading its files; arguments as of `load`.

    Raises:
        ValueError: If the corpus or configuration is unknown, or `data_dir` is missing or superfluous.
        FileNotFoundError: If files are missing; the message says which and how to obtain them.
    """
    if name not in CORPORA:
        raise ValueError(f"unknown corpus {name!r}, expected one of {', '.join(CORPORA)}")
    builder_class = getattr(importlib.import_module(f"{__name__}.{name}"), CORPORA[name])
    cache = None if cache_dir is None else os.fspath(cache_dir)
    if issubclass(builder_class, CorpusBuilder):
        folder = None if data_dir is None else os.path.abspath(os.path.expanduser(data_dir))
        return builder_class(config_name=config, data_dir=folder, cache_dir=cache)
    if data_dir is not None:
        raise ValueError(f"data_dir is {os.fspath(data_dir)!r}, but the {name} corpus reads no files; leave it out")
    return builder_class(config_name=config, cache_dir=cache)


def load(
    name: str,
    config: str | None = None,
    data_dir: str | os.PathLike[str] | None = None,
    split: str | None = None,
    streaming: bool = False,
    cache_dir: str | os.PathLike[str] | None = None,
) -> datasets.Dataset | datasets.DatasetDict | datasets.IterableDataset | datasets.IterableDatasetDict:
    """Load a corpus with the columns `id`, `text` (in configurations of images `image`) and `labels`.

    Without streaming the corpus is generated once into the cache; a changed source file is noticed (by size and time
    of modification) and read again. If a split's size is not that of the complete published files, a warning says so.
    With streaming nothing is written, and sizes are not checked.

    Args:
        name: One of `CORPORA`.
        config: Name of a configuration, as listed in the builder's docstring; default: its first.
        data_dir: Folder with the published files; the generated corpus needs none.
        split: A split, or an expression of `datasets` such as "train[:10%]"; default: all splits.
        streaming: Whether to read the files while iterating.
        cache_dir: Folder for the generated Arrow files; default: that of `datasets`.

    Returns:
        A dictionary of all splits, or the one asked for.

    Raises:
        ValueError: If the corpus, configuration or split is unknown, or the data has a fault (the message names file
            and line; with streaming it is raised while iterating).
        FileNotFoundError: If files are missing; the message says which and how to obtain them.
    """
    builder = load_builder(name, config, data_dir, cache_dir)
    if isinstance(builder, CorpusBuilder):
        for part in re.findall(r"[a-z]+(?=\[|\+|$)", str(split or "")):
            builder.config.check_split(part)
    if streaming:
        return builder.as_streaming_dataset(split=split)
    prepare(builder)
    return builder.as_dataset(split=split)
