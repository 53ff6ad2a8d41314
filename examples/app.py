#!/usr/bin/env python
"""A page to try a model: labels of a text with scores and attention maps, and labels of whole files.

    python examples/app.py runs/mine
    python examples/app.py runs/mine --examples texts.jsonl --port 7861

MODEL is a folder or a model on the Hub. The page needs no network. `make_space.py` makes a Space of it.
"""

import argparse
import html
import json
import os
import signal
import sys
import tempfile
import threading
import warnings
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from functools import wraps
from pathlib import Path
from typing import Any

import gradio as gr
import torch
from transformers import pipeline

from sgm_hf import MultiLabelGenerationPipeline, load_files
from sgm_hf.analysis.attention import ATTENTION_CSS, attention_html, attention_page
from sgm_hf.data.lines import read_lines
from sgm_hf.programs import run_main
from sgm_hf.tables import write_csv

HERE = Path(__file__).parent
FILE_TYPES = [".txt", ".csv", ".tsv", ".jsonl", ".json", ".parquet"]
CHUNK = 64  # texts of a file predicted before a single text may have its turn
# Characters of a text that are read for each word that the model reads: the tokenizer takes seconds per megabyte.
CHARACTERS_PER_WORD = 1000
NUM_SHOWN = 100  # documents of a file in the page's table; the download holds all
NUM_EXAMPLES = 5
TITLE = "Multi-label text classification"
MAX_FILE_SIZE = "100mb"
# Uploads and downloads are deleted after a day: seconds between two checks, seconds they are kept.
DELETE_CACHE = (3600, 86400)
# A name that no column has: a file's own labels are not read, so that no error in them matters here.
NO_COLUMN = "<no labels>"

