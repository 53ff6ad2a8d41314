"""What the speed benchmarks share: texts, arms that take turns in processes of their own, limits, the table.

An *arm* is one way of doing the job. Each runs in its own process, so that settings, memory and caches are not shared;
the processes take turns, repetition by repetition, so that other load on the machine affects all arms equally.
"""

import argparse
import json
import platform
import resource
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields
from datetime import date
from pathlib import Path
from typing import Any

import numpy as np
import torch
from datasets import Dataset

from sgm_hf import SGMConfig, SGMTokenizer, encode_dataset
from sgm_hf.datasets_scripts import load
from sgm_hf.tables import markdown_table, write_csv
from sgm_hf.training.machine import choose_precision, prepare_cpu
from sgm_hf.training.summary import describe_machine

ROOT = Path(__file__).parents[1]
SPEEDS = Path(__file__).with_name("speed.csv")
COLUMNS = (
    *("date", "commit", "benchmark", "size", "texts", "arm", "value", "unit", "lowest", "highest"),
    *("over_textbook", "share_of_limit", "peak_mib", "repetitions", "threads", "machine", "python", "torch"),
)


@dataclass(frozen=True)
class Size:
    """One setting of the benchmarks.

    Args:
        settings: File of examples/configs with the sizes of the model and of the batches.
        num_labels: L.
        max_length: Words after which texts are cut.
        median_words, spread: Median number of words, and standard deviation of its logarithm, of drawn texts.
        mean_labels: Mean number of labels of drawn texts.
    """

    settings: str
    num_labels: int
    max_length: int
    median_words: float
    spread: float
    mean_labels: float


SIZES = {
    "aapd": Size("aapd_sgm_ge.json", 54, 500, 158.0, 0.35, 2.41),
    "rcv1_v2": Size("rcv1_v2_sgm_ge.json", 103, 500, 103.0, 0.6, 3.24),
    "reuters21578": Size("reuters21578_sgm_ge.json", 90, 500, 98.0, 0.95, 1.24),
}


