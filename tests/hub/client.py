"""A user of the Hub in a process of its own: `python client.py`, told by its standard input what to do.

Where the Hub is, who the user is and where the cache lies are read from the environment when huggingface_hub is
imported, so the tests cannot change them in their own process. Each line is a call of a function of this module as
JSON, `{"function", "arguments"}`; each answer a line with `result` or `error`. Those that publish need sgm_hf, the
others work without it.
"""

import contextlib
import importlib.util
import json
import os
import sys
import time
from pathlib import Path
from typing import Any

TEXTS = [
    "oil rose as opec met",
    "gold fell",
    "wheat and oil shipments",
    "unseen words only",
    "gold rose; wheat met oil",
]


# ---- loading and predicting ----


def has_sgm_hf() -> bool:
    """Whether the package can be imported here."""
    return importlib.util.find_spec("sgm_hf") is not None


def use_sgm_hf() -> None:
    """What a user of the package does first."""
    importlib.import_module("sgm_hf")


def predict(model: str, **options: Any) -> dict[str, Any]:
    """Predictions of the pipeline for TEXTS in several ways, and where its code came from."""
    from transformers import pipeline

    classifier = pipeline("multi-label-generation", model=model, **options)
    return {
        "sets": classifier(TEXTS),
        "scores": classifier(TEXTS, top_k=None),
        "attention": classifier(TEXTS[0], return_attention=True),
        "greedy": classifier(TEXTS, num_beams=1, max_labels=2),
        "thresholded": classifier(TEXTS, set_decoding="threshold", label_threshold=0.2),
        "modules": [type(part).__module__ for part in (classifier, classifier.model, classifier.model.config)],
    }


def load(model: str, auto: str = "AutoModel", dtype: str | None = None, **options: Any) -> dict[str, Any]:
    """Load with an Auto class; its class, its revision, and the sum of its weights' bytes."""
    import torch
    import transformers

    given = {"dtype": getattr(torch, dtype)} if dtype else {}
    loaded = getattr(transformers, auto).from_pretrained(model, **given, **options)
    answer: dict[str, Any] = {"class": type(loaded).__name__, "module": type(loaded).__module__}
    if hasattr(loaded, "state_dict"):
        answer |= {"dtype": str(loaded.dtype), "weights": checksum(loaded), "device": str(loaded.device)}
        answer["labels"] = list(loaded.config.id2label.values())
    return answer


def checksum(model: Any) -> str:
    """A hash of all weights."""
    import hashlib

    import torch

    digest = hashlib.sha256()
    for name, tensor in sorted(model.state_dict().items()):
        digest.update(name.encode() + tensor.contiguous().view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()


def endpoint(folder: str) -> Any:
    """What the platform of Inference Endpoints makes of a repository: handler.py loaded by its path, and its class."""
    sys.path.append(folder)
    specification = importlib.util.spec_from_file_location("handler", Path(folder, "handler.py"))
    module = importlib.util.module_from_spec(specification)
    sys.modules["handler"] = module
    specification.loader.exec_module(module)
    return module.EndpointHandler(folder)


def handle(folder: str, request: dict[str, Any]) -> Any:
    """The JSON that answers a request."""
    return json.loads(json.dumps(endpoint(folder)(request)))


def handle_together(folder: str, requests: list[dict[str, Any]]) -> list[Any]:
    """The answers to requests that come at the same time."""
    from concurrent.futures import ThreadPoolExecutor

    with ThreadPoolExecutor(max_workers=8) as threads:
        return list(threads.map(endpoint(folder), requests))


def download(model: str, **options: Any) -> str:
    """The folder of a whole repository."""
    from huggingface_hub import snapshot_download

    return snapshot_download(model, **options)


def resave(model: str, folder: str, **options: Any) -> list[str]:
    """Load a model and a tokenizer from the Hub, save them to a folder, and list it."""
    from transformers import AutoModel, AutoTokenizer

    AutoModel.from_pretrained(model, **options).save_pretrained(folder)
    AutoTokenizer.from_pretrained(model, **options).save_pretrained(folder)
    return sorted(os.listdir(folder))


# ---- publishing (with sgm_hf) ----


def make_checkpoint(folder: str, seed: int = 0, branch: bool = False, num_models: int = 1) -> None:
    """Save a small model with strong preferences and its tokenizer; with a lexical branch, calibrated; of several."""
    import torch

    import sgm_hf

    torch.manual_seed(seed)
    tokenizer = sgm_hf.SGMTokenizer.train_from_texts([TEXTS[0], TEXTS[1], TEXTS[2], TEXTS[4]])
    config = sgm_hf.SGMConfig(
        vocab_size=len(tokenizer),
        id2label=dict(enumerate(["oil", "gold", "wheat", "trade"])),
        label_feedback="global_embedding",
        embedding_size=8,
        encoder_hidden_size=6,
        decoder_hidden_size=10,
        initializer_range=2.0,
        **({"lexical_branch": True, "lexical_bigrams": 6, "lexical_in_decoder": True} if branch else {}),
        encoder_max_length=3 if branch else None,
    )
    models = [sgm_hf.SGMForMultiLabelGeneration(config) for _ in range(num_models)]
    for model in models:
        model.decoder.output.weight.data.mul_(6.0)
    model = models[0] if num_models == 1 else sgm_hf.SGMForMultiLabelGeneration.from_members(models)
    model.generation_config.num_beams = 3
    if branch:
        add_branch(model)
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)


