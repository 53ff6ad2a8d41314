import xml.dom.minidom

import numpy as np
import pytest
from matplotlib import image, pyplot

from sgm_hf.analysis import figures
from sgm_hf.metrics import calibration_bins


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


def test_reliability_is_drawn_at_the_mean_scores_of_the_bins_that_have_some(drawn):
    scores = np.array([[0.25, 0.35, 0.45, 0.95, 0.001]])
    bins = calibration_bins(np.array([[False, True, True, True, True]]), scores, num_bins=5)
    figures.plot_reliability(bins, "path", "Test")
    upper, lower = drawn[0].axes
    diagonal, points = upper.lines[:2]
    assert list(diagonal.get_xdata()) == list(diagonal.get_ydata()) == [0, 1]
    assert points.get_xdata() == pytest.approx([0.3, 0.45, 0.95])
    assert points.get_ydata() == pytest.approx([0.5, 1.0, 1.0])
    assert [bar.get_height() for bar in lower.patches] == [0, 2, 1, 0, 1]
    assert [bar.get_x() for bar in lower.patches] == pytest.approx([0, 0.2, 0.4, 0.6, 0.8])
    assert lower.get_yscale() == "log" and lower.get_xlim() == upper.get_xlim()
    # (2 * |0.3 - 0.5| + |0.45 - 1| + |0.95 - 1|) / 4
    assert drawn[0].get_suptitle() == "Test\nECE 0.250 over 4 scores"


def test_quality_is_drawn_at_the_mean_of_the_seeds_and_what_has_no_minutes_as_a_line(drawn):
    rows = [
        {"corpus": corpus, "system": "fast", "objective": objective, "seed": seed, "cpu_minutes": 2.0 * seed}
        | {"micro_f1": 0.5 + 0.1 * seed, "macro_f1": 0.3, "zero_one_loss": 0.2}
        for corpus in ("a", "b")
        for objective in ("micro_f1", "exact_match")
        for seed in (1, 2)
    ]
    published = dict.fromkeys(("macro_f1", "zero_one_loss", "cpu_minutes"))
    rows.append({"corpus": "b", "system": "SGM+GE", "objective": "published", "seed": 1, "micro_f1": 0.71} | published)
    figures.plot_quality_by_minutes(rows, "path", "title")
    panels = drawn[0].axes
    assert [panel.get_title() for panel in panels[::3]] == ["a: micro-F1", "b: micro-F1"]
    assert all(panel.get_xscale() == "log" for panel in panels)
    point = panels[0].lines[0]
    assert point.get_xdata() == [3.0] and point.get_ydata() == pytest.approx([0.65])
    lines = [[line for line in panel.lines if line.get_linestyle() == "--"] for panel in panels]
    assert [len(line) for line in lines] == [0, 0, 0, 1, 0, 0]
    assert set(lines[3][0].get_ydata()) == {0.71}
    names = [text.get_text() for text in drawn[0].legends[0].get_texts()]
    assert names == ["fast", "SGM+GE", "for micro_f1", "for exact_match"]


def test_the_fixed_mixture_is_drawn_as_runs_and_their_means_and_the_gate_across(drawn):
    rows = [
        {"mixture_lambda": place, "seed": seed, "hamming_loss": 0.01, "micro_f1": 0.5 + place / 10 + seed / 100}
        for place in (1.0, 0.0, 0.5)
        for seed in (1, 3)
    ]
    gate = [{"hamming_loss": 0.02, "micro_f1": 0.7}, {"hamming_loss": 0.02, "micro_f1": 0.8}]
    figures.plot_mixture(rows, "path", "title", gate)
    means, runs, across = drawn[0].axes[1].lines
    assert list(means.get_xdata()) == [0.0, 0.5, 1.0]
    assert means.get_ydata() == pytest.approx([0.52, 0.57, 0.62])
    assert len(runs.get_xdata()) == 6 and set(across.get_ydata()) == {0.75}
    figures.plot_mixture(rows, "path", "title")
    assert len(drawn[1].axes[1].lines) == 2


def test_set_sizes_are_drawn_with_the_number_of_documents(drawn):
    rows = [
        {"system": system, "seed": seed, "size": size, "documents": 1000 * size, "hamming_loss": 0.1}
        | {"micro_f1": 0.5 + 0.1 * size + 0.02 * seed}
        for system in ("BR", "SGM")
        for seed in (1, 2)
        for size in (1, 2)
    ]
    figures.plot_set_sizes(rows, "path", "title")
    axis = drawn[0].axes[1]
    assert [text.get_text() for text in axis.get_xticklabels()] == ["1\n(1,000)", "2 or more\n(2,000)"]
    assert axis.containers[1].lines[0].get_ydata() == pytest.approx([0.63, 0.73])


@pytest.mark.parametrize(("count", "shape"), [(1, (1, 1)), (3, (1, 3)), (4, (2, 2)), (5, (2, 3))])
def test_correlations_are_drawn_on_one_scale_without_the_diagonal(count, shape, drawn):
    matrix = np.array([[1.0, 0.9, np.nan], [0.9, 1.0, -0.2], [np.nan, -0.2, 1.0]])
    figures.plot_correlations({f"system {n}": matrix for n in range(count)}, ["a", "b", "c"], "path", "title")
    images = [axis.images[0] for axis in drawn[0].axes if axis.images]
    assert len(images) == count and {image.get_clim() for image in images} == {(-0.5, 0.5)}
    shown = images[0].get_array().filled(np.nan) if hasattr(images[0].get_array(), "filled") else images[0].get_array()
    assert np.isnan(shown.diagonal()).all() and shown[0, 1] == 0.9 and np.isnan(shown[0, 2])
    grid = drawn[0].axes[0].get_gridspec()
    assert (grid.nrows, grid.ncols) == shape
    assert [text.get_text() for text in drawn[0].axes[0].get_yticklabels()] == ["a", "b", "c"]


def test_differences_are_drawn_with_their_intervals_and_filled_where_they_are_no_chance(drawn):
    rows = [
        {"name": name, "metric": metric, "difference": 0.02, "low": 0.01, "high": 0.05, "p_holm": p_holm}
        for name, p_holm in (("SGM - BR", 0.01), ("CNN - BR", 0.2))
        for metric in ("micro_f1", "hamming_loss")
    ]
    figures.plot_differences(rows, "path", "title")
    left, right = drawn[0].axes
    assert left.get_title() == "micro-F1 (higher is better)"
    assert right.get_title() == "Hamming loss (lower is better)"
    for place, container in enumerate(left.containers):
        point, _, (bar,) = container.lines
        assert (point.get_xdata()[0], point.get_ydata()[0]) == (0.02, place)
        assert bar.get_segments()[0][:, 0] == pytest.approx([0.01, 0.05])
        assert (point.get_markerfacecolor() == "white") == (place == 1)
    assert [text.get_text() for text in left.get_yticklabels()] == ["SGM - BR", "CNN - BR"]
