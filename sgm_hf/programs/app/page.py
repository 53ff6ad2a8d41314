"""The page: labels of a text with scores and attention maps, and labels of whole files. It needs no network."""

import html
import os
import tempfile
from collections.abc import Callable, Sequence
from functools import wraps
from pathlib import Path
from typing import Any

import gradio as gr

from sgm_hf.analysis.attention import ATTENTION_CSS, attention_html, attention_page
from sgm_hf.hub import OBJECTIVES
from sgm_hf.programs.app.predictor import (
    THRESHOLD,
    Prediction,
    Predictor,
    load_predictor,
    name_lines,
    read_documents,
    write_predictions,
)

FILE_TYPES = [".txt", ".csv", ".tsv", ".jsonl", ".json", ".parquet"]
CHUNK = 64  # texts of a file predicted before a single text may have its turn
NUM_SHOWN = 100  # documents of a file in the page's table; the download holds all
NUM_RANKED = 100  # labels in the list of all
NUM_EXAMPLES = 5
TITLE = "Multi-label text classification"
MAX_FILE_SIZE = "100mb"
# Uploads and downloads are deleted after a day: seconds between two checks, seconds they are kept.
DELETE_CACHE = (3600, 86400)

BEST_SEQUENCE = "best_sequence"
DECODINGS = [
    ("most probable sequence", BEST_SEQUENCE),
    ("scores from the threshold on", THRESHOLD),
    ("greatest expected F1", "expected_f1"),
]

PAGE_CSS = """
.heading { font-weight: 600; }
.attention-map { font-family: inherit; }
.attention-map summary b { font-weight: 600; }
.label-list ol { list-style: decimal; margin: 0; padding-left: 2em; }
.label-list li { padding: 0.2em 0; overflow-wrap: anywhere; }
.label-list .row { display: flex; justify-content: space-between; }
.label-list .bar { background: rgba(128, 128, 128, 0.2); border-radius: 3px; height: 7px; }
.label-list .bar div { background: #f5820a; border-radius: 3px; height: 7px; }
.label-list summary { cursor: pointer; margin: 0.6em 0; }
.label-list .note { opacity: 0.75; margin-top: 0.8em; overflow-wrap: anywhere; }
"""

# ---- what the page shows ----


def label_list_html(prediction: Prediction, notes: Sequence[str] = ()) -> str:
    """The labels in generated order with their scores as bars, and notes below; labels and notes are escaped."""
    listed = f"<ol>{''.join(map(label_html, prediction))}</ol>" if prediction else "<p>No label.</p>"
    return f'<div class="label-list">{listed}{"".join(map(note_html, notes))}</div>'


def label_html(entry: dict[str, Any], decimals: int = 2) -> str:
    """A label with its score as a bar, an item of a list."""
    return (
        f'<li><div class="row"><span>{html.escape(entry["label"])}</span><span>{entry["score"]:.{decimals}f}</span>'
        f'</div><div class="bar"><div style="width: {100 * entry["score"]:.1f}%"></div></div></li>'
    )


def note_html(note: str) -> str:
    """A note below the labels."""
    return f'<p class="note">{html.escape(note)}</p>'


def new_folder() -> Path:
    """A folder for a download, where the page clears up."""
    return Path(tempfile.mkdtemp(dir=os.environ.get("GRADIO_TEMP_DIR")))


def show_text(
    predictor: Predictor, text: str, num_beams: int, set_decoding: str, threshold: float
) -> tuple[str, str, str | None]:
    """Predict one text.

    Returns:
        The labels and the attention maps as HTML, and the path of a page with the maps, or None if there are none.

    Raises:
        ValueError: If there is no text.
    """
    if not text or not text.strip():
        raise ValueError("There is no text; type or paste one.")
    predictions, notes = predictor.predict([text], num_beams, set_decoding, threshold, return_attention=True)
    labels = label_list_html(predictions[0], notes)
    if not predictor.classifier.model.attends_to_words:
        return labels, note_html("This model has no attention over the words, so there is no map."), None
    if not predictions[0]:
        return labels, "", None
    file = new_folder() / "attention.html"
    file.write_text(attention_page(text, predictions[0]), encoding="utf-8", errors="replace")
    return labels, attention_html(text, predictions[0]), str(file)


