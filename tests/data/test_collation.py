import itertools

import torch
from datasets import ClassLabel, Dataset, Features, List, Value
from transformers import BertTokenizer

from sgm_hf.data.collation import MultiLabelCollator
from sgm_hf.data.encoding import encode_dataset

DOCUMENTS = [
    {"input_ids": [7, 8, 9], "labels": [4, 0, 2], "index": 0, "length": 3},
    {"input_ids": [5], "labels": [], "index": 1, "length": 1},
    {"input_ids": [6, 6], "labels": [3], "index": 2, "length": 2},
]


def test_texts_are_padded_on_the_right_to_the_longest_and_masked():
    batch = MultiLabelCollator(pad_token_id=1, num_labels=5)(DOCUMENTS)
    assert batch["input_ids"].tolist() == [[7, 8, 9], [5, 1, 1], [6, 6, 1]]
    assert batch["attention_mask"].tolist() == [[1, 1, 1], [1, 0, 0], [1, 1, 0]]


def test_targets_are_sorted_labels_then_eos_then_ignored():
    for order in ("frequency", "alphabetical"):
        labels = MultiLabelCollator(1, 5, order)(DOCUMENTS)["labels"]
        assert labels.tolist() == [[0, 2, 4, 5], [5, -100, -100, -100], [3, 5, -100, -100]]
        assert labels.dtype == torch.long


def test_given_order_is_kept():
    assert MultiLabelCollator(1, 5, "given")(DOCUMENTS)["labels"][0].tolist() == [4, 0, 2, 5]


def test_shuffled_targets_are_permutations_that_change_with_the_epoch_and_not_with_the_batch():
    collate = MultiLabelCollator(1, 5, "shuffled", seed=3)
    seen = set()
    for epoch in range(60):
        collate.set_epoch(epoch)
        alone = collate(DOCUMENTS[:1])["labels"][0].tolist()
        assert alone == collate(DOCUMENTS[::-1])["labels"][2].tolist()
        assert alone[3] == 5
        seen.add(tuple(alone[:3]))
    assert seen == set(itertools.permutations([0, 2, 4]))


def shuffled(epoch, seed=0, documents=40):
    """The targets of documents with the same eight labels, in one epoch."""
    collate = MultiLabelCollator(1, 8, "shuffled", seed)
    collate.set_epoch(epoch)
    batch = [{"input_ids": [5], "labels": list(range(8)), "index": index} for index in range(documents)]
    return collate(batch)["labels"][:, :8].tolist()


def test_documents_with_the_same_labels_get_permutations_of_their_own():
    targets = shuffled(epoch=0)
    assert len({tuple(target) for target in targets}) == len(targets)
    assert all(sorted(target) == list(range(8)) for target in targets)


def test_each_epoch_and_each_seed_gives_other_permutations():
    for one, other in (
        (shuffled(0), shuffled(1)),
        (shuffled(0, seed=0), shuffled(0, seed=1)),
        (shuffled(1, 0), shuffled(0, 1)),
    ):
        assert sum(a == b for a, b in zip(one, other, strict=True)) <= 2


def test_a_resumed_epoch_sees_the_targets_that_the_interrupted_one_saw():
    first = MultiLabelCollator(1, 8, "shuffled", seed=7)
    document = {"input_ids": [5], "labels": list(range(8)), "index": 3}
    seen = []
    for epoch in range(4):
        first.set_epoch(epoch)
        seen.append(first([document])["labels"].tolist())
    for epoch in (2, 0):
        resumed = MultiLabelCollator(1, 8, "shuffled", seed=7)
        resumed.set_epoch(epoch)
        assert resumed([document])["labels"].tolist() == seen[epoch]


def test_without_a_choice_targets_are_sorted_and_seed_and_epoch_are_zero():
    assert MultiLabelCollator(1, 5)(DOCUMENTS)["labels"][0].tolist() == [0, 2, 4, 5]
    document = {"input_ids": [5], "labels": list(range(8)), "index": 3}
    assert MultiLabelCollator(1, 8, "shuffled")([document])["labels"].tolist() == [[*shuffled(0, 0)[3], 8]]


def test_a_batch_without_words_and_labels_has_width_zero():
    batch = MultiLabelCollator(1, 5)([{"input_ids": [], "labels": []}])
    assert batch["input_ids"].shape == batch["attention_mask"].shape == (1, 0)
    assert batch["input_ids"].dtype == batch["attention_mask"].dtype == torch.long
    assert batch["labels"].tolist() == [[5]]


def test_documents_without_a_labels_column_make_a_batch_without_labels():
    batch = MultiLabelCollator(1, 5)([{"input_ids": [3, 4]}])
    assert set(batch) == {"input_ids", "attention_mask"}


def test_the_documents_are_not_changed():
    before = [dict(document, labels=list(document["labels"])) for document in DOCUMENTS]
    MultiLabelCollator(1, 5, "shuffled")(DOCUMENTS)
    assert before == DOCUMENTS


def test_each_column_of_tokens_is_padded_by_its_own_value():
    documents = [
        {"input_ids": [7, 8, 9], "token_type_ids": [0, 0, 1], "spans": [4, 5, 6], "labels": [1, 2, 3]},
        {"input_ids": [5], "token_type_ids": [1], "spans": [2], "labels": [0]},
    ]
    batch = MultiLabelCollator(1, 5, pad_token_type_id=3)(documents)
    assert batch["input_ids"].tolist() == [[7, 8, 9], [5, 1, 1]]
    assert batch["token_type_ids"].tolist() == [[0, 0, 1], [1, 3, 3]]
    assert batch["spans"].tolist() == [[4, 5, 6], [2, 0, 0]]
    assert MultiLabelCollator(1, 5)(documents)["token_type_ids"].tolist() == [[0, 0, 1], [1, 0, 0]]


def test_the_mask_is_made_from_the_tokens_and_columns_of_documents_are_not_used():
    documents = [
        {"id": "a", "text": "x", "input_ids": [7, 8], "attention_mask": [1, 0], "length": 2, "index": 0},
        {"id": "b", "text": "y", "input_ids": [5], "attention_mask": [1], "length": 1, "index": 1},
    ]
    batch = MultiLabelCollator(1, 5)(documents)
    assert set(batch) == {"input_ids", "attention_mask"}
    assert batch["attention_mask"].tolist() == [[1, 1], [1, 0]]


def test_texts_of_documents_with_labels_are_padded_without_their_labels():
    assert set(MultiLabelCollator(1, 5).pad_texts(DOCUMENTS)) == {"input_ids", "attention_mask"}


def test_documents_encoded_by_a_bert_tokenizer_make_the_batch_that_the_tokenizer_makes():
    words = "[PAD] [UNK] [CLS] [SEP] [MASK] one two three".split()
    tokenizer = BertTokenizer(vocab={word: i for i, word in enumerate(words, start=3)})  # padding is not 0
    texts = ["one", "two three one"]
    features = Features({"text": Value("string"), "labels": List(ClassLabel(names=["a", "b"]))})
    data = Dataset.from_dict({"text": texts, "labels": [[0], [1, 0]]}, features)
    encoded = encode_dataset(data, tokenizer, ["a", "b"])
    batch = MultiLabelCollator(tokenizer.pad_token_id, 2)(encoded.to_list())
    expected = tokenizer(texts, padding=True, return_tensors="pt")
    assert set(batch) == {*expected, "labels"} == {"input_ids", "token_type_ids", "attention_mask", "labels"}
    assert all(torch.equal(batch[name], expected[name]) for name in expected)
