import json
import warnings
from itertools import islice

import datasets
import pytest
import torch
from tiny_models import build_bert_pipeline
from torch.utils.data import Dataset, IterableDataset
from transformers import BertConfig, BertForSequenceClassification, pipeline, tokenization_utils_base
from transformers.pipelines.pt_utils import KeyDataset

from sgm_hf.modeling.configuration_sgm import SGMConfig
from sgm_hf.modeling.label_sets_sgm import label_sets_from_sequences
from sgm_hf.modeling.modeling_sgm import SGMForMultiLabelGeneration
from sgm_hf.modeling.pipeline_sgm import MultiLabelGenerationPipeline, attention_to_words, check_vocabulary
from sgm_hf.modeling.tokenization_sgm import SGMTokenizer

NAMES = ["cocoa", "coffee", "oil, crude", "gold", "ünï"]
WORDS = "cocoa coffee oil gold rose fell price week of the in".split()
TEXTS = [
    "Cocoa rose.",
    "the price of coffee and cocoa fell in the week of gold , oil and the price of the oil",
    "Gold",
    "oil rose in the week in which the price of gold fell",
    "in the week",
    "coffee fell , the oil price rose",
    "the gold price",
]


def build_pipeline(seed: int = 0, **settings) -> MultiLabelGenerationPipeline:
    """A pipeline with a random model whose preferences are clear and differ from text to text."""
    tokenizer = SGMTokenizer.train_from_texts([" ".join(WORDS), ", ."])
    torch.manual_seed(seed)
    sizes = {
        "vocab_size": len(tokenizer),
        "embedding_size": 8,
        "encoder_hidden_size": 6,
        "encoder_layers": 1,
        "decoder_hidden_size": 10,
        "id2label": dict(enumerate(NAMES)),
        "initializer_range": 1.0,
    }
    model = SGMForMultiLabelGeneration(SGMConfig(**(sizes | settings)))
    with torch.no_grad():
        model.decoder.output.weight.mul_(3.0)
        model.decoder.output.bias[len(NAMES)] = -2.0  # eos: some labels before the end
    return MultiLabelGenerationPipeline(model=model, tokenizer=tokenizer, device="cpu")


@pytest.fixture(scope="module")
def pipe() -> MultiLabelGenerationPipeline:
    return build_pipeline()


def names_of(prediction) -> list[str]:
    return [entry["label"] for entry in prediction]


def assert_same(predictions, expected):
    """The same labels in the same order, scores equal up to the rounding of another batch."""
    predictions, expected = list(predictions), list(expected)
    assert [names_of(p) for p in predictions] == [names_of(p) for p in expected]
    scores = [[entry["score"] for p in side for entry in p] for side in (predictions, expected)]
    assert scores[0] == pytest.approx(scores[1], abs=1e-5)


def test_the_answer_is_the_generated_set_with_its_label_scores(pipe):
    prediction = pipe(TEXTS[1])
    encoded = pipe.tokenizer([TEXTS[1]], return_tensors="pt")
    output = pipe.model.generate(**encoded, return_dict_in_generate=True, output_label_scores=True)
    labels = [i for i in output.sequences[0].tolist() if i < len(NAMES)]
    assert len(labels) > 1
    assert names_of(prediction) == [NAMES[i] for i in labels]
    assert [entry["score"] for entry in prediction] == output.label_scores[0, labels].tolist()


def test_predictions_differ_from_text_to_text(pipe):
    assert len({tuple(names_of(prediction)) for prediction in pipe(TEXTS)}) > 2


def test_predictions_can_be_written_as_json(pipe):
    predictions = pipe(TEXTS[:2], return_attention=True)
    assert json.loads(json.dumps(predictions)) == predictions


@pytest.mark.parametrize("batch_size", [1, 2, 3, 100])
def test_batches_keep_the_order_and_change_nothing(pipe, batch_size):
    assert_same(pipe(TEXTS, batch_size=batch_size), [pipe(text) for text in TEXTS])


def test_more_texts_than_are_sorted_at_a_time_keep_their_order(pipe, monkeypatch):
    monkeypatch.setattr("sgm_hf.modeling.pipeline_sgm.SORTED_BATCHES", 2)
    assert_same(pipe(TEXTS * 2, batch_size=2), [pipe(text) for text in TEXTS] * 2)


