"""The pipeline's readers: what is one input and what many, and images through the whole pipeline."""

import base64
import io

import numpy as np
import pytest
import torch
from datasets import Dataset, Features, Image
from PIL import Image as PillowImage
from tiny_encoders import VIT
from transformers import BertConfig, ViTConfig, ViTImageProcessorPil, pipeline
from transformers.pipelines.pt_utils import KeyDataset

from sgm_hf.modeling import MultiLabelGenerationPipeline, SGMConfig, SGMForMultiLabelGeneration, SGMTokenizer
from sgm_hf.modeling.inputs_sgm import ImageReader, TextReader

NAMES = ["red", "green", "blue", "grey"]
EXIF_ORIENTATION = 0x0112


def make_pictures(count=7):
    """Noise of several sizes."""
    random = np.random.default_rng(0)
    sizes = [(5 + row, 9 - row, 3) for row in range(count)]
    return [PillowImage.fromarray(random.integers(0, 256, size, dtype=np.uint8)) for size in sizes]


def make_model():
    torch.manual_seed(0)
    config = SGMConfig(
        encoder="pretrained", encoder_config=ViTConfig.from_dict(VIT.to_dict()), id2label=dict(enumerate(NAMES)),
        embedding_size=8, decoder_hidden_size=10, initializer_range=1.0,
    )  # fmt: skip
    model = SGMForMultiLabelGeneration(config).eval()
    with torch.no_grad():
        model.decoder.output.weight.mul_(3.0)
        model.decoder.output.bias[len(NAMES)] = -2.0  # eos: some labels before the end
    return model


@pytest.fixture(scope="module")
def processor():
    return ViTImageProcessorPil(size={"height": 8, "width": 8})


@pytest.fixture(scope="module")
def pipe(processor):
    return MultiLabelGenerationPipeline(model=make_model(), image_processor=processor, device="cpu")


@pytest.fixture(scope="module")
def expected(pipe, processor):
    """What `generate()` says of the pictures, each alone."""
    predictions = []
    for picture in make_pictures():
        inputs = processor(images=picture, return_tensors="pt")
        output = pipe.model.generate(**inputs, return_dict_in_generate=True, output_label_scores=True)
        labels = [label for label in output.sequences[0].tolist() if label < len(NAMES)]
        predictions.append([{"label": NAMES[i], "score": output.label_scores[0, i].item()} for i in labels])
    return predictions


def assert_same(predictions, expected):
    """The same labels in the same order, scores equal up to the rounding of another batch."""
    predictions = list(predictions)
    assert [[entry["label"] for entry in p] for p in predictions] == [
        [entry["label"] for entry in p] for p in expected
    ]
    scores = [[entry["score"] for p in side for entry in p] for side in (predictions, expected)]
    assert scores[0] == pytest.approx(scores[1], abs=1e-5)


def test_images_of_any_form_get_the_labels_of_generate(pipe, expected, tmp_path):
    assert len({str([entry["label"] for entry in p]) for p in expected}) > 2
    pictures = make_pictures()
    paths = [tmp_path / f"{row}.png" for row in range(len(pictures))]
    for picture, path in zip(pictures, paths, strict=True):
        picture.save(path)
    urls = ["data:image/png;base64," + base64.b64encode(path.read_bytes()).decode() for path in paths]
    column = Dataset.from_dict({"image": list(map(str, paths))}, features=Features({"image": Image()}))
    for inputs in (pictures, paths, list(map(str, paths)), [np.asarray(p) for p in pictures], urls, tuple(pictures)):
        assert_same(pipe(inputs), expected)
        assert_same(pipe(inputs, batch_size=2), expected)
        assert_same([pipe(inputs[0])], expected[:1])
    assert_same(pipe(column["image"]), expected)
    assert_same(pipe(KeyDataset(column, "image")), expected)
    assert_same(pipe(picture for picture in pictures), expected)
    assert_same(pipe(np.stack([np.asarray(pictures[0])] * 2)), expected[:1] * 2)
    assert pipe([]) == []


def test_pictures_are_made_upright_and_coloured(pipe):
    picture = make_pictures()[0]
    sideways = picture.transpose(PillowImage.Transpose.ROTATE_90)
    exif = PillowImage.Exif()
    exif[EXIF_ORIENTATION] = 6  # a quarter turn to the right makes it upright
    file = io.BytesIO()
    sideways.save(file, "PNG", exif=exif)
    assert_same([pipe(PillowImage.open(file), top_k=None)], [pipe(picture, top_k=None)])
    grey = picture.convert("L")
    for inputs in (grey, np.asarray(grey)):
        assert_same([pipe(inputs, top_k=None)], [pipe(grey.convert("RGB"), top_k=None)])
    clear = picture.convert("RGBA")
    assert_same([pipe(clear, top_k=None)], [pipe(picture, top_k=None)])


def test_a_large_data_set_of_images_is_read_one_batch_ahead(pipe):
    class Counting(torch.utils.data.Dataset):
        read = 0

        def __len__(self):
            return 1000

        def __getitem__(self, index):
            self.read += 1
            return make_pictures(1)[0]

    data = Counting()
    found = pipe(data, batch_size=4)
    next(found)
    assert (len(found), data.read) == (1000, 4)


