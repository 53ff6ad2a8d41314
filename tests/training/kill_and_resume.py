"""Kill trainings at random times, resume them, and compare with the training that was never killed.

    python tests/training/kill_and_resume.py --kills 40

Each training is a process of its own that is killed (SIGKILL) while it trains, saves or evaluates, so that no code of
it runs after that. A table of the kills is printed. The exit status is 0 if every training ended with the weights, the
best metric, the threshold and the logged losses and metrics of the one never killed, bit for bit, or said why it could
not be resumed (then it is started again in the same folder, and has to end the same). Not part of CI; `make kills`.
"""

import argparse
import json
import os
import random
import shutil
import signal
import sys
import tempfile
import time
from collections import Counter
from functools import partial
from pathlib import Path
from typing import Any

import torch
from datasets import Dataset

from sgm_hf import load_corpus
from sgm_hf.data.encoding import encode_dataset
from sgm_hf.data.labels import label_sets_of, order_label_names
from sgm_hf.modeling import SGMConfig, SGMForMultiLabelGeneration, SGMTokenizer
from sgm_hf.training import SGMTrainer, SGMTrainingArguments

# In this order, as planned: a phase may be over before the signal comes.
PHASES = ("saving", "evaluating", "saving", "evaluating", "training")


class AnnouncingTrainer(SGMTrainer):
    """Writes a line to a pipe whenever it begins to train, save or evaluate."""

    pipe: int

    def announce(self, phase: str) -> None:
        os.write(self.pipe, f"{phase} {self.state.global_step} {time.monotonic()}\n".encode())

    def evaluate(self, *arguments: Any, **keywords: Any) -> dict[str, float]:
        self.announce("evaluating")
        metrics = super().evaluate(*arguments, **keywords)
        self.announce("training")
        return metrics

    def _save_checkpoint(self, *arguments: Any) -> None:
        self.announce("saving")
        super()._save_checkpoint(*arguments)
        self.announce("training")


def make_data() -> tuple[SGMTokenizer, list[str], dict[str, Dataset]]:
    """Tokenizer, label names and encoded splits of a few documents of the generated corpus."""
    documents = load_corpus("generated", split="train").select(range(260))
    tokenizer = SGMTokenizer.train_from_texts(documents["text"], vocab_size=2000)
    names = order_label_names(label_sets_of(documents), documents.features["labels"].feature.names, "frequency")
    ranges = {"train_dataset": range(200), "eval_dataset": range(200, 230), "threshold_dataset": range(230, 260)}
    encoded = {
        name: encode_dataset(documents.select(rows), tokenizer, names, max_length=60, training=name != "eval_dataset")
        for name, rows in ranges.items()
    }
    return tokenizer, names, encoded


def train(
    data: tuple[SGMTokenizer, list[str], dict[str, Dataset]], folder: Path, resume: bool, pipe: int
) -> dict[str, Any]:
    """Train, or go on with a training, and return everything that it ends with."""
    tokenizer, names, datasets = data
    torch.manual_seed(0)
    sizes = dict.fromkeys(("embedding_size", "encoder_hidden_size", "decoder_hidden_size", "attention_size"), 32)
    model = SGMForMultiLabelGeneration(
        SGMConfig(
            **sizes,
            vocab_size=len(tokenizer),
            pad_token_id=tokenizer.pad_token_id,
            id2label=dict(enumerate(names)),
            label_order="shuffled",
            label_feedback="global_embedding",
            dropout=0.2,
        )
    )
    arguments = SGMTrainingArguments(
        str(folder),
        num_train_epochs=3,
        per_device_train_batch_size=16,
        learning_rate=0.01,
        halve_from_epoch=2,
        logging_steps=5,
        eval_strategy="steps",
        save_strategy="steps",
        eval_steps=4,
        save_steps=4,
        disable_tqdm=True,
        use_cpu=True,
    )
    trainer = AnnouncingTrainer(model, arguments, processing_class=tokenizer, **datasets)
    trainer.pipe = pipe
    trainer.train(resume_from_checkpoint=resume)
    timed = ("runtime", "per_second", "seconds", "total_flos", "train_loss")
    history = [
        {name: value for name, value in record.items() if not any(part in name for part in timed)}
        for record in trainer.state.log_history
    ]
    return {
        "weights": {name: tensor.tolist() for name, tensor in trainer.model.state_dict().items()},
        "best": [trainer.state.best_metric, trainer.state.best_global_step],
        "threshold": trainer.model.generation_config.label_threshold,
        "history": history,
        "from": trainer.resumptions[0]["update"] if trainer.resumptions else None,
    }


