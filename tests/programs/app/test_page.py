import csv
import json
import os
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from html.parser import HTMLParser
from pathlib import Path

import gradio as gr
import pytest
import torch
from random_model import TEXTS, build_pipeline

from sgm_hf.cli.app import main
from sgm_hf.modeling.label_sets_sgm import SET_DECODINGS

app = pytest.importorskip("sgm_hf.programs.app.page")
HOSTILE = '<img src=x onerror="pwned=1"><script>pwned=1</script>'
SETTINGS = (3, "best_sequence", 0.5)


class Reader(HTMLParser):
    """Collects the elements and the text that a browser would find."""

    def __init__(self, page: str):
        super().__init__()
        self.tags, self.text = set(), ""
        self.feed(page)
        self.close()

    def handle_starttag(self, tag, attrs):
        self.tags.add(tag)

    def handle_data(self, data):
        self.text += data


@pytest.fixture(scope="module")
def predictor():
    return app.Predictor(build_pipeline())


@pytest.fixture(autouse=True)
def downloads(tmp_path, monkeypatch):
    monkeypatch.setenv("GRADIO_TEMP_DIR", str(tmp_path))


def read_lines(path):
    return [json.loads(line) for line in Path(path).read_text(encoding="utf-8").splitlines()]


def test_one_text_shows_the_labels_and_scores_of_the_pipeline_in_their_order(predictor):
    for text in TEXTS:
        labels, maps, _ = app.show_text(predictor, text, *SETTINGS)
        expected = predictor.classifier(text, num_beams=3)
        assert Reader(labels).text == "".join(f"{entry['label']}{entry['score']:.2f}" for entry in expected)
        assert maps.count("<details") == len(expected)


def test_the_settings_of_the_page_reach_the_generation(predictor):
    text = TEXTS[1]
    for num_beams, threshold in ((1, 0.2), (5, 0.2), (5, 0.99)):
        labels, *_ = app.show_text(predictor, text, num_beams, "threshold", threshold)
        expected = predictor.classifier(text, num_beams=num_beams, set_decoding="threshold", label_threshold=threshold)
        assert Reader(labels).text == "".join(f"{entry['label']}{entry['score']:.2f}" for entry in expected)
    sizes = [app.show_text(predictor, text, 5, "threshold", threshold)[0].count("<li>") for threshold in (0.01, 1.0)]
    assert sizes[0] == 4 > sizes[1]


def test_every_decoding_of_the_page_gives_the_labels_of_the_pipeline(predictor):
    for decoding in SET_DECODINGS:
        options = {"label_threshold": 0.3} if decoding == "threshold" else {}
        for text in TEXTS:
            labels, *_ = app.show_text(predictor, text, 4, decoding, 0.3)
            expected = predictor.classifier(text, num_beams=4, set_decoding=decoding, **options)
            assert Reader(labels).text.startswith("".join(f"{e['label']}{e['score']:.2f}" for e in expected))
    assert {decoding for _, decoding in app.DECODINGS} == set(SET_DECODINGS)


def test_label_thresholds_of_the_model_are_kept():
    predictor = app.Predictor(build_pipeline())
    thresholds = [0.9, *[0.1] * (predictor.classifier.model.config.num_labels - 1)]
    predictor.classifier.model.generation_config.label_threshold = thresholds
    own = [predictor.classifier(text, num_beams=4, set_decoding="threshold") for text in TEXTS]
    shown, _ = predictor.predict(list(TEXTS), 4, "threshold", 0.99)
    assert [[e["label"] for e in labels] for labels in shown] == [[e["label"] for e in labels] for labels in own]
    with gr.Blocks(analytics_enabled=False):
        *_, threshold = app.generation_controls(predictor)
    assert not threshold.interactive


def test_markup_in_texts_labels_and_warnings_is_shown_and_never_interpreted():
    predictor = app.Predictor(build_pipeline(names=[HOSTILE, "coffee"]))
    labels, maps, file = app.show_text(predictor, HOSTILE, *SETTINGS)
    for page in (labels, maps, Path(file).read_text(encoding="utf-8")):
        assert HOSTILE in Reader(page).text
        assert not {"img", "script"} & Reader(page).tags
    assert "unknown words only" in Reader(labels).text


