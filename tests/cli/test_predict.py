"""sgm-hf predict: from the command line to a file of predictions, told in few lines, and killed without loss."""

import json
import os
import re
import signal
import subprocess
import sys
import time

import pytest
import torch

import sgm_hf.cli
from sgm_hf import SGMConfig, SGMForMultiLabelGeneration, SGMTokenizer
from sgm_hf.cli.predict import main
from sgm_hf.programs import labelling
from sgm_hf.training import progress

WORDS = "cocoa coffee oil gold rose fell price week".split()
# Labels its documents slowly, so that there is time to kill it.
SLOWLY = """
import sys, time
from sgm_hf.programs import labelling
labelling.WINDOW_DOCUMENTS = 5
append = labelling.ResumableFile.append
def slowly(self, lines, *rest, **counts):
    self.file.write(lines[:40])
    self.file.flush()
    time.sleep(0.2)  # half a line is in the file
    self.file.truncate(self.progress.size)
    append(self, lines, *rest, **counts)
labelling.ResumableFile.append = slowly
from sgm_hf.cli.predict import main
main(sys.argv[1:])
"""


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    torch.manual_seed(0)
    tokenizer = SGMTokenizer.train_from_texts([" ".join(WORDS)])
    sizes = {"embedding_size": 4, "encoder_hidden_size": 4, "encoder_layers": 1, "decoder_hidden_size": 4}
    names = {0: "up", 1: "down", 2: "flat"}
    folder = tmp_path_factory.mktemp("model")
    SGMForMultiLabelGeneration(
        SGMConfig(**sizes, vocab_size=len(tokenizer), id2label=names, initializer_range=1.0)
    ).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return str(folder)


@pytest.fixture(autouse=True)
def process_settings_kept(monkeypatch):
    monkeypatch.setattr("sgm_hf.cli.predict.prepare_cpu", lambda num_threads: None)
    monkeypatch.setattr("sgm_hf.cli.predict.transformers_logging.disable_progress_bar", lambda: None)


def write_documents(path, count):
    rows = [f"{WORDS[i % 8]} {WORDS[i * 3 % 7]} {'in the week ' * (i % 5)}" for i in range(count)]
    path.write_text("text\n" + "\n".join(rows) + "\n", encoding="utf-8")
    return path


def read_ids(path):
    return [json.loads(line)["id"] for line in path.read_text(encoding="utf-8").splitlines()]


def test_a_csv_file_is_labelled_next_to_itself(model, tmp_path, capsys):
    file = write_documents(tmp_path / "new.csv", 9)
    done = main([model, str(file), "--top_k", "2", "--include_text"])
    assert done.output == tmp_path / "new.predictions.jsonl" and done.labelled_now == 9
    records = [json.loads(line) for line in done.output.read_text(encoding="utf-8").splitlines()]
    assert [record["id"] for record in records] == [f"new.csv:{line}" for line in range(2, 11)]
    assert list(records[0]) == ["id", "text", "labels", "scores", "top_labels", "top_scores"]
    (line,) = capsys.readouterr().out.splitlines()
    assert re.fullmatch(r".*new\.predictions\.jsonl: 9 documents labelled, [\d.,]+ per second\.", line)
    main([model, str(file), "--top_k", "2", "--include_text"])
    assert "has all 9 documents already; --overwrite labels them anew" in capsys.readouterr().out
    assert main([model, str(file), "--overwrite"]).labelled_now == 9


def test_options_of_generation_reach_it(model, tmp_path):
    file = write_documents(tmp_path / "new.csv", 9)
    options = ["--num_beams", "1", "--allowed_labels", "down", "flat", "--min_labels", "2", "--num_threads", "1"]
    done = main([model, str(file), "--output", str(tmp_path / "out.csv"), *options])
    rows = done.output.read_text(encoding="utf-8").splitlines()
    assert rows[0] == "id,labels,scores"
    assert {frozenset(row.split(",")[1].split("|")) for row in rows[1:]} == {frozenset({"down", "flat"})}


def test_the_options_of_the_file_that_was_trained_on_read_one_of_the_same_columns(model, tmp_path):
    file = tmp_path / "new.json"
    rows = [{"nr": i, "title": "oil", "body": WORDS[i], "up": i % 2, "down": "neither yes nor no"} for i in range(4)]
    file.write_text(json.dumps(rows), encoding="utf-8")
    columns = ["--text_column", "title,body", "--id_column", "nr", "--labels_columns", "up,down"]
    done = main([model, str(file), *columns, "--include_text"])
    records = [json.loads(line) for line in done.output.read_text(encoding="utf-8").splitlines()]
    assert [(record["id"], record["text"]) for record in records] == [(str(i), f"oil\n{WORDS[i]}") for i in range(4)]


