import logging
import random

import pytest
from datasets import ClassLabel, Dataset, Features, List, Value
from hypothesis import given, settings
from hypothesis import strategies as st
from transformers import BertTokenizer

from sgm_hf.data import encoding
from sgm_hf.data.encoding import TextEncoder, encode_dataset
from sgm_hf.modeling import SGMTokenizer

NAMES = ["b", "c", "a"]


def make_dataset(texts, labels, names=("a", "b", "c"), **columns):
    features = Features(
        {"id": Value("string"), "text": Value("string"), "labels": List(ClassLabel(names=list(names)))}
    )
    columns = {"id": [f"d{row}" for row in range(len(texts))], "text": texts, "labels": labels}
    return Dataset.from_dict(columns, features=features)


@pytest.fixture(scope="module")
def tokenizer():
    return SGMTokenizer.train_from_texts(["one two three four five"], vocab_size=100, model_max_length=4)


@pytest.fixture(scope="module")
def bert_tokenizer():
    words = "[PAD] [UNK] [CLS] [SEP] [MASK] one two three four five".split()
    return BertTokenizer(vocab={word: i for i, word in enumerate(words)}, model_max_length=5)


def test_labels_become_the_models_ids_in_the_order_of_the_data(tokenizer):
    encoded = encode_dataset(make_dataset(["one", "two", "one two"], [["c", "a"], [], ["b"]]), tokenizer, NAMES)
    assert encoded["labels"][:] == [[1, 2], [], [0]]


def test_texts_are_cut_and_lengths_recorded(tokenizer):
    data = make_dataset(["one two three four five", "five"], [[], []])
    encoded = encode_dataset(data, tokenizer, NAMES)
    assert encoded["length"][:] == [4, 1]
    assert encode_dataset(data, tokenizer, NAMES, max_length=2)["length"][:] == [2, 1]
    assert [len(ids) for ids in encoded["input_ids"]] == [4, 1]
    assert encoded["input_ids"][0] == tokenizer("one two three four")["input_ids"]


def test_rows_keep_their_number_and_order(tokenizer):
    data = make_dataset([f"one {'two ' * (row % 3)}" for row in range(50)], [["a"]] * 50).shuffle(seed=0)
    encoded = encode_dataset(data, tokenizer, NAMES)
    assert encoded["index"][:] == list(range(50))
    assert encoded["length"][:] == [len(text.split()) for text in data["text"]]


def test_all_documents_without_labels_are_still_lists_of_integers(tokenizer):
    encoded = encode_dataset(make_dataset(["one", "two"], [[], []]), tokenizer, NAMES)
    assert encoded["labels"][:] == [[], []]
    assert encoded.features["labels"] == List(Value("int64"))


def test_data_without_a_labels_column_is_encoded_without_one(tokenizer):
    encoded = encode_dataset(Dataset.from_dict({"text": ["one two"]}), tokenizer, NAMES)
    assert set(encoded.column_names) == {"input_ids", "length", "index"}


@pytest.mark.parametrize("text", ["", " \t ", None])
def test_an_empty_text_is_an_error_in_training_and_a_warning_elsewhere(tokenizer, text, caplog):
    data = make_dataset(["one", text], [["a"], ["b"]])
    with pytest.raises(ValueError, match="1 training document.* have no word: d1"):
        encode_dataset(data, tokenizer, NAMES, training=True)
    with caplog.at_level(logging.WARNING):
        assert encode_dataset(data, tokenizer, NAMES)["length"][:] == [1, 0]
    assert "d1" in caplog.text


def test_a_text_of_only_unknown_words_keeps_its_length(tokenizer):
    encoded = encode_dataset(make_dataset(["xyzzy plugh"], [["a"]]), tokenizer, NAMES, training=True)
    assert encoded["input_ids"][0] == [tokenizer.unk_token_id] * 2


def test_an_unknown_label_is_an_error_that_names_document_and_label(tokenizer):
    data = make_dataset(["one", "two"], [["a"], ["z"]], names=("a", "b", "c", "z"))
    with pytest.raises(ValueError, match="document d1.*'z'"):
        encode_dataset(data, tokenizer, NAMES)


def test_counted_unknown_labels_get_ids_beyond_the_models_in_order_of_name(tokenizer):
    data = make_dataset(["one", "two"], [["z", "a"], ["y"]], names=("a", "b", "c", "y", "z"))
    encoded = encode_dataset(data, tokenizer, NAMES, unknown_labels="count")
    assert [set(labels) for labels in encoded["labels"]] == [{2, 4}, {3}]


