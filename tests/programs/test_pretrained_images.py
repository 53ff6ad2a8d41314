"""`sgm-hf train` and `evaluate` around an encoder of images, here a tiny ViT with random weights."""

import json
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from datasets import Dataset, DatasetDict
from datasets import Image as ImageFeature
from PIL import Image
from transformers import AutoModel, BertConfig, BertTokenizer, ViTImageProcessorPil, pipeline

from sgm_hf import SGMForMultiLabelGeneration
from sgm_hf.cli.evaluate import main as evaluate
from sgm_hf.cli.finetune import main as finetune
from sgm_hf.cli.train import main as train
from sgm_hf.datasets_scripts.coco import CATEGORIES
from sgm_hf.programs import label_file
from sgm_hf.programs.app.predictor import load_predictor

sys.path.append(str(Path(__file__).parents[1] / "modeling"))
from tiny_encoders import VIT  # noqa: E402

COLOURS = ("red", "green", "blue")
OPTIONS = ["--decoder_hidden_size", "16", "--dropout", "0", "--disable_tqdm", "true", "--learning_rate", "0.01"]
OPTIONS += ["--per_device_train_batch_size", "16", "--num_beams", "2"]


@pytest.fixture(scope="module")
def encoder(tmp_path_factory):
    """A folder with a tiny ViT and its image processor."""
    folder = tmp_path_factory.mktemp("vit")
    torch.manual_seed(0)
    AutoModel.from_config(VIT).save_pretrained(folder)
    ViTImageProcessorPil(size={"height": 8, "width": 8}).save_pretrained(folder)
    return str(folder)


def squares(count, seed=0):
    """Pictures of mixed colours, and which colours are in them."""
    chosen = np.random.default_rng(seed).random((count, 3)) < 0.5
    return [(Image.new("RGB", (12, 9), tuple((255 * row).tolist())), row) for row in chosen]


def write_csv(folder, name, count, seed=0):
    """A CSV file of the paths of pictures, which are in a folder beside it."""
    (folder / "pictures").mkdir(parents=True, exist_ok=True)
    lines = ["photo,labels"]
    for number, (picture, row) in enumerate(squares(count, seed)):
        picture.save(folder / "pictures" / f"{seed}-{number}.png")
        labels = "|".join(colour for colour, there in zip(COLOURS, row, strict=True) if there)
        lines.append(f"pictures/{seed}-{number}.png,{labels}")
    (folder / name).write_text("\n".join(lines) + "\n")
    return str(folder / name)


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    folder = tmp_path_factory.mktemp("documents")
    return write_csv(folder, "train.csv", 48), write_csv(folder, "test.csv", 12, seed=1)


@pytest.fixture(scope="module")
def run(encoder, files, tmp_path_factory):
    """A finished training on the CSV file, and its metrics."""
    folder = tmp_path_factory.mktemp("run") / "squares"
    options = [
        "--train_file",
        files[0],
        "--test_file",
        files[1],
        "--image_column",
        "photo",
        "--output_dir",
        str(folder),
    ]
    metrics = train([*options, "--encoder_name_or_path", encoder, "--num_train_epochs", "15", *OPTIONS])
    return folder, metrics


def test_a_csv_file_of_paths_is_trained_on_and_predicted(run, files):
    folder, metrics = run
    assert metrics["test"]["micro_f1"] > 0.9 and metrics["validation"]["micro_f1"] > 0.9
    assert (folder / "preprocessor_config.json").exists() and not (folder / "tokenizer.json").exists()
    lines = [json.loads(line) for line in (folder / "predictions_test.jsonl").read_text().splitlines()]
    assert [line["id"] for line in lines] == [f"test.csv:{number}" for number in range(2, 14)]
    classifier = pipeline("multi-label-generation", model=str(folder), device="cpu")
    found = classifier([picture for picture, _ in squares(12, seed=1)])
    assert [[entry["label"] for entry in labels] for labels in found] == [line["labels"] for line in lines]
    summary = json.loads((folder / "summary.json").read_text())
    assert summary["model"]["encoder_config"] == "vit, 2 layers of size 12"
    card = (folder / "README.md").read_text()
    assert "This model reads an image and generates" in card and 'classifier("image.jpg")' in card
    assert "pipeline_tag: image-classification" in card and "AutoImageProcessor" in card
    assert "cut after" not in card and "A text." not in card


