"""Figures as PNG and SVG, written to a path without an ending; needs matplotlib (`pip install sgm_hf[figures]`)."""

import itertools
import math
import statistics
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib import pyplot
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import LogLocator, MaxNLocator

from sgm_hf.metrics import expected_calibration_error

Rows = Sequence[Mapping[str, Any]]
MARKERS = "osD^v"  # one per objective
METRIC_TITLES = {
    "micro_f1": "micro-F1 (higher is better)",
    "macro_f1": "macro-F1 (higher is better)",
    "hamming_loss": "Hamming loss (lower is better)",
    "zero_one_loss": "0/1 loss (lower is better)",
}


def save_figure(figure: Figure, path: str | Path) -> None:
    """Write a figure as `path`.png and `path`.svg, and close it."""
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path.with_name(f"{path.name}.png"), dpi=150)
    figure.set_layout_engine("none")  # both files have the layout that was made first: another takes as long again
    # Without the date and with fixed names inside, drawing the same numbers again gives the same file.
    with pyplot.rc_context({"svg.hashsalt": "sgm_hf"}):
        figure.savefig(path.with_name(f"{path.name}.svg"), metadata={"Date": None})
    pyplot.close(figure)


def plot_without_top_labels(rows: Rows, path: str | Path, title: str) -> None:
    """Draw micro-F1 against the number of frequent labels left out, and each system's gain over the first one.

    `rows` have the columns `order`, `system`, `seed`, `removed`, `micro_f1`.
    """
    orders, systems = _values(rows, "order"), _values(rows, "system")
    figure, axes = pyplot.subplots(len(orders), 2, figsize=(9, 3.2 * len(orders)), squeeze=False, layout="constrained")
    for (left, right), order in zip(axes, orders, strict=True):
        means: dict[str, dict[int, float]] = {}
        for system in systems:
            own = _select(rows, order=order, system=system)
            means[system] = {
                k: statistics.mean(row["micro_f1"] for row in _select(own, removed=k)) for k in _values(own, "removed")
            }
        for number, (system, by_removed) in enumerate(means.items()):
            left.plot(list(by_removed), list(by_removed.values()), marker="o", color=f"C{number}", label=system)
            gains = [by_removed[k] - means[systems[0]][k] for k in by_removed]
            right.plot(list(by_removed), gains, marker="o", color=f"C{number}", label=system)
        left.set_ylabel("micro-F1 of the rest")
        right.set_ylabel(f"gain over {systems[0]}")
        left.set_title(f"labels in training: {order}" if order else "", loc="left", fontsize="medium")
        for axis in (left, right):
            axis.set_xlabel("most frequent labels left out")
            axis.xaxis.set_major_locator(MaxNLocator(integer=True))
            axis.spines[["top", "right"]].set_visible(False)
    axes[0, 0].legend(frameon=False)
    figure.suptitle(title)
    save_figure(figure, path)


def plot_by_frequency(rows: Rows, path: str | Path, title: str) -> None:
    """Draw the micro-F1 of each system on frequent and on rare labels.

    `rows` have the columns `order`, `system`, `seed`, `high`, `low`.
    """
    orders, systems = _values(rows, "order"), _values(rows, "system")
    groups = {"high": "frequent labels", "low": "rare labels"}
    step = 0.8 / len(systems)
    figure, axes = _panels(orders)
    for axis, order in zip(axes, orders, strict=True):
        for number, system in enumerate(systems):
            chosen = _select(rows, order=order, system=system)
            means = [statistics.mean(row[group] for row in chosen) for group in groups]
            places = [place + step * (number - (len(systems) - 1) / 2) for place in range(len(groups))]
            bars = axis.bar(places, means, width=0.9 * step, color=f"C{number}", label=system)
            axis.bar_label(bars, fmt="%.2f", fontsize="small")
        axis.set_xticks(range(len(groups)), list(groups.values()))
    axes[0].set_ylabel("micro-F1")
    axes[-1].legend(frameon=False)
    figure.suptitle(title)
    save_figure(figure, path)