def show_ranks(predictor: Predictor, text: str, num_beams: int, set_decoding: str, threshold: float) -> str:
    """All labels by the probability that they are in the set of one text, as HTML that unfolds.

    Of many labels, the first `NUM_RANKED`; of a model without a lexical branch, those that a beam has.
    """
    config = predictor.classifier.model.config
    (ranked,), _ = predictor.predict([text], num_beams, set_decoding, threshold, top_k=NUM_RANKED)
    shown = [entry for entry in ranked if entry["score"] > 0]
    rest = config.num_labels - len(shown)
    title = "Every label by its probability" if config.lexical_branch else "Labels of all beams by their score"
    items = "".join(label_html(entry, decimals=4) for entry in shown)
    note = note_html(f"{rest:,} more have a score of at most {ranked[-1]['score']:.4f}.") if rest and ranked else ""
    return f'<div class="label-list"><details><summary>{title}</summary><ol>{items}</ol>{note}</details></div>'


def show_documents(
    predictor: Predictor,
    lines: str,
    file: str | None,
    text_column: str,
    num_beams: int,
    set_decoding: str,
    threshold: float,
    progress: Callable[..., Any] = lambda *_, **__: None,
) -> tuple[list[list[str]], list[str]]:
    """Predict several texts: those typed, one per line, or those of a file.

    Returns:
        Table rows (id, beginning of the text, labels with scores) of the first documents, and the paths of the files
        with all predictions.

    Raises:
        ValueError: If there are texts in both places or in none, or the file cannot be read.
    """
    if bool(file) == bool(lines and lines.strip()):
        raise ValueError("Give either texts, one per line, or a file.")
    documents = (
        read_documents(Path(file), text_column) if file else name_lines(enumerate(lines.split("\n"), start=1), "text")
    )
    predictions: list[Prediction] = []
    for start in range(0, len(documents), CHUNK):
        progress(start / len(documents), desc=f"{start:,} of {len(documents):,} texts")
        texts = [document.text for document in documents[start : start + CHUNK]]
        predictions += predictor.predict(texts, num_beams, set_decoding, threshold)[0]
    rows = [
        [
            document.id,
            document.text[:100] + ("…" if len(document.text) > 100 else ""),
            ", ".join(f"{entry['label']} {entry['score']:.2f}" for entry in prediction),
        ]
        for document, prediction in zip(documents[:NUM_SHOWN], predictions, strict=False)
    ]
    return rows, write_predictions(documents, predictions, new_folder())


def showing_errors(function: Callable) -> Callable:
    """The function, with its expected errors shown on the page."""

    @wraps(function)
    def wrapped(*arguments: Any, **options: Any) -> Any:
        """Call the function; an expected error becomes Gradio's."""
        try:
            return function(*arguments, **options)
        except (ValueError, TypeError, OSError) as error:
            # The user knows a file by its name, not by where the server put it; and a message quotes the user's text.
            message = str(error).replace(str(Path(os.environ.get("GRADIO_TEMP_DIR", tempfile.gettempdir()))), "…")
            raise gr.Error(html.escape(message), duration=None, print_exception=False) from error

    return wrapped


# ---- the page ----


def build_page(predictor: Predictor, examples: Sequence[str] = (), title: str = TITLE) -> gr.Blocks:
    """The page, to be started with `launch(**LAUNCH)`.

    Args:
        predictor: The model.
        examples: Texts to try.
        title: The heading.
    """
    with gr.Blocks(title=title, analytics_enabled=False, delete_cache=DELETE_CACHE) as page:
        gr.HTML(f"<h1>{html.escape(title)}</h1>")
        with gr.Tab("One text"):
            text_tab(predictor, examples)
        with gr.Tab("Several texts or a file"):
            documents_tab(predictor)
    return page


def generation_controls(predictor: Predictor) -> list[gr.components.Component]:
    """Beam width, set decoding and threshold; they start at the values of the model's generation config."""
    config = predictor.classifier.model.generation_config
    decoding = getattr(config, "set_decoding", None) or BEST_SEQUENCE
    fixed = predictor.has_label_thresholds
    num_beams = config.num_beams or 1
    with gr.Row():
        beams = gr.Slider(1, max(10, num_beams), value=num_beams, step=1, label="Beam width", elem_id="beams")
        threshold = gr.Slider(
            0.01,
            1,
            value=0.5 if fixed else getattr(config, "label_threshold", None) or 0.5,
            step=0.01,
            label="Threshold (the model has one per label)" if fixed else "Threshold",
            elem_id="threshold",
            interactive=decoding == THRESHOLD and not fixed,
        )
    objective = OBJECTIVES.get(getattr(config, "objective", None) or "")
    made_for = f"The model is made for {objective}." if objective else None
    choice = gr.Radio(DECODINGS, value=decoding, label="Which labels", info=made_for, elem_id="decoding")
    if not fixed:
        choice.change(
            lambda chosen: gr.update(interactive=chosen == THRESHOLD), choice, threshold, api_visibility="private"
        )
    return [beams, choice, threshold]


