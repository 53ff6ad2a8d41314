import gzip
import itertools
import json
import os
import subprocess
import sys
from collections import Counter
from pathlib import Path

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from tokenizers import AddedToken, pre_tokenizers, processors
from tokenizers.trainers import WordLevelTrainer
from transformers import AutoTokenizer, TokenizersBackend

from sgm_hf.modeling import tokenization_sgm
from sgm_hf.modeling.tokenization_sgm import SGMTokenizer

TEXTS = [
    "Shipments of cocoa rose to 155,221 bags in the week ended Feb 22, 1987.",
    "in this paper , the sum capacity of the \\( mimo \\) channel 's model is shown in 3d",
    "Yes! I don’t know why; the naïve U.S. buyers paid 5.93 mln… 😝",
]
EVERYTHING = (
    "The ﬁne U.S. crop: 1,234 naïve buyers\u2019 don’t-care \\( ohc \\) fund's “quote” "
    "5.93% İstanbul café\u0301 co\u00adop 日本語 3D 😝❤️ \x02 x_1\t$12."
)


@pytest.fixture(scope="module")
def tokenizer() -> SGMTokenizer:
    return SGMTokenizer.train_from_texts(TEXTS)


def words(text: str, **options) -> list[str]:
    """The words of a text, all of them known."""
    tokenizer = SGMTokenizer.train_from_texts([text], **options)
    return tokenizer.convert_ids_to_tokens(tokenizer(text)["input_ids"])


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("The end. Of it, all", "the end . of it , all"),
        ("the sum \\( mimo \\) capacity \\?", "the sum \\( mimo \\) capacity \\?"),
        ("It's the users' fund's; we don’t, they'll", "it 's the users ' fund 's ; we don 't , they 'll"),
        ("The U.S. rose at 9 a.m. yesterday.", "the u.s. rose at 0 a.m. yesterday ."),
        ("semi-supervised and/or [NAME]", "semi - supervised and / or [ name ]"),
        ("well... no!! 😝😝", "well . . . no ! ! 😝 😝"),
        ("日本 ラテ abc", "日 本 ラ テ abc"),
        ("Ｆｕｌｌ ﬁne co\u00adop cafe\u0301", "full fine coop café"),
    ],
)
def test_texts_are_cut_into_words(text, expected):
    assert words(text) == expected.split()


@pytest.mark.parametrize(
    ("number", "masked"),
    [
        ("7", "0"),
        ("1987", "0000"),
        ("155,221", "000,000"),
        ("5.93", "0.00"),
        ("3d", "3d"),
        ("5G", "5g"),
        ("b2b", "b2b"),
    ],
)
def test_numbers_keep_their_shape_and_lose_their_value(number, masked):
    assert words(f"in {number} .") == ["in", masked, "."]
    assert words(f"in {number} .", mask_numbers=False) == ["in", number.lower(), "."]


def test_case_is_kept_on_request():
    assert words("The End", lowercase=False) == ["The", "End"]


def test_raw_and_tokenised_text_give_the_same_words():
    assert words("Prices rose (by 5.3 pct), it's said.") == words("prices rose ( by 5.3 pct ) , it 's said .")


def test_offsets_cover_each_word_in_the_original_text(tokenizer):
    encoding = tokenizer(EVERYTHING, return_offsets_mapping=True)
    found = [EVERYTHING[start:end] for start, end in encoding["offset_mapping"]]
    assert found == (
        "The|ﬁne|U.S.|crop|:|1,234|naïve|buyers|\u2019|don|’t|-|care|\\(|ohc|\\)|fund|'s|“|quote|”|"
        "5.93|%|İstanbul|café\u0301|co\u00adop|日|本|語|3D|😝|❤️|x|_|1|$|12|."
    ).split("|")


def test_offsets_are_ascending_and_miss_only_white_space_and_control_characters(tokenizer):
    for text in [*TEXTS, EVERYTHING]:
        offsets = tokenizer(text, return_offsets_mapping=True)["offset_mapping"]
        gaps = zip([0, *(end for _, end in offsets)], [*(start for start, _ in offsets), len(text)], strict=True)
        assert all(text[end:start].strip(" \t\x02") == "" for end, start in gaps)


