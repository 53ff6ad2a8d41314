"""The model: an encoder, a decoder, and the loss; its `generate()` is in `generation_sgm.py`.

The way of the data: `encoders_sgm.py` turns words into states, `attention_sgm.py` gathers them for each step,
`decoder_sgm.py` makes the steps (Yang et al. 2018, §2).

Shapes: B documents, T words, T' encoder states of size H, L labels, n decoder steps, R decoder rows (B times the beams
or samples of a document, which are adjacent), H_d decoder size, E label embedding size.
"""

import copy
import os
from collections import Counter
from collections.abc import Mapping, Sequence
from functools import reduce
from typing import Any, cast

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import nn
from transformers import AutoModel, PreTrainedTokenizerBase
from transformers import initialization as init
from transformers.modeling_outputs import BaseModelOutput, Seq2SeqLMOutput

from .adapters_sgm import adapted_modules, merged_weights
from .attention_sgm import at_least_float32
from .configuration_sgm import SGMConfig
from .decoder_sgm import SGMDecoder, SGMDecoderState, SGMLabelDecoder
from .encoders_sgm import ENCODERS, SGMEncoder, SGMEncoderOutput, SGMPretrainedEncoder, encoder_of, first_words
from .ensemble_sgm import SGMEnsembleDecoder, SGMEnsembleEncoder, ensemble_config
from .generation_sgm import SGMGenerationMixin, default_generation_config
from .label_texts_sgm import (
    centred,
    check_label_vectors,
    shares_of_labels,
    text_vectors,
    text_words,
    word_likeness,
)
from .lexical_sgm import UNTRAINED_LOG_ODDS, SGMLexicalBranch
from .loading_sgm import check_hashes, check_names, check_values, refuse_pickles, unusable_weights
from .neighbors_sgm import SGMNeighbors
from .private_sgm import LoadingHooks, is_loaded