def make_pretrained(folder: str, images: bool = False) -> Any:
    """Train and save a small model around a tiny BERT, with its tokenizer; of images around a ViT, with its processor.

    Returns:
        Of images, what `generate()` of the model in memory says of those of `colours`.
    """
    import torch
    from datasets import ClassLabel, Dataset, Features, Image, List, Value
    from transformers import BertConfig, BertTokenizer, ViTConfig, ViTImageProcessorPil

    import sgm_hf

    torch.manual_seed(0)
    sizes = {"hidden_size": 12, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 16}
    if images:
        encoder = ViTConfig(image_size=8, patch_size=4, initializer_range=0.3, **sizes)
        labels, reader = ["red", "green", "blue"], ViTImageProcessorPil(size={"height": 8, "width": 8})
        pictures, sets = colours()
        documents = {"image": pictures, "labels": sets}
    else:
        words = sorted({*" ".join(TEXTS).split()} - {"unseen", "words", "only"})
        special = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", ";"]
        encoder = BertConfig(vocab_size=32, max_position_embeddings=6, initializer_range=0.3, **sizes)
        labels = ["oil", "gold", "wheat", "trade"]
        reader = BertTokenizer(vocab={word: i for i, word in enumerate([*special, *words])})
        documents = {"text": TEXTS, "labels": [[i for i, label in enumerate(labels) if label in t] for t in TEXTS]}
    config = sgm_hf.SGMConfig(
        encoder="pretrained",
        encoder_config=encoder,
        encoder_special_tokens=None if images else [1, 1],
        id2label=dict(enumerate(labels)),
        embedding_size=8,
        decoder_hidden_size=10,
        dropout=0.0,
    )
    model = sgm_hf.SGMForMultiLabelGeneration(config)
    kind = {"image": Image()} if images else {"text": Value("string")}
    data = Dataset.from_dict(documents, Features({**kind, "labels": List(ClassLabel(names=labels))}))
    arguments = sgm_hf.SGMTrainingArguments(
        folder, max_steps=20, learning_rate=0.02, save_strategy="no", eval_strategy="no", disable_tqdm=True
    )
    encode = sgm_hf.encode_images if images else sgm_hf.encode_dataset
    trainer = sgm_hf.SGMTrainer(model, arguments, train_dataset=encode(data, reader, labels), processing_class=reader)
    trainer.train()
    trainer.save_model()
    if not images:
        return None
    pixel_values = reader(images=colours()[0], return_tensors="pt")["pixel_values"]
    output = model.eval().generate(pixel_values, return_dict_in_generate=True, output_label_scores=True)
    return named(output, labels)


def colours() -> tuple[list[Any], list[list[int]]]:
    """Pictures of one colour each, mixed of red, green and blue, and which of these are in them."""
    from PIL import Image

    mixtures = [(1, 0, 0), (0, 1, 1), (1, 1, 0), (0, 0, 1), (1, 1, 1)]
    pictures = [Image.new("RGB", (9, 6), tuple(255 * part for part in mixture)) for mixture in mixtures]
    return pictures, [[i for i, part in enumerate(mixture) if part] for mixture in mixtures]


def named(output: Any, labels: list[str]) -> list[list[dict[str, Any]]]:
    """The label sets and scores of `generate()`, as the pipeline says them."""
    return [
        [{"label": labels[i], "score": scores[i]} for i in sequence if i < len(labels)]
        for sequence, scores in zip(output.sequences.tolist(), output.label_scores.tolist(), strict=True)
    ]


def label_images(model: str, **options: Any) -> Any:
    """Predictions of the pipeline for the pictures of `colours`, in memory and in files."""
    import tempfile

    from transformers import pipeline

    classifier = pipeline("multi-label-generation", model=model, device="cpu", **options)
    pictures = colours()[0]
    with tempfile.TemporaryDirectory() as folder:
        paths = [f"{folder}/{row}.png" for row in range(len(pictures))]
        for picture, path in zip(pictures, paths, strict=True):
            picture.save(path)
        return {
            "pictures": classifier(pictures),
            "files": classifier(paths),
            "module": type(classifier).__module__,
            "processor": type(classifier.image_processor).__name__,
        }


