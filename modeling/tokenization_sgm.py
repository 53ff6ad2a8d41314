"""Word-level tokenizer of the SGM models: built here; saved, its words and rules are in `tokenizer.json`.

How a text becomes words, and why:

1. NFKC, so that full-width letters, ligatures and composed accents have one spelling; the curly apostrophe becomes the
   straight one; invisible format characters (zero-width joiners, soft hyphens) go.
2. Lower case (as the authors' code does; the ready-made AAPD texts are so already).
3. Each digit becomes 0, unless it touches a letter: `1987` is `0000`, `155,221` is `000,000`, but `3d` and `5g` stay.
   The value of a number says little about a topic, and every value would claim a row of the vocabulary; its shape (a
   year, an amount, a rate) costs few rows. Digit by digit, because the offsets then still cover the whole number:
   `tokenizers` maps a longer replacement (one `<num>` for all digits) back to the number's last character only.
4. Words are cut at white space and at punctuation, so that raw text (`week.`) and text that comes tokenised (`week .`)
   give the same words. Each punctuation mark or symbol (emoji too) is a word of its own. Kept whole are numbers
   (`5.93`), escaped marks (`\\(` of the AAPD texts), abbreviations (`u.s.`) and English clitics (`don 't`, `fund 's`).
   Chinese and Japanese characters, which no space separates, are words one by one.

A word outside the vocabulary is `<unk>`. Offsets refer to the text as it was given.

No rule looks across white space. So the words of a text are those of its pieces between white space, one after the
other, and a corpus has few different pieces: each is cut once for the vocabulary (`train_from_texts`), and once for
the ids of a data set (`sgm_hf.data.encoding`).
"""

import itertools
from collections import Counter
from collections.abc import Iterable, Sequence

from tokenizers import AddedToken, Regex, Tokenizer, normalizers, pre_tokenizers
from tokenizers.models import WordLevel
from transformers import TokenizersBackend

PAD_TOKEN = "<pad>"
UNK_TOKEN = "<unk>"

# Characters of texts whose pieces are counted before they are cut into words, which bounds the memory: in a script
# without spaces each piece is a sentence, and no two are the same.
_MOST_CHARACTERS = 100_000_000

_LETTER_OR_DIGIT = r"\p{L}\p{M}\p{N}"
_UNSPACED_SCRIPT = r"\p{Han}\p{Hiragana}\p{Katakana}"
_MASKED_DIGIT = r"(?<!\p{L})\p{Nd}(?!\p{L})"
_WORD = "|".join(
    (
        r"\p{Nd}+(?:[.,]\p{Nd}+)+(?!\p{L})",  # 155,221 5.93
        rf"\\[^\s{_LETTER_OR_DIGIT}]",  # \( \) \?
        r"'(?:s|t|re|ve|ll|d|m)(?![\p{L}\p{N}])",
        r"(?:(?<!\p{L})\p{L}\.){2,}",  # u.s. e.g.
        rf"[{_UNSPACED_SCRIPT}]\p{{M}}*",
        rf"[{_LETTER_OR_DIGIT}&&[^{_UNSPACED_SCRIPT}]]+",
        rf"[^\s\p{{C}}{_LETTER_OR_DIGIT}]\p{{M}}*",
    )
)