def test_transformers_builds_it_from_a_checkpoint(pipe, expected, tmp_path):
    pipe.save_pretrained(tmp_path)
    assert not (tmp_path / "tokenizer.json").exists()
    loaded = pipeline("multi-label-generation", model=str(tmp_path), device="cpu", trust_remote_code=False)
    assert loaded.tokenizer is None and loaded.image_processor.size == pipe.image_processor.size
    assert_same(loaded(make_pictures()), expected)
    loaded.model.to(torch.bfloat16)
    assert len(loaded(make_pictures())) == len(expected)


def test_a_model_without_its_image_processor_or_tokenizer_is_refused(pipe, tmp_path):
    pipe.model.save_pretrained(tmp_path)
    with pytest.raises(ValueError, match="reads images, but .* without the image processor.*give image_processor="):
        pipeline("multi-label-generation", model=str(tmp_path), device="cpu")
    with pytest.raises(ValueError, match="reads images, but it comes without the image processor"):
        MultiLabelGenerationPipeline(model=make_model(), device="cpu")
    words = SGMForMultiLabelGeneration(SGMConfig(vocab_size=9, num_labels=2))
    with pytest.raises(ValueError, match="reads texts, but it comes without the tokenizer.*give tokenizer="):
        MultiLabelGenerationPipeline(model=words, device="cpu")


def test_texts_need_no_image_processor(tmp_path):
    tokenizer = SGMTokenizer.train_from_texts(["a b"])
    SGMForMultiLabelGeneration(SGMConfig(vocab_size=len(tokenizer), num_labels=2)).save_pretrained(tmp_path)
    tokenizer.save_pretrained(tmp_path)
    loaded = pipeline("multi-label-generation", model=str(tmp_path), device="cpu")
    assert loaded.image_processor is None and not loaded.reads_images and isinstance(loaded.reader, TextReader)
    with pytest.raises(TypeError, match="expected a string"):
        loaded(make_pictures(1)[0])
    with pytest.raises(TypeError, match="Input 1 is <PIL.*expected a string"):
        loaded(["a", make_pictures(1)[0]])


@pytest.mark.parametrize(
    ("inputs", "error", "message"),
    [
        ("A text.", ValueError, "Input 0, 'A text.', cannot be read as an image: there is no file"),
        ([make_pictures(1)[0], "no.png"], ValueError, "Input 1, 'no.png', cannot be read .*there is no file 'no.png'"),
        ([make_pictures(1)[0], 7], TypeError, "Input 1 is 7 of type int, expected an image"),
        ([{"image": 1}], TypeError, r"Of a data set pass the column, e.g. dataset\['image'\]"),
        (7, TypeError, "The pipeline got 7 of type int, expected an image .*a list of them"),
        ({"image": 1}, TypeError, "The pipeline got .* of type dict"),
        (np.zeros((2, 2, 5, 5, 3)), TypeError, r"Input 0 is an array of shape \(2, 5, 5, 3\) of type ndarray"),
        ("data:image/png;base64,AAAA", ValueError, "cannot be read as an image: Incorrect image source"),
        (np.zeros((4, 5, 7), np.uint8), ValueError, r"Input 0, an array of shape \(4, 5, 7\), cannot be read"),
    ],
    ids=["text", "missing", "number", "row", "one_number", "mapping", "5d", "damaged", "channels"],
)
def test_what_is_no_image_is_named(pipe, inputs, error, message):
    with pytest.raises(error, match=message):
        pipe(inputs)


def test_broken_files_are_named(pipe, tmp_path):
    file = tmp_path / "half.png"
    make_pictures(1)[0].save(file)
    file.write_bytes(file.read_bytes()[:60])
    (tmp_path / "words.png").write_text("not an image")
    for path in (file, tmp_path / "words.png"):
        with pytest.raises(ValueError, match=f"Input 1, .*{path.name}.*cannot be read as an image"):
            pipe([make_pictures(1)[0], path])


def test_what_is_of_texts_only_is_refused(pipe):
    with pytest.raises(ValueError, match="return_attention is for models that read texts"):
        pipe(make_pictures(1), return_attention=True)
    with pytest.raises(ValueError, match="truncation is for models that read texts"):
        pipe(make_pictures(1), truncation=False)


def test_sizes_that_do_not_fit_together_are_refused():
    reader = ImageReader(ViTImageProcessorPil(do_resize=False))
    with pytest.raises(ValueError, match="images of different sizes.*batch_size=1"):
        reader.collate([reader.read(picture) for picture in make_pictures(2)])


def test_a_text_model_around_bert_reads_texts():
    sizes = {"hidden_size": 12, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 16}
    tokenizer = SGMTokenizer.train_from_texts(["a b"])
    bert = BertConfig(vocab_size=len(tokenizer), **sizes)
    model = SGMForMultiLabelGeneration(SGMConfig(encoder="pretrained", encoder_config=bert, num_labels=2))
    assert not MultiLabelGenerationPipeline(model=model, tokenizer=tokenizer, device="cpu").reads_images