def test_the_maps_can_be_downloaded_as_a_page(predictor):
    *_, file = app.show_text(predictor, TEXTS[0], *SETTINGS)
    page = Path(file).read_text(encoding="utf-8")
    assert page.startswith("<!DOCTYPE html>")
    assert "Cocoa" in Reader(page).text


def test_a_model_without_attention_has_labels_and_no_map():
    predictor = app.Predictor(build_pipeline(attention="none"))
    labels, maps, file = app.show_text(predictor, TEXTS[0], *SETTINGS)
    assert "<li>" in labels
    assert "no attention" in maps
    assert file is None


def test_a_text_without_a_label_says_so():
    classifier = build_pipeline()
    with torch.no_grad():
        classifier.model.decoder.output.bias[-1] = 99.0  # eos
    labels, maps, file = app.show_text(app.Predictor(classifier), TEXTS[0], *SETTINGS)
    assert Reader(labels).text == "No label."
    assert (maps, file) == ("", None)


@pytest.mark.parametrize("text", ["", "  \n", None])
def test_no_text_is_a_value_error(predictor, text):
    with pytest.raises(ValueError, match="no text"):
        app.show_text(predictor, text, *SETTINGS)


@pytest.mark.parametrize("piece", ["oil price , ", "x", "<b>"])
def test_a_text_of_5_mb_is_predicted_as_its_beginning_and_shown_in_small(predictor, piece):
    text = piece * (5_000_000 // len(piece))
    labels, maps, file = app.show_text(predictor, text, *SETTINGS)
    assert labels == app.show_text(predictor, text[:100_000], *SETTINGS)[0]
    assert "<li>" in labels
    assert len(maps) < 100_000
    assert "characters not read: 4,9" in maps


def test_requests_at_the_same_time_get_the_answers_of_one_after_the_other(predictor):
    texts = TEXTS * 8
    expected = [app.show_text(predictor, text, *SETTINGS)[:2] for text in texts]
    barrier = threading.Barrier(8)

    def ask(index: int) -> tuple:
        if index < 8:
            barrier.wait(timeout=60)
        if index % 3 == 0:
            return app.show_documents(predictor, texts[index], None, "text", *SETTINGS)[0][0][1], None
        return app.show_text(predictor, texts[index], *SETTINGS)[:2]

    with ThreadPoolExecutor(8) as pool:
        answers = list(pool.map(ask, range(len(texts))))
    for index, answer in enumerate(answers):
        assert answer == ((texts[index], None) if index % 3 == 0 else expected[index])


def test_the_model_is_never_used_by_two_threads_at_a_time(predictor, monkeypatch):
    classifier = predictor.classifier
    inside, most = [], []

    class Watched:
        model, tokenizer = classifier.model, classifier.tokenizer

        def __call__(self, texts, **options):
            inside.append(1)
            most.append(len(inside))
            time.sleep(0.02)
            inside.pop()
            return classifier(texts, **options)

    monkeypatch.setattr(predictor, "classifier", Watched())
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(lambda text: app.show_text(predictor, text, *SETTINGS), TEXTS * 4))
    assert len(most) == len(TEXTS * 4)
    assert max(most) == 1


# ---- several texts ----


def write_file(path: Path, texts: list[str]) -> Path:
    if path.suffix == ".txt":
        path.write_text("\n\n".join(texts) + "\n", encoding="utf-8")
    elif path.suffix == ".csv":
        with path.open("w", encoding="utf-8", newline="") as file:
            csv.writer(file).writerows([["text", "labels"], *([text, "no such label"] for text in texts)])
    else:
        path.write_text("".join(json.dumps({"text": text}) + "\n" for text in texts), encoding="utf-8")
    return path