def test_a_trained_model_goes_on_with_rewards(run, files, tmp_path):
    options = ["--train_file", files[0], "--image_column", "photo", "--output_dir", str(tmp_path), "--max_steps", "2"]
    after = finetune([*options, "--model_name_or_path", str(run[0]), "--disable_tqdm", "true", "--num_beams", "2"])
    assert after["validation"]["micro_f1"] > 0.9


def test_a_trained_model_is_evaluated_on_other_files_and_forms_of_them(run, files, tmp_path):
    folder, metrics = run
    options = ["--image_column", "photo", "--output_dir", str(tmp_path / "out"), "--disable_tqdm", "true"]
    assert (
        evaluate([str(folder), "--test_file", files[1], *options])["test"]["micro_f1"] == metrics["test"]["micro_f1"]
    )
    rows = [line.split(",") for line in Path(files[1]).read_text().splitlines()[1:]]
    paths = [str(Path(files[1]).parent / path) for path, _ in rows]
    labels = [[name for name in given.split("|") if name] for _, given in rows]
    table = Dataset.from_dict({"photo": paths, "labels": labels}).cast_column("photo", ImageFeature())
    table.to_parquet(tmp_path / "test.parquet")  # with the bytes of the images
    (tmp_path / "test.jsonl").write_text(
        "".join(json.dumps({"photo": path, "labels": names}) + "\n" for path, names in zip(paths, labels, strict=True))
    )
    DatasetDict(test=table).save_to_disk(tmp_path / "saved")
    forms = {"test.parquet": "--test_file", "test.jsonl": "--test_file", "saved": "--dataset_name"}
    for name, option in forms.items():
        found = evaluate([str(folder), option, str(tmp_path / name), *options])
        assert found["test"]["micro_f1"] == metrics["test"]["micro_f1"]


def numbered(folder):
    """The checkpoints of a run with their updates, in order."""
    return sorted((int(path.name.split("-")[1]), path) for path in folder.glob("checkpoint-*"))


def test_a_training_of_images_goes_on_bit_for_bit(encoder, files, tmp_path):
    options = ["--train_file", files[0], "--image_column", "photo", "--encoder_name_or_path", encoder, *OPTIONS]
    options += ["--save_strategy", "epoch", "--eval_strategy", "no", "--load_best_model_at_end", "false"]
    train([*options, "--num_train_epochs", "4", "--output_dir", str(tmp_path / "whole")])
    (tmp_path / "part").mkdir()
    ((_, first), (last, _)) = numbered(tmp_path / "whole")[0], numbered(tmp_path / "whole")[-1]
    first.rename(tmp_path / "part" / first.name)
    again = ["--num_train_epochs", "4", "--output_dir", str(tmp_path / "part"), "--resume_from_checkpoint", "true"]
    train([*options, *again])
    folders = (tmp_path / "whole", tmp_path / "part", tmp_path / "part" / f"checkpoint-{last}")
    whole, *others = (SGMForMultiLabelGeneration.from_pretrained(folder).state_dict() for folder in folders)
    assert all(torch.equal(value, other[name]) for other in others for name, value in whole.items())


def write_coco(folder, count=24):
    """Files in COCO's published layout: annotations, and a folder of images for each split."""
    kinds = list(CATEGORIES)[:3]
    (folder / "annotations").mkdir(parents=True)
    for part, seed in (("train2017", 0), ("val2017", 1)):
        (folder / part).mkdir()
        images, annotations = [], []
        for number, (picture, row) in enumerate(squares(count, seed)):
            picture.save(folder / part / f"{number:012d}.jpg", quality=95)
            images.append({"id": number, "file_name": f"{number:012d}.jpg", "height": 9, "width": 12})
            annotations += [
                {"id": 10 * number + place, "image_id": number, "category_id": kinds[place], "iscrowd": 0}
                for place in np.flatnonzero(row).tolist()
            ]
        sections = [{"id": number, "name": name, "supercategory": "any"} for number, name in CATEGORIES.items()]
        content = {"images": images, "annotations": annotations, "categories": sections}
        (folder / "annotations" / f"instances_{part}.json").write_text(json.dumps(content))
        shown = [{"id": image["id"], "image_id": image["id"], "caption": "a square"} for image in images]
        captions = {"images": images, "annotations": shown}
        (folder / "annotations" / f"captions_{part}.json").write_text(json.dumps(captions))
    return str(folder)


