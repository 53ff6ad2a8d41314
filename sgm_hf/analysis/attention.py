"""Attention maps: the weight of each word when a label was generated (the SGM paper's visualisation).

A map is drawn from the pipeline's output with `return_attention=True`, as HTML or as a figure (needs matplotlib:
`pip install sgm_hf[figures]`). Texts and labels are untrusted: they are never interpreted as HTML or as a formula.
"""

import html
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from sgm_hf.modeling.pipeline_sgm import attention_to_words, word_weights

# The pipeline's output for one text with `return_attention=True`: a list of {"label", "score", "attention"}.
Prediction = Sequence[Mapping[str, Any]]

# Characters that are shown of a word, or of the text between two words.
LONGEST_PIECE = 200
WORDS_PER_ROW = 25  # of a figure
# So that a figure is below the greatest size of a PNG.
MAX_WORDS = 500
MAX_LABELS = 30

ATTENTION_CSS = """
.attention-map { display: grid; grid-template-columns: repeat(auto-fit, minmax(min(23em, 100%), 1fr)); gap: 0.8em; }
.attention-map { align-items: start; line-height: 1.75; overflow-wrap: anywhere; }
.attention-map details { border: 1px solid rgba(128, 128, 128, 0.35); border-radius: 8px; }
.attention-map summary { cursor: pointer; padding: 0.35em 0.9em; }
.attention-map summary b { margin-right: 0.6em; }
.attention-map p { margin: 0; padding: 0.1em 0.9em 0.7em; white-space: pre-wrap; }
.attention-map span { border-radius: 3px; padding: 0.1em 0; }
.attention-map .strong { color: #221500; }
.attention-map small { opacity: 0.7; }
"""

# No page of ours has a script, so none may run.
_PAGE = """<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta http-equiv="Content-Security-Policy" content="default-src 'none'; style-src 'unsafe-inline'">
<title>{title}</title>
<style>
body {{ max-width: 76em; margin: 2em auto; padding: 0 1em; font-family: system-ui, sans-serif; }}
h1 {{ font-size: 1.4em; overflow-wrap: anywhere; }}
{css}</style>
</head>
<body>
<h1>{title}</h1>
<p>Each block shows the text as one label saw it: the stronger the colour of a word, the more the model looked at it
when it generated the label. Colours are relative to the strongest word of the block; a word under the pointer shows
its weight.</p>
{map}
</body>
</html>
"""


def label_attention(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    text: str,
    label_ids: Sequence[int],
    max_length: int | None = None,
) -> list[list[dict[str, Any]]]:
    """The attention over the words of a text for given labels, such as those of saved predictions (eq. 5).

    Args:
        model: An SGM model.
        tokenizer: Its tokenizer.
        text: The text.
        label_ids: The labels in generated order.
        max_length: Words after which the text is cut, if fewer than the tokenizer's `model_max_length`.

    Returns:
        For each label what the pipeline gives as "attention" of a label that it generates.

    Raises:
        ValueError: If the model has no attention over words.
    """
    # None is that of the tokenizer, which may have none.
    length = min(max_length, tokenizer.model_max_length) if max_length else None
    options = {"truncation": True, "max_length": length, "return_offsets_mapping": True, "return_attention_mask": True}
    encoding = tokenizer(text, **options, return_tensors="pt", verbose=False).to(model.device)  # (1, T) each
    offsets = encoding.pop("offset_mapping")[0].tolist()  # (T, 2)
    if not label_ids or not offsets:
        return [[] for _ in label_ids]
    sequence = torch.tensor([[model.config.bos_label_id, *label_ids]], device=model.device)  # (1, n + 1)
    was_training = model.training
    try:
        weights = attention_to_words(model.eval(), encoding, sequence)[0]  # (n, T)
    finally:
        model.train(was_training)
    return [word_weights(text, offsets, row) for row in weights]


def attention_html(text: str, prediction: Prediction) -> str:
    """The maps of one text as a `<div>` for a page with `ATTENTION_CSS`: per label the text with coloured words.

    Labels without attention are left out.
    """
    seen = [entry for entry in prediction if entry.get("attention")]
    if not seen:
        return '<div class="attention-map"><p>No label was generated.</p></div>'
    return f'<div class="attention-map">{"".join(_label_block(text, entry) for entry in seen)}</div>'


