import xml.dom.minidom

import pytest
from matplotlib import image, pyplot

from sgm_hf.analysis import figures


def make_rows(**columns):
    return [
        {"order": order, "system": system, "seed": seed} | columns
        for order in ("frequency", "shuffled")
        for system in ("likelihood", "self_critical")
        for seed in (1, 2)
    ]


@pytest.fixture
def drawn(monkeypatch):
    """The figures as they are when they are saved."""
    kept = []
    monkeypatch.setattr(figures, "save_figure", lambda figure, path: kept.append(figure))
    yield kept
    pyplot.close("all")


def test_a_figure_is_written_as_picture_and_as_drawing(tmp_path):
    drawings = set()
    for _ in range(2):
        figure, axes = pyplot.subplots()
        axes.plot([1, 2], [3, 4])
        figures.save_figure(figure, tmp_path / "new" / "a.figure")
        drawings.add((tmp_path / "new" / "a.figure.svg").read_bytes())
    assert len(drawings) == 1
    assert image.imread(tmp_path / "new" / "a.figure.png").shape[2] == 4
    assert xml.dom.minidom.parse(str(tmp_path / "new" / "a.figure.svg")).documentElement.tagName == "svg"
    assert pyplot.get_fignums() == []


def test_left_out_labels_are_drawn_as_means_and_as_gains(drawn):
    rows = [
        row | {"removed": k, "micro_f1": 0.5 - 0.01 * k + 0.1 * (row["system"] != "likelihood") + 0.02 * row["seed"]}
        for k in (0, 1, 2)
        for row in make_rows()
    ]
    figures.plot_without_top_labels(rows, "path", "title")
    left, right = drawn[0].axes[2:]  # shuffled
    assert left.get_title("left") == "labels in training: shuffled"
    assert left.lines[1].get_ydata() == pytest.approx([0.63, 0.62, 0.61])
    assert right.lines[0].get_ydata() == pytest.approx([0, 0, 0])
    assert right.lines[1].get_ydata() == pytest.approx([0.1, 0.1, 0.1])


def test_frequent_and_rare_labels_are_drawn_as_bars(drawn):
    figures.plot_by_frequency(
        [row | {"high": 0.8 + 0.02 * row["seed"], "low": 0.1} for row in make_rows()], "path", "t"
    )
    heights = [bar.get_height() for bar in drawn[0].axes[0].patches]
    assert heights == pytest.approx([0.83, 0.1, 0.83, 0.1])


def test_the_climb_is_drawn_for_each_seed_with_the_optimum(drawn):
    rows = [row | {"epoch": epoch, "micro_f1": 0.1 * epoch} for row in make_rows() for epoch in (1, 2)]
    figures.plot_climb(rows, "path", "title", optimum=0.94)
    lines = drawn[0].axes[0].lines
    assert len(lines) == 5
    assert lines[0].get_ydata() == pytest.approx([0.1, 0.2])
    assert set(lines[-1].get_ydata()) == {0.94}