def test_unknown_words_become_unk(tokenizer):
    ids = tokenizer("cocoa zzz week")["input_ids"]
    assert tokenizer.convert_ids_to_tokens(ids) == ["cocoa", "<unk>", "week"]
    assert (tokenizer.pad_token_id, tokenizer.unk_token_id) == (0, 1)


def test_a_special_token_in_a_text_is_ordinary_words(tokenizer):
    ids = tokenizer("<pad> <unk> cocoa")["input_ids"]
    assert len(ids) == 7 and 0 not in ids


def test_the_vocabulary_is_the_most_frequent_words_ties_by_word():
    tokenizer = SGMTokenizer.train_from_texts(["b b b a a d c", "c d e"], vocab_size=6)
    assert tokenizer.convert_ids_to_tokens(range(6)) == ["<pad>", "<unk>", "b", "a", "c", "d"]
    assert len(tokenizer) == tokenizer.vocab_size == 6


# Letters that other letters change, marks and characters that join, and everything that str.split() cuts at.
CHARACTERS = st.one_of(
    st.characters(exclude_categories=["Cs"]),
    st.sampled_from([chr(code) for code in range(sys.maxunicode + 1) if chr(code).isspace()]),
    st.sampled_from("aAsS.'19,\\(\u2019\u0301\u0308\u00a8\u00ad\u200b\u200d\u03a3\ufb01\u0130日ラ\u1100\u1161😝"),
)
UNICODE_TEXTS = st.lists(st.text(CHARACTERS, max_size=30), min_size=1, max_size=5)


@pytest.mark.parametrize(("most_characters", "vocab_size", "min_frequency"), [(100_000_000, 30, 1), (9, 12, 2)])
@given(texts=UNICODE_TEXTS, lowercase=st.booleans(), mask_numbers=st.booleans())
@settings(max_examples=80, deadline=None)
@example(texts=[EVERYTHING, *TEXTS], lowercase=True, mask_numbers=True)
def test_the_vocabulary_is_what_the_trainer_of_tokenizers_makes_of_whole_texts(
    most_characters, vocab_size, min_frequency, texts, lowercase, mask_numbers
):
    expected = tokenization_sgm._untrained_backend(lowercase, mask_numbers)
    trainer = WordLevelTrainer(
        vocab_size=vocab_size, min_frequency=min_frequency, special_tokens=["<pad>", "<unk>"], show_progress=False
    )
    expected.train_from_iterator(["word word", *texts], trainer)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(tokenization_sgm, "_MOST_CHARACTERS", most_characters)
        tokenizer = SGMTokenizer.train_from_texts(
            ["word word", *texts], vocab_size, lowercase, mask_numbers, min_frequency=min_frequency
        )
    found = json.loads(tokenizer.backend_tokenizer.to_str())
    assert found | {"post_processor": None} == json.loads(expected.to_str())


def test_a_tokenizer_splits_at_spaces_until_a_rule_or_an_added_word_looks_across_them(tokenizer, tmp_path):
    tokenizer.save_pretrained(tmp_path)
    loaded = SGMTokenizer.from_pretrained(tmp_path)
    loaded.add_tokens(["zoo", "日"])
    assert tokenizer.splits_at_spaces and loaded.splits_at_spaces
    for blank in (" ", "\u00a0", "\u00a8"):  # the last becomes a space and a mark
        other = SGMTokenizer.from_pretrained(tmp_path)
        other.add_tokens([AddedToken(f"deep{blank}learning")])
        assert not other.splits_at_spaces
    loaded.backend_tokenizer.post_processor = processors.TemplateProcessing("<pad> $A", special_tokens=[("<pad>", 0)])
    assert not loaded.splits_at_spaces
    other = SGMTokenizer.from_pretrained(tmp_path)
    other.backend_tokenizer.pre_tokenizer = pre_tokenizers.Metaspace()
    assert not other.splits_at_spaces


def test_words_rarer_than_min_frequency_stay_out():
    assert set(SGMTokenizer.train_from_texts(["a a b"], min_frequency=2).get_vocab()) == {"<pad>", "<unk>", "a"}


def test_the_vocabulary_does_not_depend_on_the_order_of_the_texts_or_on_how_they_come():
    vocabulary = SGMTokenizer.train_from_texts(TEXTS).get_vocab()
    assert SGMTokenizer.train_from_texts(text for text in reversed(TEXTS)).get_vocab() == vocabulary