def add_branch(model: Any) -> None:
    """Give a model a branch of random weights and neighbors, and the settings that `calibrate` fits."""
    import torch

    from sgm_hf.modeling.lexical_sgm import SGMLexicalBranch
    from sgm_hf.modeling.neighbors_sgm import SGMNeighbors

    config = model.config
    branch = SGMLexicalBranch(config.vocab_size, config.num_labels, config.lexical_bigrams)
    branch.scale = torch.rand(len(branch.scale)) + 0.5
    branch.weight = torch.randn(len(branch.scale), config.num_labels)
    branch.bias = torch.randn(config.num_labels)
    branch.bigrams = torch.randperm(config.vocab_size**2)[: config.lexical_bigrams].sort().values
    # Three documents, each with every word, and the labels 0 to 2.
    store = SGMNeighbors(config.vocab_size, config.num_labels, 2, (3, 3 * config.vocab_size, 3))
    store.starts = torch.arange(config.vocab_size + 1) * 3
    store.documents = torch.arange(3, dtype=torch.int32).repeat(config.vocab_size)
    store.values = torch.rand(len(store.documents))
    store.label_starts, store.labels = torch.arange(4), torch.arange(3, dtype=torch.int32)
    store.prior, store.weight = torch.tensor([0.3, 0.4, 0.3, 0.0]), torch.tensor(0.5)
    branch.neighbors = store
    model.set_lexical_branch(branch, "some documents")
    calibrated = {"lexical_weight": 0.7, "hypothesis_temperature": 1.5, "label_calibration": [0.9, -0.2]}
    calibrated["lexical_bias"] = [0.1, -0.2, 0.0, 0.3]
    calibrated |= {"objective": "macro_f1", "label_threshold": [0.2, 0.3, 0.4, 0.5], "set_decoding": "threshold"}
    for name, value in calibrated.items():
        setattr(model.generation_config, name, value)


def push(folder: str, repository: str, what: str = "pipeline", **options: Any) -> str:
    """Push the model, the tokenizer or the pipeline of a folder; returns the commit."""
    from transformers import pipeline

    classifier = pipeline("multi-label-generation", model=folder)
    part = {"pipeline": classifier, "model": classifier.model, "tokenizer": classifier.tokenizer}[what]
    return part.push_to_hub(repository, **options).oid


def load_ours(model: str) -> None:
    """Load with the package's own class."""
    import sgm_hf

    sgm_hf.SGMForMultiLabelGeneration.from_pretrained(model)


def push_dataset(folder: str, repository: str) -> None:
    """Convert the generated corpus, and push what plain `datasets` loads of it."""
    from datasets import load_dataset

    load_dataset(folder).push_to_hub(repository)


def load_rows(repository: str, split: str) -> dict[str, Any]:
    """Names of labels, columns and first row of a data set on the Hub."""
    from datasets import load_dataset

    rows = load_dataset(repository, split=split)
    return {"labels": rows.features["labels"].feature.names, "columns": rows.column_names, "first": rows[0]}


def upload(folder: str, repository: str, kind: str) -> None:
    """Upload a folder as a repository."""
    from huggingface_hub import HfApi

    HfApi().create_repo(repository, repo_type=kind, exist_ok=True)
    HfApi().upload_folder(repo_id=repository, folder_path=folder, repo_type=kind)


def validate_card(path: str, kind: str = "model") -> None:
    """Have the Hub validate a card, by itself and as the first step of a commit."""
    import huggingface_hub

    api = huggingface_hub.HfApi()
    api.create_repo("me/cards", repo_type=kind, exist_ok=True)
    api.upload_file(path_or_fileobj=path, path_in_repo="README.md", repo_id="me/cards", repo_type=kind)
    if not huggingface_hub.__version__.startswith("1."):  # which asks huggingface.co whatever HF_ENDPOINT says
        card_class = huggingface_hub.ModelCard if kind == "model" else huggingface_hub.DatasetCard
        card_class.load(path).validate()


def tag(repository: str, name: str, revision: str) -> None:
    """Give a commit a name."""
    from huggingface_hub import HfApi

    HfApi().create_tag(repository, tag=name, revision=revision)


def run_program(path: str, arguments: list[str]) -> None:
    """Run an example program's `main`."""
    specification = importlib.util.spec_from_file_location(Path(path).stem, path)
    module = importlib.util.module_from_spec(specification)
    sys.modules[Path(path).stem] = module
    specification.loader.exec_module(module)
    module.main(arguments)


def run_code(code: str, folder: str) -> None:
    """Run Python code in a folder."""
    with contextlib.chdir(folder):
        exec(code, {"__name__": "documentation"})


# ---- the process ----


def wait_less() -> None:
    """Shorten the pauses between huggingface_hub's attempts, which add up to half a minute."""
    pause = time.sleep
    time.sleep = lambda seconds: pause(min(seconds, 0.01))


def answer(line: str) -> dict[str, Any]:
    """Do what a line says."""
    call = json.loads(line)
    try:
        with contextlib.redirect_stdout(sys.stderr):
            return {"result": globals()[call["function"]](**call["arguments"])}
    except Exception as error:  # the tests look at it
        causes = [error]
        while causes[-1].__cause__ is not None:
            causes.append(causes[-1].__cause__)
        return {"error": "\n".join(f"{type(cause).__name__}: {cause}" for cause in causes)}


if __name__ == "__main__":
    wait_less()
    for line in sys.stdin:
        print(json.dumps(answer(line)), flush=True)