def test_documents_without_words_are_told_of_once(model, tmp_path, caplog):
    file = tmp_path / "new.csv"
    file.write_text("text,x\noil rose,1\n,1\n \t,1\nunseen,1\n", encoding="utf-8")
    main([model, str(file)])
    told = [record.getMessage() for record in caplog.records if record.levelname == "WARNING"]
    assert told == [
        "2 of the 4 documents have no word: their label set is empty",
        "1 of the 4 documents have unknown words only: their labels rest on their length alone",
    ]


def test_without_a_terminal_lines_tell_how_far_it_is(model, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(labelling, "WINDOW_DOCUMENTS", 4)
    monkeypatch.setattr(progress, "SECONDS", 0.0)
    main([model, str(write_documents(tmp_path / "new.csv", 9))])
    lines = [line for line in capsys.readouterr().err.splitlines() if line.startswith("Labelling: ")]
    pattern = r"Labelling: (\d) of 9 documents, [\d.,]+ per second, \d:\d\d:\d\d left"
    assert [re.fullmatch(pattern, line)[1] for line in lines] == ["4", "8", "9"]


def test_in_a_terminal_a_bar_tells_it(model, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr("sys.stderr.isatty", lambda: True, raising=False)
    main([model, str(write_documents(tmp_path / "new.csv", 9))])
    assert re.search(r"Labelling: 100%.* 9/9 .* documents/s\]", capsys.readouterr().err)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["{model}", "{folder}/none.csv"], "{folder}/none.csv does not exist"),
        (["{model}"], "FILE"),
        (
            ["{model}", "{folder}/new.csv", "--num_beam", "3"],
            "no option --num_beam; did you mean --num_beams?",
        ),
        (["{model}", "{folder}/new.csv", "--num_beams", "many"], "--num_beams: invalid int value: 'many'"),
        (["{model}", "{folder}/new.csv", "--num_threads", "0"], "--num_threads is 0"),
        (["{model}", "{folder}/new.csv", "--precision", "fp8"], "--precision: invalid choice: 'fp8'"),
        (["{model}", "{folder}/new.csv", "--text_column", "body"], "has no column 'body'"),
        (["{folder}/none", "{folder}/new.csv"], "there is no model {folder}/none"),
    ],
)
def test_a_fault_is_one_line_that_begins_with_the_command(model, tmp_path, monkeypatch, capsys, options, message):
    write_documents(tmp_path / "new.csv", 2)
    places = {"model": model, "folder": str(tmp_path)}
    with pytest.raises(SystemExit) as ended:
        sgm_hf.cli.main(["predict", *(option.format(**places) for option in options)])
    assert ended.value.code == 2
    line = capsys.readouterr().err.splitlines()[-1]
    assert line.startswith("sgm-hf predict: error: ") and message.format(**places) in line
    assert [path.name for path in tmp_path.iterdir()] == ["new.csv"]


def test_ctrl_c_names_the_command_that_goes_on(model, tmp_path, monkeypatch, capfd):
    file = write_documents(tmp_path / "new.csv", 9)
    monkeypatch.setattr(labelling, "WINDOW_DOCUMENTS", 4)
    append = labelling.ResumableFile.append

    def interrupted(self, *arguments, **counts):
        if self.progress.documents == 4:
            os.kill(os.getpid(), signal.SIGINT)
        append(self, *arguments, **counts)

    with monkeypatch.context() as patched, pytest.raises(SystemExit) as ended:
        patched.setattr(labelling.ResumableFile, "append", interrupted)
        main([model, str(file), "--overwrite", "--num_beams", "2"])
    assert ended.value.code == 130
    told = capfd.readouterr().err.splitlines()
    assert told[-2:] == ["Ended by SIGINT. This goes on:", f"  sgm-hf predict {model} {file} --num_beams 2"]
    done = main([model, str(file), "--num_beams", "2"])
    assert (done.labelled_now, done.documents) == (5, 9)


def test_killed_within_a_line_each_document_is_in_the_output_once(model, tmp_path):
    file, output = write_documents(tmp_path / "new.csv", 60), tmp_path / "new.predictions.jsonl"
    process = subprocess.Popen([sys.executable, "-c", SLOWLY, model, str(file)], stderr=subprocess.DEVNULL)
    while process.poll() is None and not (output.exists() and output.stat().st_size > 1000):
        time.sleep(0.05)
    process.kill()
    assert process.wait() == -signal.SIGKILL
    left = output.read_bytes()
    assert 0 < left.count(b"\n") < 60
    done = main([model, str(file)])
    assert 0 < done.labelled_now < 60
    assert read_ids(output) == [f"new.csv:{line}" for line in range(2, 62)]


def test_help_names_every_option_and_what_holds_without_it(capsys):
    with pytest.raises(SystemExit):
        main(["--help"])
    shown = capsys.readouterr().out
    assert "sgm-hf predict runs/my new.csv" in shown
    assert "None" not in shown and "--batch_size NUMBER" in shown and "Default: 32 on a CPU" in shown