class Child:
    """A training in a forked process, which imports nothing again.

    Args:
        task: Called with the writing end of a pipe; what it returns, or the error it raises, comes back as JSON.
        log: The file that gets the process' error output.
    """

    def __init__(self, task: Any, log: Path):
        self.reading, writing = os.pipe()
        self.pid = os.fork()
        if self.pid == 0:
            status = 1
            try:
                os.dup2(os.open(log, os.O_CREAT | os.O_WRONLY | os.O_APPEND), 2)
                try:
                    result = task(writing)
                except Exception as error:
                    result = {"error": f"{type(error).__name__}: {error}"}
                with os.fdopen(writing, "w") as file:
                    file.write(json.dumps(result) + "\n")
                status = 0
            finally:
                os._exit(status)
        os.close(writing)
        self.lines = os.fdopen(self.reading, "rb", buffering=0)

    def next_line(self) -> str:
        """The next line, or nothing at the end."""
        return self.lines.readline().decode()

    def end(self) -> tuple[list[list[str]], dict[str, Any]]:
        """Wait for the end; the phases announced until then, and the result (empty after a kill)."""
        rest = [line.decode() for line in self.lines]
        os.waitpid(self.pid, 0)
        self.lines.close()
        result = [line for line in rest if line.startswith("{") and line.endswith("\n")]
        return [line.split() for line in rest if not line.startswith("{")], json.loads(result[0]) if result else {}


def durations_of(phases: list[list[str]]) -> dict[str, list[tuple[int, float]]]:
    """The updates after which each phase began, with the seconds that it took."""
    durations: dict[str, list[tuple[int, float]]] = {}
    for (phase, update, start), (_, _, end) in zip(phases, phases[1:], strict=False):
        durations.setdefault(phase, []).append((int(update), float(end) - float(start)))
    return durations


def kill(child: Child, phase: str, update: int, delay: float) -> tuple[str, str]:
    """Kill a training some time after a phase begins; the phase and update in which it was really hit."""
    line = child.next_line()
    while line and not line.startswith("{") and line.split()[:2] != [phase, str(update)]:
        line = child.next_line()
    time.sleep(delay)
    os.kill(child.pid, signal.SIGKILL)
    later, result = child.end()
    if result or not line or line.startswith("{"):
        return "ended before", ""
    phase, update_reached, _ = ([line.split()] + [words for words in later if len(words) == 3])[-1]
    return phase, update_reached


def next_phase(number: int, counts: Counter[str], kills: int) -> str | None:
    """The phase for the next kill; None after enough, a quarter each while saving and evaluating."""
    if number < kills:
        return PHASES[number % len(PHASES)]
    return next((phase for phase in ("saving", "evaluating") if counts[phase] < kills // 4), None)


def run_one(
    number: int, planned: str, data: Any, folder: Path, whole: dict[str, Any], durations: dict[str, Any]
) -> list[str]:
    """One kill and what became of it: number, phase, update, resumed from, outcome."""
    update, seconds = random.choice(durations[planned])
    run, log = folder / f"run-{number}", folder / f"run-{number}.log"
    phase, reached = kill(Child(partial(train, data, run, False), log), planned, update, random.uniform(0, seconds))
    found = Child(partial(train, data, run, True), log).end()[1]
    reason = found.get("error", "")
    if reason.startswith("FileNotFoundError") and "no complete checkpoint" in reason:
        found = Child(partial(train, data, run, False), log).end()[1]
    start = "new" if reason else f"update {found.get('from')}"
    outcome = "same" if same(whole, found) else f"DIFFERENT: {found.get('error', 'weights, metrics or losses')}"
    if phase != "ended before":
        shutil.rmtree(run)
    return [str(number), phase, reached, start, outcome + (f" ({reason.split(';')[0][-60:]})" if reason else "")]


def same(whole: dict[str, Any], found: dict[str, Any]) -> bool:
    """Whether a training ended with what the one never killed ended with, bit for bit."""
    return all(whole[name] == found.get(name) for name in ("weights", "best", "threshold", "history"))


def main() -> int:
    """Run the program; 0 if every training ended the same."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kills", type=int, default=40)
    parser.add_argument("--seed", type=int, default=0)
    parsed = parser.parse_args()
    random.seed(parsed.seed)
    torch.set_num_threads(1)
    data = make_data()
    with tempfile.TemporaryDirectory(prefix="kills-") as temporary:
        folder = Path(temporary)
        phases, whole = Child(partial(train, data, folder / "whole", False), folder / "whole.log").end()
        if "weights" not in whole:
            sys.exit(f"the training failed: {whole}\n{(folder / 'whole.log').read_text()[-2000:]}")
        durations = durations_of(phases)
        rows = []
        print(f"{'kill':>4}  {'phase':<12}{'update':>6}  {'resumed':<10} result")
        counts: Counter[str] = Counter()
        while (planned := next_phase(len(rows), counts, parsed.kills)) is not None:
            rows.append(run_one(len(rows), planned, data, folder, whole, durations))
            counts[rows[-1][1]] += 1
            number_, phase, reached, start, outcome = rows[-1]
            print(f"{number_:>4}  {phase:<12}{reached:>6}  {start:<10} {outcome}", flush=True)
    failed = [row for row in rows if not row[4].startswith("same")]
    print(f"\n{len(rows)} kills ({', '.join(f'{counts[phase]} {phase}' for phase in counts)}): {len(failed)} differ")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
