"""Labelling a file: the pipeline's answers, in the order of the file, each document once whatever happens."""

import csv
import gzip
import json
import random
from dataclasses import fields
from pathlib import Path

import pytest
import torch
from filelock import FileLock
from transformers import BertTokenizer

from sgm_hf import SGMConfig, SGMForMultiLabelGeneration, SGMTokenizer, load_files
from sgm_hf.data.documents import Document
from sgm_hf.modeling import MultiLabelGenerationPipeline
from sgm_hf.programs import labelling
from sgm_hf.programs.labelling import label_file, rounded, windows
from sgm_hf.programs.labelling_options import LabellingOptions
from sgm_hf.programs.resumable import record_of

NAMES = ["cocoa", "coffee", "oil", "gold", "wheat"]
WORDS = "cocoa coffee oil gold wheat rose fell price week of the in , .".split()


def save_model(folder: Path, seed: int = 0, **settings) -> Path:
    """A checkpoint with clear preferences that differ from text to text."""
    torch.manual_seed(seed)
    tokenizer = SGMTokenizer.train_from_texts([" ".join(WORDS)], model_max_length=30)
    sizes = {"embedding_size": 8, "encoder_hidden_size": 6, "encoder_layers": 1, "decoder_hidden_size": 10}
    sizes |= {"vocab_size": len(tokenizer), "initializer_range": 1.0} | settings
    config = SGMConfig(**sizes, id2label=dict(enumerate(NAMES)))
    model = SGMForMultiLabelGeneration(config)
    with torch.no_grad():
        model.decoder.output.weight.mul_(3.0)
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    return save_model(tmp_path_factory.mktemp("models") / "first")


@pytest.fixture(scope="module")
def calibrated(tmp_path_factory):
    """A model with a lexical branch of random weights, thresholds for each label, and what `calibrate` fits."""
    settings = {"lexical_branch": True, "lexical_bigrams": 9, "lexical_in_decoder": True, "encoder_max_length": 8}
    folder = save_model(tmp_path_factory.mktemp("models") / "calibrated", **settings)
    model = SGMForMultiLabelGeneration.from_pretrained(folder)
    branch, generator = model.lexical, torch.Generator().manual_seed(0)
    branch.scale = torch.rand(branch.scale.shape, generator=generator) + 0.5
    branch.weight = torch.randn(branch.weight.shape, generator=generator)
    branch.bias = torch.randn(branch.bias.shape, generator=generator)
    fitted = {"lexical_weight": 0.5, "hypothesis_temperature": 1.5, "label_calibration": [0.9, -0.1]}
    fitted |= {"set_decoding": "threshold", "objective": "macro_f1", "label_threshold": [0.2, 0.3, 0.4, 0.5, 0.6]}
    for name, value in fitted.items():
        setattr(model.generation_config, name, value)
    model.save_pretrained(folder)
    return folder


def make_texts(count: int, seed: int = 0) -> list[str]:
    draw = random.Random(seed)
    return [" ".join(draw.choices(WORDS, k=draw.randint(1, 40))) for _ in range(count)]


def write_csv(path: Path, texts: list[str]) -> Path:
    with open(path, "w", encoding="utf-8", newline="") as file:
        csv.writer(file).writerows([["id", "text"], *([f"d{i}", text] for i, text in enumerate(texts))])
    return path


def read_records(path: Path) -> list[dict]:
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


@pytest.fixture
def small_windows(monkeypatch):
    monkeypatch.setattr(labelling, "WINDOW_DOCUMENTS", 4)


@pytest.mark.parametrize(
    "generation",
    [
        {},
        {"num_beams": 1},
        {"set_decoding": "threshold", "label_threshold": 0.3},
        {"set_decoding": "expected_f1", "num_beams": 3},
        {"forbidden_labels": ["coffee"], "min_labels": 1, "max_labels": 2},
        {"required_labels": ["gold"], "min_labels": 2},
    ],
    ids=str,
)
def test_the_answers_are_those_of_the_pipeline(model, tmp_path, small_windows, generation):
    texts = [*make_texts(13), "  "]
    classifier = MultiLabelGenerationPipeline(
        model=SGMForMultiLabelGeneration.from_pretrained(model), tokenizer=SGMTokenizer.from_pretrained(model)
    )
    with pytest.warns(UserWarning, match="no word"):
        expected, ranked = (classifier(texts, top_k=k, **generation) for k in ("generated", 3))
    label_file(model, write_csv(tmp_path / "new.csv", texts), top_k=3, batch_size=3, **generation)
    found = read_records(tmp_path / "new.predictions.jsonl")
    assert len({tuple(record["labels"]) for record in found}) > 1
    for record, labels, top in zip(found, expected, ranked, strict=True):
        assert record["labels"] == [entry["label"] for entry in labels]
        assert record["scores"] == pytest.approx([entry["score"] for entry in labels], abs=2e-6)
        assert record["top_labels"] == [entry["label"] for entry in top]
        assert record["top_scores"] == pytest.approx([entry["score"] for entry in top], abs=2e-6)
    assert found[-1] == {"id": "d13", "labels": [], "scores": [], "top_labels": [], "top_scores": []}