def test_batches_hold_texts_of_similar_length(pipe, monkeypatch):
    lengths = []
    forward = pipe.forward
    monkeypatch.setattr(
        pipe, "forward", lambda inputs, **kw: lengths.append(inputs["attention_mask"].sum(1)) or forward(inputs, **kw)
    )
    pipe(TEXTS, batch_size=3)
    flat = torch.cat(lengths).tolist()
    assert flat == sorted(flat, reverse=True)
    assert [len(batch) for batch in lengths] == [3, 3, 1]


def test_without_a_batch_size_lists_are_batched_by_32_and_streams_by_1(pipe, monkeypatch):
    sizes, forward = [], pipe.forward
    monkeypatch.setattr(
        pipe, "forward", lambda inputs, **kw: sizes.append(len(inputs["input_ids"])) or forward(inputs, **kw)
    )
    pipe(["gold"] * 70)
    assert sizes == [32, 32, 6]
    sizes.clear()
    list(pipe(text for text in TEXTS[:3]))
    assert sizes == [1, 1, 1]


def test_the_last_window_of_a_long_list_is_predicted_too(pipe, monkeypatch):
    windows, predict = [], pipe._predict
    monkeypatch.setattr(
        pipe, "_predict", lambda encoded, *rest: windows.append(len(encoded)) or predict(encoded, *rest)
    )
    assert len(pipe(["gold"] * 130, batch_size=2)) == 130
    assert windows == [128, 2]  # sorted by length within 64 batches


def test_padding_of_a_batch_is_masked(pipe, monkeypatch):
    seen, forward = [], pipe.forward
    monkeypatch.setattr(pipe, "forward", lambda inputs, **kw: seen.append(inputs) or forward(inputs, **kw))
    pipe(["gold fell", "oil rose in the week"], batch_size=2)
    assert seen[0]["attention_mask"].tolist() == [[1] * 5, [1, 1, 0, 0, 0]]
    assert seen[0]["input_ids"][1, 2:].tolist() == [0, 0, 0]


def test_a_model_of_another_kind_is_refused(pipe):
    model = BertForSequenceClassification(
        BertConfig(vocab_size=20, hidden_size=8, num_attention_heads=1, num_hidden_layers=1)
    )
    with pytest.raises(ValueError, match="of type 'bert', expected 'sgm'"):
        MultiLabelGenerationPipeline(model=model, tokenizer=pipe.tokenizer)


class TextStream(IterableDataset):
    def __iter__(self):
        return iter(TEXTS)


def test_every_kind_of_collection_gives_the_answers_of_a_list(pipe):
    expected = pipe(TEXTS)
    data = datasets.Dataset.from_dict({"text": TEXTS})
    for collection in (tuple(TEXTS), data["text"]):
        predictions = pipe(collection)
        assert isinstance(predictions, list)
        assert_same(predictions, expected)
    for stream in (KeyDataset(data, "text"), (text for text in TEXTS), iter(TEXTS), TextStream()):
        predictions = pipe(stream, batch_size=2)
        assert not isinstance(predictions, list)
        assert_same(predictions, expected)


def test_the_predictions_of_a_dataset_know_their_number(pipe):
    predictions = pipe(KeyDataset(datasets.Dataset.from_dict({"text": TEXTS}), "text"))
    assert len(predictions) == len(TEXTS)


@pytest.mark.parametrize("batch_size", [None, 2])
def test_a_generator_is_read_no_further_ahead_than_a_batch(pipe, batch_size):
    read = []
    predictions = pipe((read.append(text) or text for text in TEXTS), batch_size=batch_size)
    next(predictions)
    assert len(read) <= max(batch_size or 1, 1)


def test_no_texts_give_no_predictions(pipe):
    assert pipe([]) == []
    assert list(pipe(text for text in ())) == []
    assert list(pipe(KeyDataset(datasets.Dataset.from_dict({"text": []}), "text"))) == []


def test_top_k_none_gives_all_labels_by_descending_score(pipe):
    for prediction, generated in zip(pipe(TEXTS, top_k=None), pipe(TEXTS), strict=True):
        scores = [entry["score"] for entry in prediction]
        assert sorted(names_of(prediction)) == sorted(NAMES)
        assert scores == sorted(scores, reverse=True)
        by_name = {entry["label"]: entry["score"] for entry in prediction}
        assert all(by_name[entry["label"]] == entry["score"] for entry in generated)


def test_top_k_gives_the_first_k_of_all(pipe):
    everything = pipe(TEXTS, top_k=None)
    for k in (1, 2, len(NAMES), 99):
        assert pipe(TEXTS, top_k=k) == [prediction[:k] for prediction in everything]