def attention_page(text: str, prediction: Prediction, title: str = "Attention map") -> str:
    """The maps of one text as a self-contained HTML page without scripts, see `attention_html`."""
    return _PAGE.format(title=_escaped(title), css=ATTENTION_CSS, map=attention_html(text, prediction))


def plot_attention(prediction: Prediction, path: str | Path, title: str = "") -> None:
    """Draw the weights of the words for each label as `path`.png and `path`.svg.

    Labels without attention, labels after the first 30 and words after the first 500 are left out.

    Raises:
        ValueError: If no label has attention.
    """
    from matplotlib.figure import Figure  # an extra, which the HTML maps do not need

    from sgm_hf.analysis.figures import save_figure

    seen = [entry for entry in prediction if entry.get("attention")]
    if not seen:
        raise ValueError(
            f"none of the {len(prediction)} labels has attention: ask the pipeline for return_attention=True, and "
            "leave out texts for which it generated no label."
        )
    seen = seen[:MAX_LABELS]
    words = [_shortened(word["word"], 20) for word in seen[0]["attention"]][:MAX_WORDS]
    weights = [[word["weight"] for word in entry["attention"]][:MAX_WORDS] for entry in seen]  # (n, T)
    labels = [f"{_shortened(str(entry['label']), 30)}  {entry['score']:.2f}" for entry in seen]
    starts = range(0, len(words), WORDS_PER_ROW)
    height = (0.28 * len(labels) + 1.0) * len(starts) + 0.5
    figure = Figure(figsize=(11, height), layout="constrained")
    rows = figure.subplots(len(starts), 1, squeeze=False)[:, 0]
    images = []
    for axes, start in zip(rows, starts, strict=True):
        part = words[start : start + WORDS_PER_ROW]
        shown = axes.imshow(
            [row[start : start + WORDS_PER_ROW] for row in weights],
            cmap="Oranges",
            vmin=0,
            vmax=max(map(max, weights)),
            aspect="auto",
            extent=(-0.5, len(part) - 0.5, len(labels) - 0.5, -0.5),
        )
        images.append(shown)
        axes.set_xlim(-0.5, WORDS_PER_ROW - 0.5)  # words in a short last row are as wide as in the others
        axes.set_xticks(range(len(part)), part, rotation=60, ha="right", rotation_mode="anchor", parse_math=False)
        axes.set_yticks(range(len(labels)), labels, parse_math=False)
        axes.tick_params(length=0, labelsize="small")
        axes.spines[:].set_visible(False)
    figure.colorbar(images[0], ax=list(rows), label="attention weight", shrink=min(1.0, 3 / height), pad=0.01)
    figure.suptitle(_shortened(title, 120), parse_math=False)
    save_figure(figure, path)


def _label_block(text: str, entry: Mapping[str, Any]) -> str:
    """The block of one label: its score, and the text with each word on a background as strong as its weight."""
    words = entry["attention"]
    strongest = max(word["weight"] for word in words) or 1.0
    pieces = []
    end = 0
    for word in words:
        pieces.append(_escaped(_shortened(text[end : word["start"]], LONGEST_PIECE)))
        strength = word["weight"] / strongest
        # Letters on a strong background must be dark, also on a dark page.
        attributes = ' class="strong"' if strength > 0.8 else ""
        attributes += f' title="{word["weight"]:.4f}"'
        if strength >= 0.01:
            attributes += f' style="background-color: rgba(245, 130, 10, {0.9 * strength:.2f})"'
        pieces.append(f"<span{attributes}>{_escaped(_shortened(word['word'], LONGEST_PIECE))}</span>")
        end = word["end"]
    rest = text[end:]
    if len(rest) <= LONGEST_PIECE and not any(character.isalnum() for character in rest):
        pieces.append(_escaped(rest))
    else:
        pieces.append(f" <small>… (words read: {len(words):,}; characters not read: {len(rest):,})</small>")
    summary = f"<b>{_escaped(str(entry['label']))}</b>{entry['score']:.2f}"
    return f"<details open><summary>{summary}</summary><p>{''.join(pieces)}</p></details>"


def _shortened(piece: str, longest: int) -> str:
    """The piece, if it is too long its beginning and an ellipsis."""
    return piece if len(piece) <= longest else piece[:longest] + "…"


def _escaped(text: str) -> str:
    """The text escaped for HTML, half surrogate pairs replaced."""
    return html.escape(text.encode("utf-8", "replace").decode("utf-8"))