def test_a_text_is_cut_at_model_max_length_when_truncated():
    tokenizer = SGMTokenizer.train_from_texts(["a b c"], model_max_length=4)
    assert tokenizer.convert_ids_to_tokens(tokenizer("a b c c b a", truncation=True)["input_ids"]) == list("abcc")
    assert len(tokenizer("a b c c b a", verbose=False)["input_ids"]) == 6


def test_a_batch_is_padded_on_the_right_with_a_mask(tokenizer):
    batch = tokenizer(["cocoa rose", "cocoa", ""], padding=True)
    assert set(batch) == {"input_ids", "attention_mask"}
    assert batch["attention_mask"] == [[1, 1], [1, 0], [0, 0]]
    assert [row[1] for row in batch["input_ids"][1:]] == [0, 0]


def test_a_batch_gives_the_same_ids_as_one_text_at_a_time(tokenizer):
    texts = [*TEXTS, EVERYTHING, ""]
    assert tokenizer(texts)["input_ids"] == [tokenizer(text)["input_ids"] for text in texts]


def test_a_saved_tokenizer_loads_the_same_and_saves_the_same_file(tokenizer, tmp_path):
    tokenizer(EVERYTHING, truncation=True, padding=True)  # a call leaves no trace in the file
    tokenizer.save_pretrained(tmp_path / "first")
    loaded = SGMTokenizer.from_pretrained(tmp_path / "first")
    loaded.save_pretrained(tmp_path / "second")
    first, second = ((tmp_path / name / "tokenizer.json").read_bytes() for name in ("first", "second"))
    assert first == second
    assert loaded(EVERYTHING) == tokenizer(EVERYTHING)
    assert loaded("<pad>")["input_ids"] == tokenizer("<pad>")["input_ids"]
    assert loaded.get_vocab() == tokenizer.get_vocab()
    assert (loaded.model_max_length, loaded.pad_token_id) == (500, 0)


def test_auto_tokenizer_loads_it(tokenizer, tmp_path):
    tokenizer.save_pretrained(tmp_path)
    loaded = AutoTokenizer.from_pretrained(tmp_path)
    assert loaded(EVERYTHING, truncation=True) == tokenizer(EVERYTHING, truncation=True)


def test_auto_tokenizer_loads_it_where_sgm_hf_is_not_imported(tokenizer, tmp_path):
    tokenizer.save_pretrained(tmp_path)
    code = (
        "import json, sys\nfrom transformers import AutoTokenizer\n"
        f"tokenizer = AutoTokenizer.from_pretrained({str(tmp_path)!r})\n"
        f"ids = tokenizer({EVERYTHING!r}, truncation=True)['input_ids']\n"
        "print(json.dumps([ids, tokenizer.model_max_length, 'sgm_hf' in sys.modules]))"
    )
    output = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert json.loads(output) == [tokenizer(EVERYTHING)["input_ids"], 500, False]


@pytest.mark.parametrize(
    ("texts", "options", "message"),
    [
        ([], {}, "No texts"),
        (["", " \n\t"], {}, "The 2 texts hold no word"),
        (["a b"], {"min_frequency": 2}, "at least 2 times"),
        (["a"], {"vocab_size": 2}, "vocab_size is 2"),
        (["a"], {"model_max_length": 0}, "model_max_length is 0"),
        (["a"], {"min_frequency": 0}, "min_frequency is 0"),
    ],
)
def test_what_makes_no_vocabulary_is_a_value_error(texts, options, message):
    with pytest.raises(ValueError, match=message):
        SGMTokenizer.train_from_texts(texts, **options)


def test_a_single_string_or_an_input_that_is_none_is_a_type_error():
    with pytest.raises(TypeError, match="single string 'abc'"):
        SGMTokenizer.train_from_texts("abc")
    with pytest.raises(TypeError, match="Text 1 is None of type NoneType"):
        SGMTokenizer.train_from_texts(["a", None])


def test_the_tokenised_aapd_texts_keep_their_words():
    default = Path(__file__).parents[3] / "shared" / "data"
    path = Path(os.environ.get("SGM_HF_DATA", default)) / "aapd" / "text_val.gz"
    if not path.is_file():
        pytest.skip(f"{path} is not there; set SGM_HF_DATA to the folder of the real data")
    with gzip.open(path, "rt", encoding="utf-8") as file:
        texts = [line.rstrip("\n") for line in file][:200]
    tokenizer = SGMTokenizer.train_from_texts(texts, mask_numbers=False)
    encoded = tokenizer(texts)["input_ids"]
    pairs = [(text.split(), tokenizer.convert_ids_to_tokens(ids)) for text, ids in zip(texts, encoded, strict=True)]
    cut = Counter(word for given, kept in pairs for word in set(given) - set(kept))
    assert sum(cut.values()) < 0.001 * sum(len(given) for given, _ in pairs), cut.most_common(10)