def test_arguments_of_the_constructor_are_defaults_of_the_call(pipe):
    own = MultiLabelGenerationPipeline(
        model=pipe.model, tokenizer=pipe.tokenizer, device="cpu", top_k=2, num_beams=2, batch_size=3
    )
    assert_same(own(TEXTS), pipe(TEXTS, top_k=2, num_beams=2, batch_size=3))
    assert_same(own(TEXTS, top_k="generated", num_beams=5), pipe(TEXTS))


@pytest.mark.parametrize("num_beams", [1, 5])
def test_generate_arguments_are_passed_on_with_labels_by_name_or_id(pipe, num_beams):
    constraints = {
        "allowed_labels": ["ünï", 0, "oil, crude"],
        "required_labels": ["oil, crude"],
        "min_labels": 2,
        "max_labels": 2,
        "num_beams": num_beams,
    }
    for prediction in pipe(TEXTS, **constraints):
        assert len(prediction) == 2
        assert "oil, crude" in names_of(prediction)
        assert set(names_of(prediction)) <= {"ünï", "cocoa", "oil, crude"}


def test_thresholded_sets_follow_the_label_scores(pipe):
    for everything, chosen in zip(
        pipe(TEXTS, top_k=None), pipe(TEXTS, set_decoding="threshold", label_threshold=0.4), strict=True
    ):
        assert chosen == [entry for entry in everything if entry["score"] >= 0.4]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"threshold": 0.3}, "no.* argument 'threshold'; did you mean 'label_threshold'"),
        ({"forbiden_labels": ["oil"]}, "argument 'forbiden_labels'; did you mean 'forbidden_labels'"),
        ({"zzz": 1}, "argument 'zzz'."),
        ({"label_threshold": 0.3}, "label_threshold has no effect under set_decoding='best_sequence'"),
    ],
)
def test_an_argument_without_effect_is_refused(pipe, arguments, message):
    with pytest.raises(ValueError, match=message):
        pipe(TEXTS, **arguments)
    if "label_threshold" not in arguments:  # the others are unknown before there is a text
        with pytest.raises(ValueError, match=message):
            MultiLabelGenerationPipeline(model=pipe.model, tokenizer=pipe.tokenizer, device="cpu", **arguments)


def test_sets_of_greatest_expected_f1_are_those_of_generate(pipe):
    for text, prediction in zip(TEXTS, pipe(TEXTS, set_decoding="expected_f1", max_labels=3), strict=True):
        inputs = pipe.tokenizer(text, return_tensors="pt")
        labels = pipe.model.generate(**inputs, set_decoding="expected_f1", max_labels=3)
        expected = label_sets_from_sequences(labels, len(NAMES))[0]
        assert names_of(prediction) == [pipe.model.config.id2label[i] for i in expected]


def test_contradicting_constraints_and_unknown_labels_are_named(pipe):
    with pytest.raises(ValueError, match="min_labels=3"):
        pipe(TEXTS, allowed_labels=["gold"], min_labels=3)
    with pytest.raises(ValueError, match="'silver'"):
        pipe(TEXTS, forbidden_labels=["silver"])


def test_attention_names_the_words_of_the_text_and_sums_to_one(pipe):
    text = "Cocoa  PRICE fell,\nzzz ﬁne."
    prediction = pipe(text, return_attention=True)
    assert prediction
    for entry in prediction:
        assert [word["word"] for word in entry["attention"]] == ["Cocoa", "PRICE", "fell", ",", "zzz", "ﬁne", "."]
        assert all(text[word["start"] : word["end"]] == word["word"] for word in entry["attention"])
        assert sum(word["weight"] for word in entry["attention"]) == pytest.approx(1.0, abs=1e-5)
    assert [{k: entry[k] for k in ("label", "score")} for entry in prediction] == pipe(text)


@pytest.mark.parametrize("text", ["cocoas fell, zzz", "the price of coffee and cocoa fell in the week of gold, oil"])
def test_tokens_around_a_text_are_not_among_the_words_that_attention_names(text):
    pipe = build_bert_pipeline()  # it reads the longer text in two windows
    prediction = pipe(text, return_attention=True, min_labels=2)
    encoded = pipe.tokenizer(text, return_tensors="pt")
    named = pipe.tokenizer.convert_ids_to_tokens(encoded["input_ids"][0])
    assert (named[0], named[-1]) == ("[CLS]", "[SEP]")
    ids = [pipe.model.config.label2id[name] for name in names_of(prediction)]
    sequence = torch.tensor([[pipe.model.config.bos_label_id, *ids, pipe.model.config.eos_label_id]])
    weights = attention_to_words(pipe.model, encoded, sequence)[0]  # (n, T)
    assert len(prediction) >= 2
    for entry, row in zip(prediction, weights, strict=False):
        words = entry["attention"]
        assert [word["word"] for word in words] == [
            text[start:end] for start, end in pipe.tokenizer(text, return_offsets_mapping=True)["offset_mapping"][1:-1]
        ]
        assert all(word["word"] and text[word["start"] : word["end"]] == word["word"] for word in words)
        assert [word["weight"] for word in words] == pytest.approx(row[1:-1].tolist(), abs=1e-6)
        assert 0 < sum(word["weight"] for word in words) < 1


