"""What the package takes from Transformers, Accelerate and the Hub's client that these do not document.

All of it is in two files, one per side, because the model family travels to the Hub without the library. A release
that lacks a name fails the test of that name, before anything else of ours fails in a riddle.
"""

import ast
import inspect
import re
from importlib import import_module
from pathlib import Path

import pytest
import torch
import transformers
from datasets import DatasetBuilder
from evaluate import Metric
from transformers import GenerationMixin, Pipeline, PreTrainedModel, Trainer

ROOT = Path(__file__).resolve().parents[1]
PACKAGES = {"modeling": "sgm_hf.modeling", "sgm_hf": "sgm_hf", "datasets_scripts": "sgm_hf.datasets_scripts"}
PRIVATE_FILES = {"modeling/private_sgm.py", "sgm_hf/training/private.py"}

# Method -> the arguments with which it is called or calls ours, in the order of those given by place.
METHODS = {
    (PreTrainedModel, "_load_pretrained_model"): "model state_dict checkpoint_files load_config",
    (GenerationMixin, "_supports_default_dynamic_cache"): "",
    (GenerationMixin, "_prepare_generation_config"): "self generation_config kwargs",
    (GenerationMixin, "_expand_inputs_for_generation"): "expand_size is_encoder_decoder input_ids model_kwargs",
    (GenerationMixin, "_beam_search"): (
        "self input_ids logits_processor stopping_criteria generation_config synced_gpus model_kwargs"
    ),
    (GenerationMixin, "_get_top_k_continuations"): "accumulated_log_probs",
    (GenerationMixin, "_update_finished_beams"): (
        "is_sent_finished early_stopping next_token_hits_stopping_criteria top_num_beam_mask topk_log_probs "
        "is_early_stop_heuristic_unsatisfied beam_scores"
    ),
    (GenerationMixin, "_check_early_stop_heuristic"): "is_sent_finished",
    (Trainer, "_hp_search_setup"): "self trial",
    (Trainer, "_init_training_state"): (
        "self max_steps num_update_steps_per_epoch num_train_epochs resume_from_checkpoint trial"
    ),
    (Trainer, "_load_from_checkpoint"): "self resume_from_checkpoint model",
    (Trainer, "_load_best_model"): "self",
    (Trainer, "_load_optimizer_and_scheduler"): "self checkpoint",
    (Trainer, "_get_grad_norm"): "self model grad_norm",
    (Trainer, "_get_num_items_in_batch"): "self batch_samples device",
    (Trainer, "_get_output_dir"): "self trial",
    (Trainer, "_save_checkpoint"): "self model trial",
    (Trainer, "_save_rng_state"): "self output_dir",
    (Trainer, "_save"): "self output_dir state_dict",
    (Trainer, "_push_from_checkpoint"): "self checkpoint_folder",
}
# Attribute -> the module of Transformers or PyTorch that gives it to its objects.
ATTRIBUTES = {
    "_is_stateful": "transformers.generation.utils",
    "_is_hf_initialized": "transformers.initialization",
    "_commit_hash": "transformers.configuration_utils",
    "_train_batch_size": "transformers.trainer",
    "_tr_loss": "transformers.trainer",
    "_globalstep_last_logged": "transformers.trainer",
    "_created_lr_scheduler": "transformers.trainer",
    "_last_lr": "torch.optim.lr_scheduler",
}
# Of Python's own library, where they may be touched anywhere.
PYTHONS = {
    "_actions": "argparse",
    "_SubParsersAction": "argparse",
    "_asdict": "collections",
    "_fields": "collections",
    "_replace": "collections",
}
CLASSES = {"PushInProgress": "transformers.utils.hub"}

# Begin with an underscore, and are what the documentation has those override who write a model, a pipeline, a metric
# or a data set.
DOCUMENTED = {
    PreTrainedModel: {"_init_weights"},
    Pipeline: {
        *("_sanitize_parameters", "_forward"),
        *("_load_tokenizer", "_load_processor", "_load_image_processor", "_load_feature_extractor"),
        "_load_video_processor",
    },
    Metric: {"_info", "_compute"},
    DatasetBuilder: {"_info", "_split_generators", "_generate_examples"},
}


def sources() -> dict[str, str]:
    """The text of each file of the package, by its path."""
    files = [file for folder in PACKAGES for file in sorted((ROOT / folder).rglob("*.py"))]
    return {str(file.relative_to(ROOT)): file.read_text(encoding="utf-8") for file in files}