def parse_arguments(description: str, arms: Sequence[str], **defaults: Any) -> argparse.Namespace:
    """The command line of a benchmark.

    Args:
        description: First line of its help.
        arms: Names of its arms.
        **defaults: Of `documents` and `repetitions`.
    """
    parser = argparse.ArgumentParser(description=description)
    parser.add_argument("--size", choices=sorted(SIZES), default="aapd", help="setting of a paper")
    parser.add_argument("--data_dir", help="folder or archive of the corpus; by default random texts are drawn")
    parser.add_argument("--documents", type=int, default=defaults["documents"], help="documents per repetition")
    parser.add_argument("--repetitions", type=int, default=defaults["repetitions"], help="repetitions of each arm")
    parser.add_argument("--threads", type=int, default=torch.get_num_threads(), help="threads of PyTorch")
    parser.add_argument("--device", choices=("cpu", "cuda"), default="cpu", help="device of the arms")
    parser.add_argument("--batch_size", type=int, help="documents per batch; by default that of the setting")
    parser.add_argument("--arms", nargs="+", choices=arms, help="arms to run; by default all that the device supports")
    parser.add_argument("--model_name_or_path", help="trained model to decode with; by default an untrained one")
    parser.add_argument("--num_beams", type=int, default=5, help="beam width")
    parser.add_argument("--arm", choices=arms, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.arms is None:
        arguments.arms = [arm for arm in arms if arguments.device == "cuda" or not arm.endswith("tf32")]
    return arguments


# ---- texts ----


def read_settings(size: str) -> dict[str, Any]:
    """The contents of the configuration file of a size."""
    return json.loads((ROOT / "examples" / "configs" / SIZES[size].settings).read_text(encoding="utf-8"))


def model_config(size: str, **settings: Any) -> SGMConfig:
    """The model configuration of a size, with attention and global embedding, and further settings."""
    names = {field.name for field in fields(SGMConfig)}
    settings = {name: value for name, value in read_settings(size).items() if name in names} | settings
    return SGMConfig(**settings, num_labels=SIZES[size].num_labels)


def make_texts(size: str, num_documents: int, data_dir: str | None) -> Dataset:
    """Encoded documents (`input_ids`, `length`, `labels`): the first of a training split, or random ones.

    Args:
        size: One of SIZES.
        num_documents: Number of documents, of a corpus at most as many as it has.
        data_dir: Folder or archive of the corpus; None draws texts.
    """
    if data_dir is None:
        return draw_texts(SIZES[size], read_settings(size)["vocab_size"], num_documents)
    train = load(size, data_dir=data_dir)["train"]
    train = train.select(range(min(num_documents, len(train))))
    tokenizer = SGMTokenizer.train_from_texts(
        train["text"], vocab_size=read_settings(size)["vocab_size"], model_max_length=SIZES[size].max_length
    )
    names = train.features["labels"].feature.names
    return encode_dataset(train, tokenizer, names, max_length=SIZES[size].max_length, training=True)


def draw_texts(size: Size, vocab_size: int, num_documents: int) -> Dataset:
    """Random words and labels; lengths are log-normal, label counts 1 + Poisson, with the corpus' statistics."""
    random = np.random.default_rng(0)
    lengths = random.lognormal(np.log(size.median_words), size.spread, num_documents)
    lengths = np.clip(lengths, 5, size.max_length).astype(int)
    counts = 1 + random.poisson(size.mean_labels - 1, num_documents)
    return Dataset.from_dict(
        {
            "input_ids": [random.integers(4, vocab_size, length).tolist() for length in lengths],
            "length": lengths.tolist(),
            "labels": [
                sorted(random.choice(size.num_labels, min(count, size.num_labels), replace=False).tolist())
                for count in counts
            ],
            "index": list(range(num_documents)),
        }
    )


# ---- limits ----


def lstm_multiplications(rows: int, steps: int, input_size: int, hidden_size: int) -> list[tuple[int, int, int, int]]:
    """The matrix products of one direction of an LSTM layer as (count, m, k, n): m x k times k x n."""
    return [(1, rows * steps, input_size, 4 * hidden_size), (steps, rows, hidden_size, 4 * hidden_size)]


def forward_multiplications(
    config: SGMConfig, num_documents: int, num_words: int, num_steps: int, num_rows: int
) -> list[tuple[int, int, int, int]]:
    """The matrix products of the forward pass: encoder, keys, and the decoder's steps.

    Products of a vector, such as the energy's with v_a, are left out: memory bounds them, not arithmetic.

    Args:
        config: The model.
        num_documents: B.
        num_words: T.
        num_steps: Decoder steps.
        num_rows: Rows of the decoder: B, or B times the beams.
    """
    hidden, state = config.encoder_hidden_size, config.decoder_hidden_size
    products = []
    for layer in range(config.encoder_layers):
        input_size = config.embedding_size if layer == 0 else 2 * hidden
        products += 2 * lstm_multiplications(num_documents, num_words, input_size, hidden)
    products.append((1, num_documents * num_words, 2 * hidden, config.attention_size))
    label = config.label_embedding_size
    for layer in range(config.decoder_layers):
        input_size = label + 2 * hidden if layer == 0 else state
        products += [(num_steps, num_rows, input_size, 4 * state), (num_steps, num_rows, state, 4 * state)]
    products += [
        (2 * num_steps, num_rows, label, label),
        (num_steps, num_rows, config.num_labels, label),
        (num_steps, num_rows, state, config.attention_size),
        (num_steps, num_rows, state, state),
        (num_steps, num_rows, 2 * hidden, state),
        (num_steps, num_rows, state, config.num_labels + 1),
    ]
    return products


def backward_multiplications(products: list[tuple[int, int, int, int]]) -> list[tuple[int, int, int, int]]:
    """The products of the backward pass: per product one for the gradient of its input and one for its weight's."""
    inputs = [(count, m, n, k) for count, m, k, n in products]
    weights = [(1, k, count * m, n) for count, m, k, n in products]
    return inputs + weights


def flops(products: list[tuple[int, int, int, int]]) -> int:
    """Floating-point operations of matrix products: 2 m k n each."""
    return sum(2 * count * m * k * n for count, m, k, n in products)


def multiply(products: list[tuple[int, int, int, int]], dtype: torch.dtype) -> None:
    """Compute only the matrix products: a lower bound on the time of the model's arithmetic."""
    for count, m, k, n in products:
        left, right = torch.ones(m, k, dtype=dtype), torch.ones(k, n, dtype=dtype)
        result = torch.empty(m, n, dtype=dtype)
        for _ in range(count):
            torch.mm(left, right, out=result)


# ---- arms ----


def prepare(arguments: argparse.Namespace) -> tuple[str, str]:
    """Set threads, device and precision of multiplication in the process of an arm.

    Returns:
        The arm's kind ("textbook", "ours", "limit" or "branch") and variant ("packed", "unpacked", "fp32", "tf32",
        "bf16", "beside" or "decoder").
    """
    kind, _, variant = arguments.arm.partition("_")
    if kind == "textbook":
        torch.set_num_threads(arguments.threads)  # and nothing else, as in a plain program
    else:
        prepare_cpu(arguments.threads)
    if arguments.device == "cuda":
        torch.set_default_device("cuda")
        torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = variant == "tf32"
    torch.manual_seed(0)
    return kind, variant


def uses_bf16(variant: str, device: str) -> bool:
    """Whether an arm multiplies in bfloat16: "bf16" falls back to fp32 where autocast of our model would."""
    return variant == "bf16" and choose_precision(variant, device) == "bf16"


def serve(repeat: Callable[[], dict[str, Any]], device: str) -> None:
    """Be an arm: warm up and print "ready"; then per line of the input do a repetition and print its result as JSON.

    Args:
        repeat: Does a repetition and returns its result, to which `seconds`, `processor_seconds` and `peak_mib` are
            added.
        device: "cpu", where the peak is the greatest resident memory, or "cuda", where it is PyTorch's allocations.
    """
    on_gpu = device == "cuda"
    repeat()
    print("ready", flush=True)
    for _ in sys.stdin:
        if on_gpu:
            torch.cuda.synchronize()
        start, processor = time.perf_counter(), time.process_time()
        result = repeat()
        if on_gpu:
            torch.cuda.synchronize()
        seconds = time.perf_counter() - start
        peak = (
            torch.cuda.max_memory_allocated() if on_gpu else 1024 * resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        )
        times = {"seconds": seconds, "processor_seconds": time.process_time() - processor}
        print(json.dumps({**times, "peak_mib": peak / 2**20, **result}), flush=True)


def take_turns(script: str, arguments: argparse.Namespace) -> dict[str, list[dict[str, Any]]]:
    """Run each arm in a process of its own, in turns.

    Args:
        script: The benchmark's file, which with `--arm` is the arm.
        arguments: Its command line.

    Returns:
        The results of the repetitions of each arm.

    Raises:
        RuntimeError: If an arm fails.
    """
    processes = {}
    for arm in arguments.arms:
        command = [sys.executable, script, *sys.argv[1:], "--arm", arm]
        processes[arm] = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        print(f"{arm}: warming up", file=sys.stderr, flush=True)
        _read_line(processes[arm], arm)
    results: dict[str, list[dict[str, Any]]] = {arm: [] for arm in arguments.arms}
    for repetition in range(arguments.repetitions):
        for arm, process in processes.items():
            process.stdin.write("go\n")
            process.stdin.flush()
            result = json.loads(_read_line(process, arm))
            results[arm].append(result)
            print(f"{repetition + 1}/{arguments.repetitions} {arm}: {result['seconds']:.3f} s", file=sys.stderr)
    for process in processes.values():
        process.stdin.close()
        process.wait()
    return results


def _read_line(process: subprocess.Popen, arm: str) -> str:
    line = process.stdout.readline()
    if not line:
        raise RuntimeError(f"the arm {arm} ended with exit status {process.wait()}; its message is above.")
    return line


def run(
    script: str,
    description: str,
    arms: Sequence[str],
    make_arm: Callable[[argparse.Namespace], Callable[[], dict[str, Any]]],
    benchmark: str,
    value: Callable[[dict[str, Any]], float],
    unit: str = "documents/s",
    **defaults: int,
) -> dict[str, list[dict[str, Any]]]:
    """Be a benchmark, or with `--arm` one of its arms: run the arms in turns, keep the results, and print them.

    Args:
        script: The benchmark's file.
        description: First line of its help.
        arms: Names of its arms.
        make_arm: Returns the function that does one repetition of an arm.
        benchmark: Its name, in which `{num_beams}` is replaced.
        value: Computes the value of a repetition from its result.
        unit: Unit of the values.
        **defaults: Of `documents` and `repetitions`.

    Returns:
        The results of the repetitions of each arm; empty in the process of an arm.
    """
    arguments = parse_arguments(description, arms, **defaults)
    if arguments.arm is not None:
        serve(make_arm(arguments), arguments.device)
        return {}
    results = take_turns(script, arguments)
    names = {arm: f"{arm} in fp32" if runs[-1].get("fell_back") else arm for arm, runs in results.items()}
    values = {names[arm]: [value(repetition) for repetition in runs] for arm, runs in results.items()}
    peaks = {names[arm]: runs[-1]["peak_mib"] for arm, runs in results.items()}
    rows = summarise(benchmark.format(num_beams=arguments.num_beams), unit, values, peaks, arguments)
    keep(rows)
    show(rows)
    return results


def documents_per_second(repetition: dict[str, Any]) -> float:
    """The speed of a repetition."""
    return repetition["documents"] / repetition["seconds"]


# ---- results ----


def summarise(
    benchmark: str, unit: str, values: dict[str, list[float]], peaks: dict[str, float], arguments: argparse.Namespace
) -> list[dict[str, Any]]:
    """One row per arm: the median of its values, and of their ratios to the first textbook arm in the same turn.

    Args:
        benchmark: Its name.
        unit: "documents/s" or "ms"; a ratio says how many times faster.
        values: Of each arm, one per repetition.
        peaks: Greatest resident memory of each arm's process, MiB.
        arguments: The command line.
    """
    commit = subprocess.run(["git", "rev-parse", "--short", "HEAD"], capture_output=True, text=True, cwd=ROOT)
    common = {
        "date": date.today().isoformat(),
        "commit": commit.stdout.strip(),
        "benchmark": benchmark,
        "size": arguments.size,
        "texts": "drawn" if arguments.data_dir is None else "real",
        "unit": unit,
        "repetitions": arguments.repetitions,
        "threads": arguments.threads,
        "machine": torch.cuda.get_device_name() if arguments.device == "cuda" else describe_machine()["cpu"],
        "python": platform.python_version(),
        "torch": torch.__version__,
    }

    textbook = next((arm for arm in values if arm.startswith("textbook")), "")

    def times_faster(arm: str, other: str) -> float | str:
        if other not in values or other == arm:
            return ""
        pairs = list(zip(values[arm], values[other], strict=True))
        ratios = [mine / theirs if unit == "documents/s" else theirs / mine for mine, theirs in pairs]
        return round(statistics.median(ratios), 3)

    return [
        common
        | {
            "arm": arm,
            "value": round(statistics.median(measured), 2),
            "lowest": round(min(measured), 2),
            "highest": round(max(measured), 2),
            "over_textbook": times_faster(arm, textbook),
            "share_of_limit": times_faster(arm, f"limit_{arm.rpartition('_')[2]}") if arm.startswith("ours") else "",
            "peak_mib": round(peaks[arm]),
        }
        for arm, measured in values.items()
    ]


def keep(rows: list[dict[str, Any]]) -> None:
    """Append rows to speed.csv."""
    write_csv(rows, SPEEDS, COLUMNS, append=True)


def show(rows: list[dict[str, Any]]) -> None:
    """Print rows as a Markdown table."""
    columns = ("arm", "value", "lowest", "highest", "over_textbook", "share_of_limit", "peak_mib")
    first = rows[0]
    setting = (
        first["benchmark"],
        first["size"],
        f"{first['texts']} texts",
        f"{first['threads']} threads",
        first["unit"],
    )
    print("\n" + ", ".join(setting) + "\n")
    print(markdown_table(columns, ([row[column] for column in columns] for row in rows)))


def show_times(results: dict[str, list[dict[str, Any]]], kind: str, other: str) -> None:
    """Print how much more processor time each arm of a kind takes than another: the median of the turns' ratios.

    Processor time, because other load on the machine moves it less than the few parts in a hundred that are measured.

    Args:
        results: Of the repetitions of each arm.
        kind: Beginning of the arms' names.
        other: The arm that they are compared with; where it did not run, nothing is printed.
    """
    for arm in (arm for arm in results if arm.startswith(kind) and other in results):
        pairs = zip(results[arm], results[other], strict=True)
        ratios = [mine["processor_seconds"] / theirs["processor_seconds"] for mine, theirs in pairs]
        spread = f"{min(ratios):.3f} to {max(ratios):.3f}"
        print(f"{arm}: {statistics.median(ratios):.3f} times the processor time of {other} ({spread})")