@pytest.fixture(scope="module")
def coco(tmp_path_factory):
    return write_coco(tmp_path_factory.mktemp("coco") / "files")


def test_coco_is_trained_on_in_its_published_layout(encoder, coco, tmp_path):
    options = ["--dataset_name", "coco", "--dataset_config", "images_2017", "--data_dir", coco]
    config = str(Path(encoder) / "config.json")  # random weights
    settings = ["--encoder_name_or_path", config, "--num_train_epochs", "25", *OPTIONS]
    metrics = train([*options, *settings, "--output_dir", str(tmp_path / "run")])
    assert metrics["validation"]["micro_f1"] > 0.9
    found = evaluate(
        [str(tmp_path / "run"), *options, "--output_dir", str(tmp_path / "out"), "--disable_tqdm", "true"]
    )
    assert found["validation"]["micro_f1"] == metrics["validation"]["micro_f1"]


def start(encoder, *options):
    return train(["--encoder_name_or_path", str(encoder), *options, *OPTIONS])


def test_texts_for_images_and_images_for_texts_are_refused(encoder, coco, files, tmp_path):
    options = ["--dataset_name", "coco", "--data_dir", coco, "--output_dir", str(tmp_path / "run")]
    with pytest.raises(
        ValueError, match="reads images, but .* coco have id, text, labels; give another --dataset_config"
    ):
        start(encoder, *options)
    bert = tmp_path / "bert"
    sizes = {"hidden_size": 12, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 16}
    AutoModel.from_config(BertConfig(vocab_size=16, **sizes)).save_pretrained(bert)
    BertTokenizer(vocab={word: i for i, word in enumerate(["[PAD]", "[UNK]", "[CLS]", "[SEP]", "a"])}).save_pretrained(
        bert
    )
    with pytest.raises(ValueError, match="reads texts, but .* coco have id, image, labels"):
        start(bert, *options, "--dataset_config", "images_2017")
    with pytest.raises(ValueError, match="has no column 'image'; its columns are 'photo', 'labels'.*--image_column"):
        start(encoder, "--train_file", files[0], "--output_dir", str(tmp_path / "run"))


@pytest.mark.parametrize(
    "options",
    [
        ["--lexical_branch", "true"],
        ["--label_texts", __file__],
        ["--max_train_words", "5"],
        ["--attention_figures", "2", "--do_train", "true", "--do_predict", "true"],
    ],
    ids=lambda options: options[0],
)
def test_what_is_of_texts_only_is_refused_before_anything_is_read(encoder, options, tmp_path):
    given = ["--train_file", "not_there.csv", "--output_dir", str(tmp_path / "run")]
    with pytest.raises(ValueError, match=f"{options[0]} is for texts, but the model reads images"):
        start(encoder, *given, *options)


def test_options_without_effect_are_told(encoder, files, tmp_path, caplog):
    given = ["--train_file", files[0], "--image_column", "photo", "--max_steps", "1", "--max_length", "7"]
    start(encoder, *given, "--output_dir", str(tmp_path / "run"))
    assert "--max_length: no effect on a model that reads images" in caplog.text


def test_missing_and_broken_images_and_processors_are_named(encoder, tmp_path):
    file = write_csv(tmp_path, "train.csv", 8)
    broken = tmp_path / "pictures" / "0-5.png"
    broken.write_bytes(broken.read_bytes()[:50])
    given = ["--train_file", file, "--image_column", "photo", "--output_dir", str(tmp_path / "run")]
    with pytest.raises(ValueError, match=r"image of document train.csv:7 .*0-5.png\) cannot be read"):
        start(encoder, *given)
    broken.unlink()
    with pytest.raises(FileNotFoundError, match="1 of 8 images do not exist, first that of document train.csv:7"):
        start(encoder, *given)
    bare = tmp_path / "bare"
    AutoModel.from_config(VIT).save_pretrained(bare)
    with pytest.raises(FileNotFoundError, match="reads images, but .*bare has no image processor"):
        start(bare, "--train_file", write_csv(tmp_path, "more.csv", 8, seed=2), *given[2:])