def plot_climb(rows: Rows, path: str | Path, title: str, optimum: float | None = None) -> None:
    """Draw the validation micro-F1 over the epochs: of the first system, and of those fine-tuned from it.

    Args:
        rows: `order`, `system`, `seed`, `epoch`, `micro_f1`; epochs of fine-tuning follow those of the first system.
        path: Path of the figure.
        title: Title of the figure.
        optimum: The best possible micro-F1, drawn as a line.
    """
    orders, systems = _values(rows, "order"), _values(rows, "system")
    figure, axes = _panels(orders)
    for axis, order in zip(axes, orders, strict=True):
        for number, system in enumerate(systems):
            label = system
            for seed in _values(rows, "seed"):
                points = _select(rows, order=order, system=system, seed=seed)
                axis.plot(
                    [row["epoch"] for row in points],
                    [row["micro_f1"] for row in points],
                    marker=".",
                    color=f"C{number}",
                    label=label,
                )
                label = "_nolegend_"
        if optimum is not None:
            axis.axhline(optimum, color="grey", linestyle="--", label="best possible")
        axis.set_xlabel("epoch")
    axes[0].set_ylabel("micro-F1, validation")
    axes[-1].legend(frameon=False, loc="lower right")
    figure.suptitle(title)
    save_figure(figure, path)


def plot_reliability(bins: Rows, path: str | Path, title: str) -> None:
    """Draw the share of true labels against the score, bin by bin, above the number of scores in each bin.

    Args:
        bins: From `sgm_hf.metrics.calibration_bins`.
        path: Path of the figure.
        title: Title of the figure, to which the calibration error is added.
    """
    filled = [row for row in bins if row["count"]]
    scores, shares = [row["mean_score"] for row in filled], [row["share_true"] for row in filled]
    total = sum(row["count"] for row in filled)
    figure, (upper, lower) = pyplot.subplots(
        2, 1, figsize=(5, 6.4), sharex=True, height_ratios=(3, 1), layout="constrained"
    )
    upper.plot([0, 1], [0, 1], color="grey", linestyle="--", label="calibrated: share = score")
    # What a calibrated score would miss by chance, of as many: a point within its bar says nothing against it.
    noise = [2 * math.sqrt(max(s * (1 - s), 0.0) / row["count"]) for s, row in zip(scores, filled, strict=True)]
    upper.errorbar(scores, shares, noise, marker="o", color="C0", capsize=2, label="this model, ± 2 standard errors")
    upper.set(ylabel="share of true labels", xlim=(0, 1), ylim=(-0.02, 1.02))
    upper.grid(alpha=0.3)
    upper.legend(frameon=False, loc="upper left", fontsize="small")
    edges = [row["lower"] for row in bins]
    lower.bar(edges, [row["count"] for row in bins], bins[0]["upper"], align="edge", color="C0", edgecolor="white")
    lower.set(xlabel="score", ylabel="number of scores", yscale="log", ylim=(0.5, None))
    for axis in (upper, lower):
        axis.spines[["top", "right"]].set_visible(False)
    error = expected_calibration_error(bins)
    figure.suptitle(f"{title}\nECE {error:.3f} over {total:,} scores", fontsize="medium")
    save_figure(figure, path)