@pytest.mark.parametrize("label_feedback", ["previous_label", "global_embedding"])
def test_attention_is_that_of_the_decoding_step_that_gave_the_label(label_feedback):
    pipe = build_pipeline(seed=1, label_feedback=label_feedback)
    encoded = pipe.tokenizer([TEXTS[1]], return_tensors="pt")
    output = pipe.model.generate(**encoded, num_beams=1, return_dict_in_generate=True, output_attentions=True)
    prediction = pipe([TEXTS[1], TEXTS[0]], num_beams=1, return_attention=True, batch_size=2)[0]
    assert len(prediction) > 1
    for step, entry in zip(output.cross_attentions, prediction, strict=False):
        weights = [word["weight"] for word in entry["attention"]]
        assert weights == pytest.approx(step[0].flatten().tolist(), abs=1e-5)


def test_attention_of_labels_that_were_not_generated_is_none(pipe):
    generated = names_of(pipe(TEXTS[0]))
    for entry in pipe(TEXTS[0], top_k=None, return_attention=True):
        assert (entry["attention"] is not None) == (entry["label"] in generated)


def test_attention_of_a_model_without_attention_is_a_value_error():
    pipe = build_pipeline(attention="none")
    assert pipe(TEXTS[0])
    with pytest.raises(ValueError, match="no attention"):
        pipe(TEXTS[0], return_attention=True)


def test_texts_are_cut_at_model_max_length_unless_told_otherwise(pipe):
    pipe = MultiLabelGenerationPipeline(model=pipe.model, tokenizer=pipe.tokenizer, device="cpu")
    pipe.tokenizer.model_max_length, before = 4, pipe.tokenizer.model_max_length
    try:
        words = [len(pipe(TEXTS[1], return_attention=True, truncation=cut)[0]["attention"]) for cut in (True, False)]
        assert_same([pipe(TEXTS[1])], [pipe("the price of coffee")])
    finally:
        pipe.tokenizer.model_max_length = before
    assert words == [4, 20]


def test_a_long_text_that_is_not_to_be_cut_gives_no_warning(pipe, monkeypatch):
    pipe = MultiLabelGenerationPipeline(model=pipe.model, tokenizer=pipe.tokenizer, device="cpu")
    warned = []
    monkeypatch.setattr(pipe.tokenizer, "model_max_length", 4)
    monkeypatch.setattr(pipe.tokenizer, "deprecation_warnings", {})  # Transformers warns once only
    monkeypatch.setattr(tokenization_utils_base.logger, "warning", lambda *message: warned.append(message))
    assert pipe(TEXTS[1], truncation=False)
    assert not warned
    pipe.tokenizer(TEXTS[1])
    assert warned


def test_an_encoded_text_has_its_words_and_on_request_their_places(pipe):
    assert set(pipe.preprocess("gold")) == {"text", "input_ids"}
    assert set(pipe.preprocess("gold", return_offsets=True)) == {"text", "input_ids", "offset_mapping"}


class Repeated(Dataset):
    """Texts at every index, also behind the length."""

    def __len__(self):
        return 5

    def __getitem__(self, index):
        return TEXTS[index % len(TEXTS)]


def test_a_dataset_is_read_as_far_as_its_length(pipe):
    assert_same(islice(pipe(Repeated(), batch_size=2), 6), pipe(TEXTS[:5]))


@pytest.mark.parametrize("options", [{}, {"top_k": None}, {"return_attention": True}])
def test_an_empty_text_has_no_labels_and_is_warned_of_by_index(pipe, options):
    with pytest.warns(UserWarning, match="Input 1 has no word"):
        predictions = pipe([TEXTS[0], " \n", TEXTS[1]], **options)
    assert predictions[1] == []
    assert_same([predictions[0], predictions[2]], [pipe(TEXTS[0], **options), pipe(TEXTS[1], **options)])
    with pytest.warns(UserWarning, match="Input 0 has no word"):
        assert pipe("", **options) == []


