"""What the texts of labels, their names or descriptions, say of labels that have no examples yet.

A text's vector is the mean of the vectors of its words. A new model's rows for labels begin as these vectors; a label
that is added to a trained model takes over rows of the labels whose texts are like its own. Any other source of
vectors of texts, such as a pre-trained encoder, can take the place of the words' mean.

Shapes: V words, E size of the vectors, L labels, m labels that are added, D size of a row of the model.
"""

from collections.abc import Sequence

import torch
from torch.nn import functional as F
from transformers import PreTrainedTokenizerBase

# Labels whose rows a new label takes over, and the power of the likeness by which they share: near ones count most.
MOST_SIMILAR = 5
SHARPNESS = 3


def text_words(texts: Sequence[str], tokenizer: PreTrainedTokenizerBase) -> list[list[int]]:
    """The ids of each text's words that a tokenizer knows; empty for a text without one."""
    special = set(tokenizer.all_special_ids)
    ids = tokenizer(list(texts), add_special_tokens=False)["input_ids"]
    return [[word for word in words if word not in special] for words in ids]


def centred(word_vectors: torch.Tensor) -> torch.Tensor:
    """Word vectors (V, E) without what all words have in common (Mu and Viswanath 2018, "All-but-the-Top")."""
    vectors = word_vectors.float()  # (V, E)
    return vectors - vectors.mean(dim=0)  # (V, E)


def text_vectors(word_vectors: torch.Tensor, texts: Sequence[Sequence[int]]) -> torch.Tensor:
    """The mean vector of each text's words.

    Args:
        word_vectors: (V, E).
        texts: Word ids of each text, L in number.

    Returns:
        (L, E) float32; zero for a text without words.
    """
    vectors = word_vectors.new_zeros(len(texts), word_vectors.shape[1], dtype=torch.float32)  # (L, E)
    for row, words in enumerate(texts):
        if words:
            vectors[row] = word_vectors[torch.tensor(words, device=word_vectors.device)].float().mean(dim=0)  # (E)
    return vectors


def check_label_vectors(vectors: torch.Tensor | None, count: int) -> None:
    """Refuses vectors (L, E) that are not of `count` labels, or not finite.

    Raises:
        ValueError: If they are such.
    """
    if vectors is not None and (vectors.ndim != 2 or len(vectors) != count or not vectors.isfinite().all()):
        raise ValueError(
            f"The vectors of labels are {tuple(vectors.shape)}; expected finite numbers, one row for each of {count} "
            "labels."
        )


def rows_like(vectors: torch.Tensor, rows: torch.Tensor) -> torch.Tensor:
    """Vectors of labels as rows of a model: of their size, and of their mean length.

    Where the sizes differ they are rotated into the other space by a fixed random rotation (or its first part), which
    keeps what is alike.

    Args:
        vectors: (L, E).
        rows: What the model begins with, (L, D).

    Returns:
        (L, D); as in `rows` where a vector is zero.
    """
    size, row_size = vectors.shape[1], rows.shape[1]
    turned = vectors.float()  # (L, E)
    if size != row_size:
        widest = max(size, row_size)
        noise = torch.randn(widest, widest, generator=torch.Generator().manual_seed(0))  # (max(E, D), max(E, D))
        rotation = torch.linalg.qr(noise).Q[:size, :row_size]  # (E, D)
        turned = turned @ rotation.to(turned.device)  # (L, D)
    lengths = turned.norm(dim=1, keepdim=True)  # (L, 1)
    usual = rows.float().norm(dim=1).mean()  # ()
    scaled = turned / lengths.clamp(min=torch.finfo(turned.dtype).tiny) * usual  # (L, D)
    return torch.where(lengths > 0, scaled, rows.float()).to(rows.dtype)  # (L, D)


def similarities(vectors: torch.Tensor, others: torch.Tensor) -> torch.Tensor:
    """Cosines of vectors (m, E) and others (L, E), (m, L); 0 for zero vectors."""
    unit, units = (F.normalize(one.float(), dim=1) for one in (vectors, others))  # (m, E), (L, E)
    return unit @ units.T  # (m, L)


def shares_of_labels(vectors: torch.Tensor, known: torch.Tensor) -> torch.Tensor:
    """How much of each known label's rows a new label takes over.

    The more a new label's text is like that of a known one, the more it takes of the few most similar labels; the rest
    is of the average of all, so that a text unlike all others makes an average label.

    Args:
        vectors: Of the new labels' texts, (m, E).
        known: Of the L known labels' texts, (L, E).

    Returns:
        (m, L) float32, not negative, each row with the sum 1.
    """
    likeness = similarities(vectors, known).clamp(min=0) ** SHARPNESS  # (m, L)
    count = min(MOST_SIMILAR, known.shape[0])
    least = likeness.topk(count, dim=1).values[:, -1:]  # (m, 1)
    nearest = torch.where(likeness >= least, likeness, 0.0)  # (m, L)
    sums = nearest.sum(dim=1, keepdim=True)  # (m, 1)
    nearest = nearest / sums.clamp(min=torch.finfo(sums.dtype).tiny)  # (m, L)
    trust = likeness.amax(dim=1, keepdim=True).clamp(max=1.0)  # (m, 1)
    return trust * nearest + (1 - trust) / known.shape[0]  # (m, L)


def mixed_rows(rows: torch.Tensor, count: int, shares: torch.Tensor | None) -> torch.Tensor:
    """Rows of new labels, mixed from those of known ones.

    Args:
        rows: (L, ...).
        count: m.
        shares: (m, L); equal ones by default.

    Returns:
        (m, ...) of the type of `rows`.
    """
    if shares is None:
        return rows.mean(dim=0, keepdim=True).expand(count, *rows.shape[1:])  # (m, ...)
    return (shares @ rows.float()).to(rows.dtype)  # (m, ...)


def word_likeness(
    word_vectors: torch.Tensor, vectors: torch.Tensor, texts: Sequence[Sequence[int]], scale: torch.Tensor
) -> torch.Tensor:
    """How much each word speaks for each new label, from its text alone.

    Args:
        word_vectors: (V, E).
        vectors: Of the new labels' texts, (m, E).
        texts: Their word ids, m in number.
        scale: How telling each word is, such as its idf, (V).

    Returns:
        (V, m) float32: between 0 and 1; highest for the text's own words, those that are in few documents before
        others, and else the higher the more a word is used like them.
    """
    likeness = similarities(word_vectors, vectors).clamp(min=0) ** SHARPNESS  # (V, m)
    for label, words in enumerate(texts):
        own = torch.tensor(words, device=scale.device)  # (words of the text)
        telling = scale[own].float()  # (words of the text)
        highest = telling.max().clamp(min=torch.finfo(telling.dtype).tiny)  # ()
        likeness[own, label] = telling / highest  # (words of the text)
    return likeness


__all__ = [
    "centred",
    "check_label_vectors",
    "mixed_rows",
    "rows_like",
    "shares_of_labels",
    "similarities",
    "text_vectors",
    "text_words",
    "word_likeness",
]