@pytest.fixture(params=[SGMTokenizer, AutoTokenizer])
def with_new_words(request, tmp_path):
    """A tokenizer with added words, saved and loaded by either class."""
    tokenizer = SGMTokenizer.train_from_texts(["the party of the art fair 1987"])
    tokenizer.add_tokens(["Zoo", "b2b", "deep learning", "生", "party"])  # party is there already
    tokenizer.save_pretrained(tmp_path)
    return request.param.from_pretrained(tmp_path)


def test_added_words_are_found_as_whole_words_in_any_case(with_new_words):
    size = len(with_new_words)
    assert with_new_words.get_vocab()["生"] == size - 1
    assert size == 8 + 4
    word_ids = with_new_words("the ZOO zoology b2b, deep learning 人生活").input_ids
    assert [word_id - 8 if word_id > 7 else word_id for word_id in word_ids] == [2, 0, 1, 1, 1, 2, 1, 3, 1]


def test_added_words_leave_other_texts_as_they_were(with_new_words):
    text = "The party of 1990: art-fair zoos, deeply learned"
    before = SGMTokenizer.train_from_texts(["the party of the art fair 1987"])
    assert with_new_words(text).input_ids == before(text).input_ids


def test_without_this_class_a_saved_tokenizer_encodes_alike_and_only_adding_words_differs(tmp_path):
    text = "the party of the art fair 1987"
    tokenizer = SGMTokenizer.train_from_texts([text], model_max_length=4)
    tokenizer.save_pretrained(tmp_path)
    ours, plain = SGMTokenizer.from_pretrained(tmp_path), TokenizersBackend.from_pretrained(tmp_path)
    assert plain(text, truncation=True) == ours(text, truncation=True)
    assert plain("<pad>").input_ids == ours("<pad>").input_ids
    ours.add_tokens(["par"])
    plain.add_tokens(["par"])
    assert ours.tokenize("the par party") == ["the", "par", "party"]
    assert plain.tokenize("the party") != ["the", "party"]  # found inside the word
    whole = TokenizersBackend.from_pretrained(tmp_path)
    whole.add_tokens([AddedToken("par", single_word=True, normalized=True)])
    assert whole.tokenize("the par party") == ["the", "par", "party"]


def test_the_smallest_sizes_that_make_a_vocabulary_make_one():
    tokenizer = SGMTokenizer.train_from_texts(["a b"], vocab_size=3, model_max_length=1, min_frequency=1)
    assert tokenizer.get_vocab() == {"<pad>": 0, "<unk>": 1, "a": 2}
    assert tokenizer("a a", truncation=True).input_ids == [2]


def test_sizes_not_given_are_those_of_the_paper():
    words = [f"w{chr(97 + i // 676)}{chr(97 + i // 26 % 26)}{chr(97 + i % 26)}" for i in range(3 * 676)]
    texts = [f"{first}x{second}" for first in words for second in "abcdefghijklmnop"]
    tokenizer = SGMTokenizer.train_from_texts(texts)
    assert len(texts) > 30_000 == len(tokenizer)
    assert tokenizer.model_max_length == 500


def test_a_vocabulary_has_the_papers_size_where_none_is_given():
    words = map("".join, itertools.product("abcdefghijklmnopqrstuvwxyz", repeat=4))
    assert len(SGMTokenizer.train_from_texts([" ".join(itertools.islice(words, 30_100))])) == 30_000


def test_a_token_added_as_special_is_special():
    tokenizer = SGMTokenizer.train_from_texts(["a b"])
    tokenizer.add_tokens(["<mark>"], special_tokens=True)
    tokenizer.add_tokens(["word"])
    special = {token.content: token.special for token in tokenizer.added_tokens_decoder.values()}
    assert special["<mark>"] and not special["word"]
    assert tokenizer.decode(tokenizer("a word")["input_ids"], skip_special_tokens=True).split() == ["a", "word"]
