"""Write a corpus as Parquet files with a dataset card: what `sgm-hf convert NAME …` does.

The folder needs no code of ours: `datasets.load_dataset(folder)` gives the same splits and features, and
`huggingface_hub.upload_folder` publishes it.
"""

import os
import tempfile
from dataclasses import dataclass
from pathlib import Path

import datasets
import numpy as np
import pyarrow.parquet as pq
from datasets.info import DatasetInfosDict
from huggingface_hub import DatasetCard

from sgm_hf.tables import markdown_table

from . import load_builder
from ._corpus import prepare

CARDS = Path(__file__).with_name("cards")
STATISTICS_MARK = "<!-- statistics -->"  # where a card's template wants the tables
USE = """## Use

The Parquet files here need no code but that of `datasets`; `path` is this folder or its repository on the Hub:

```python
from datasets import load_dataset

corpus = load_dataset(path)
names = corpus["{split}"].features["labels"].feature.names
```
"""
# The Hub's names of sizes: each is for fewer documents than its number.
SIZES = ((10**3, "n<1K"), (10**4, "1K<n<10K"), (10**5, "10K<n<100K"), (10**6, "100K<n<1M"), (10**7, "1M<n<10M"))


@dataclass
class SplitStatistics:
    """Counts of one split.

    Args:
        documents: Number of documents.
        words: Number of words (parts between white space) in all texts; 0 for images.
        label_counts: Documents of each label, (L,) int.
    """

    documents: int
    words: int
    label_counts: np.ndarray


def convert(
    name: str,
    output_dir: str | os.PathLike[str],
    config: str | None = None,
    data_dir: str | os.PathLike[str] | None = None,
) -> dict[str, SplitStatistics]:
    """Write a corpus as Parquet files with a dataset card.

    Args:
        name: One of `CORPORA`.
        output_dir: Folder to make; it may exist if it is empty. It appears only when it is complete.
        config: Name of a configuration; default: the builder's first.
        data_dir: Folder with the published files; the generated corpus needs none.

    Returns:
        The statistics of each split.

    Raises:
        FileExistsError: If `output_dir` is a file, or a folder that is not empty.
        ValueError: If the corpus or configuration is unknown, or the data has a fault.
        FileNotFoundError: If source files are missing.
    """
    output = Path(output_dir).expanduser().absolute()
    if output.exists() and not (output.is_dir() and not any(output.iterdir())):
        raise FileExistsError(f"{output} exists and is not an empty folder; choose another output_dir or remove it")
    output.parent.mkdir(parents=True, exist_ok=True)
    # Next to the output, so that the last step is a rename within one file system.
    with tempfile.TemporaryDirectory(prefix=f".{output.name}-", dir=output.parent) as scratch:
        builder = load_builder(name, config, data_dir, cache_dir=Path(scratch, "cache"))
        parquet, folder = Path(scratch, "parquet"), Path(scratch, "dataset")
        prepare(builder, output_dir=str(parquet), file_format="parquet")
        for record in set(parquet.iterdir()) - set(parquet.glob("*.parquet")):
            record.unlink()  # what `datasets` notes about the data; the card says it
        folder.mkdir()
        parquet.rename(folder / "data")
        statistics = {split: _statistics(builder, split, folder / "data") for split in builder.info.splits or ()}
        make_card(name, builder, statistics).save(folder / "README.md")
        if output.exists():
            output.rmdir()
        folder.rename(output)
    return statistics


def size_category(documents: int) -> str:
    """The Hub's name for a data set of that many documents."""
    return next((name for limit, name in SIZES if documents < limit), "10M<n<100M")


def make_card(
    name: str, builder: datasets.GeneratorBasedBuilder, statistics: dict[str, SplitStatistics]
) -> DatasetCard:
    """Complete the card template of a prepared corpus with features, file names and each split's statistics."""
    template = (CARDS / f"{name}.md").read_text(encoding="utf-8")
    names = (builder.info.features or {})["labels"].feature.names
    rows = (
        (f"`{name}`", *(f"{counts.label_counts[label]:,}" for counts in statistics.values()))
        for label, name in enumerate(names)
    )
    labels_table = markdown_table(("documents with the label", *statistics), rows)
    tables = f"{_statistics_table(builder, statistics)}\n\n{labels_table}"
    use = USE.format(split=next(iter(statistics), "train"))
    card = DatasetCard(f"{template.replace(STATISTICS_MARK, tables).rstrip()}\n\n{use}")
    total = sum(counts.documents for counts in statistics.values())
    card.data["size_categories"] = [size_category(total)]
    config = builder.config.name
    files = [{"split": split, "path": f"data/{_file_stem(builder, split)}*.parquet"} for split in statistics]
    card.data["configs"] = [{"config_name": config, "data_files": files}]
    DatasetInfosDict({config: builder.info}).to_dataset_card_data(card.data)
    return card


def _file_stem(builder: datasets.GeneratorBasedBuilder, split: str) -> str:
    """What the names of a split's Parquet files begin with."""
    return f"{builder.dataset_name}-{split}"


def _statistics(builder: datasets.GeneratorBasedBuilder, split: str, folder: Path) -> SplitStatistics:
    """Count documents, words and labels in the Parquet files of a split."""
    features = builder.info.features or {}
    total = SplitStatistics(0, 0, np.zeros(features["labels"].feature.num_classes, dtype=int))
    documents = builder.info.splits[split].num_examples if builder.info.splits else None
    columns = [name for name in ("text", "labels") if name in features]
    with datasets.utils.tqdm(total=documents, desc=f"Counting {split} split", unit=" documents") as bar:
        for path in sorted(folder.glob(f"{_file_stem(builder, split)}*.parquet")):
            with pq.ParquetFile(path) as file:
                for batch in file.iter_batches(batch_size=4096, columns=columns):
                    labels = batch.column("labels").flatten().to_numpy()  # of all texts of the batch
                    total.documents += len(batch)
                    if "text" in columns:
                        total.words += sum(len(text.split()) for text in batch.column("text").to_pylist())
                    total.label_counts += np.bincount(labels, minlength=len(total.label_counts))
                    bar.update(len(batch))
    return total


def _statistics_table(builder: datasets.GeneratorBasedBuilder, statistics: dict[str, SplitStatistics]) -> str:
    """The counts of every split and the documents of the complete published files, as a Markdown table."""
    expected = getattr(builder.config, "expected_documents", {})
    rows = []
    for split, counts in statistics.items():
        documents = max(counts.documents, 1)  # an empty split has means of 0
        rows.append(
            (
                split,
                f"{counts.documents:,}",
                f"{expected[split]:,}" if split in expected else "–",
                f"{np.count_nonzero(counts.label_counts)} of {len(counts.label_counts)}",
                f"{counts.label_counts.sum() / documents:.2f}",
                f"{counts.words / documents:.1f}" if "text" in (builder.info.features or {}) else "–",
            )
        )
    titles = ("split", "documents", "expected", "labels in use", "labels per document", "words per document")
    counted = f"Configuration `{builder.config.name}`, counted in the files here."
    counted += " Expected are the documents of the complete published files." if expected else ""
    return f"{counted}\n\n{markdown_table(titles, rows)}"