class SGMPreTrainedModel(LoadingHooks):
    """Weight initialisation and loading."""

    config: SGMConfig
    base_model_prefix = "model"
    main_input_name = "input_ids"
    supports_gradient_checkpointing = True

    @classmethod
    def from_pretrained(
        cls,
        pretrained_model_name_or_path: str | os.PathLike[str] | None,
        *model_args: Any,
        use_safetensors: bool | None = True,
        ignore_mismatched_sizes: bool = False,
        output_loading_info: bool = False,
        **kwargs: Any,
    ) -> Any:
        """Loads a checkpoint from a folder or from the Hub; weights in safetensors only.

        Args:
            pretrained_model_name_or_path: Folder, or name of a repository.
            *model_args: As of every Transformers model, like `kwargs` (`revision`, `dtype`, `device_map`, ...).
            use_safetensors: There is no other choice: a pickle (`pytorch_model.bin`) may run code when it is read.
            ignore_mismatched_sizes: Whether weights that cannot be used are initialised, not refused: those that are
                missing, have another shape than the configuration says, are not of a floating-point type, or hold NaN
                or inf.
            output_loading_info: Whether to return the names of the weights that were missing, unexpected or of another
                shape; missing and unexpected ones are then not refused.

        Returns:
            The model in evaluation mode; with `output_loading_info` a tuple with that.

        Raises:
            RuntimeError: If weights have another shape than the configuration says; the log names them.
            ValueError: If weights in pickle format are asked for; if weights are missing, not expected, not of a
                floating-point type, or not finite.
            OSError: If there is no such checkpoint, or its weights are damaged or not in safetensors.
        """
        refuse_pickles(use_safetensors)
        try:
            model, loading_info = super().from_pretrained(
                pretrained_model_name_or_path,
                *model_args,
                use_safetensors=True,
                ignore_mismatched_sizes=ignore_mismatched_sizes,
                output_loading_info=True,
                **kwargs,
            )
        except SafetensorError as error:
            raise OSError(
                f"The weights of {pretrained_model_name_or_path} are damaged, or not in safetensors format: {error}. "
                "Fetch them again (force_download=True), or take model.safetensors as it was saved."
            ) from error
        # Where there is no checkpoint, the weights are the caller's own state_dict; the rest is initialised.
        if pretrained_model_name_or_path is not None and not (ignore_mismatched_sizes or output_loading_info):
            check_names(pretrained_model_name_or_path, loading_info["missing_keys"], loading_info["unexpected_keys"])
        model.rename_set_decoding()
        return (model, loading_info) if output_loading_info else model

    def save_pretrained(
        self,
        save_directory: str | os.PathLike[str],
        state_dict: dict[str, torch.Tensor] | None = None,
        **kwargs: Any,
    ) -> None:
        """Saves the model; of adapters in its encoder (LoRA) what they add to the weights, so that it loads without.

        Args:
            save_directory: The folder.
            state_dict: Weights to save in place of the model's.
            **kwargs: As of every Transformers model.
        """
        if adapted_modules(self):
            state_dict = merged_weights(self, self.state_dict() if state_dict is None else state_dict)
        super().save_pretrained(save_directory, state_dict=state_dict, **kwargs)

    def usable_state_dict(
        self, files: list[str], checkpoint: Any, ignore_faults: bool
    ) -> dict[str, torch.Tensor] | None:
        """Refuses weights that cannot be used, or with `ignore_faults` leaves them out; see [`LoadingHooks`]."""
        # Transformers reads any numbers: what cannot be used is refused before, or withheld so that it is initialised.
        check_hashes(checkpoint, files)
        faults = unusable_weights(files, self.state_dict().keys())
        if not ignore_faults:
            check_values(checkpoint, faults)
        if not faults:
            return None
        weights = {name: value for file in files for name, value in load_file(file).items()}
        return {name: value for name, value in weights.items() if name not in faults}

    @torch.no_grad()
    def _init_weights(self, module: nn.Module) -> None:
        """Xavier for linear maps, orthogonal recurrences with an open forget gate, small normal embeddings."""
        if isinstance(module, nn.Linear | nn.Conv1d):
            init.xavier_uniform_(module.weight)
            if module.bias is not None:
                init.zeros_(module.bias)
        elif isinstance(module, nn.Embedding):
            init.normal_(module.weight, mean=0.0, std=self.config.initializer_range)
            if module.padding_idx is not None and not is_loaded(module.weight):
                init.zeros_(module.weight[module.padding_idx])
        elif isinstance(module, nn.RNNBase | nn.RNNCellBase):
            for name, parameter in module.named_parameters():
                if name.startswith("weight_ih"):
                    init.xavier_uniform_(parameter)
                elif name.startswith("weight_hh"):
                    init.orthogonal_(parameter)
                elif not is_loaded(parameter):
                    init.zeros_(parameter)
                    if isinstance(module, nn.LSTM | nn.LSTMCell) and name.startswith("bias_ih"):
                        hidden_size = parameter.shape[0] // 4
                        parameter[hidden_size : 2 * hidden_size] = 1.0  # forget gate
        elif isinstance(module, SGMLexicalBranch):  # made on the meta device, it has no values yet
            init.zeros_(module.scale)
            init.zeros_(module.weight)
            init.constant_(module.bias, UNTRAINED_LOG_ODDS)
            init.copy_(module.bigrams, torch.arange(len(module.bigrams)))
        elif isinstance(module, SGMNeighbors):  # likewise: nothing is stored
            for buffer in module.buffers():
                init.zeros_(buffer)