def plot_quality_by_minutes(rows: Rows, path: str | Path, title: str) -> None:
    """Draw micro-F1, macro-F1 and 0/1 loss against the processor time of the training, a line of panels per corpus.

    A point is the mean over the seeds of one system and objective, with a bar from the lowest to the highest. A row
    without minutes, such as a published figure, is a line across the panel.

    Args:
        rows: `corpus`, `system`, `objective`, `micro_f1`, `macro_f1`, `zero_one_loss`, `cpu_minutes`; a number may be
            None.
        path: Path of the figure.
        title: Title of the figure.
    """
    metrics = {"micro_f1": "micro-F1", "macro_f1": "macro-F1", "zero_one_loss": "0/1 loss (lower is better)"}
    corpora, systems, objectives = (_values(rows, column) for column in ("corpus", "system", "objective"))
    figure, panels = pyplot.subplots(
        len(corpora), 3, figsize=(11, 3.1 * len(corpora) + 0.8), squeeze=False, layout="constrained"
    )
    for line, corpus in zip(panels, corpora, strict=True):
        for axis, (metric, name) in zip(line, metrics.items(), strict=True):
            for system, objective in itertools.product(systems, objectives):
                runs = [
                    row
                    for row in _select(rows, corpus=corpus, system=system, objective=objective)
                    if row[metric] is not None
                ]
                style = {"color": f"C{systems.index(system)}"}
                values = [row[metric] for row in runs]
                minutes = [row["cpu_minutes"] for row in runs if row["cpu_minutes"] is not None]
                if minutes:
                    mean = statistics.mean(values)
                    bar = [[mean - min(values)], [max(values) - mean]]
                    marker = MARKERS[objectives.index(objective) % len(MARKERS)]
                    axis.errorbar(statistics.mean(minutes), mean, bar, marker=marker, capsize=2, **style)
                elif values:
                    axis.axhline(statistics.mean(values), linestyle="--", linewidth=1, **style)
            axis.set(xscale="log", title=f"{corpus}: {name}")
            axis.title.set_fontsize("medium")
            axis.xaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
            axis.xaxis.set_major_formatter("{x:g}")
            axis.xaxis.set_minor_formatter("")
            axis.margins(0.12)
            axis.grid(alpha=0.3)
            axis.spines[["top", "right"]].set_visible(False)
    for axis in panels[-1]:
        axis.set_xlabel("training, processor minutes")
    measured = {row["system"] for row in rows if row["cpu_minutes"] is not None}
    keys = [
        Line2D(
            [],
            [],
            color=f"C{number}",
            marker="s" if system in measured else "",
            linestyle="" if system in measured else "--",
            label=system,
        )
        for number, system in enumerate(systems)
    ]
    keys += [
        Line2D([], [], color="black", fillstyle="none", linestyle="", marker=marker, label=f"for {objective}")
        for objective, marker in zip(objectives, itertools.cycle(MARKERS))
        if any(row["cpu_minutes"] is not None for row in _select(rows, objective=objective))
    ]
    figure.legend(handles=keys, loc="outside lower center", ncols=4, frameon=False)
    figure.suptitle(title)
    save_figure(figure, path)


def plot_differences(rows: Rows, path: str | Path, title: str) -> None:
    """Draw the difference of each system to its reference with its interval, a panel for each metric.

    Args:
        rows: `name`, `metric`, `difference`, `low`, `high`, `p_holm`; a filled point has a `p_holm` below .05.
        path: Path of the figure.
        title: Title of the figure.
    """
    names, metrics = _values(rows, "name"), _values(rows, "metric")
    figure, panels = pyplot.subplots(
        1,
        len(metrics),
        figsize=(3.2 * len(metrics) + 1.5, 0.32 * len(names) + 1.7),
        sharey=True,
        squeeze=False,
        layout="constrained",
    )
    for axis, metric in zip(panels[0], metrics, strict=True):
        axis.axvline(0, color="grey", linewidth=1)
        for place, name in enumerate(names):
            for row in _select(rows, name=name, metric=metric):
                bar = [[row["difference"] - row["low"]], [row["high"] - row["difference"]]]
                filled = {} if row["p_holm"] < 0.05 else {"markerfacecolor": "white"}
                axis.errorbar(row["difference"], place, xerr=bar, marker="o", color="C0", capsize=2, **filled)
        axis.set_title(METRIC_TITLES.get(metric, metric), fontsize="small")
        axis.xaxis.set_major_locator(MaxNLocator(4))
        axis.tick_params(labelsize="small")
        axis.grid(axis="x", alpha=0.3)
        axis.spines[["top", "right"]].set_visible(False)
    panels[0, 0].set_yticks(range(len(names)), names)
    panels[0, 0].invert_yaxis()
    figure.supxlabel("difference with 95 % interval (filled: p < .05, corrected for all metrics)", fontsize="small")
    figure.suptitle(title, fontsize="medium")
    save_figure(figure, path)