def test_models_of_other_seeds_around_one_encoder_of_images_are_averaged(encoder, files, tmp_path):
    options = ["--train_file", files[0], "--image_column", "photo", "--encoder_name_or_path", encoder, *OPTIONS]
    several = ["--num_models", "2", "--freeze_encoder", "true", "--num_train_epochs", "1", "--eval_strategy", "no"]
    train([*options, *several, "--output_dir", str(tmp_path)])
    model = SGMForMultiLabelGeneration.from_pretrained(tmp_path)
    folders = [sorted((tmp_path / "members" / number).glob("checkpoint-*"))[-1] for number in "12"]
    one, two = (SGMForMultiLabelGeneration.from_pretrained(folder) for folder in folders)
    inputs = {"pixel_values": torch.randn(3, 3, 8, 8), "labels": torch.tensor([[0, 1, 3]] * 3)}
    expected = (one(**inputs).logits.softmax(dim=-1) + two(**inputs).logits.softmax(dim=-1)) / 2
    torch.testing.assert_close(model(**inputs).logits.exp(), expected, rtol=1e-4, atol=1e-5)
    assert pipeline("multi-label-generation", model=str(tmp_path), device="cpu")(squares(1)[0][0]) is not None


def test_a_file_of_paths_is_labelled_as_by_the_pipeline_and_goes_on(run, files, tmp_path):
    folder, _ = run
    file = write_csv(tmp_path, "new.csv", 20, seed=3)
    output = tmp_path / "out.jsonl"
    options = {"image_column": "photo", "top_k": 2, "include_text": True, "num_beams": 2}
    done = label_file(folder, file, output, **options)
    lines = [json.loads(line) for line in output.read_text().splitlines()]
    assert (done.documents, done.without_words, done.unknown_words_only) == (20, 0, 0)
    classifier = pipeline("multi-label-generation", model=str(folder), device="cpu", num_beams=2)
    found = classifier([picture for picture, _ in squares(20, seed=3)])
    assert [line["labels"] for line in lines] == [[entry["label"] for entry in labels] for labels in found]
    scores = [
        [score for line in lines for score in line["scores"]],
        [entry["score"] for row in found for entry in row],
    ]
    assert scores[0] == pytest.approx(scores[1], abs=1e-5)
    assert (
        lines[0]["id"] == "new.csv:2" and lines[0]["text"] == "pictures/3-0.png" and len(lines[0]["top_labels"]) == 2
    )
    assert label_file(folder, file, output, **options).labelled_now == 0
    (tmp_path / "more.csv").write_text((tmp_path / "new.csv").read_text() + "pictures/3-0.png,red\n")
    assert label_file(folder, tmp_path / "more.csv", output, **options, overwrite=True).documents == 21
    squares(1, seed=9)[0][0].resize((3, 3)).save(tmp_path / "pictures" / "3-4.png")  # another image of the same name
    with pytest.raises(FileExistsError, match="are not the first ones of the file as it is now"):
        label_file(folder, tmp_path / "more.csv", output, **options)


def test_images_that_cannot_be_labelled_are_named(run, tmp_path):
    folder, _ = run
    file = write_csv(tmp_path, "new.csv", 6, seed=4)
    with pytest.raises(ValueError, match="no column 'image'.*--image_column"):
        label_file(folder, file)
    broken = tmp_path / "pictures" / "4-3.png"
    broken.write_bytes(broken.read_bytes()[:50])
    with pytest.raises(ValueError, match="the image .*4-3.png cannot be read"):
        label_file(folder, file, image_column="photo")
    broken.unlink()
    with pytest.raises(ValueError, match=r"new.csv, line 5: there is no image 'pictures/4-3.png'"):
        label_file(folder, file, image_column="photo")
    lines = (tmp_path / "new.predictions.jsonl").read_text().splitlines()
    assert [json.loads(line)["id"] for line in lines] == ["new.csv:2", "new.csv:3", "new.csv:4"]
    with pytest.raises(ValueError, match="reads images, but the page takes texts"):
        load_predictor(str(folder))