class SGMForMultiLabelGeneration(SGMPreTrainedModel, SGMGenerationMixin):
    """Reads a text and generates its labels one by one (Yang et al. 2018, §2).

    Examples:
        >>> import torch
        >>> from sgm_hf import SGMConfig, SGMForMultiLabelGeneration

        >>> model = SGMForMultiLabelGeneration(SGMConfig(vocab_size=100, num_labels=4))
        >>> output = model(input_ids=torch.tensor([[5, 8, 3]]), labels=torch.tensor([[2, 0, 4]]))  # 2, 0, eos
        >>> output.logits.shape
        torch.Size([1, 3, 5])
    """

    # The loss divides by `num_items_in_batch` itself, so Trainer must not scale it again.
    accepts_loss_kwargs = True

    def __init__(self, config: SGMConfig):
        super().__init__(config)
        self.encoder: SGMEncoder
        self.decoder: SGMLabelDecoder
        if config.members is None:
            self.encoder = ENCODERS[config.encoder](config)
            self.decoder = SGMDecoder(config, self.encoder)
        else:
            self.encoder = SGMEnsembleEncoder(config.member_configs())
            self.decoder = SGMEnsembleDecoder(config.member_configs(), self.encoder)
        self.lexical = None
        if config.lexical_branch:
            self.lexical = SGMLexicalBranch(
                config.vocab_size,
                config.num_labels,
                config.lexical_bigrams,
                config.lexical_neighbors,
                config.lexical_datastore,
            )
        self.generation_config = default_generation_config(config)
        self.post_init()

    @classmethod
    def from_members(cls, models: Sequence["SGMForMultiLabelGeneration"]) -> "SGMForMultiLabelGeneration":
        """Makes one model of several that were trained with other seeds or sizes: it averages their probabilities.

        At each step a label's probability is the mean of the members'; the rest is as in any model. It takes the time
        and memory of all members. The weights are copied. Lexical branch and generation config are those of the first:
        calibrate and fit thresholds anew (`SGMTrainer.calibrate`), since what a single model needs does not fit the
        average.

        Args:
            models: Trained with the same words, labels and, if they have a lexical branch, documents. They may differ
                in all that `MEMBER_SETTINGS` names: sizes and kinds of the parts, `encoder_max_length`,
                `lexical_in_decoder`.

        Returns:
            A model in evaluation mode, on the device of the first.

        Raises:
            ValueError: If there is none, one is such a model itself, or they differ in words, labels or anything else
                that members have in common.

        Examples:
            >>> models = [SGMForMultiLabelGeneration.from_pretrained(f"runs/seed{seed}") for seed in (1, 2, 3)]
            >>> SGMForMultiLabelGeneration.from_members(models).save_pretrained("runs/best")
        """
        model = cls(ensemble_config([one.config for one in models]))
        widest = reduce(torch.promote_types, [one.dtype for one in models])
        model.to(device=models[0].device, dtype=widest)
        for part in ("encoder", "decoder"):
            for member, one in zip(getattr(model, part).members, models, strict=True):
                own = getattr(one, part)
                member.load_state_dict(merged_weights(own, own.state_dict()))  # without adapters
        if model.lexical is not None:
            assert models[0].lexical is not None  # the configurations have lexical_branch in common
            model.lexical.load_state_dict(models[0].lexical.state_dict())
        model.generation_config = copy.deepcopy(models[0].generation_config)
        return model.eval()

    @classmethod
    def from_encoder_pretrained(
        cls, pretrained_model_name_or_path: str | os.PathLike[str], *, encoder_kwargs: Any = None, **settings: Any
    ) -> "SGMForMultiLabelGeneration":
        """Makes a new model around a pre-trained encoder of Transformers, with its weights.

        Of a model with encoder and decoder, such as T5, the encoder is taken. What is saved later holds configuration
        and weights of the encoder: it loads without this checkpoint.

        Args:
            pretrained_model_name_or_path: Folder, or name of a repository; weights in safetensors only.
            encoder_kwargs: Arguments of `AutoModel.from_pretrained`, by name, such as `revision`.
            **settings: Of [`SGMConfig`], such as `id2label`; `encoder_special_tokens` for texts in windows.

        Returns:
            A model in evaluation mode, whose decoder is random.

        Raises:
            ValueError: If the checkpoint lacks weights of the encoder, or `SGMConfig` refuses the settings.
            OSError: If there is no such checkpoint, or its weights are not in safetensors.

        Examples:
            >>> labels = {0: "economy", 1: "sport"}
            >>> model = SGMForMultiLabelGeneration.from_encoder_pretrained("bert-base-uncased", id2label=labels)
        """
        options = {"dtype": torch.float32, **(encoder_kwargs or {})}
        refuse_pickles(options.pop("use_safetensors", True))
        whole, loading_info = AutoModel.from_pretrained(
            pretrained_model_name_or_path, use_safetensors=True, output_loading_info=True, **options
        )
        encoder = encoder_of(whole)
        missing = {name for name, one in whole.named_parameters() if any(one is own for own in encoder.parameters())}
        missing &= set(loading_info["missing_keys"])
        if missing:
            raise ValueError(
                f"The weights of {pretrained_model_name_or_path} lack {len(missing)} of the encoder, such as "
                f"{min(missing)}; give a checkpoint of the whole encoder."
            )
        encoder_config = copy.deepcopy(whole.config)
        if os.path.exists(pretrained_model_name_or_path):
            encoder_config.name_or_path = ""  # a path of this machine tells others nothing
        model = cls(SGMConfig(encoder="pretrained", encoder_config=encoder_config, **settings)).to(encoder.dtype)
        cast(SGMPretrainedEncoder, model.encoder).model.load_state_dict(encoder.state_dict())
        return model.eval()

    @property
    def attends_to_words(self) -> bool:
        """Whether `cross_attentions` has a weight for each word of the text."""
        return self.decoder.attends_to_states and self.encoder.states_are_words

    def get_encoder(self, *args: Any, **kwargs: Any) -> SGMEncoder:
        """The text encoder."""
        return self.encoder

    def get_decoder(self, *args: Any, **kwargs: Any) -> SGMLabelDecoder:
        """The label decoder."""
        return self.decoder

    def get_input_embeddings(self) -> nn.Module:
        """The word embeddings."""
        return self.encoder.get_input_embeddings()

    def set_input_embeddings(self, value: nn.Embedding) -> None:
        """Replaces the word embeddings by `value`; the lexical branch gets as many words, new ones without weight."""
        self.encoder.set_input_embeddings(value)
        if self.lexical is not None and self.lexical.vocab_size != len(value.weight):
            self.lexical.resize_words(len(value.weight))
            self._set_lexical_sizes(self.lexical)

    def set_lexical_branch(self, branch: SGMLexicalBranch, data: str | None = None) -> None:
        """Takes over a lexical branch that was fitted for this model's words and labels.

        Args:
            branch: Of `sgm_hf.training.lexical.fit_lexical_branch`.
            data: What `config.lexical_data` is to say of the documents it was fitted to.

        Raises:
            ValueError: If the model has none to replace, or it is of other words or labels.
        """
        if self.lexical is None:
            raise ValueError("The model has no lexical branch; make it with SGMConfig(lexical_branch=True).")
        found, expected = ((one.vocab_size, one.weight.shape[1]) for one in (branch, self.lexical))
        if found != expected:
            raise ValueError(
                f"The branch is of {found[0]} words and {found[1]} labels, the model of {expected[0]} and "
                f"{expected[1]}; fit it with this model's tokenizer and labels."
            )
        self.lexical = branch.to(self.lexical.weight.device)
        self._set_lexical_sizes(branch)
        self.config.lexical_data = data

    def _set_lexical_sizes(self, branch: SGMLexicalBranch) -> None:
        """Keeps in the configuration what it takes to load a branch."""
        neighbors = branch.neighbors
        self.config.lexical_bigrams = len(branch.bigrams)
        self.config.lexical_neighbors = 0 if neighbors is None else neighbors.num_neighbors
        self.config.lexical_datastore = None if neighbors is None else neighbors.sizes

    def mark_labels_trained(self) -> None:
        """Has `generate()` predict labels that came by `add_labels()`: they are trained from now on.

        `SGMTrainer` calls it when it trains; call it yourself at the first update of a training loop of your own.
        """
        self.config.num_untrained_labels = 0

    @torch.no_grad()
    def set_label_texts(self, texts: Mapping[str, str], tokenizer: PreTrainedTokenizerBase) -> int:
        """Begins the training of a new model with labels that resemble each other as their texts do.

        Label embeddings and output weights become the mean embeddings of the words of the labels' texts, of the length
        that they had. Set the word embeddings before.

        Args:
            texts: The text of each label, such as a description; a label without one is described by its name.
            tokenizer: The model's.

        Returns:
            The number of labels whose texts have words that the tokenizer knows; the others stay as they are.
        """
        words = text_words([texts.get(name, name) for name in self.config.id2label.values()], tokenizer)
        self.set_label_vectors(text_vectors(centred(self.encoder.word_vectors), words))
        return sum(map(bool, words))

    @torch.no_grad()
    def set_label_vectors(self, vectors: torch.Tensor) -> None:
        """Begins the training of a new model with labels that resemble each other as these vectors do.

        Args:
            vectors: Of the labels' texts, from any encoder, (L, any size); a label whose vector is zero stays.

        Raises:
            ValueError: If there is not one for each label, or a number is not finite.
        """
        check_label_vectors(vectors, self.config.num_labels)
        self.decoder.set_label_vectors(vectors.to(self.device))

    @torch.no_grad()
    def add_labels(
        self,
        names: Sequence[str],
        texts: Mapping[str, str] | Sequence[str] | None = None,
        tokenizer: PreTrainedTokenizerBase | None = None,
        vectors: torch.Tensor | None = None,
    ) -> None:
        """Adds labels to a trained model, after those it has; `resize_token_embeddings` is the same for words.

        The labels get the ids from L on, so those of eos, bos and padding rise. Without texts they start as an average
        label. Until they are trained ([`~SGMForMultiLabelGeneration.mark_labels_trained`]), `generate()` leaves them
        out, and so predicts what it predicted before.

        With texts they can be predicted at once, and the predictions of all labels may change: a new label takes over
        embeddings and output weights of the labels whose texts are most like its own, the less of them and the more
        of an average label, the less like they are; in a lexical branch the words of its text, and words that are
        used like them, speak for it.

        Make the trainer or optimizer after this call: it replaces parameters.

        Args:
            names: The new labels.
            texts: The texts of new and known labels by name, or those of the new ones in their order, such as
                descriptions; a label without one is described by its name.
            tokenizer: The model's; needed with `texts`.
            vectors: Vectors of the texts of all labels, the new ones last, (L + number of names, any size), from
                another encoder; by default the mean embeddings of the words. Without `texts` a lexical branch knows
                nothing of the new labels.

        Raises:
            TypeError: If `names` is a single string, or a name is not a string.
            ValueError: If there is none, or one appears twice or is among the labels already; if there are texts
                without a tokenizer, or one without a word that it knows; if vectors are not of all labels.

        Examples:
            >>> model.add_labels(["energy", "climate"])
            >>> model.config.num_untrained_labels
            2
        """
        if isinstance(names, str) or not all(isinstance(name, str) for name in names):
            raise TypeError(f"add_labels() takes a list of names, got {names!r}.")
        known = {*self.config.label2id}
        twice = sorted(name for name, count in Counter(names).items() if name in known or count > 1)
        if not names or twice:
            raise ValueError(
                f"add_labels() got {names!r:.200}, expected new names, each once; not new: {twice!r:.200}."
            )
        shares = likeness = None
        if texts is not None or vectors is not None:
            check_label_vectors(vectors, self.config.num_labels + len(names))
            words = [] if texts is None else self._new_label_words(names, texts, tokenizer)
            shares, likeness = self._shares_and_likeness(words, vectors)  # (m, L), (V, m)
        self.config.id2label = dict(enumerate([*self.config.id2label.values(), *names]))
        self.config.label2id = {name: label_id for label_id, name in self.config.id2label.items()}
        self.config.num_untrained_labels += len(names) if shares is None else 0
        self.decoder.add_labels(len(names), shares)
        if self.lexical is not None:
            self.lexical.add_labels(len(names), shares, likeness)
        thresholds = getattr(self.generation_config, "label_threshold", None)
        if isinstance(thresholds, list | tuple):  # the average here, too
            added = [sum(thresholds) / len(thresholds)] * len(names)
            self.generation_config.label_threshold = [*thresholds, *added]
        bias = getattr(self.generation_config, "lexical_bias", None)
        if bias:
            self.generation_config.lexical_bias = [*bias, *[0.0] * len(names)]
        ids = default_generation_config(self.config)
        for name in ("decoder_start_token_id", "bos_token_id", "eos_token_id", "pad_token_id"):
            setattr(self.generation_config, name, getattr(ids, name))

    def _new_label_words(
        self, names: Sequence[str], texts: Mapping[str, str] | Sequence[str], tokenizer: PreTrainedTokenizerBase | None
    ) -> list[list[int]]:
        """The words of the texts of all labels, the new ones last, (L + m) lists."""
        if tokenizer is None or not isinstance(texts, Mapping) and len(texts) != len(names):
            raise ValueError(
                f"add_labels() got {len(texts)} texts for {len(names)} names and the tokenizer {tokenizer!r:.80}; "
                "give one text for each name, or texts by name, and the tokenizer of the model."
            )
        by_name = texts if isinstance(texts, Mapping) else dict(zip(names, texts, strict=True))
        known = list(self.config.id2label.values())
        words = text_words([by_name.get(name, name) for name in (*known, *names)], tokenizer)
        for name, ids in zip(names, words[len(known) :], strict=True):
            if not ids:
                raise ValueError(
                    f"the text of the new label {name!r}, {by_name.get(name, name)!r:.80}, has no word that the "
                    "tokenizer knows; give another text, or add the label without texts."
                )
        return words

    def _shares_and_likeness(
        self, words: list[list[int]], vectors: torch.Tensor | None
    ) -> tuple[torch.Tensor, torch.Tensor | None]:
        """What new labels take of known ones, (m, L), and how much each word speaks for them, (V, m)."""
        num_known, likeness = self.config.num_labels, None
        if self.config.num_untrained_labels:
            raise ValueError(
                f"{self.config.num_untrained_labels} label(s), up to {self.config.id2label[num_known - 1]!r}, "
                "were added without texts and are not trained; train them first, or add all labels with texts."
            )
        if words:
            word_vectors = centred(self.encoder.word_vectors)  # (V, E)
            of_words = text_vectors(word_vectors, words)  # (L + m, E)
            vectors = of_words if vectors is None else vectors  # (L + m, ...)
            if self.lexical is not None:
                scale = self.lexical.scale[: len(word_vectors)]  # (V)
                likeness = word_likeness(word_vectors, of_words[num_known:], words[num_known:], scale)  # (V, m)
        vectors = cast(torch.Tensor, vectors).to(self.device)  # (L + m, ...)
        return shares_of_labels(vectors[num_known:], vectors[:num_known]), likeness

    def freeze_encoder(self) -> None:
        """Keeps the word embeddings and the encoder as they are: training moves the decoder only."""
        self.encoder.requires_grad_(False)

    def prepare_decoder_input_ids_from_labels(self, labels: torch.Tensor) -> torch.Tensor:
        """Shifts `labels` (B, n) to the right behind bos; -100 becomes decoder padding."""
        start = labels.new_full((labels.shape[0], 1), self.config.bos_label_id)  # (B, 1)
        shifted = torch.cat([start, labels[:, :-1]], dim=1)  # (B, n)
        return shifted.masked_fill(shifted == -100, self.config.pad_label_id)  # (B, n)

    def encode(
        self,
        input_ids: torch.Tensor | None = None,
        attention_mask: torch.Tensor | None = None,
        inputs_embeds: torch.Tensor | None = None,
        lexical_logits: torch.Tensor | None = None,
        run_lexical_branch: bool = True,
        **kwargs: Any,
    ) -> SGMEncoderOutput:
        """Runs the encoder over the beginning of each text, and the lexical branch over all of it.

        Args:
            input_ids: Word ids, padded on the right, (B, T) int64.
            attention_mask: 1 for words, 0 for padding, (B, T); by default, what is not the padding word.
            inputs_embeds: In place of `input_ids`, (B, T, embedding_size).
            lexical_logits: In place of what the branch says, (B, L): in training, what a branch says that was fitted
                without the document.
            run_lexical_branch: Whether the branch, if there is one, is run where `lexical_logits` is not given.
            **kwargs: Passed to the encoder.

        Raises:
            ValueError: If the branch has no words to read, or there is no branch that could use `lexical_logits`.
        """
        if self.lexical is None and lexical_logits is not None:
            raise ValueError("lexical_logits is given, but the model has no lexical branch; leave it out.")
        if self.lexical is not None and lexical_logits is None and run_lexical_branch:
            if input_ids is None:
                raise ValueError("The lexical branch reads words: give input_ids, or lexical_logits in its place.")
            mask = attention_mask  # (B, T)
            if mask is None and self.config.pad_token_id is not None:
                mask = input_ids.ne(self.config.pad_token_id)  # (B, T)
            lexical_logits = self.lexical(input_ids, mask)  # (B, L)
        texts = {"input_ids": input_ids, "attention_mask": attention_mask, "inputs_embeds": inputs_embeds, **kwargs}
        encoded = self.encoder(**first_words(texts, self.config.encoder_max_length))
        if lexical_logits is not None:
            encoded.lexical_logits = lexical_logits.float()  # (B, L)
        return encoded

    def start_decoding(
        self,
        encoder_outputs: BaseModelOutput | tuple,
        attention_mask: torch.Tensor | None = None,
        num_rows: int | None = None,
        leave_out_untrained: bool = True,
    ) -> SGMDecoderState:
        """The decoder's state before its first step.

        Args:
            encoder_outputs: What the encoder returned for B documents, or their states (B, T', H) alone where the
                encoder can complete them.
            attention_mask: Which of such states exist, (B, T'); all by default.
            num_rows: R; B by default.
            leave_out_untrained: Whether labels that were added and not trained get no probability.
        """
        if not isinstance(encoder_outputs, SGMEncoderOutput):
            states = encoder_outputs[0]  # (B, T', H)
            mask = states.new_ones(states.shape[:2]) if attention_mask is None else attention_mask  # (B, T')
            encoder_outputs = self.encoder.output(states, mask.bool())
        return self.decoder.start(
            encoder_outputs,
            len(encoder_outputs[0]) if num_rows is None else num_rows,
            self.config.num_untrained_labels if leave_out_untrained else 0,
        )

    def forward(
        self,
        input_ids: torch.Tensor | None = None,
        attention_mask: torch.Tensor | None = None,
        decoder_input_ids: torch.Tensor | None = None,
        labels: torch.Tensor | None = None,
        encoder_outputs: BaseModelOutput | tuple | None = None,
        past_key_values: SGMDecoderState | None = None,
        inputs_embeds: torch.Tensor | None = None,
        use_cache: bool | None = None,
        output_attentions: bool | None = None,
        output_hidden_states: bool | None = None,
        return_dict: bool | None = None,
        label_smoothing: float = 0.0,
        num_items_in_batch: torch.Tensor | int | None = None,
        label_weights: torch.Tensor | None = None,
        focal_gamma: float = 0.0,
        binary_cross_entropy: bool = False,
        **kwargs: Any,
    ) -> Seq2SeqLMOutput | tuple:
        """Scores label sequences.

        Args:
            input_ids: Word ids, padded on the right, (B, T) int64.
            attention_mask: 1 for words, 0 for padding, (B, T); by default, what is not the padding word.
            decoder_input_ids: bos, then labels, (R, n) int64; by default `labels` shifted.
            labels: Gold labels, then eos, then -100, (B, n) int64.
            encoder_outputs: What the encoder returned for these texts.
            past_key_values: Continue from this state, which is updated.
            inputs_embeds: In place of `input_ids`, (B, T, embedding_size).
            use_cache: Whether to return the decoder state; like the next three as the configuration says by default.
            output_attentions: Whether to return the attention weights.
            output_hidden_states: Whether to return encoder and decoder states.
            return_dict: Whether to return a `ModelOutput` or a tuple.
            label_smoothing: Share of the target spread evenly over the labels that the mask allows.
            num_items_in_batch: Divide the summed loss by this, not by the number of target labels; `Trainer` gives it
                under gradient accumulation.
            label_weights: Factors on the losses of the targets, by label, that of eos last, (L + 1); 1 by default.
            focal_gamma: γ of the focal loss, see `label_loss`.
            binary_cross_entropy: Whether the loss is binary cross-entropy, see `label_loss`.
            **kwargs: Passed to [`~SGMForMultiLabelGeneration.encode`].

        Returns:
            `loss` (token cross-entropy, nats); `logits` (R, n, L + 1), -inf for masked labels; `past_key_values`;
            `encoder_last_hidden_state` (B, T', H), unless the encoder's output was not at hand; on request
            `cross_attentions` (one tensor (R, n, T')), `decoder_hidden_states` (g(y_{t-1}) (R, n, E), then one tensor
            (R, n, H_d) per layer) and the `encoder_hidden_states` of the encoder.

        Raises:
            ValueError: If there is nothing to decode, neither `labels` nor `decoder_input_ids`; if `labels` asks for a
                label that the mask excludes, as one that appears twice in a row.
        """
        config = self.config
        use_cache = config.use_cache if use_cache is None else use_cache
        output_attentions = config.output_attentions if output_attentions is None else output_attentions
        output_hidden_states = config.output_hidden_states if output_hidden_states is None else output_hidden_states
        return_dict = config.return_dict if return_dict is None else return_dict
        if decoder_input_ids is None:
            if labels is None:
                raise ValueError("forward() needs labels or decoder_input_ids; to predict labels call generate().")
            decoder_input_ids = self.prepare_decoder_input_ids_from_labels(labels)  # (B, n)
        if past_key_values is None:
            if encoder_outputs is None:
                inputs = {"input_ids": input_ids, "attention_mask": attention_mask, "inputs_embeds": inputs_embeds}
                # The branch beside the decoder has no say in the logits of sequences.
                encoder_outputs = self.encode(
                    **inputs,
                    run_lexical_branch=config.lexical_in_decoder,
                    output_hidden_states=output_hidden_states,
                    **kwargs,
                )
            past_key_values = self.start_decoding(
                encoder_outputs,
                attention_mask,
                num_rows=decoder_input_ids.shape[0],
                leave_out_untrained=not self.training and labels is None,  # a loss wants them
            )
        logits, attentions, hidden_states = self.decoder(
            decoder_input_ids, past_key_values, output_hidden_states
        )  # (R, n, L + 1), (R, n, T'), ...

        loss = None
        if labels is not None:
            loss = label_loss(
                logits, labels, label_smoothing, num_items_in_batch, label_weights, focal_gamma, binary_cross_entropy
            )
        output = Seq2SeqLMOutput(
            loss=loss,
            logits=logits,
            past_key_values=past_key_values if use_cache else None,
            decoder_hidden_states=hidden_states,
            cross_attentions=(attentions,) if output_attentions and attentions is not None else None,
            encoder_last_hidden_state=None if encoder_outputs is None else encoder_outputs[0],
            encoder_hidden_states=getattr(encoder_outputs, "hidden_states", None),
        )
        return output if return_dict else output.to_tuple()