def plot_mixture(rows: Rows, path: str | Path, title: str, gate: Rows = ()) -> None:
    """Draw Hamming loss and micro-F1 against λ of the fixed mixture (SGM, Figure 2).

    A point is a run, the line goes through the means over the seeds.

    Args:
        rows: `mixture_lambda`, `seed`, `hamming_loss`, `micro_f1`.
        path: Path of the figure.
        title: Title of the figure.
        gate: The same metrics of the runs with the adaptive gate, whose mean is a line across.
    """
    metrics = {name: METRIC_TITLES[name] for name in ("hamming_loss", "micro_f1")}
    figure, panels = pyplot.subplots(1, 2, figsize=(9, 3.6), layout="constrained")
    places = sorted(_values(rows, "mixture_lambda"))
    for axis, (metric, name) in zip(panels, metrics.items(), strict=True):
        means = [statistics.mean(row[metric] for row in _select(rows, mixture_lambda=place)) for place in places]
        axis.plot(places, means, color="C0", label="fixed λ, mean over seeds")
        single = {"linestyle": "", "marker": "o", "markersize": 4, "alpha": 0.6}
        axis.plot([r["mixture_lambda"] for r in rows], [r[metric] for r in rows], color="C0", label="a run", **single)
        if gate:
            values = [row[metric] for row in gate]
            axis.axhline(statistics.mean(values), color="C3", linestyle="--", label="adaptive gate (SGM+GE), mean")
            axis.axhspan(min(values), max(values), color="C3", alpha=0.12, linewidth=0, label="lowest to highest run")
        axis.set(xlabel="λ (0: SGM without global embedding)", title=name)
        axis.title.set_fontsize("medium")
        axis.set_xticks(places)
        axis.ticklabel_format(axis="y", useOffset=False)
        axis.spines[["top", "right"]].set_visible(False)
    figure.legend(*panels[0].get_legend_handles_labels(), loc="outside lower center", ncols=4, frameon=False)
    figure.suptitle(title)
    save_figure(figure, path)


def plot_set_sizes(rows: Rows, path: str | Path, title: str) -> None:
    """Draw micro-F1 and Hamming loss against the number of true labels of a document (SGM, Figure 3).

    A point is the mean over the seeds, with a bar from the lowest to the highest; under it the number of documents.
    The last number of labels stands for all from there on.

    Args:
        rows: `system`, `seed`, `size`, `documents`, `micro_f1`, `hamming_loss`.
        path: Path of the figure.
        title: Title of the figure.
    """
    metrics = {name: METRIC_TITLES[name] for name in ("hamming_loss", "micro_f1")}
    systems, sizes = _values(rows, "system"), sorted(_values(rows, "size"))
    documents = {row["size"]: row["documents"] for row in rows}
    names = [f"{size}{' or more' if size == sizes[-1] else ''}\n({documents[size]:,})" for size in sizes]
    figure, panels = pyplot.subplots(1, 2, figsize=(10, 4.2), layout="constrained")
    for axis, (metric, name) in zip(panels, metrics.items(), strict=True):
        for number, system in enumerate(systems):
            values = [[row[metric] for row in _select(rows, system=system, size=size)] for size in sizes]
            means = [statistics.mean(runs) for runs in values]
            bars = [
                [mean - min(runs) for mean, runs in zip(means, values, strict=True)],
                [max(runs) - mean for mean, runs in zip(means, values, strict=True)],
            ]
            # Side by side, so that the bars of systems that are alike do not hide one another.
            places = [place + 0.06 * (number - (len(systems) - 1) / 2) for place in range(len(sizes))]
            style = {"marker": MARKERS[number % len(MARKERS)], "color": f"C{number}", "capsize": 2, "label": system}
            axis.errorbar(places, means, bars, **style)
        axis.set(xlabel="true labels of a document (number of documents)", title=name)
        axis.title.set_fontsize("medium")
        axis.set_xticks(range(len(sizes)), names, fontsize="small")
        axis.grid(axis="y", alpha=0.3)
        axis.spines[["top", "right"]].set_visible(False)
    handles = panels[0].get_legend_handles_labels()
    legend = figure.legend(*handles, loc="outside lower center", ncols=min(len(systems), 5), frameon=False)
    if len(_values(rows, "seed")) > 1:
        legend.set_title("mean of the seeds; bars from the lowest to the highest")
    figure.suptitle(title)
    save_figure(figure, path)


