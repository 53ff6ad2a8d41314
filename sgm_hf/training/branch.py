"""The lexical branch in training: fitted before the first update, and asked for what it says without a document."""

import logging
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from datasets import Dataset

from sgm_hf.modeling import SGMForMultiLabelGeneration
from sgm_hf.training.arguments import SGMTrainingArguments
from sgm_hf.training.fingerprint import hash_dataset
from sgm_hf.training.lexical import (
    FOLDS_FILE,
    LexicalFit,
    LexicalSettings,
    choose_lexical_settings,
    fit_lexical_branch,
)
from sgm_hf.training.private import TrainerHooks
from sgm_hf.training.streaming import is_stream

logger = logging.getLogger(__name__)


class BranchTrainer(TrainerHooks):
    """A Transformers `Trainer` that fits its model's lexical branch before it trains the rest."""

    args: SGMTrainingArguments
    model: SGMForMultiLabelGeneration
    lexical_fit: LexicalFit | None = None
    threshold_dataset: Dataset | None

    def set_up_training(self, trial: Any) -> None:
        """As Transformers'; then fit the branch, with a trial's settings and before a checkpoint is compared."""
        super().set_up_training(trial)
        self.fit_lexical_branch()

    def fit_lexical_branch(self) -> None:
        """Fit the branch to the training documents, or read from `output_dir` the fit to the same documents.

        A branch that was fitted to other documents stays as it is, unless the settings say `refit_lexical_branch`:
        it has not seen these, so what it says of them can be trained on.

        Raises:
            ValueError: If the training documents are a stream, to which no branch can be fitted.
        """
        self.lexical_fit = None
        config = self.model.config
        if not config.lexical_branch or self.train_dataset is None:
            return
        if is_stream(self.train_dataset):
            if config.lexical_data is None:
                raise ValueError(
                    "the model has a lexical branch, which is fitted to all training documents several times, but "
                    "they are a stream; load them as a Dataset, or make the model without lexical_branch."
                )
            return
        data_hash = hash_dataset(self.train_dataset)
        if config.lexical_data not in (None, data_hash) and not self.args.refit_lexical_branch:
            logger.info("the lexical branch stays as it was fitted to other documents (refit_lexical_branch is false)")
            return
        # One process fits, the others read what it has written.
        with self.args.main_process_first(local=False, desc="fitting the lexical branch"):
            self.lexical_fit = self._stored_fit(data_hash) or self._fit_branch()
        self.model.set_lexical_branch(self.lexical_fit.branch(), data_hash)

    def _stored_fit(self, data_hash: str) -> LexicalFit | None:
        """The fit that this training, or the one it goes on from, has written."""
        if not Path(self.args.output_dir, FOLDS_FILE).is_file():
            return None
        fit = LexicalFit.load(self.args.output_dir)
        num_bigrams = self.model.config.lexical_bigrams
        weight = self.args.lexical_bigram_weight if num_bigrams else 0.0
        asked = (self.args.lexical_cost, weight, self.args.lexical_folds)
        found = (fit.settings.cost, fit.settings.bigram_weight, fit.settings.num_folds)
        is_asked = all(value in (None, other) for value, other in zip(asked, found, strict=True))
        # A model that has the branch already says how many bigrams were found, a new one how many are asked for.
        is_asked &= num_bigrams in (fit.num_bigrams, fit.settings.max_bigrams)
        is_asked &= self.model.config.lexical_neighbors in (fit.num_neighbors, fit.settings.num_neighbors)
        is_same = fit.data_hash == data_hash and len(fit.bias) == self.model.config.num_labels
        return fit if is_same and is_asked else None

    def _fit_branch(self) -> LexicalFit:
        """Choose the settings that are not given, fit, and write the fit to `output_dir`."""
        config, shown = self.model.config, self.is_world_process_zero()
        progress: dict[str, Any] = {
            "show_progress": shown and not self.args.disable_tqdm,
            "show_lines": shown and bool(self.args.disable_tqdm),
        }
        cost, weight = self.args.lexical_cost, self.args.lexical_bigram_weight
        weights = ((0.0, 0.5) if weight is None else (weight,)) if config.lexical_bigrams else (0.0,)
        settings = LexicalSettings(
            max_bigrams=max(1, config.lexical_bigrams),
            num_folds=self.args.lexical_folds,
            num_neighbors=config.lexical_neighbors,
            seed=self.args.seed,
        )
        if cost is None or len(weights) > 1:
            costs: dict[str, Any] = {} if cost is None else {"costs": (cost,)}
            settings = choose_lexical_settings(
                self.train_dataset,
                config.vocab_size,
                config.num_labels,
                validation=self.threshold_dataset or self.labelled_eval_dataset(),
                settings=settings,
                bigram_weights=weights,
                **costs,
                **progress,
            )
        else:
            settings = replace(settings, cost=cost, bigram_weight=weights[0])
        logger.info("lexical branch: cost %g, bigram weight %g", settings.cost, settings.bigram_weight)
        fit = fit_lexical_branch(self.train_dataset, config.vocab_size, config.num_labels, settings, **progress)
        if self.args.should_save:
            Path(self.args.output_dir).mkdir(parents=True, exist_ok=True)
            fit.save(self.args.output_dir)
        return fit

    def labelled_eval_dataset(self) -> Dataset | None:
        """The data set of evaluation, if there is one only and it has labels."""
        dataset = self.eval_dataset
        if not isinstance(dataset, Dataset) or "labels" not in dataset.column_names:
            return None
        return dataset

    def with_lexical_logits(self, inputs: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
        """The inputs of a training batch, in which the documents' row numbers become their out-of-fold log-odds."""
        others = {name: tensor for name, tensor in inputs.items() if name != "index"}
        if self.lexical_fit is None or not self.model.config.lexical_in_decoder:
            return others
        if "index" not in inputs:
            raise ValueError(
                "a batch has no index, the row numbers of its documents, by which the lexical branch knows what it "
                "may say of each; give SGMTrainer no data_collator, or one that keeps the index."
            )
        log_odds = self.lexical_fit.out_of_fold_log_odds(
            inputs["input_ids"], inputs.get("attention_mask"), inputs["index"]
        )
        return {**others, "lexical_logits": log_odds}