@pytest.mark.parametrize("generation", [{}, {"set_decoding": "best_sequence"}, {"num_beams": 1}], ids=str)
def test_the_answers_of_a_calibrated_model_with_a_branch_are_those_of_the_pipeline(
    calibrated, tmp_path, small_windows, generation
):
    texts = make_texts(13)
    classifier = MultiLabelGenerationPipeline(
        model=SGMForMultiLabelGeneration.from_pretrained(calibrated),
        tokenizer=SGMTokenizer.from_pretrained(calibrated),
    )
    expected, ranked = (classifier(texts, top_k=k, **generation) for k in ("generated", None))
    label_file(calibrated, write_csv(tmp_path / "new.csv", texts), top_k=len(NAMES), batch_size=3, **generation)
    found = read_records(tmp_path / "new.predictions.jsonl")
    assert len({tuple(record["labels"]) for record in found}) > 1
    for record, labels, top in zip(found, expected, ranked, strict=True):
        assert record["labels"] == [entry["label"] for entry in labels]
        assert record["scores"] == pytest.approx([entry["score"] for entry in labels], abs=2e-6)
        assert record["top_labels"] == [entry["label"] for entry in top]
        assert record["top_scores"] == pytest.approx([entry["score"] for entry in top], abs=2e-6)
        assert 0 < min(record["top_scores"]) and max(record["top_scores"]) < 1


def test_no_score_is_written_as_0_that_is_above():
    assert [rounded(score) for score in (0.0, 3.14159265e-12, 0.98774449, 1.0)] == [0.0, 3.14159e-12, 0.987744, 1.0]


def test_tokens_around_each_text_are_no_words(tmp_path):
    words = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *WORDS]
    vocabulary = {word: i for i, word in enumerate(words)}
    names = ["input_ids", "attention_mask"]
    tokenizer = BertTokenizer(vocab=vocabulary, model_max_length=20, model_input_names=names)
    folder = save_model(tmp_path / "model", vocab_size=len(words))
    tokenizer.save_pretrained(folder)
    texts = [*make_texts(6), " ", "neither known nor known"]
    done = label_file(folder, write_csv(tmp_path / "new.csv", texts))
    assert (done.documents, done.without_words, done.unknown_words_only) == (8, 1, 1)
    classifier = MultiLabelGenerationPipeline(
        model=SGMForMultiLabelGeneration.from_pretrained(folder), tokenizer=tokenizer
    )
    with pytest.warns(UserWarning, match="no word|unknown words"):
        expected = [[entry["label"] for entry in labels] for labels in classifier(texts)]
    assert [record["labels"] for record in read_records(done.output)] == expected


def test_neither_batches_nor_windows_nor_the_format_of_the_file_change_an_answer(model, tmp_path, monkeypatch):
    texts = make_texts(20)
    write_csv(tmp_path / "new.csv", texts)
    with gzip.open(tmp_path / "zipped.jsonl.gz", "wt", encoding="utf-8") as file:
        file.writelines(json.dumps({"text": text, "id": f"d{i}", "labels": 7}) + "\n" for i, text in enumerate(texts))
    label_file(model, tmp_path / "new.csv", include_text=True)
    monkeypatch.setattr(labelling, "WINDOW_DOCUMENTS", 7)
    label_file(model, tmp_path / "zipped.jsonl.gz", include_text=True, batch_size=2, max_tokens_per_batch=50)
    whole, cut = (read_records(tmp_path / f"{name}.predictions.jsonl") for name in ("new", "zipped"))
    assert [record["text"] for record in whole] == texts
    for one, other in zip(whole, cut, strict=True):
        assert other.pop("scores") == pytest.approx(one.pop("scores"), abs=2e-6)
        assert one == other