def is_private(name: str) -> bool:
    return re.match("_[a-zA-Z]", name) is not None


def names_touched(text: str, own: set[str]) -> set[str]:
    """Names with an underscore that a file looks up, sets or spells as a string, but for those of the package."""
    found = set()
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.Attribute):
            found.add(node.attr)
        elif isinstance(node, ast.Call) and getattr(node.func, "id", "") in ("getattr", "setattr", "hasattr"):
            found |= {argument.value for argument in node.args if isinstance(argument, ast.Constant)}
        elif isinstance(node, ast.ImportFrom) and node.level == 0:
            found |= {alias.name for alias in node.names}
    return {name for name in found if isinstance(name, str) and is_private(name)} - own


def names_made(text: str) -> set[str]:
    """Functions, classes and attributes with an underscore that a file makes itself."""
    found = set()
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.FunctionDef | ast.ClassDef):
            found.add(node.name)
        elif isinstance(node, ast.Name | ast.Attribute) and isinstance(node.ctx, ast.Store):
            if isinstance(node, ast.Name) or getattr(node.value, "id", "") == "self":
                found.add(node.id if isinstance(node, ast.Name) else node.attr)
    return {name for name in found if is_private(name)}


def names_overridden(file: str) -> set[str]:
    """Names with an underscore that classes of a file have in place of those of other packages."""
    if file.endswith("__main__.py"):
        return set()  # runs when it is imported
    folder, _, path = file.partition("/")
    module = import_module(".".join([PACKAGES[folder], *Path(path).with_suffix("").parts]).removesuffix(".__init__"))
    nodes = ast.walk(ast.parse((ROOT / file).read_text(encoding="utf-8")))
    texts = {node.name: ast.unparse(node) for node in nodes if isinstance(node, ast.ClassDef)}
    found = set()
    for made in [value for value in vars(module).values() if inspect.isclass(value)]:
        if made.__module__ != module.__name__ or made.__name__ not in texts:
            continue
        bases = [base for base in made.__mro__[1:] if not base.__module__.startswith(("sgm_hf", "builtins"))]
        documented = set().union(*(names for base, names in DOCUMENTED.items() if issubclass(made, base)))
        in_text = names_made(texts[made.__name__])  # not what a library sets on a class afterwards
        theirs = {name for base in bases for name in vars(base)}
        found |= in_text & theirs & set(vars(made)) - documented
    return found


def test_private_names_are_touched_in_two_files_only():
    texts = sources()
    private = {name for _, name in METHODS} | set(ATTRIBUTES)
    own = set().union(*map(names_made, texts.values())) - private | set(PYTHONS)
    found = {file: names_touched(text, own) | names_overridden(file) for file, text in texts.items()}
    assert {file for file, names in found.items() if names} == PRIVATE_FILES, found
    assert set().union(*found.values()) == private


@pytest.mark.parametrize(("owner", "name"), METHODS, ids=lambda part: getattr(part, "__name__", part))
def test_transformers_has_the_private_method_with_these_arguments(owner, name):
    fault = f"transformers {transformers.__version__}: {owner.__name__}.{name} is not what {PRIVATE_FILES} expect"
    assert callable(getattr(owner, name, None)), f"{fault}: it is not there."
    parameters = inspect.signature(getattr(owner, name)).parameters
    expected = METHODS[owner, name].split()
    assert set(expected) <= set(parameters), f"{fault}: it takes {list(parameters)}."
    if expected[:1] in (["self"], ["model"]):  # these are given by place
        assert list(parameters)[: len(expected)] == expected, f"{fault}: it takes {list(parameters)}."


@pytest.mark.parametrize(("name", "module"), [*ATTRIBUTES.items(), *PYTHONS.items()])
def test_the_library_has_the_private_attribute(name, module):
    text = inspect.getsource(import_module(module))
    releases = f"torch {torch.__version__}, transformers {transformers.__version__}"
    assert re.search(rf"\b{name}\b", text), f"{releases}: {module} has no {name}, which {PRIVATE_FILES} use."


@pytest.mark.parametrize("name", CLASSES)
def test_the_library_has_the_class(name):
    assert inspect.isclass(getattr(import_module(CLASSES[name]), name, None)), f"{CLASSES[name]} has no {name}."
