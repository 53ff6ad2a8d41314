import re
import sys
import xml.dom.minidom
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest
from matplotlib import image
from matplotlib.figure import Figure

from sgm_hf.analysis import attention, figures

sys.path.insert(0, str(Path(__file__).parents[1] / "programs" / "app"))
from random_model import TEXTS, build_pipeline  # noqa: E402

sys.path.append(str(Path(__file__).parents[1] / "modeling"))
from tiny_models import build_bert_pipeline  # noqa: E402

HOSTILE = '<img src=x onerror="alert(1)"><script>alert(2)</script> & $x^2$ {{a}} ${alert(3)} ]]> -->'


class Reader(HTMLParser):
    """Collects the elements, attributes and text that a browser would find."""

    def __init__(self, page: str):
        super().__init__()
        self.tags, self.attributes, self.text, self.blocks = set(), set(), "", []
        self.in_block = False
        self.feed(page)
        self.close()

    def handle_starttag(self, tag, attrs):
        self.tags.add(tag)
        self.attributes.update(name for name, _ in attrs)
        if tag == "p":
            self.blocks.append("")
            self.in_block = True

    def handle_endtag(self, tag):
        self.in_block &= tag != "p"

    def handle_data(self, data):
        self.text += data
        if self.in_block:
            self.blocks[-1] += data


@pytest.fixture(scope="module")
def pipe():
    return build_pipeline()


def predict(text, pipe, **options):
    return pipe(text, return_attention=True, **options)


def made_up(words, labels=("a",), weights=None):
    """A prediction for words with one blank between them."""
    starts = np.cumsum([0] + [len(word) + 1 for word in words])
    weights = weights or [1 / len(words)] * len(words)
    attended = [
        {"word": word, "start": int(start), "end": int(start) + len(word), "weight": weight}
        for word, start, weight in zip(words, starts, weights, strict=False)
    ]
    return [{"label": label, "score": 0.5, "attention": attended} for label in labels]


@pytest.fixture
def drawn(monkeypatch):
    kept: list[Figure] = []
    monkeypatch.setattr(figures, "save_figure", lambda figure, path: kept.append(figure))
    return kept


def test_attention_of_given_labels_is_that_of_the_pipeline(pipe):
    for text in TEXTS:
        prediction = predict(text, pipe)
        label_ids = [pipe.model.config.label2id[entry["label"]] for entry in prediction]
        given = attention.label_attention(pipe.model, pipe.tokenizer, text, label_ids)
        assert len(given) == len(prediction) > 0
        for words, entry in zip(given, prediction, strict=True):
            assert [word["word"] for word in words] == [word["word"] for word in entry["attention"]]
            assert [word["weight"] for word in words] == pytest.approx(
                [word["weight"] for word in entry["attention"]], abs=1e-5
            )


def test_attention_of_given_labels_ends_where_the_text_is_cut(pipe):
    words = attention.label_attention(pipe.model, pipe.tokenizer, TEXTS[1], [0], max_length=3)[0]
    assert [word["word"] for word in words] == ["the", "price", "of"]
    assert sum(word["weight"] for word in words) == pytest.approx(1, abs=1e-5)


def test_attention_leaves_the_mode_of_the_model_as_it_was(pipe):
    pipe.model.train()
    attention.label_attention(pipe.model, pipe.tokenizer, TEXTS[0], [0])
    assert pipe.model.training
    pipe.model.eval()


def test_no_labels_or_no_words_have_no_attention(pipe):
    assert attention.label_attention(pipe.model, pipe.tokenizer, TEXTS[0], []) == []
    assert attention.label_attention(pipe.model, pipe.tokenizer, " ", [0, 1]) == [[], []]


def test_tokens_around_a_text_are_in_no_map():
    pipe = build_bert_pipeline()
    text = "gold rose in the week."
    prediction = predict(text, pipe, min_labels=1)
    label_ids = [pipe.model.config.label2id[entry["label"]] for entry in prediction]
    given = attention.label_attention(pipe.model, pipe.tokenizer, text, label_ids)
    for words, entry in zip(given, prediction, strict=True):
        assert [word["word"] for word in words] == ["gold", "rose", "in", "the", "week", "."]
        assert [word["weight"] for word in words] == pytest.approx([word["weight"] for word in entry["attention"]])
    assert Reader(attention.attention_html(text, prediction)).blocks == [text] * len(prediction)
    assert attention.label_attention(pipe.model, pipe.tokenizer, " ", [0]) == [[]]


def test_a_model_without_attention_is_a_value_error():
    pipe = build_pipeline(attention="none")
    with pytest.raises(ValueError, match="no attention"):
        attention.label_attention(pipe.model, pipe.tokenizer, TEXTS[0], [0])


def test_each_label_shows_the_whole_text(pipe):
    text = "Cocoa  <ROSE>,\n\tthe price\u2028fell & fell."
    prediction = predict(text, pipe)
    blocks = Reader(attention.attention_html(text, prediction)).blocks
    assert blocks == [text] * len(prediction)


def test_colours_grow_with_the_weight():
    page = attention.attention_html("x y z", made_up(["x", "y", "z"], weights=[0.1, 0.6, 0.3]))
    strengths = [float(alpha) for alpha in re.findall(r"10, ([\d.]+)\)", page)]
    assert strengths == pytest.approx([0.15, 0.9, 0.45])
    assert re.findall(r'title="([\d.]+)"', page) == ["0.1000", "0.6000", "0.3000"]