class Killed(BaseException):
    """What no code catches."""


def test_killed_at_any_point_it_goes_on_to_the_same_output(model, tmp_path, small_windows, monkeypatch):
    file = write_csv(tmp_path / "new.csv", make_texts(11))
    label_file(model, file, tmp_path / "whole.jsonl")
    whole = (tmp_path / "whole.jsonl").read_bytes()
    output, sync = tmp_path / "killed.jsonl", labelling.ResumableFile.append.__globals__["os"].fsync
    # fsync comes once for the record of nothing, and per window once for the output and once for the record.
    for point in range(7):
        for half_line in (b"", whole[:30], b"\xff\x00"):
            for left in tmp_path.glob("killed*"):
                left.unlink()
            calls = iter(range(100))

            def end_at(descriptor, calls=calls, point=point):
                if next(calls) == point:
                    raise Killed
                sync(descriptor)

            with monkeypatch.context() as patched, pytest.raises(Killed):
                patched.setattr("os.fsync", end_at)
                label_file(model, file, output)
            if output.exists():
                with open(output, "ab") as damaged:
                    damaged.write(half_line)
            assert label_file(model, file, output).documents == 11
            assert output.read_bytes() == whole


def test_what_is_finished_is_not_done_again(model, tmp_path, monkeypatch):
    file = write_csv(tmp_path / "new.csv", [*make_texts(5), "", "unseen"])
    first = label_file(model, file)
    assert (first.documents, first.labelled_now, first.without_words, first.unknown_words_only) == (7, 7, 1, 1)
    before = first.output.stat().st_mtime_ns
    monkeypatch.setattr(labelling.Labeller, "label", None)
    again = label_file(model, file)
    assert (again.documents, again.labelled_now, again.without_words, again.unknown_words_only) == (7, 0, 1, 1)
    assert first.output.stat().st_mtime_ns == before


def test_documents_added_behind_are_labelled_and_a_change_before_is_refused(model, tmp_path, small_windows):
    texts = make_texts(9)
    file = write_csv(tmp_path / "new.csv", texts[:6])
    output = label_file(model, file).output
    label_file(model, write_csv(file, texts), tmp_path / "whole.jsonl")
    assert label_file(model, file).labelled_now == 3
    assert [record["id"] for record in read_records(output)] == [f"d{i}" for i in range(9)]
    before = output.read_bytes()
    for changed in (["other", *texts[1:]], texts[:8], [texts[1], texts[0], *texts[2:]]):
        write_csv(file, changed)
        with pytest.raises(FileExistsError, match="the 9 documents in .* are not the first ones .*--overwrite"):
            label_file(model, file)
        assert output.read_bytes() == before
    assert label_file(model, file, overwrite=True).labelled_now == 9


def test_another_model_and_other_settings_are_refused_by_name(model, tmp_path):
    file = write_csv(tmp_path / "new.csv", make_texts(5))
    output = label_file(model, file, num_beams=3).output
    before = output.read_bytes()
    other = save_model(tmp_path / "other", seed=1)
    with pytest.raises(FileExistsError, match=r"another model or other settings \(model: \w+ → \w+\).*--overwrite"):
        label_file(other, file, num_beams=3)
    for options, named in (
        ({}, "num_beams: 3 → 5"),
        ({"num_beams": 3, "top_k": 2}, "top_k: None → 2"),
        ({"num_beams": 3, "include_text": True}, "include_text: False → True"),
        ({"num_beams": 3, "forbidden_labels": ["oil"]}, r"forbidden_labels: None → \['oil'\]"),
        ({"num_beams": 3, "set_decoding": "expected_f1"}, "set_decoding: best_sequence → expected_f1"),
    ):
        with pytest.raises(FileExistsError, match=named):
            label_file(model, file, **options)
    # What changes the speed alone is free.
    assert label_file(model, file, num_beams=3, batch_size=1, device="cpu").labelled_now == 0
    assert output.read_bytes() == before
    assert label_file(other, file, num_beams=3, overwrite=True).labelled_now == 5
    assert output.read_bytes() != before


