"""Tests of datasets_scripts/convert.py and of the dataset cards."""

import datasets
import pytest
from huggingface_hub import DatasetCard

from sgm_hf.cli import main
from sgm_hf.datasets_scripts import CORPORA, convert, load
from sgm_hf.datasets_scripts.aapd import LABEL_NAMES


@pytest.fixture
def folder(write):
    """A small AAPD with two splits; one text has characters that YAML and Markdown care about."""
    write("text_train", "one two three", "| a: *b* – é\u2028", "four")
    write("label_train", "cs.CL cs.LG", "cs.LG", "math.CO cs.DM cs.CC")
    write("text_val", "five six")
    return write("label_val", "cs.IT math.IT").parent


def test_plain_load_dataset_gives_the_same_splits_features_and_rows(folder, tmp_path, cache):
    convert.convert("aapd", tmp_path / "out", data_dir=folder)
    converted = datasets.load_dataset(str(tmp_path / "out"), cache_dir=str(cache))
    corpus = load("aapd", data_dir=folder, cache_dir=cache)
    assert converted.keys() == corpus.keys()
    for split in corpus:
        assert converted[split].features == corpus[split].features
        assert converted[split].features["labels"].feature.names == list(LABEL_NAMES)
        assert converted[split][:] == corpus[split][:]


def test_the_card_declares_files_features_and_statistics(folder, tmp_path):
    statistics = convert.convert("aapd", tmp_path / "out", data_dir=folder)
    card = DatasetCard.load(tmp_path / "out" / "README.md")
    (config,) = card.data.configs
    assert [entry["split"] for entry in config["data_files"]] == ["train", "validation"]
    for entry in config["data_files"]:
        assert len(list((tmp_path / "out").glob(entry["path"]))) == 1
    info = card.data.dataset_info
    assert [split["num_examples"] for split in info["splits"]] == [3, 1]
    names = info["features"][2]["list"]["class_label"]["names"]
    assert list(names.values()) == list(LABEL_NAMES)
    assert "| train | 3 | 53,840 | 5 of 54 | 2.00 | 3.0 |" in card.text
    assert statistics["train"].label_counts.sum() == 6 and statistics["validation"].words == 2
    assert sorted(path.name for path in (tmp_path / "out").rglob("*") if path.is_file()) == [
        "README.md",
        "aapd-train.parquet",
        "aapd-validation.parquet",
    ]


@pytest.mark.parametrize("name", CORPORA)
def test_every_corpus_has_a_complete_card_template(name):
    card = DatasetCard.load(convert.CARDS / f"{name}.md")
    assert (
        card.data.license and card.data.language == ["zh" if name == "ren_cecps" else "en"] and card.data.pretty_name
    )
    assert card.data.task_ids[0] == "multi-label-classification"
    assert card.text.count(convert.STATISTICS_MARK) == 1
    if name != "generated":
        for heading in ("Source and licence", "Contents", "Statistics", "Citation"):
            assert f"\n## {heading}\n" in card.text
        assert "```bibtex" in card.text and "http" in card.text


def test_a_folder_with_content_is_never_overwritten(folder, tmp_path):
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "mine.txt").write_text("keep")
    with pytest.raises(FileExistsError, match="out exists and is not an empty folder"):
        convert.convert("aapd", tmp_path / "out", data_dir=folder)
    with pytest.raises(FileExistsError, match=r"mine\.txt exists"):
        convert.convert("aapd", tmp_path / "out" / "mine.txt", data_dir=folder)
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["mine.txt"]


def test_an_empty_folder_and_missing_parents_are_accepted(folder, tmp_path):
    (tmp_path / "empty").mkdir()
    convert.convert("aapd", tmp_path / "empty", data_dir=folder)
    convert.convert("aapd", tmp_path / "a" / "b", data_dir=folder)
    for out in (tmp_path / "empty", tmp_path / "a" / "b"):
        assert {path.name for path in out.iterdir()} == {"README.md", "data"}


def test_a_fault_or_an_interruption_leaves_no_folder(folder, write, tmp_path, monkeypatch):
    write("label_val", "cs.XX")
    (tmp_path / "results").mkdir()
    out = tmp_path / "results" / "out"
    with pytest.raises(ValueError, match=r"label_val, line 1: unknown label 'cs\.XX'"):
        convert.convert("aapd", out, data_dir=folder)
    assert list(out.parent.iterdir()) == []

    def interrupt(*_):
        raise KeyboardInterrupt

    write("label_val", "cs.IT")
    monkeypatch.setattr(convert, "make_card", interrupt)
    with pytest.raises(KeyboardInterrupt):
        convert.convert("aapd", out, data_dir=folder)
    assert list(out.parent.iterdir()) == []


def test_the_command_reports_the_result_and_says_faults_in_one_sentence(folder, tmp_path, capsys):
    arguments = ["convert", "aapd", "--data_dir", str(folder), "--output_dir", str(tmp_path / "out")]
    main(arguments)
    assert f"wrote {tmp_path / 'out'}: train 3, validation 1 documents" in capsys.readouterr().out
    with pytest.raises(SystemExit) as exit_code:
        main(arguments)
    assert exit_code.value.code == 2
    error = capsys.readouterr().err
    assert error.startswith(f"sgm-hf convert: error: {tmp_path / 'out'} exists and is not an empty folder")


def test_the_command_shows_progress(folder, tmp_path, capfd):
    datasets.enable_progress_bars()  # another test's training may have ended them
    main(["convert", "aapd", "--data_dir", str(folder), "--output_dir", str(tmp_path / "out")])
    shown = capfd.readouterr().err
    assert "Generating train split" in shown and "Counting validation split" in shown


def test_the_real_sample_of_rcv1_v2_is_converted_unchanged(real_data, tmp_path, cache):
    convert.convert("rcv1_v2", tmp_path / "out", config="sample", data_dir=real_data / "rcv1")
    converted = datasets.load_dataset(str(tmp_path / "out"), split="train", cache_dir=str(cache))
    corpus = load("rcv1_v2", "sample", real_data / "rcv1", split="train", cache_dir=cache)
    assert converted.features == corpus.features
    assert converted[:] == corpus[:]
