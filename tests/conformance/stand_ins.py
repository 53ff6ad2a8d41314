"""Stand-ins for modules that Transformers' common tests import and that are not in the source distribution.

The distribution has the files directly under `tests/`, not those of its sub-folders. Import this module before any of
them. A stand-in has no test; `not_applicable.toml` and the report say which suites are therefore not run.
"""

import json
import os
import sys
import tempfile
from pathlib import Path
from types import ModuleType
from typing import Any

import transformers
import transformers.utils

# Values that differ from the defaults, for each argument that every configuration takes.
COMMON_CONFIG_ARGUMENTS: dict[str, Any] = {
    "architectures": ["SGMForMultiLabelGeneration"],
    "chunk_size_feed_forward": 4,
    "dtype": "float16",
    "id2label": {0: "one"},
    "is_encoder_decoder": False,
    "label2id": {"one": 0},
    "output_hidden_states": True,
    "problem_type": "multi_label_classification",
    "return_dict": False,
}


class GenerationTesterMixin:
    """In place of `tests/generation/test_utils.py`."""


class ExportTesterMixin:
    """In place of `tests/exporters/test_export.py`."""


def stand_in(name: str, **content: Any) -> None:
    """Make a module of that name importable."""
    module = ModuleType(name)
    vars(module).update(content)
    sys.modules[name] = module


def prepare() -> None:
    """Make the common tests importable."""
    for package in ("generation", "exporters", "utils"):
        stand_in(f"tests.{package}", __path__=[])
    stand_in("tests.generation.test_utils", GenerationTesterMixin=GenerationTesterMixin)
    stand_in("tests.exporters.test_export", ExportTesterMixin=ExportTesterMixin)
    stand_in("tests.utils.test_configuration_utils", config_common_kwargs=COMMON_CONFIG_ARGUMENTS)
    # They import the package from the source tree, which is missing here.
    transformers.utils.direct_transformers_import = lambda *args, **kwargs: transformers
    # The folder in which they look for the small models of the pipeline tests and for their list.
    folder = tempfile.mkdtemp()
    os.environ["TRANSFORMERS_TINY_MODEL_PATH"] = folder
    summary = Path(folder, "reports", "tiny_model_summary.json")
    summary.parent.mkdir()
    own = {"tokenizer_classes": ["SGMTokenizer"], "processor_classes": [], "model_classes": []}
    summary.write_text(json.dumps({"SGMForMultiLabelGeneration": own}), encoding="utf-8")


prepare()
