"""Label the documents of a file of any size with a trained model.

  sgm-hf predict runs/my new.csv
  sgm-hf predict runs/my new.csv --top_k 5 --include_text
  sgm-hf predict runs/my new.jsonl.gz --output labelled.csv --num_beams 1

FILE has texts or, for a model that reads images, the paths of images in the
column --image_column, from its own folder.

A line of the output has id, labels and their scores, in the order of the file;
what --output ends in, .jsonl, .csv or .tsv, is its format. After an
interruption or a kill the same command goes on where it was. What the output
was made with is in OUTPUT.progress.json, which has to stay beside it for that.
"""

from collections.abc import Sequence

from transformers.utils import logging as transformers_logging

from sgm_hf.programs import (
    CommandParser,
    LabelledFile,
    add_labelling_options,
    exit_on_signals,
    label_file,
    log_to_stderr,
)
from sgm_hf.training import prepare_cpu


def main(arguments: Sequence[str]) -> LabelledFile:
    """Run the command.

    Returns:
        What was done.
    """
    parser = CommandParser("predict", __doc__, usage="sgm-hf predict MODEL FILE [OPTIONS]")
    parser.add_argument("model", metavar="MODEL", help="Checkpoint folder, or the name of a model on the Hub.")
    parser.add_argument("file", metavar="FILE", help="Documents: .csv, .tsv, .jsonl, .json (all also .gz), .parquet.")
    parser.add_argument("--output", metavar="FILE", help="Default: FILE.predictions.jsonl, without FILE's extension.")
    parser.add_argument(
        "--num_threads", type=int, metavar="NUMBER", help="Threads of PyTorch. Default: its own choice."
    )
    add_labelling_options(parser)
    options = vars(parser.parse_args(arguments))
    num_threads = options.pop("num_threads")
    if num_threads is not None and num_threads < 1:
        raise ValueError(f"--num_threads is {num_threads}; it must be at least 1, or left out.")
    log_to_stderr()
    transformers_logging.disable_progress_bar()
    prepare_cpu(num_threads)
    again = [word for word in arguments if word != "--overwrite"]
    with exit_on_signals(["sgm-hf", "predict", *again]):
        done = label_file(**options)
    print(described(done))
    return done


def described(done: LabelledFile) -> str:
    """What was done, in a line."""
    if not done.labelled_now:
        return f"{done.output} has all {done.documents:,} documents already; --overwrite labels them anew."
    rate = done.labelled_now / done.seconds
    kept = f" ({done.documents - done.labelled_now:,} more were there)" if done.documents > done.labelled_now else ""
    return f"{done.output}: {done.labelled_now:,} documents labelled{kept}, {rate:,.1f} per second."
