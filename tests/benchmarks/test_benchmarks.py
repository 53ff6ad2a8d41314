import csv
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import bench_generate
import bench_latency
import bench_many_labels
import bench_predict
import bench_training
import harness
import numpy as np
import plot_parts
import pytest

from sgm_hf.training.machine import bf16_fault

BENCHMARKS = Path(harness.__file__).parent


def test_multiplications_are_counted_by_hand_for_a_small_lstm():
    products = harness.lstm_multiplications(rows=2, steps=3, input_size=5, hidden_size=4)
    assert harness.flops(products) == 2 * (2 * 3) * 5 * 16 + 3 * 2 * 2 * 4 * 16
    # The backward pass has two products of the size of each of the forward pass.
    assert harness.flops(harness.backward_multiplications(products)) == 2 * harness.flops(products)


def test_aapd_needs_as_much_arithmetic_per_document_as_specified():
    config = harness.model_config("aapd")
    encoder = [p for p in harness.forward_multiplications(config, 64, 162, 3, 64) if p[1] in (64 * 162, 64)][:8]
    assert harness.flops(encoder) / 64 == pytest.approx(849e6, rel=0.01)  # 510 + 340 MFLOP


@pytest.mark.parametrize("size", sorted(harness.SIZES))
def test_drawn_texts_are_like_the_corpus(size):
    expected, texts = harness.SIZES[size], harness.make_texts(size, 2000, data_dir=None)
    assert np.median(texts["length"]) == pytest.approx(expected.median_words, rel=0.05)
    assert np.mean([len(labels) for labels in texts["labels"]]) == pytest.approx(expected.mean_labels, rel=0.05)
    assert max(max(labels) for labels in texts["labels"]) < expected.num_labels
    assert all(len(set(labels)) == len(labels) for labels in texts["labels"])


def test_ratios_are_medians_of_the_ratios_of_each_turn():
    values = {"textbook_unpacked": [1.0, 2.0, 4.0], "ours_fp32": [3.0, 4.0, 20.0], "limit_fp32": [6.0, 8.0, 25.0]}
    arguments = harness.argparse.Namespace(size="aapd", data_dir=None, repetitions=3, threads=1, device="cpu")
    peaks = dict.fromkeys(values, 1.0)
    rows = {row["arm"]: row for row in harness.summarise("b", "documents/s", values, peaks, arguments)}
    assert (rows["ours_fp32"]["value"], rows["ours_fp32"]["over_textbook"]) == (4.0, 3.0)
    assert rows["ours_fp32"]["share_of_limit"] == 0.5
    assert rows["textbook_unpacked"]["over_textbook"] == ""
    times = {row["arm"]: row for row in harness.summarise("b", "ms", values, peaks, arguments)}
    assert times["ours_fp32"]["over_textbook"] == pytest.approx(1 / 3, abs=1e-3)


@pytest.mark.parametrize("module", [bench_training, bench_generate, bench_latency, bench_predict])
def test_every_arm_does_a_repetition(monkeypatch, module):
    monkeypatch.setattr(harness, "prepare_cpu", lambda num_threads: None)
    monkeypatch.setattr(bench_training, "POOL", 2)
    monkeypatch.setattr(bench_latency, "NUM_CALLS", 1)
    results = {}
    for arm in module.ARMS:
        arguments = SimpleNamespace(arm=arm, size="reuters21578", data_dir=None, documents=16, threads=1)
        arguments.device, arguments.batch_size = "cpu", None
        arguments.model_name_or_path, arguments.num_beams = None, 3
        results[arm] = module.make_arm(arguments)()
    if module is bench_generate:
        assert results["ours_fp32"]["sequences"] == results["textbook_packed"]["sequences"]
    if module is bench_latency:
        assert all(result["milliseconds"] > 0 for result in results.values())
    else:
        assert len({result["documents"] for result in results.values()}) == 1
        assert module is bench_predict or results["limit_fp32"]["flops"] == results["limit_bf16"]["flops"] > 0


def test_a_benchmark_runs_its_arms_in_turns_and_keeps_the_results(tmp_path):
    copy = tmp_path / "benchmarks"
    copy.mkdir()
    for file in BENCHMARKS.glob("*.py"):
        (copy / file.name).write_bytes(file.read_bytes())
    (tmp_path / "examples").symlink_to(BENCHMARKS.parent / "examples")
    arms = ["limit_fp32", "ours_bf16"]
    options = ["--size", "reuters21578", "--documents", "16", "--repetitions", "2", "--threads", "1", "--arms", *arms]
    command = [sys.executable, str(copy / "bench_training.py"), *options]
    run = subprocess.run(command, capture_output=True, text=True, timeout=300)
    assert run.returncode == 0, run.stderr[-2000:]
    rows = list(csv.DictReader((copy / "speed.csv").open(encoding="utf-8")))
    # The name of an arm that falls back says so.
    own = "ours_bf16" if bf16_fault("cpu") is None else "ours_bf16 in fp32"
    assert [row["arm"] for row in rows] == ["limit_fp32", own]
    assert all(float(row["value"]) > 0 and int(row["peak_mib"]) > 100 for row in rows)
    assert f"| {own} | {rows[1]['value']} |" in run.stdout


@pytest.mark.parametrize("case", bench_many_labels.CASES)
def test_with_many_labels_every_case_makes_all_its_steps(monkeypatch, case):
    monkeypatch.setattr(bench_many_labels.torch, "set_num_threads", lambda num_threads: None)
    steps, make_model = [], bench_many_labels.make_model

    def counting(num_labels):
        model = make_model(num_labels)
        step = model.decoder.step
        model.decoder.step = lambda *args: steps.append(None) or step(*args)
        return model

    monkeypatch.setattr(bench_many_labels, "make_model", counting)
    repeat = bench_many_labels.make_arm(SimpleNamespace(arm=f"{case}:40", documents=2, num_beams=3))
    assert repeat()["milliseconds"] > 0
    assert len(steps) == bench_many_labels.MAX_LABELS + 1


def test_an_arm_that_fails_stops_the_benchmark():
    process = subprocess.Popen([sys.executable, "-c", "raise SystemExit(3)"], stdout=subprocess.PIPE, text=True)
    with pytest.raises(RuntimeError, match="ours_fp32 ended with exit status 3"):
        harness._read_line(process, "ours_fp32")
    process.stdout.close()


def test_operations_find_their_part():
    assert plot_parts.part_of("aten::mkldnn_rnn_layer_backward") == "LSTM layers"
    assert plot_parts.part_of("aten::addmm") == plot_parts.part_of("aten::bmm") == "other matrix products"
    assert plot_parts.part_of("aten::bernoulli_") == plot_parts.part_of("aten::random_") == "drawing dropout"
    assert plot_parts.part_of("aten::_fused_adam_") == "Adam and clipping"
    assert plot_parts.part_of("aten::sigmoid_backward") == "tanh and sigmoid"
    assert plot_parts.part_of("aten::copy_") == plot_parts.REST


def test_the_picture_and_its_numbers_are_written(tmp_path):
    parts = dict.fromkeys([*plot_parts.PARTS, plot_parts.REST], 2.0)
    plot_parts.draw({"textbook_unpacked": parts, "ours_bf16": parts}, "Title", tmp_path / "figures" / "parts")
    for ending in ("png", "svg", "csv"):
        assert (tmp_path / "figures" / f"parts.{ending}").stat().st_size > 50