BEST_SEQUENCE, THRESHOLD = "best_sequence", "threshold"
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
.label-list .note { opacity: 0.75; margin-top: 0.8em; overflow-wrap: anywhere; }
"""

Prediction = list[dict[str, Any]]


@dataclass
class Document:
    """A text and the id of its prediction."""

    id: str
    text: str


@dataclass
class Predictor:
    """A pipeline that several threads may use."""

    classifier: MultiLabelGenerationPipeline
    # Neither tokenizer nor model can be used by two threads at a time.
    lock: threading.Lock = field(default_factory=threading.Lock)

    @property
    def has_label_thresholds(self) -> bool:
        """Whether the model has a threshold per label, which the page does not change."""
        return isinstance(getattr(self.classifier.model.generation_config, "label_threshold", None), list)

    def predict(
        self, texts: list[str], num_beams: int, set_decoding: str, threshold: float, return_attention: bool = False
    ) -> tuple[list[Prediction], list[str]]:
        """Predict texts.

        Args:
            texts: The texts.
            num_beams: Beam width.
            set_decoding: "best_sequence", "threshold" or "expected_f1".
            threshold: Score from which "threshold" takes a label, unless the model has a threshold per label.
            return_attention: Whether each label comes with its attention, if the model has any.

        Returns:
            The labels of each text, and the pipeline's warnings.
        """
        takes_threshold = set_decoding == THRESHOLD and not self.has_label_thresholds
        longest = CHARACTERS_PER_WORD * self.classifier.tokenizer.model_max_length
        with self.lock, warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always", UserWarning)
            predictions = self.classifier(
                [text[:longest] for text in texts],
                num_beams=int(num_beams),
                set_decoding=set_decoding,
                label_threshold=float(threshold) if takes_threshold else None,
                return_attention=return_attention and self.classifier.model.attends_to_words,
            )
        return predictions, [str(warning.message) for warning in caught if warning.category is UserWarning]


def load_predictor(model: str) -> Predictor:
    """Load a model and its tokenizer, on the GPU if there is one.

    Raises:
        FileNotFoundError: If there is no such model.
    """
    try:
        return Predictor(
            pipeline("multi-label-generation", model=model, device=0 if torch.cuda.is_available() else "cpu")
        )
    except OSError as error:
        raise FileNotFoundError(
            f"{model} is neither a folder with a model and its tokenizer nor a model on the Hub that can be reached: "
            f"{error}"
        ) from error


# ---- files ----


def read_documents(path: Path, text_column: str = "text") -> list[Document]:
    """Read a file of texts: .txt with one text per line (blank lines are skipped), or what `load_files` reads.

    Args:
        path: The file.
        text_column: Column of the texts; not used for .txt.

    Returns:
        The documents, named by their id in the file, or else by file name and line.

    Raises:
        FileNotFoundError: If there is no such file.
        ValueError: If it cannot be read, or has no text.
    """
    if path.suffix.lower() != ".txt":
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", UserWarning)  # that the file has no labels
            data = load_files(test_file=path, text_column=text_column or "text", labels_column=NO_COLUMN)["test"]
        return [Document(*pair) for pair in zip(data["id"], data["text"], strict=True)]
    documents = name_lines(read_lines(path), path.name)
    if not documents:
        raise ValueError(f"{path.name} has no text; expected one text per line.")
    return documents


def name_lines(lines: Iterable[tuple[int, str]], name: str) -> list[Document]:
    """One document per line that is not blank, named `name:number`."""
    return [Document(f"{name}:{number}", line.strip()) for number, line in lines if line.strip()]


def write_predictions(documents: Sequence[Document], predictions: Sequence[Prediction], folder: Path) -> list[str]:
    """Write `predictions.jsonl` and `predictions.csv` (id, text, labels in generated order, their scores).

    Returns:
        The paths of both files.
    """
    records = [
        {
            "id": document.id,
            "text": document.text,
            "labels": [entry["label"] for entry in prediction],
            "scores": [round(entry["score"], 6) for entry in prediction],
        }
        for document, prediction in zip(documents, predictions, strict=True)
    ]
    jsonl, table = folder / "predictions.jsonl", folder / "predictions.csv"
    with jsonl.open("w", encoding="utf-8") as file:
        file.writelines(json.dumps(record, ensure_ascii=False) + "\n" for record in records)
    joined = ({name: "|".join(map(str, record[name])) for name in ("labels", "scores")} for record in records)
    rows = [record | cells for record, cells in zip(records, joined, strict=True)]
    write_csv(rows, table, ["id", "text", "labels", "scores"])
    return [str(jsonl), str(table)]


def new_folder() -> Path:
    """A folder for a download, where the page clears up."""
    return Path(tempfile.mkdtemp(dir=os.environ.get("GRADIO_TEMP_DIR")))


# ---- what the page shows ----


def label_list_html(prediction: Prediction, notes: Sequence[str] = ()) -> str:
    """The labels in generated order with their scores as bars, and notes below; labels and notes are escaped."""
    items = "".join(
        f'<li><div class="row"><span>{html.escape(entry["label"])}</span><span>{entry["score"]:.2f}</span></div>'
        f'<div class="bar"><div style="width: {100 * entry["score"]:.1f}%"></div></div></li>'
        for entry in prediction
    )
    listed = f"<ol>{items}</ol>" if prediction else "<p>No label.</p>"
    return f'<div class="label-list">{listed}{"".join(map(note_html, notes))}</div>'


def note_html(note: str) -> str:
    """A note below the labels."""
    return f'<p class="note">{html.escape(note)}</p>'


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
    choice = gr.Radio(DECODINGS, value=decoding, label="Which labels", elem_id="decoding")
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

    button.click(predict, [text, *controls], [labels, maps, download], api_name="predict")
    if tried is not None:
        tried.load_input_event.then(predict, [text, *controls], [labels, maps, download], api_visibility="private")


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


def parse_arguments(arguments: Sequence[str] | None = None) -> argparse.Namespace:
    """Read the command line; the defaults are the files that a Space has next to this one."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    model, examples, title = HERE / "model", HERE / "examples.jsonl", HERE / "title.txt"
    in_space = {"nargs": "?", "default": str(model)} if model.is_dir() else {}
    parser.add_argument("model", metavar="MODEL", help="Folder of a model, or its name on the Hub.", **in_space)
    parser.add_argument(
        "--examples",
        type=Path,
        default=examples if examples.is_file() else None,
        help=f"File of texts (.txt, .csv, .jsonl, …); a click tries one of its first {NUM_EXAMPLES}.",
    )
    default = title.read_text(encoding="utf-8").strip() if title.is_file() else TITLE
    parser.add_argument("--title", default=default, help="Heading of the page.")
    parser.add_argument("--port", type=int, help="Default: the first free one from 7860 on.")
    return parser.parse_args(arguments)


def main(arguments: Sequence[str] | None = None) -> None:
    """Load the model and serve the page until interrupted."""
    settings = parse_arguments(arguments)
    examples = [document.text for document in read_documents(settings.examples)] if settings.examples else []
    predictor = load_predictor(settings.model)
    with tempfile.TemporaryDirectory(prefix="sgm-app-") as folder:
        os.environ["GRADIO_TEMP_DIR"] = folder
        build_page(predictor, examples[:NUM_EXAMPLES], settings.title).launch(server_port=settings.port, **LAUNCH)


if __name__ == "__main__":
    # So that SIGTERM, as Ctrl-C does, ends with the uploads removed.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit())
    run_main(main)