def test_a_moved_model_is_the_same_model(model, tmp_path):
    file = write_csv(tmp_path / "new.csv", make_texts(3))
    label_file(model, file)
    moved = tmp_path / "moved"
    SGMForMultiLabelGeneration.from_pretrained(model).save_pretrained(moved)
    SGMTokenizer.from_pretrained(model).save_pretrained(moved)
    assert label_file(moved, file).labelled_now == 0


def test_an_output_that_is_not_ours_any_more_is_refused(model, tmp_path):
    file = write_csv(tmp_path / "new.csv", make_texts(5))
    output = label_file(model, file).output
    content = output.read_bytes()
    for damage in (content[10:], content.replace(b"d1", b"d7"), b""):
        output.write_bytes(damage)
        with pytest.raises(ValueError, match="was changed after it was written; give --overwrite"):
            label_file(model, file)
    record_of(output).write_text("{", encoding="utf-8")
    with pytest.raises(ValueError, match=r"progress.json is damaged .*--overwrite"):
        label_file(model, file)
    record_of(output).unlink()
    with pytest.raises(FileExistsError, match=r"exists, but new.predictions.jsonl.progress.json is not .*--overwrite"):
        label_file(model, file)
    assert output.read_bytes() == b""
    label_file(model, file, overwrite=True)
    assert output.read_bytes() == content


def test_a_second_process_is_refused(model, tmp_path):
    file = write_csv(tmp_path / "new.csv", make_texts(3))
    lock = FileLock(tmp_path / "new.predictions.jsonl.lock")
    with lock, pytest.raises(FileExistsError, match="is being written by another process"):
        label_file(model, file)
    assert label_file(model, file).documents == 3
    assert sorted(path.name for path in tmp_path.glob("new*")) == [
        "new.csv",
        "new.predictions.jsonl",
        "new.predictions.jsonl.progress.json",
    ]


def test_a_fault_keeps_what_stands_before_it_and_its_correction_goes_on(model, tmp_path, small_windows, caplog):
    texts = make_texts(10)
    file = write_csv(tmp_path / "new.csv", texts)
    lines = file.read_text(encoding="utf-8").splitlines()
    file.write_text("\n".join([*lines[:7], f'{lines[7]},"more"', *lines[8:]]), encoding="utf-8")
    with pytest.raises(ValueError, match="new.csv, line 8: 3 cells"):
        label_file(model, file)
    assert "line 8" in caplog.text and "the 6 documents before" in caplog.text
    output = tmp_path / "new.predictions.jsonl"
    assert [record["id"] for record in read_records(output)] == [f"d{i}" for i in range(6)]
    with pytest.raises(ValueError, match="new.csv, line 8: 3 cells"):
        label_file(model, file)
    write_csv(file, texts)
    assert label_file(model, file).labelled_now == 4
    assert [record["id"] for record in read_records(output)] == [f"d{i}" for i in range(10)]


def test_no_more_than_a_window_is_read_ahead_of_what_is_written(model, tmp_path, small_windows, monkeypatch):
    file, ahead, count = write_csv(tmp_path / "new.csv", make_texts(15)), [], {"read": 0, "written": 0}
    read, append = labelling.read_documents, labelling.ResumableFile.append

    def reading(*arguments):
        count["read"] = 0
        for document in read(*arguments):
            count["read"] += 1
            yield document

    def appending(self, lines, documents, *rest, **counts):
        count["written"] += documents
        ahead.append(count["read"] - count["written"])
        append(self, lines, documents, *rest, **counts)

    monkeypatch.setattr(labelling, "read_documents", reading)
    monkeypatch.setattr(labelling.ResumableFile, "append", appending)
    label_file(model, file)
    assert ahead == [0] * 4


def test_windows_are_bounded_by_documents_and_by_characters(monkeypatch):
    monkeypatch.setattr(labelling, "WINDOW_DOCUMENTS", 5)
    monkeypatch.setattr(labelling, "WINDOW_CHARACTERS", 100)
    draw = random.Random(1)
    documents = [Document(str(i), "x" * draw.choice([1, 10, 150]), None, f"f, line {i}") for i in range(200)]
    cut = list(windows(documents))
    assert [document for window in cut for document in window] == documents
    assert max(map(len, cut)) == 5 and min(map(len, cut[:-1])) == 1
    assert all(sum(len(document.text) for document in window[:-1]) < 100 for window in cut)


