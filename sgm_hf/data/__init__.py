"""From corpora to batches: files, label order, encoding, length-bucketed batches, collation."""

from .documents import Document, iterate_documents
from .encoding import encode_dataset
from .files import load_files
from .hierarchy import add_ancestors, parents_of_labels, read_label_hierarchy
from .labels import label_sets_of, order_label_names, read_label_texts
from .layout import Layout

__all__ = [
    "Document",
    "Layout",
    "add_ancestors",
    "encode_dataset",
    "iterate_documents",
    "label_sets_of",
    "load_files",
    "order_label_names",
    "parents_of_labels",
    "read_label_hierarchy",
    "read_label_texts",
]