def label_loss(
    logits: torch.Tensor,
    labels: torch.Tensor,
    label_smoothing: float = 0.0,
    num_items_in_batch: torch.Tensor | int | None = None,
    label_weights: torch.Tensor | None = None,
    focal_gamma: float = 0.0,
    binary_cross_entropy: bool = False,
) -> torch.Tensor:
    """Token cross-entropy of the gold labels and eos (Yang et al. 2018, §2.2).

    Args:
        logits: -inf for masked labels, (B, n, L + 1).
        labels: Targets, (B, n) int64; -100 is ignored.
        label_smoothing: Share of the target spread evenly over what is not masked.
        num_items_in_batch: Divisor of the sum; the number of targets by default, whatever they weigh.
        label_weights: Factor on a target's loss, its smoothing included, by label, that of eos last, (L + 1).
        focal_gamma: γ of the focal loss -(1 - p)^γ log p, in place of -log p (Lin et al. 2017, eq. 4); 0 is none.
        binary_cross_entropy: Whether -log(1 - p) of all labels that are not the target is added, so that the loss of a
            step is the binary cross-entropy of its distribution (Patel, SGM-MLC, "Training").

    Returns:
        A scalar, in nats.

    Raises:
        ValueError: If a target is masked, so that its loss would be infinite.
    """
    log_probs = at_least_float32(logits).log_softmax(dim=-1)  # (B, n, L + 1)
    is_target = labels != -100  # (B, n)
    target = labels.where(is_target, 0)  # (B, n)
    losses = -log_probs.gather(-1, target[..., None]).squeeze(-1)  # (B, n)
    is_masked_target = is_target & losses.isposinf()  # (B, n)
    if is_masked_target.any():  # waits for a GPU once a pass, as whoever looks at the loss does
        row, place = is_masked_target.nonzero()[0].tolist()
        raise ValueError(
            f"Row {row} of labels asks for the label {int(labels[row, place])} at place {place}, which the label mask "
            f"excludes there: {labels[row].tolist()!r:.200}. Give each label of a document once, or switch the mask "
            "off (config.label_mask)."
        )
    if focal_gamma:
        log_p = -losses.masked_fill(~is_target, 0.0)  # (B, n)
        # Never 0, at which a power below 1 has no gradient.
        miss = (-log_p.expm1()).clamp(min=torch.finfo(log_p.dtype).tiny)  # (B, n), 1 - p
        losses = -(miss**focal_gamma) * log_p  # (B, n)
    if label_smoothing:
        is_masked = logits == float("-inf")  # (B, n, L + 1)
        spread = -log_probs.masked_fill(is_masked, 0.0).sum(dim=-1) / (~is_masked).sum(dim=-1)  # (B, n)
        losses = (1 - label_smoothing) * losses + label_smoothing * spread  # (B, n)
    if binary_cross_entropy:
        losses = losses + other_label_losses(log_probs, target)  # (B, n)
    losses = losses.masked_fill(~is_target, 0.0)  # (B, n)
    if label_weights is not None:
        losses = losses * label_weights.view(-1)[target]  # (B, n)
    total = losses.sum()
    return total / (is_target.sum().clamp(min=1) if num_items_in_batch is None else num_items_in_batch)


def other_label_losses(log_probs: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
    """What binary cross-entropy adds to cross-entropy: -Σ log(1 - p_i) over all but the target.

    Args:
        log_probs: Of each step, (B, n, L + 1); -inf for masked labels, which cost nothing.
        target: Label ids, (B, n) int64.

    Returns:
        (B, n), in nats.
    """
    columns = torch.arange(log_probs.shape[-1], device=target.device)  # (L + 1)
    is_left_out = log_probs.isneginf() | (columns == target[..., None])  # (B, n, L + 1)
    log_p = log_probs.masked_fill(is_left_out, -1.0)  # (B, n, L + 1)
    # Never 0, so that a label that is certain and wrong costs a finite loss.
    rest = (-log_p.expm1()).clamp(min=torch.finfo(log_p.dtype).tiny)  # (B, n, L + 1), 1 - p
    return -rest.log().masked_fill(is_left_out, 0.0).sum(dim=-1)  # (B, n)


__all__ = ["SGMForMultiLabelGeneration", "SGMPreTrainedModel"]