def test_a_text_of_unknown_words_is_predicted_and_warned_of_by_index(pipe):
    with pytest.warns(UserWarning, match="Input 2 has unknown words only"):
        predictions = pipe(["gold", "oil zzz", "zzz yyy"])
    assert len(predictions) == 3
    assert pipe.tokenizer("zzz yyy")["input_ids"] == [1, 1]
    with pytest.warns(UserWarning, match="Input 0 has unknown words only"):
        assert_same([predictions[2]], [pipe("vvv xxx")])


def test_usual_texts_give_no_warning(pipe):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        pipe(TEXTS)


@pytest.mark.parametrize("wrong", [None, 3, ["a"], {"text": "a"}, b"gold"])
def test_an_input_that_is_no_string_is_named_by_index_and_type(pipe, wrong):
    with pytest.raises(TypeError, match=f"Input 2 is .* of type {type(wrong).__name__}"):
        pipe(["gold", "oil", wrong])
    with pytest.raises(TypeError, match=f"Input 2 is .* of type {type(wrong).__name__}"):
        list(pipe(text for text in ["gold", "oil", wrong]))


@pytest.mark.parametrize("wrong", [None, 3, {"text": "a"}, b"gold"])
def test_a_single_input_that_is_no_string_is_a_type_error(pipe, wrong):
    with pytest.raises(TypeError, match=f"of type {type(wrong).__name__}, expected a string"):
        pipe(wrong)


def test_the_rows_of_a_data_set_are_not_taken_for_texts(pipe):
    with pytest.raises(TypeError, match=r"dataset\['text'\]"):
        pipe(datasets.Dataset.from_dict({"text": TEXTS}))


@pytest.mark.parametrize("top_k", [0, -1, 1.5, "all", True])
def test_a_top_k_without_meaning_is_a_value_error(pipe, top_k):
    with pytest.raises(ValueError, match="top_k is"):
        pipe(TEXTS[0], top_k=top_k)


def test_several_sequences_a_text_are_refused(pipe):
    with pytest.raises(ValueError, match="num_return_sequences is 2"):
        pipe(TEXTS[0], num_return_sequences=2)


def test_dropout_is_off(pipe):
    own = MultiLabelGenerationPipeline(model=pipe.model.train(), tokenizer=pipe.tokenizer, device="cpu")
    assert own(TEXTS) == own(TEXTS)
    assert not pipe.model.training


def test_a_tokenizer_of_another_checkpoint_is_refused(pipe):
    other = SGMTokenizer.train_from_texts([" ".join(WORDS), "one word more"])
    with pytest.raises(ValueError, match=f"{len(other)} words, the model {len(pipe.tokenizer)}"):
        MultiLabelGenerationPipeline(model=pipe.model, tokenizer=other)


def test_transformers_builds_it_from_a_checkpoint(pipe, tmp_path):
    pipe.model.save_pretrained(tmp_path)
    pipe.tokenizer.save_pretrained(tmp_path)
    loaded = pipeline("multi-label-generation", model=str(tmp_path), device="cpu")
    assert isinstance(loaded, MultiLabelGenerationPipeline)
    assert loaded(TEXTS, return_attention=True) == pipe(TEXTS, return_attention=True)


def test_transformers_builds_it_from_a_model_in_memory(pipe):
    built = pipeline("multi-label-generation", model=pipe.model, tokenizer=pipe.tokenizer, device="cpu", top_k=1)
    assert built(TEXTS) == pipe(TEXTS, top_k=1)


def test_a_saved_pipeline_loads_without_trust_in_remote_code(pipe, tmp_path):
    pipe.save_pretrained(tmp_path)
    loaded = pipeline("multi-label-generation", model=str(tmp_path), device="cpu", trust_remote_code=False)
    assert loaded(TEXTS) == pipe(TEXTS)


@pytest.mark.parametrize(("rows", "is_accepted"), [(16, True), (9, True), (8, False)])
def test_a_pretrained_encoder_may_have_more_embeddings_than_its_tokenizer_has_words(rows, is_accepted):
    config = SGMConfig(vocab_size=rows, num_labels=2)
    config.encoder_config = BertConfig(vocab_size=rows)  # as a configuration with a kind of encoder that has one
    if is_accepted:
        check_vocabulary(9, config, "It")
    else:
        with pytest.raises(ValueError, match="It has 9 words, the model 8"):
            check_vocabulary(9, config, "It")