def test_labels_that_were_not_generated_have_no_map(pipe):
    prediction = predict(TEXTS[0], pipe, top_k=None)
    without = [entry for entry in prediction if entry["attention"] is None]
    assert 0 < len(without) < len(prediction)
    assert attention.attention_html(TEXTS[0], prediction).count("<details") == len(prediction) - len(without)
    assert "No label" in attention.attention_html(TEXTS[0], without)


def test_markup_in_a_text_a_label_or_a_title_is_shown_and_never_interpreted():
    pipe = build_pipeline(names=[HOSTILE, "</title></summary><style>*{display:none}</style>"])
    prediction = predict(HOSTILE, pipe)
    page = attention.attention_page(HOSTILE, prediction, title="</title><script>alert(4)</script>")
    plain = attention.attention_page("a", made_up(["a"]))
    found, expected = Reader(page), Reader(plain)
    assert found.tags == expected.tags
    assert "script" not in found.tags
    assert found.attributes == expected.attributes
    assert "</title><script>alert(4)</script>" in found.text
    assert prediction[0]["label"] == HOSTILE
    assert found.text.count(HOSTILE) == len(prediction) + 1
    assert found.blocks[1:] == [HOSTILE] * len(prediction)


def test_a_page_may_run_no_script_and_loads_nothing():
    page = attention.attention_page("a", made_up(["a"]))
    assert "default-src 'none'; style-src 'unsafe-inline'" in page
    assert not re.search(r"https?:|src=|href=|url\(", page)


def test_half_a_surrogate_pair_can_be_written_as_utf8():
    page = attention.attention_page("a\ud800 b", made_up(["a\ud800", "b"], labels=["\udfff"]))
    assert page.encode("utf-8")


@pytest.mark.parametrize("text", ["oil " * 125_000, "x" * 500_000, " " * 500_000 + "oil", "oil" + "." * 500_000])
def test_a_huge_text_gives_a_small_map_that_says_what_is_missing(pipe, text):
    page = attention.attention_html(text, predict(text, pipe))
    assert len(page) < 60_000
    assert "…" in page


def test_a_figure_shows_each_weight_of_each_label(drawn, pipe):
    prediction = predict(TEXTS[1], pipe)
    attention.plot_attention(prediction, "path", "title")
    axes = drawn[0].axes[0]
    shown = np.asarray(axes.images[0].get_array())
    assert shown == pytest.approx(np.array([[word["weight"] for word in entry["attention"]] for entry in prediction]))
    assert [tick.get_text() for tick in axes.get_xticklabels()] == TEXTS[1].split()
    assert [tick.get_text().split()[0] for tick in axes.get_yticklabels()] == [entry["label"] for entry in prediction]


def test_a_word_of_little_weight_is_shown_and_never_interpreted():
    words = ["<script>alert(1)</script>", "strong", "<i>slanted</i>"]
    found = Reader(attention.attention_html(" ".join(words), made_up(words, weights=[0.001, 0.998, 0.001])))
    assert not {"script", "i"} & found.tags
    assert found.blocks == [" ".join(words)]


def test_colours_of_a_figure_mean_the_same_in_every_row_and_for_every_label(drawn):
    words = [f"w{i}" for i in range(60)]
    weights = [0.01] * 60
    weights[55] = 0.7  # in the last row
    faint = made_up(words, weights=[0.005] * 60)
    attention.plot_attention([*faint, *made_up(words, labels=("b",), weights=weights)], "path")
    *rows, _ = drawn[0].axes
    assert len(rows) == 3
    assert {axes.images[0].get_clim() for axes in rows} == {(0, 0.7)}


@pytest.mark.parametrize("count", [1, 25, 26, 60, 1200])
def test_a_long_text_continues_in_more_rows_up_to_a_limit(drawn, count):
    attention.plot_attention(made_up([f"w{i}" for i in range(count)]), "path")
    *rows, _ = drawn[0].axes  # the last one is the colour bar
    words = [tick.get_text() for axes in rows for tick in axes.get_xticklabels()]
    assert words == [f"w{i}" for i in range(min(count, attention.MAX_WORDS))]
    assert sum(axes.images[0].get_array().shape[1] for axes in rows) == len(words)


def test_a_figure_is_written_as_png_and_svg_with_hostile_words_and_labels(tmp_path):
    words = ["$x$", "$", "</text><script>alert(1)</script>", "--><script>", "&amp;", "a" * 500, "$\\frac{$"]
    attention.plot_attention(
        made_up(words, labels=["<script>alert(1)</script>", "$\\frac{$"]), tmp_path / "map", "$\\frac{$ <script>"
    )
    assert image.imread(tmp_path / "map.png").ndim == 3
    drawing = xml.dom.minidom.parse(str(tmp_path / "map.svg"))
    assert drawing.getElementsByTagName("script").length == 0


def test_the_largest_figure_can_be_written(tmp_path, monkeypatch):
    monkeypatch.setattr(Figure, "savefig", lambda figure, *_, **__: sizes.append(figure.get_size_inches()))
    sizes = []
    attention.plot_attention(made_up(["w"] * 1000, labels=[f"l{i}" for i in range(100)]), tmp_path / "map")
    assert max(sizes[0]) * 150 < 2**16  # of a PNG with 150 dots per inch


def test_a_figure_of_no_label_is_a_value_error(tmp_path):
    with pytest.raises(ValueError, match="return_attention"):
        attention.plot_attention([{"label": "a", "score": 0.1, "attention": None}], tmp_path / "map")
    assert list(tmp_path.iterdir()) == []