def test_unknown_labels_in_training_data_are_never_only_counted(tokenizer):
    data = make_dataset(["one"], [["z"]], names=("a", "z"))
    with pytest.raises(ValueError, match="'z'"):
        encode_dataset(data, tokenizer, NAMES, training=True, unknown_labels="count")


@pytest.mark.parametrize("labels", [["a", "a"], [0, 1, 0]])
def test_a_label_twice_is_an_error_that_names_the_document(tokenizer, labels):
    with pytest.raises(ValueError, match="document d1: the label 'a' occurs twice"):
        encode_dataset(make_dataset(["one", "two"], [["b"], labels]), tokenizer, NAMES)


def test_documents_whose_ids_are_not_texts_are_also_named(tokenizer):
    features = {"labels": List(ClassLabel(names=["a", "b"]))}
    numbered = Dataset.from_dict({"id": [7, 8], "text": ["one", ""], "labels": [["a"], ["b"]]})
    with pytest.raises(ValueError, match="have no word: 8;"):
        encode_dataset(numbered, tokenizer, NAMES, training=True)
    unnamed = Dataset.from_dict(
        {"text": ["one", ""], "labels": [[0], [1, 1]]}, Features(text=Value("string"), **features)
    )
    with pytest.raises(ValueError, match="have no word: number 1;"):
        encode_dataset(unnamed, tokenizer, NAMES, training=True)
    with pytest.raises(ValueError, match="document number 1: the label 'b' occurs twice"):
        encode_dataset(unnamed, tokenizer, NAMES)


def test_the_same_call_uses_the_cache(tokenizer, tmp_path):
    make_dataset(["one two three"] * 5, [["a"]] * 5).to_parquet(tmp_path / "data.parquet")
    data = Dataset.from_parquet(str(tmp_path / "data.parquet"), cache_dir=str(tmp_path / "cache"))
    encode_dataset(data, tokenizer, NAMES)
    files = sorted((tmp_path / "cache").rglob("*.arrow"))
    encode_dataset(data, tokenizer, NAMES)
    assert sorted((tmp_path / "cache").rglob("*.arrow")) == files


def test_errors_and_warnings_name_the_first_five_documents_and_what_to_do(tokenizer, caplog):
    data = make_dataset(["one", *[""] * 6], [["a"]] * 7)
    with pytest.raises(ValueError) as caught:
        encode_dataset(data, tokenizer, NAMES, training=True)
    assert str(caught.value) == (
        "6 training document(s) have no word: d1, d2, d3, d4, d5; remove them or give them a text."
    )
    with caplog.at_level(logging.WARNING):
        encode_dataset(data, tokenizer, NAMES)
    assert [record.getMessage() for record in caplog.records if record.name == "sgm_hf.data.encoding"] == [
        "6 document(s) have no word and get an empty label set: d1, d2, d3, d4, d5"
    ]
    with pytest.raises(ValueError) as caught:
        encode_dataset(data, tokenizer, NAMES, unknown_labels="drop")
    assert str(caught.value) == "unknown_labels must be one of error, count, got 'drop'."


def test_texts_with_words_give_no_warning(tokenizer, caplog):
    with caplog.at_level(logging.WARNING):
        encode_dataset(make_dataset(["one", "two"], [["a"], []]), tokenizer, NAMES, training=True)
    assert not [record for record in caplog.records if record.name == "sgm_hf.data.encoding"]


def test_training_data_is_encoded_as_other_data(tokenizer):
    data = make_dataset(["one two", "three"], [["c", "a"], ["b"]])
    encoded = encode_dataset(data, tokenizer, NAMES, training=True)
    assert encoded[:] == encode_dataset(data, tokenizer, NAMES)[:]
    assert encoded.column_names == ["input_ids", "length", "index", "labels"]


def test_the_number_of_processes_is_passed_on(tokenizer, monkeypatch):
    asked = []
    one_process = Dataset.map

    def record(self, *args, num_proc=None, **kwargs):
        asked.append(num_proc)
        return one_process(self, *args, **kwargs)

    monkeypatch.setattr(Dataset, "map", record)
    data = make_dataset(["one", "two"], [["a"], ["b"]])
    encode_dataset(data, tokenizer, NAMES)
    encode_dataset(data, tokenizer, NAMES, num_proc=2)
    assert asked == [None, 2]


