"""Documents with the labels of each system side by side (SGM, Table 5).

Texts of a corpus belong to others: only the HTML page has them, in the output folder.
"""

import html
import logging
from collections.abc import Mapping, Sequence
from dataclasses import fields
from typing import Any

import numpy as np

from sgm_hf.programs.settings import DataArguments
from sgm_hf.programs.splits import arrange_splits, load_splits
from sgm_hf.tables import markdown_table

logger = logging.getLogger(__name__)

CASES = 12
MOST_WORDS = 150
STYLE = (
    "body{font:15px/1.5 system-ui,sans-serif;margin:2rem auto;max-width:60rem;padding:0 1rem}"
    "table{border-collapse:collapse;margin:.5rem 0 2rem}td,th{border:1px solid #bbb;padding:.25rem .6rem;"
    "text-align:left;vertical-align:top}.wrong{color:#b00020;text-decoration:line-through}"
    ".missed{color:#666}p{margin:.3rem 0}"
)


def chosen_rows(references: np.ndarray, predictions: Sequence[np.ndarray], most: int = CASES) -> list[int]:
    """The documents whose numbers of wrong labels differ most from system to system, those with more labels first.

    Args:
        references: True labels (N, L).
        predictions: Predicted labels (N, L) of each system.
        most: How many at most.
    """
    wrong = np.stack([(references ^ predicted).sum(axis=1) for predicted in predictions])  # (systems, N)
    spread = wrong.max(axis=0) - wrong.min(axis=0)
    order = np.lexsort((np.arange(len(references)), -references.sum(axis=1), -spread))
    return [int(row) for row in order[:most] if spread[row] > 0]


def cases_table(ids: Sequence[Any], labels: Mapping[str, Sequence[Sequence[str]]]) -> str:
    """The cases in Markdown: wrong labels are struck out, and the number of missed ones is in brackets."""
    gold, *systems = labels
    lines = []
    for place, document in enumerate(ids):
        true = set(labels[gold][place])
        cells = [str(document), ", ".join(labels[gold][place])]
        for name in systems:
            found = labels[name][place]
            words = ", ".join(label if label in true else f"~~{label}~~" for label in found) or "none"
            missed = len(true - set(found))
            cells.append(f"{words} ({missed} missed)" if missed else words)
        lines.append(cells)
    return markdown_table(["Document", gold, *systems], lines)


def cases_page(
    title: str, ids: Sequence[Any], texts: Sequence[str] | None, labels: Mapping[str, Sequence[Sequence[str]]]
) -> str:
    """The cases as an HTML page: for each document its text and a table of systems."""
    gold, *systems = labels
    parts = [f"<h1>{html.escape(title)}</h1>", "<p>Struck out: wrong. In grey: missed.</p>"]
    for place, document in enumerate(ids):
        true = labels[gold][place]
        parts.append(f"<h2>Document {html.escape(str(document))}</h2>")
        if texts is not None:
            parts.append(f"<p>{html.escape(texts[place])}</p>")
        lines = [f"<tr><th>{html.escape(gold)}</th><td>{html.escape(', '.join(true))}</td></tr>"]
        for name in systems:
            found = labels[name][place]
            words = [
                html.escape(label) if label in true else f'<span class="wrong">{html.escape(label)}</span>'
                for label in found
            ]
            words += [f'<span class="missed">({html.escape(label)})</span>' for label in true if label not in found]
            lines.append(f"<tr><th>{html.escape(name)}</th><td>{', '.join(words)}</td></tr>")
        parts.append(f"<table>{''.join(lines)}</table>")
    return (
        f'<!doctype html><html lang="en"><meta charset="utf-8"><title>{html.escape(title)}</title>'
        f"<style>{STYLE}</style><body>{''.join(parts)}</body></html>\n"
    )


def texts_of(settings: Mapping[str, Any], split: str, ids: Sequence[Any], rows: Sequence[int]) -> list[str] | None:
    """The first words of documents; None where the corpus is not at hand, or is another by now.

    Args:
        settings: The settings of a run.
        split: The split that it predicted.
        ids: The ids of all documents in its predictions.
        rows: Which documents.
    """
    names = {f.name for f in fields(DataArguments)}
    data_args = DataArguments(**{name: value for name, value in settings.items() if name in names})
    try:
        documents = arrange_splits(load_splits(data_args, None), data_args)[split]
    except (OSError, ValueError) as error:
        logger.warning("the page of cases has no texts: the corpus cannot be read (%s).", error)
        return None
    known = documents["id"][:] if "id" in documents.column_names else list(range(len(documents)))
    if known != list(ids):
        logger.warning("the page of cases has no texts: the corpus has other documents than the predictions.")
        return None
    words = [(documents[row]["text"] or "").split() for row in rows]
    return [" ".join(text[:MOST_WORDS]) + (" …" if len(text) > MOST_WORDS else "") for text in words]