@pytest.mark.parametrize("extension", [".csv", ".tsv", ".jsonl"])
def test_the_output_can_be_read_as_documents_with_labels(model, tmp_path, extension):
    texts = [*make_texts(8), 'a "quoted", comma\tand tab;\ncocoa']
    label_file(model, write_csv(tmp_path / "new.csv", texts), tmp_path / "out.jsonl")
    output = tmp_path / "sub" / f"labelled{extension}"
    label_file(model, tmp_path / "new.csv", output, include_text=True)
    read = load_files(test_file=output, label_names=NAMES)["test"]
    assert read["text"] == texts
    name = read.features["labels"].feature.int2str
    found = [[name(label) for label in labels] for labels in read["labels"]]
    assert found == [record["labels"] for record in read_records(tmp_path / "out.jsonl")]


def test_a_separator_within_a_label_is_refused(model, tmp_path):
    file = write_csv(tmp_path / "new.csv", make_texts(2))
    with pytest.raises(ValueError, match=r"'coffee' contains 'ff'.*--label_separator"):
        label_file(model, file, tmp_path / "out.csv", label_separator="ff")
    assert not (tmp_path / "out.csv").exists()


def test_labels_of_equal_score_come_by_id(model, tmp_path):
    file = write_csv(tmp_path / "new.csv", make_texts(12))
    output = label_file(model, file, num_beams=1, top_k=99).output  # greedy scores are 0 or 1
    for record in read_records(output):
        chosen = sorted(record["labels"], key=NAMES.index)
        assert record["top_labels"] == chosen + [name for name in NAMES if name not in chosen]


@pytest.mark.parametrize(
    ("output", "options", "message"),
    [
        ("new/folder/out.jsonl", {"num_beams": 0}, "--num_beams is 0"),
        ("new/folder/out.jsonl", {"max_labels": 0, "min_labels": 1}, "labels"),
        ("out.parquet", {}, r"out.parquet has an extension .*\.jsonl, \.csv, \.tsv"),
        ("new.csv", {}, "is the file to be labelled"),
        ("out.jsonl", {"top_k": 0}, "--top_k is 0"),
        ("out.jsonl", {"batch_size": 0}, "--batch_size is 0"),
        ("out.jsonl", {"device": "cuda:77"}, "--device cuda:77 cannot be used"),
        ("out.jsonl", {"forbidden_labels": ["tin"]}, "tin"),
        ("out.jsonl", {"min_labels": 4, "max_labels": 2}, "max_labels"),
        ("out.jsonl", {"label_threshold": 0.2}, "label_threshold has no effect"),
        ("out.jsonl", {"text_column": "body"}, "no column 'body'"),
    ],
)
def test_what_cannot_be_is_refused_before_anything_is_written(model, tmp_path, output, options, message):
    file = write_csv(tmp_path / "new.csv", make_texts(2))
    before = file.read_bytes()
    with pytest.raises(ValueError, match=message):
        label_file(model, file, tmp_path / output, **options)
    assert [path.name for path in tmp_path.iterdir()] == ["new.csv"] and file.read_bytes() == before


def test_missing_files_and_models_are_named(model, tmp_path):
    with pytest.raises(FileNotFoundError, match=r"none.csv does not exist"):
        label_file(model, tmp_path / "none.csv")
    with pytest.raises(FileNotFoundError, match="there is no model .*no_model"):
        label_file(tmp_path / "no_model", write_csv(tmp_path / "new.csv", ["oil"]))


def test_an_option_that_does_not_exist_is_refused(model, tmp_path):
    with pytest.raises(TypeError, match="beams"):
        label_file(model, write_csv(tmp_path / "new.csv", ["oil"]), beams=3)


def test_bfloat16_labels_the_same_documents(model, tmp_path):
    file = write_csv(tmp_path / "new.csv", make_texts(10))
    label_file(model, file, tmp_path / "fp32.jsonl")
    label_file(model, file, tmp_path / "bf16.jsonl", precision="bf16")  # fp32 where the machine cannot
    exact, fast = (read_records(tmp_path / f"{name}.jsonl") for name in ("fp32", "bf16"))
    assert [record["id"] for record in fast] == [record["id"] for record in exact]
    assert sum(one["labels"] == other["labels"] for one, other in zip(exact, fast, strict=True)) >= 7


def test_every_option_is_documented():
    assert all(f.metadata["help"].endswith(".") for f in fields(LabellingOptions))
