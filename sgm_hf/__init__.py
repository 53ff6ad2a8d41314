"""Multi-label text classification by sequence generation (SGM) on Hugging Face libraries.

Importing this package makes SGM models known to Transformers: `AutoModel`, `AutoTokenizer`,
`pipeline("multi-label-generation")`.
"""

from transformers import AutoConfig, AutoModel, AutoModelForSeq2SeqLM, AutoTokenizer
from transformers.pipelines import PIPELINE_REGISTRY

from sgm_hf.data.encoding import encode_dataset
from sgm_hf.data.files import load_files
from sgm_hf.data.images import encode_images, load_images
from sgm_hf.data.labels import label_sets_of, order_label_names
from sgm_hf.datasets_scripts import load as load_corpus
from sgm_hf.metrics import compute_metrics, fit_threshold
from sgm_hf.modeling import MultiLabelGenerationPipeline, SGMConfig, SGMForMultiLabelGeneration, SGMTokenizer
from sgm_hf.training import (
    OrderFreeTrainer,
    SamplingArguments,
    SelfCriticalTrainer,
    SGMTrainer,
    SGMTrainingArguments,
    ppmi_vectors,
    set_word_vectors,
    vectors_from_file,
)

__version__ = "0.1.0"

__all__ = [
    "MultiLabelGenerationPipeline",
    "OrderFreeTrainer",
    "SGMConfig",
    "SGMForMultiLabelGeneration",
    "SGMTokenizer",
    "SGMTrainer",
    "SGMTrainingArguments",
    "SamplingArguments",
    "SelfCriticalTrainer",
    "compute_metrics",
    "encode_dataset",
    "encode_images",
    "fit_threshold",
    "label_sets_of",
    "load_corpus",
    "load_files",
    "load_images",
    "order_label_names",
    "ppmi_vectors",
    "set_word_vectors",
    "vectors_from_file",
]

AutoConfig.register(SGMConfig.model_type, SGMConfig)
AutoModel.register(SGMConfig, SGMForMultiLabelGeneration)
AutoModelForSeq2SeqLM.register(SGMConfig, SGMForMultiLabelGeneration)
AutoTokenizer.register(SGMConfig, tokenizer_class=SGMTokenizer)
PIPELINE_REGISTRY.register_pipeline(
    "multi-label-generation", pipeline_class=MultiLabelGenerationPipeline, pt_model=AutoModel, type="text"
)
