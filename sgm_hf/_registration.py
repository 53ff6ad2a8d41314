"""Makes the model family known to Transformers without loading it.

After `import sgm_hf`, Transformers' `AutoConfig`, `AutoModel`, `AutoTokenizer` and `pipeline` know SGM models. Their
registers live in modules that import torch, so filling them at once would turn `import sgm_hf` from a moment into
seconds. Instead each register is filled when Transformers has loaded the module it lives in: immediately if that is so
already, else right after, by a finder on `sys.meta_path` that wraps the module's execution.
"""

import importlib
import sys
from collections.abc import Callable, Sequence
from importlib.abc import MetaPathFinder
from importlib.machinery import ModuleSpec, PathFinder
from types import ModuleType

PIPELINE_TASK = "multi-label-generation"
MODEL_MODULE = "sgm_hf.modeling.modeling_sgm"


def register_with_transformers() -> None:
    """Fill the registers that are loaded, and have the others filled when they are."""
    finder = _RegisterFinder(
        {
            "transformers.models.auto.configuration_auto": _register_config,
            # The model's module loads this one while it is itself being loaded, so the register waits for the model.
            "transformers.models.auto.modeling_auto": lambda: importlib.import_module(MODEL_MODULE),
            MODEL_MODULE: _register_model,
            "transformers.models.auto.tokenization_auto": _register_tokenizer,
            "transformers.pipelines": _register_pipeline,
        }
    )
    sys.meta_path.insert(0, finder)
    for name in list(finder.pending):
        # One may have been taken out meanwhile: filling a register can load the module of another.
        if name in sys.modules and name in finder.pending:
            finder.pending.pop(name)()


class _RegisterFinder(MetaPathFinder):
    """Runs a function after a module has been executed; finds no module itself.

    Args:
        pending: Module names, each with the function to run once after the module.
    """

    def __init__(self, pending: dict[str, Callable[[], object]]):
        self.pending = pending

    def find_spec(
        self, fullname: str, path: Sequence[str] | None = None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        """Return the usual spec with the function behind it, or `None` for a module that is none of ours."""
        if fullname not in self.pending:
            return None
        spec = PathFinder.find_spec(fullname, path, target)
        if spec is None or spec.loader is None:
            return spec
        register = self.pending.pop(fullname)
        execute = spec.loader.exec_module

        def execute_and_register(module: ModuleType) -> None:
            execute(module)
            register()

        spec.loader.exec_module = execute_and_register  # type: ignore[method-assign]
        return spec


# The imports stand in the functions because these run when Transformers is loaded, not when this module is.


def _register_config() -> None:
    from transformers.models.auto.configuration_auto import AutoConfig

    from sgm_hf.modeling.configuration_sgm import SGMConfig

    AutoConfig.register(SGMConfig.model_type, SGMConfig)


def _register_model() -> None:
    from transformers.models.auto.modeling_auto import AutoModel, AutoModelForSeq2SeqLM

    from sgm_hf.modeling.configuration_sgm import SGMConfig
    from sgm_hf.modeling.modeling_sgm import SGMForMultiLabelGeneration

    AutoModel.register(SGMConfig, SGMForMultiLabelGeneration)
    AutoModelForSeq2SeqLM.register(SGMConfig, SGMForMultiLabelGeneration)


def _register_tokenizer() -> None:
    from transformers.models.auto.tokenization_auto import AutoTokenizer

    from sgm_hf.modeling.configuration_sgm import SGMConfig
    from sgm_hf.modeling.tokenization_sgm import SGMTokenizer

    AutoTokenizer.register(SGMConfig, tokenizer_class=SGMTokenizer)


def _register_pipeline() -> None:
    from transformers.models.auto.modeling_auto import AutoModel
    from transformers.pipelines import PIPELINE_REGISTRY

    # Not by register_pipeline(): that needs the class, whose module may be the one that is importing pipelines now.
    # And it marks the class so that after pipe.save_pretrained() all who load the checkpoint must trust remote code.
    PIPELINE_REGISTRY.supported_tasks[PIPELINE_TASK] = {
        "impl": "sgm_hf.modeling.pipeline_sgm.MultiLabelGenerationPipeline",
        "pt": (AutoModel,),
        "type": "text",
    }