class SGMTokenizer(TokenizersBackend):
    """Word-level tokenizer for SGM models.

    How a text becomes word ids lies in `tokenizer.json`, and its greatest length, the padding word and the like in
    `tokenizer_config.json`, so `AutoTokenizer.from_pretrained(folder)` encodes alike where this class is not known.
    Only `add_tokens` differs there: a word given as a string is found inside other words too, "art" in "party", unless
    it is given as `AddedToken("art", single_word=True, normalized=True)`. Words added by this class are saved so.

    Build a new tokenizer with `train_from_texts`.

    Examples:
        >>> tokenizer = SGMTokenizer.train_from_texts(["Shipments of cocoa rose to 5.93 mln bags."])
        >>> tokenizer.tokenize("Cocoa fell to 4.27 mln")
        ['cocoa', '<unk>', 'to', '0.00', 'mln']
    """

    # No __init__ here: with one, transformers would rebuild the vocabulary and renumber the ids.
    model_input_names = ["input_ids", "attention_mask"]

    @classmethod
    def train_from_texts(
        cls,
        texts: Iterable[str],
        vocab_size: int = 30000,
        lowercase: bool = True,
        mask_numbers: bool = True,
        model_max_length: int = 500,
        min_frequency: int = 1,
    ) -> "SGMTokenizer":
        """Build a tokenizer whose vocabulary is the most frequent words of the texts.

        The same texts, in any order, give the same vocabulary: words are ranked by count, ties alphabetically.

        Args:
            texts: The training texts, not those of the evaluation: their new words must stay unknown. May be a
                generator.
            vocab_size: Most words the vocabulary may hold, `<pad>` (id 0) and `<unk>` (id 1) among them.
                Default 30000 (SGM §3.3 for AAPD; 50000 for RCV1-V2).
            lowercase: Whether case is ignored. Default True.
            mask_numbers: Whether the digits of numbers become 0 (rule 3 of this module). Default True.
            model_max_length: Length in words at which `truncation=True` cuts a text. Default 500 (SGM §3.3).
            min_frequency: Occurrences a word needs to enter the vocabulary. Default 1.

        Returns:
            The tokenizer.

        Raises:
            TypeError: If `texts` is a single string, or one of them is not a string.
            ValueError: If there is no text or no word in them, or a size makes no vocabulary.
        """
        if vocab_size < 3:
            raise ValueError(
                f"vocab_size is {vocab_size}; expected at least 3 ({PAD_TOKEN}, {UNK_TOKEN} and one word), usually "
                "30000."
            )
        if model_max_length < 1:
            raise ValueError(f"model_max_length is {model_max_length} words; it must be at least 1, usually 500.")
        if min_frequency < 1:
            raise ValueError(f"min_frequency is {min_frequency}; it must be at least 1.")
        if isinstance(texts, str):
            raise TypeError(
                f"texts must be an iterable of strings, got the single string {texts[:50]!r}; pass [text]."
            )
        backend = _untrained_backend(lowercase, mask_numbers)
        counts, number = _count_words(texts, backend)
        if number == 0:
            raise ValueError("No texts: a vocabulary needs at least one training text; check the training split.")
        words = [word for word, count in counts.items() if count >= min_frequency]
        if not words:
            raise ValueError(
                f"The {number} texts hold no word that occurs at least {min_frequency} times; "
                "check that the text column is not empty, or lower min_frequency."
            )
        special = [PAD_TOKEN, UNK_TOKEN]
        ranked = sorted(words, key=lambda word: (-counts[word], word))[: vocab_size - len(special)]
        backend.model = WordLevel({word: i for i, word in enumerate(special + ranked)}, unk_token=UNK_TOKEN)
        backend.add_special_tokens(special)
        # split_special_tokens: a "<pad>" in a text is three ordinary words, not padding.
        return cls(
            tokenizer_object=backend,
            pad_token=PAD_TOKEN,
            unk_token=UNK_TOKEN,
            model_max_length=model_max_length,
            split_special_tokens=True,
        )

    @property
    def splits_at_spaces(self) -> bool:
        """Whether the ids of a text are those of its pieces between white space, one after the other.

        True with the rules of this module, as long as no added token contains white space.
        """
        backend = self.backend_tokenizer
        rules = _state(backend.normalizer), _state(backend.pre_tokenizer)
        kinds = (_untrained_backend(*options) for options in itertools.product((True, False), repeat=2))
        if all(rules != (_state(kind.normalizer), _state(kind.pre_tokenizer)) for kind in kinds):
            return False
        added = [token.content for token in backend.get_added_tokens_decoder().values()]
        written = "".join(added) + backend.normalizer.normalize_str("".join(added))
        return self.num_special_tokens_to_add() == 0 and not any(character.isspace() for character in written)

    def add_tokens(
        self, new_tokens: str | AddedToken | Sequence[str | AddedToken], special_tokens: bool = False
    ) -> int:
        """Adds words to the vocabulary; those given as strings match whole words: "art" is no part of "party".

        Args:
            new_tokens: One or several.
            special_tokens: Whether they are special tokens, which match anywhere.

        Returns:
            How many were added.
        """
        tokens = [new_tokens] if isinstance(new_tokens, str | AddedToken) else new_tokens
        if not special_tokens:
            tokens = [self._as_word(token) if isinstance(token, str) else token for token in tokens]
        return super().add_tokens(tokens, special_tokens)

    def _as_word(self, word: str) -> AddedToken:
        """Return the word as a token that is looked for where the rules of this module would end a word."""
        pieces = self.backend_tokenizer.pre_tokenizer.pre_tokenize_str(f"x{word}x")
        # Marks and Chinese characters end the words next to them, so that they need no space around them.
        is_its_own_boundary = pieces[0][0] == "x" == pieces[-1][0]
        return AddedToken(word, single_word=not is_its_own_boundary, normalized=True)


def _count_words(texts: Iterable[str], backend: Tokenizer) -> tuple[Counter[str], int]:
    """Count each word of the texts, and the texts."""
    words: Counter[str] = Counter()
    pieces: Counter[str] = Counter()
    number = num_characters = 0
    for text in texts:
        if not isinstance(text, str):
            raise TypeError(f"Text {number} is {text!r} of type {type(text).__name__}; every text must be a string.")
        number += 1
        pieces.update(text.split())
        num_characters += len(text)
        if num_characters > _MOST_CHARACTERS:
            _cut_pieces(pieces, words, backend)
            num_characters = 0
    _cut_pieces(pieces, words, backend)
    return words, number


def _cut_pieces(pieces: Counter[str], words: Counter[str], backend: Tokenizer) -> None:
    """Move what was counted as pieces to the count of their words."""
    for piece, count in pieces.items():
        for word, _ in backend.pre_tokenizer.pre_tokenize_str(backend.normalizer.normalize_str(piece)):
            words[word] += count
    pieces.clear()


def _state(rules: normalizers.Normalizer | pre_tokenizers.PreTokenizer | None) -> bytes:
    """The rules as `tokenizer.json` has them."""
    return b"" if rules is None else rules.__getstate__()


def _untrained_backend(lowercase: bool, mask_numbers: bool) -> Tokenizer:
    """Return a `tokenizers` tokenizer with the word rules of this module and no vocabulary yet."""
    backend = Tokenizer(WordLevel(unk_token=UNK_TOKEN))
    steps = [
        normalizers.NFKC(),
        normalizers.Replace("\u2019", "'"),
        normalizers.Replace(Regex(r"\p{Cf}+"), ""),
    ]
    if lowercase:
        steps.append(normalizers.Lowercase())
    if mask_numbers:
        steps.append(normalizers.Replace(Regex(_MASKED_DIGIT), "0"))
    backend.normalizer = normalizers.Sequence(steps)
    # invert: the pattern names what is kept, everything else (white space, control characters) is removed.
    backend.pre_tokenizer = pre_tokenizers.Split(Regex(_WORD), behavior="removed", invert=True)
    return backend