@pytest.mark.parametrize("name", ["texts.txt", "texts.csv", "texts.jsonl"])
def test_a_file_is_predicted_whole_and_in_its_order(predictor, tmp_path, name, monkeypatch):
    monkeypatch.setattr(app, "CHUNK", 3)
    texts = [*TEXTS, 'ünï "oil, crude" <b>', *TEXTS]
    rows, files = app.show_documents(predictor, "", str(write_file(tmp_path / name, texts)), "text", *SETTINGS)
    records = read_lines(files[0])
    expected = predictor.classifier(texts, num_beams=3)
    assert [record["text"] for record in records] == [row[1] for row in rows] == texts
    assert [record["labels"] for record in records] == [[e["label"] for e in answer] for answer in expected]
    assert [score for record in records for score in record["scores"]] == pytest.approx(
        [entry["score"] for answer in expected for entry in answer], abs=1e-5
    )
    assert len({record["id"] for record in records}) == len(texts)
    assert all(record["id"].startswith(name) for record in records)


def test_the_csv_and_the_json_lines_have_the_same_content(predictor):
    _, (jsonl, table) = app.show_documents(predictor, "\n".join(TEXTS), None, "text", *SETTINGS)
    with open(table, encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    for row, record in zip(rows, read_lines(jsonl), strict=True):
        assert (row["id"], row["text"]) == (record["id"], record["text"])
        assert row["labels"].split("|") == record["labels"]
        assert [float(score) for score in row["scores"].split("|")] == record["scores"]


def test_the_table_is_short_and_the_download_whole(predictor, monkeypatch):
    monkeypatch.setattr(app, "NUM_SHOWN", 2)
    rows, files = app.show_documents(predictor, "\n".join([TEXTS[1] * 3, *TEXTS]), None, "text", *SETTINGS)
    assert len(rows) == 2
    assert rows[0][1] == (TEXTS[1] * 3)[:100] + "…"
    assert [record["id"] for record in read_lines(files[0])] == [f"text:{number}" for number in range(1, 6)]


def test_another_column_can_hold_the_texts(predictor, tmp_path):
    path = tmp_path / "a.csv"
    path.write_text("number,abstract\n1,Cocoa rose.\n", encoding="utf-8")
    rows, _ = app.show_documents(predictor, "", str(path), "abstract", *SETTINGS)
    assert rows[0][:2] == ["a.csv:2", "Cocoa rose."]
    with pytest.raises(ValueError, match="abstract"):
        app.show_documents(predictor, "", str(path), "text", *SETTINGS)


def test_texts_in_both_places_or_in_none_are_a_value_error(predictor, tmp_path):
    for lines, file in (("", None), (" \n", None), ("oil", str(write_file(tmp_path / "a.txt", TEXTS)))):
        with pytest.raises(ValueError, match="either texts, one per line, or a file"):
            app.show_documents(predictor, lines, file, "text", *SETTINGS)


@pytest.mark.parametrize(
    "name, content, message",
    [
        ("empty.txt", b"\n \n", "has no text"),
        ("latin.txt", "für".encode("latin-1"), "not UTF-8"),
        ("broken.jsonl", b'{"text": "a"}\n{"text": ', "line 2"),
        ("text.pdf", b"%PDF", "extension"),
        ("empty.csv", b"", "is empty"),
    ],
)
def test_a_file_that_cannot_be_read_is_named_without_its_place_on_the_server(
    predictor, tmp_path, name, content, message
):
    path = tmp_path / name
    path.write_bytes(content)
    with pytest.raises(gr.Error) as error:
        app.showing_errors(app.show_documents)(predictor, "", str(path), "text", *SETTINGS)
    assert message in error.value.message
    assert name in error.value.message
    assert str(tmp_path) not in error.value.message


def test_errors_show_what_was_given_and_never_interpret_it(tmp_path):
    def fail():
        raise ValueError(f"cannot read {HOSTILE}")

    with pytest.raises(gr.Error) as error:
        app.showing_errors(fail)()
    assert Reader(error.value.message).text == f"cannot read {HOSTILE}"
    assert not Reader(error.value.message).tags


# ---- page and command line ----


def test_the_controls_start_at_the_settings_of_the_model():
    classifier = build_pipeline()
    for name, value in {"num_beams": 12, "set_decoding": "threshold", "label_threshold": 0.37}.items():
        setattr(classifier.model.generation_config, name, value)
    with gr.Blocks(analytics_enabled=False):
        beams, decoding, threshold = app.generation_controls(app.Predictor(classifier))
    assert (beams.value, decoding.value, threshold.value) == (12, "threshold", 0.37)
    assert threshold.interactive
    assert beams.maximum >= 12


def test_nothing_is_shared_sent_or_kept(predictor):
    page = app.build_page(predictor)
    assert page.analytics_enabled is False
    assert app.LAUNCH["share"] is False
    assert app.LAUNCH["run_history"] is False
    assert app.LAUNCH["enable_monitoring"] is False


def test_the_command_line_serves_a_saved_model_with_its_examples(predictor, tmp_path, monkeypatch, capsys):
    predictor.classifier.model.save_pretrained(tmp_path / "model")
    predictor.classifier.tokenizer.save_pretrained(tmp_path / "model")
    write_file(tmp_path / "examples.jsonl", TEXTS * 5)
    served = {}

    def launch(page, **options):
        served.update(options, page=page, folder=os.environ["GRADIO_TEMP_DIR"])
        return None, "http://127.0.0.1:7999/", None

    monkeypatch.setattr(gr.Blocks, "launch", launch)
    monkeypatch.setattr(gr.Blocks, "block_thread", lambda page: served.update(blocked=True))
    main([str(tmp_path / "model"), "--examples", str(tmp_path / "examples.jsonl"), "--port", "7999"])
    assert served["server_port"] == 7999 and served["blocked"]
    assert "The page is at http://127.0.0.1:7999/. Ctrl-C ends it." in capsys.readouterr().out
    shown = [block for block in served["page"].blocks.values() if isinstance(block, gr.Dataset)]
    assert [row[0] for row in shown[0].samples] == (TEXTS * 5)[: app.NUM_EXAMPLES]
    assert not Path(served["folder"]).exists()


def test_a_missing_model_is_named(tmp_path):
    with pytest.raises(FileNotFoundError, match="no model .*nowhere: .* has no model.$"):
        app.load_predictor(str(tmp_path / "nowhere"))


# ---- a lexical branch and an objective ----


def test_every_label_is_listed_by_its_probability_where_there_is_a_branch():
    predictor = app.Predictor(build_pipeline(lexical_branch=True))
    ranks = app.show_ranks(predictor, TEXTS[1], *SETTINGS)
    expected = predictor.classifier(TEXTS[1], num_beams=3, top_k=None)
    assert Reader(ranks).text == "Every label by its probability" + "".join(
        f"{entry['label']}{entry['score']:.4f}" for entry in expected
    )
    assert len(expected) == 4 and expected[-1]["score"] > 0


def test_without_a_branch_the_labels_of_the_beams_are_listed(predictor):
    ranks = app.show_ranks(predictor, TEXTS[0], 2, "best_sequence", 0.5)
    expected = [entry for entry in predictor.classifier(TEXTS[0], num_beams=2, top_k=None) if entry["score"] > 0]
    assert Reader(ranks).text.startswith("Labels of all beams by their score")
    assert ranks.count("<li>") == len(expected)


def test_of_many_labels_the_first_are_listed_and_the_others_counted(monkeypatch):
    monkeypatch.setattr(app, "NUM_RANKED", 3)
    predictor = app.Predictor(
        build_pipeline([HOSTILE, *(f"label {number}" for number in range(9))], lexical_branch=True)
    )
    ranks = app.show_ranks(predictor, TEXTS[1], *SETTINGS)
    assert ranks.count("<li>") == 3 and "7 more have a score of at most" in Reader(ranks).text
    assert not {"img", "script"} & Reader(ranks).tags


def test_the_controls_say_what_the_model_is_made_for(predictor):
    classifier = build_pipeline()
    classifier.model.generation_config.objective = "exact_match"
    for one, expected in ((app.Predictor(classifier), "whole set is right"), (predictor, None)):
        with gr.Blocks(analytics_enabled=False):
            _, decoding, _ = app.generation_controls(one)
        assert decoding.info is None if expected is None else expected in decoding.info