def text_tab(predictor: Predictor, examples: Sequence[str]) -> None:
    """The part of the page for one text."""
    with gr.Row():
        with gr.Column(scale=3):
            text = gr.Textbox(label="Text", lines=8, max_lines=14, elem_id="text")
            controls = generation_controls(predictor)
            button = gr.Button("Predict", variant="primary", elem_id="predict")
        with gr.Column(scale=2):
            gr.HTML('<span class="heading">Labels in generated order, with scores</span>')
            labels = gr.HTML(elem_id="labels")
            ranks = gr.HTML(elem_id="ranks")
            tried = None
            if examples:
                tried = gr.Examples([[example] for example in examples], text, cache_examples=False, label="Examples")
    gr.HTML(
        '<span class="heading">What each label looked at</span> '
        "(the stronger the colour, the more; a word under the pointer shows its weight)"
    )
    maps = gr.HTML(elem_id="maps")
    download = gr.DownloadButton("Download the maps (HTML)", interactive=False, elem_id="download-maps")

    @showing_errors
    def predict(text: str, num_beams: int, set_decoding: str, threshold: float) -> tuple[str, str, Any]:
        """Labels and attention maps of one text, as HTML, and the maps as a file."""
        shown, mapped, file = show_text(predictor, text, num_beams, set_decoding, threshold)
        return shown, mapped, gr.update(value=file, interactive=file is not None)

    @showing_errors
    def rank(text: str, num_beams: int, set_decoding: str, threshold: float) -> str:
        """All labels of one text by their scores, as HTML."""
        return show_ranks(predictor, text, num_beams, set_decoding, threshold)

    given = [text, *controls]
    predicted = button.click(predict, given, [labels, maps, download], api_name="predict")
    predicted.success(rank, given, ranks, api_name="rank")
    if tried is not None:
        predicted = tried.load_input_event.then(predict, given, [labels, maps, download], api_visibility="private")
        predicted.success(rank, given, ranks, api_visibility="private")


def documents_tab(predictor: Predictor) -> None:
    """The part of the page for several texts."""
    with gr.Row():
        lines = gr.Textbox(label="Texts, one per line", lines=8, max_lines=12, elem_id="lines")
        with gr.Column():
            file = gr.File(label="or a file: " + " ".join(FILE_TYPES), file_types=FILE_TYPES, elem_id="file")
            column = gr.Textbox("text", label="Column of the texts (not in .txt)")
    controls = generation_controls(predictor)
    button = gr.Button("Predict all", variant="primary", elem_id="predict-all")
    table = gr.Dataframe(
        headers=["id", "text", "labels"],
        datatype="str",
        interactive=False,
        wrap=True,
        column_widths=["15%", "50%", "35%"],
        label=f"The first {NUM_SHOWN} predictions",
        elem_id="table",
    )
    files = gr.File(label="All predictions", file_count="multiple", interactive=False, elem_id="predictions")

    @showing_errors
    def predict_all(
        lines: str,
        file: str | None,
        text_column: str,
        num_beams: int,
        set_decoding: str,
        threshold: float,
        progress: gr.Progress = gr.Progress(),  # noqa: B008 (this is how Gradio passes it)
    ) -> tuple[list[list[str]], list[str]]:
        """Labels of several texts as a table, and all of them as JSON Lines and CSV."""
        return show_documents(predictor, lines, file, text_column, num_beams, set_decoding, threshold, progress)

    button.click(predict_all, [lines, file, column, *controls], [table, files], api_name="predict_all")


# Nothing about a user is shared, sent or kept.
LAUNCH: dict[str, Any] = {
    "share": False,
    "run_history": False,
    "enable_monitoring": False,
    "max_file_size": MAX_FILE_SIZE,
    "css": ATTENTION_CSS + PAGE_CSS,
    "footer_links": ["api"],
}


def serve(
    model: str,
    examples: Path | None = None,
    title: str = TITLE,
    port: int | None = None,
    host: str | None = None,
) -> None:
    """Load a model and serve its page until interrupted.

    Args:
        model: Folder of a model, or its name on the Hub.
        examples: File of texts; a click tries one of its first ones.
        title: The heading.
        port: Default: the first free one from 7860 on.
        host: Address on which the page is served; default: this machine alone.
    """
    texts = [document.text for document in read_documents(examples)][:NUM_EXAMPLES] if examples else []
    predictor = load_predictor(model)
    with tempfile.TemporaryDirectory(prefix="sgm-app-") as folder:
        os.environ["GRADIO_TEMP_DIR"] = folder
        page = build_page(predictor, texts, title)
        _, url, _ = page.launch(server_name=host, server_port=port, prevent_thread_lock=True, quiet=True, **LAUNCH)
        print(f"The page is at {url}. Ctrl-C ends it.", flush=True)
        page.block_thread()