def test_two_processes_encode_as_one(tokenizer):
    data = make_dataset(["one two", "five", "zoo three", ""], [["a"], [], ["b"], []])
    assert encode_dataset(data, tokenizer, NAMES, num_proc=2)[:] == encode_dataset(data, tokenizer, NAMES)[:]


def test_every_column_of_the_tokenizer_with_a_number_for_each_token_is_kept(bert_tokenizer):
    texts = ["one two", "three", "one two three four five"]
    encoded = encode_dataset(make_dataset(texts, [["a"], [], ["b"]]), bert_tokenizer, NAMES, training=True)
    assert set(encoded.column_names) == {"input_ids", "token_type_ids", "length", "index", "labels"}
    expected = bert_tokenizer(texts, truncation=True, max_length=5)
    assert encoded["input_ids"][:] == expected["input_ids"] == [[2, 5, 6, 3], [2, 7, 3], [2, 5, 6, 7, 3]]
    assert encoded["token_type_ids"][:] == expected["token_type_ids"]
    assert encoded["length"][:] == [4, 3, 5]


def test_a_text_without_a_word_has_no_token_also_where_the_tokenizer_adds_some(bert_tokenizer):
    data = make_dataset(["one", " "], [["a"], ["b"]])
    encoded = encode_dataset(data, bert_tokenizer, NAMES)
    assert encoded["length"][:] == [3, 0]
    assert encoded["input_ids"][1] == encoded["token_type_ids"][1] == []
    with pytest.raises(ValueError, match="1 training document.* have no word: d1"):
        encode_dataset(data, bert_tokenizer, NAMES, training=True)


def test_a_tokenizer_without_a_greatest_length_cuts_only_at_the_length_given():
    tokenizer = BertTokenizer(vocab={"[PAD]": 0, "[UNK]": 1, "[CLS]": 2, "[SEP]": 3, "[MASK]": 4, "one": 5})
    data = make_dataset(["one " * 700], [["a"]])
    assert encode_dataset(data, tokenizer, NAMES)["length"][:] == [702]
    assert encode_dataset(data, tokenizer, NAMES, max_length=9)["length"][:] == [9]


WORDS = st.sampled_from("one TWO three,four five. zoo u.s. 1987 \u00ad \u0301 <pad> don't".split(" "))
SPACES = st.sampled_from([" ", "  ", "\n", "\u00a0", "\u3000", "\x1c"])
SPACED_TEXTS = st.lists(st.lists(st.one_of(WORDS, SPACES, st.text(max_size=4))).map("".join), max_size=6)


@pytest.mark.parametrize("most_pieces", [500_000, 2])
@pytest.mark.parametrize("added", [[], ["zoo", "hree"], ["zoo three"]])
@given(batches=st.lists(SPACED_TEXTS, max_size=3), max_length=st.sampled_from([None, 1, 3, 50]))
@settings(max_examples=50, deadline=None)
def test_texts_are_encoded_as_the_tokenizer_encodes_them(most_pieces, added, batches, max_length):
    tokenizer = SGMTokenizer.train_from_texts(["one two three four five u.s. 0000 don 't <"], model_max_length=4)
    tokenizer.add_tokens(added)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(encoding, "_MOST_PIECES", most_pieces)
        encoder = TextEncoder(tokenizer, max_length)
        for texts in batches:
            expected = tokenizer(texts, truncation=True, max_length=max_length)["input_ids"] if texts else []
            found = encoder(texts)
            assert set(found) == {"input_ids"}
            assert [list(row) for row in found["input_ids"]] == expected


def test_what_is_kept_of_texts_without_spaces_is_bounded(monkeypatch):
    monkeypatch.setattr(encoding, "_MOST_IDS", 1000)
    signs = [chr(0x4E00 + i) for i in range(50)]
    tokenizer = SGMTokenizer.train_from_texts(["".join(signs)])
    encoder, draw = TextEncoder(tokenizer), random.Random(0)
    for _ in range(30):
        texts = ["".join(draw.choices(signs, k=90)) for _ in range(5)]
        assert [list(row) for row in encoder(texts)["input_ids"]] == tokenizer(texts)["input_ids"]
        assert len(encoder._ids) <= 1000 + 5 * 90 and len(encoder._numbers) <= 17


def test_a_tokenizer_that_cuts_the_front_of_a_text_still_does(tokenizer):
    front = SGMTokenizer.train_from_texts(["one two three"])
    front.truncation_side = "left"
    text = "one two three"
    assert TextEncoder(front, 2)([text]) == {"input_ids": [front("two three")["input_ids"]]}
