"""The model card of a training, and pushing its checkpoints to the Hub."""

import logging
import shutil
from collections.abc import Sequence
from concurrent.futures import Future
from pathlib import Path
from typing import Any

from huggingface_hub import upload_folder
from transformers.trainer_utils import HubStrategy

from sgm_hf.hub import CardFacts, make_model_card
from sgm_hf.training.checkpoints import RECORD, STATE, write_text_atomically
from sgm_hf.training.prediction import evaluation_sets
from sgm_hf.training.private import PushInProgress, TrainerHooks
from sgm_hf.training.streaming import is_stream
from sgm_hf.training.summary import TRAINING_FIELDS, describe_generation, describe_model, package_versions

logger = logging.getLogger(__name__)

# What a checkpoint folder has for resuming only; the rest is the model.
RESUMING_FILES = ("*.pt", "*.pth", "*.bin", STATE, RECORD)


class PushingTrainer(TrainerHooks):
    """A Transformers `Trainer` that writes our model card and pushes whole checkpoints, with tokenizer and code."""

    threshold_dataset: Any
    results: dict[str, dict[str, float]]

    def create_model_card(
        self,
        language: str | Sequence[str] | None = None,
        license: str | None = None,
        tags: str | Sequence[str] | None = None,
        model_name: str | None = None,
        finetuned_from: str | None = None,
        tasks: str | Sequence[str] | None = None,
        dataset_tags: str | Sequence[str] | None = None,
        dataset: str | Sequence[str] | None = None,
        dataset_args: str | Sequence[str] | None = None,
    ) -> None:
        """Write `README.md`, the model card, to `output_dir`.

        Args:
            language: ISO 639 codes.
            license: The model's licence, as the Hub names it.
            tags: Further tags.
            model_name: Default the last part of the repository's or folder's name.
            finetuned_from: The model that training started from; default where this one was loaded from.
            tasks: Not used: the task is always the same.
            dataset_tags: Names of the data sets on the Hub.
            dataset: Their titles, for readers.
            dataset_args: Their configurations.
        """
        if not self.is_world_process_zero():
            return
        folder = Path(self.args.output_dir).absolute()
        repository = self.hub_model_id or self.args.hub_model_id
        config = self.model.config
        origins = (config.name_or_path, getattr(config.encoder_config, "name_or_path", None))
        facts = CardFacts(
            name=model_name or (repository or folder.name).split("/")[-1],
            repository=repository or self.args.output_dir,
            labels=[config.id2label[label] for label in range(config.num_labels)],
            data=self._describe_data(),
            settings=self._describe_settings(),
            versions=package_versions(),
            results=self.results,
            max_words=getattr(self.processing_class, "model_max_length", None),
            images=self.model.encoder.main_input_name == "pixel_values",
            trainer=type(self).__name__ if self.state.global_step else None,
            dataset_names=as_list(dataset),
            dataset_ids=as_list(dataset_tags),
            dataset_configs=as_list(dataset_args),
            language=as_list(language),
            license=license,
            tags=as_list(tags),
            base_model=finetuned_from or next((name for name in origins if name and not Path(name).exists()), None),
        )
        folder.mkdir(parents=True, exist_ok=True)
        write_text_atomically(folder / "README.md", str(make_model_card(facts)))

    def _describe_data(self) -> dict[str, Any]:
        """Counts of the documents of each split."""
        data = self.train_dataset
        if data is None or not self.state.global_step:
            return {}
        counts = {"training documents": "a stream"}
        if not is_stream(data):
            counts = {
                "training documents": f"{len(data):,}",
                "labels per document": f"{sum(map(len, data['labels'])) / max(len(data), 1):.2f}",
            }
            if "input_ids" in data.column_names:
                counts["words per document"] = f"{sum(data['length']) / max(len(data), 1):.1f}"
        others = {**evaluation_sets(self.eval_dataset, "validation"), "threshold": self.threshold_dataset}
        return counts | {f"{name} documents": f"{len(other):,}" for name, other in others.items() if other is not None}

    def _describe_settings(self) -> dict[str, dict[str, Any]]:
        """Model, generation and training settings."""
        settings = {"Model": describe_model(self.model), "Generation": describe_generation(self.model)}
        if not self.state.global_step:
            return settings
        given = self.args.to_dict()
        training = {name: given[name] for name in TRAINING_FIELDS if name in given}
        return settings | {"Training": {**training, "updates": self.state.global_step}}

    def push_checkpoint(self, folder: str) -> None:
        """Push a checkpoint's model while training goes on, in all cases in which Transformers does.

        No pickle is pushed, except those of a checkpoint that is to be resumed from.
        """
        strategy, pushing = self.args.hub_strategy, self.push_in_progress
        if not self.is_world_process_zero() or strategy == HubStrategy.END:
            return
        if pushing is not None and not pushing.is_done() and not self.args.hub_always_push:
            return
        self.callback_handler.on_push_begin(self.args, self.state, self.control)
        output_dir = Path(self.args.output_dir)
        # Copied, because the checkpoint may be deleted before it has been sent.
        shutil.copytree(folder, output_dir, ignore=shutil.ignore_patterns(*RESUMING_FILES), dirs_exist_ok=True)
        message = f"Training in progress, step {self.state.global_step}"
        # Checkpoints of the trials of a search are in folders of the output folder.
        kept_back = ["_*", "checkpoint-*", "*/checkpoint-*"] if self.hp_search_backend else ["_*", "checkpoint-*"]
        jobs = [self._upload(str(output_dir), message, ignore_patterns=kept_back)]
        if strategy in (HubStrategy.CHECKPOINT, HubStrategy.ALL_CHECKPOINTS):
            last = strategy == HubStrategy.CHECKPOINT
            place = "last-checkpoint" if last else Path(folder).name
            jobs.append(self._upload(folder, f"{message}, checkpoint", path_in_repo=place))
        unfinished = [] if pushing is None else [job for job in pushing.jobs if not job.done()]
        self.push_in_progress = PushInProgress([*unfinished, *jobs])

    def _upload(self, folder: str, message: str, **options: Any) -> Future:
        """Send a folder in the background, where one upload is done after the other."""
        job = upload_folder(
            repo_id=self.hub_model_id,
            folder_path=folder,
            commit_message=message,
            token=self.args.hub_token,
            revision=self.args.hub_revision,
            run_as_future=True,
            **options,
        )
        job.add_done_callback(report_failed_push)
        return job


def as_list(value: str | Sequence[str] | None) -> list[str]:
    """A string alone, or several, as a list."""
    return [value] if isinstance(value, str) else list(value or ())


def report_failed_push(job: Future) -> None:
    """Log that a push in the background failed, and why."""
    if not job.cancelled() and job.exception() is not None:
        logger.warning(
            "a checkpoint was not pushed to the Hub, training goes on; the next push sends it too: %s", job.exception()
        )