def plot_correlations(
    matrices: Mapping[str, np.ndarray], label_names: Sequence[str], path: str | Path, title: str
) -> None:
    """Draw the correlations of labels as a heat map for each matrix, side by side on one scale of colours.

    Args:
        matrices: Correlations (L, L) by what the panel is called; what is NaN, and the diagonal, is grey.
        label_names: Names of the L labels, in the order in which they are drawn.
        path: Path of the figure.
        title: Title of the figure.
    """
    count = len(label_names)
    hidden = {name: np.where(np.eye(count, dtype=bool), np.nan, matrix) for name, matrix in matrices.items()}
    columns = len(hidden) if len(hidden) < 4 else math.ceil(len(hidden) ** 0.5)
    lines = math.ceil(len(hidden) / columns)
    side = max(3.6, 0.15 * count)
    figure, panels = pyplot.subplots(
        lines, columns, figsize=((side + 0.3) * columns + 2.2, (side + 0.5) * lines + 1.6), layout="constrained"
    )
    # Long names of labels would reach beyond the lower edge.
    figure.set_layout_engine("constrained", rect=(0, 0.02, 1, 0.98))
    panels = np.reshape(panels, (lines, columns))
    colours = pyplot.get_cmap("RdBu_r").with_extremes(bad="0.85")
    for number, (axis, (name, matrix)) in enumerate(zip(panels.flat, hidden.items(), strict=False)):
        # Few pairs of labels are above 0.5: on a scale up to 1 all others would look alike.
        image = axis.imshow(matrix, cmap=colours, vmin=-0.5, vmax=0.5)
        axis.set_title(name, fontsize="medium")
        is_lowest, is_first = number + columns >= len(hidden), number % columns == 0
        axis.set_xticks(range(count), label_names if is_lowest else [""] * count, rotation=90, fontsize=7)
        axis.set_yticks(range(count), label_names if is_first else [""] * count, fontsize=7)
        axis.tick_params(length=0)
        axis.spines[:].set_visible(False)
    for axis in panels.flat[len(hidden) :]:
        axis.set_axis_off()
    label = "phi coefficient (grey: with itself, or never predicted)"
    figure.colorbar(image, ax=panels, label=label, shrink=0.7 / lines, extend="both", aspect=20)
    figure.suptitle(f"{title}\n")  # an empty line: titles of two lines would touch it
    save_figure(figure, path)


def _panels(orders: Sequence[str]) -> tuple[Figure, Sequence[Axes]]:
    """A figure with one panel per order of the labels in training, side by side."""
    figure, axes = pyplot.subplots(
        1, len(orders), figsize=(4.5 * len(orders), 3.4), squeeze=False, layout="constrained"
    )
    for axis, order in zip(axes[0], orders, strict=True):
        axis.set_title(f"labels in training: {order}" if order else "", loc="left", fontsize="medium")
        axis.spines[["top", "right"]].set_visible(False)
    return figure, axes[0]


def _values(rows: Rows, column: str) -> list:
    """The distinct values of a column, in the order in which they first appear."""
    return list(dict.fromkeys(row[column] for row in rows))


def _select(rows: Rows, **values: Any) -> Rows:
    """The rows that have these values in the columns of these names."""
    return [row for row in rows if all(row[column] == value for column, value in values.items())]
