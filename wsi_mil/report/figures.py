"""Figures of a study as SVG text: curves with bands, confusion, intervals, scores and training histories."""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import matplotlib
import numpy as np
from jaxtyping import Float, Int
from matplotlib.figure import Figure

INK, MUTED, GRID = "#1d2433", "#6b7280", "#e5e7eb"

COLOURS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9")
"""Okabe and Ito's palette, which colour-blind readers can tell apart."""

DASHES = ("-", "--", "-.", (0, (1, 1.2)), (0, (5, 1, 1, 1, 1, 1)), (0, (8, 2)))
MARKERS = ("o", "s", "^", "D", "v", "P")
"""Beside the colours, for readers and printers without them."""

STYLE: dict[Any, Any] = {
    "font.family": "sans-serif",
    "font.sans-serif": ["DejaVu Sans"],
    "font.size": 9,
    "axes.edgecolor": MUTED,
    "axes.labelcolor": INK,
    "axes.titlesize": 10,
    "axes.titleweight": "bold",
    "axes.spines.top": False,
    "axes.spines.right": False,
    "xtick.color": MUTED,
    "ytick.color": MUTED,
    "text.color": INK,
    "svg.fonttype": "none",
    "svg.hashsalt": "wsi_mil",
}
"""Text stays text, so that a page can be searched; the salt keeps ids, and with them the file, the same each time."""


@dataclass(frozen=True)
class Curve:
    """A curve with its bootstrap band."""

    name: str
    x: Float[np.ndarray, "point"]
    y: Float[np.ndarray, "point"]
    low: Float[np.ndarray, "point"] | None = None
    high: Float[np.ndarray, "point"] | None = None


def curve_figure(
    curves: Sequence[Curve], *, title: str, x: str, y: str, chance: float | None, diagonal: str = ""
) -> str:
    """ROC or precision-recall curves in the unit square, with bands; a dotted line marks chance."""
    with matplotlib.rc_context(STYLE):
        figure, axes = new_figure(3.6, 3.5)
        if diagonal:
            axes.plot([0, 1], [0, 1], ":", color=MUTED, linewidth=1, label=diagonal)
        if chance is not None:
            axes.axhline(chance, linestyle=":", color=MUTED, linewidth=1, label=f"chance {chance:.2f}")
        for number, curve in enumerate(curves):
            colour = COLOURS[number % len(COLOURS)]
            if curve.low is not None and curve.high is not None:
                axes.fill_between(curve.x, curve.low, curve.high, color=colour, alpha=0.15, linewidth=0)
            dash = DASHES[number % len(DASHES)]
            axes.plot(curve.x, curve.y, color=colour, linewidth=1.8, linestyle=dash, label=curve.name)
        axes.set(xlim=(-0.01, 1.01), ylim=(-0.01, 1.01), xlabel=x, ylabel=y, title=title)
        axes.set_aspect("equal")
        axes.legend(loc="lower right" if diagonal else "lower left", frameon=False, fontsize=8)
        return drawn(figure, title)


SHORT_NAME = 9
"""Letters of a class that stand under a cell of the confusion without touching the next."""


def confusion_figure(counts: Int[np.ndarray, "true predicted"], classes: Sequence[str], *, title: str) -> str:
    """Counts of true against predicted classes, shaded by share of the true class."""
    with matplotlib.rc_context(STYLE):
        side = 1.9 + 0.55 * len(classes)
        figure, axes = new_figure(side + 0.4, side)
        share = counts / np.maximum(counts.sum(axis=1, keepdims=True), 1)
        axes.imshow(share, cmap="Blues", vmin=0, vmax=1)
        for row, column in np.ndindex(counts.shape):
            dark = share[row, column] > 0.5
            text = f"{counts[row, column]}\n{share[row, column]:.0%}"
            axes.text(column, row, text, ha="center", va="center", color="white" if dark else INK)
        long = max(map(len, classes)) > SHORT_NAME
        turned = {"rotation": 35, "ha": "right", "rotation_mode": "anchor"} if long else {}
        axes.set_xticks(range(len(classes)), classes, **turned)
        axes.set_yticks(range(len(classes)), classes)
        axes.spines[:].set_visible(False)
        axes.tick_params(length=0)
        axes.set(xlabel="predicted", ylabel="true", title=title)
        return drawn(figure, title)


def interval_figure(rows: Mapping[str, tuple[float, float, float]], *, title: str, chance: float | None = 0.5) -> str:
    """A value and its interval a row (value, low, high): the model first, its baselines below."""
    with matplotlib.rc_context(STYLE):
        figure, axes = new_figure(5.2, 0.85 + 0.34 * len(rows))
        for number, (value, low, high) in enumerate(rows.values()):
            colour = COLOURS[0] if number == 0 else MUTED
            axes.plot([low, high], [number, number], color=colour, linewidth=2.2, solid_capstyle="round")
            axes.plot([value], [number], "o", color=colour, markersize=6)
            axes.annotate(
                f"{value:.3f}", (value, number), xytext=(0, 6), textcoords="offset points", ha="center", fontsize=7.5
            )
        if chance is not None:
            axes.axvline(chance, linestyle=":", color=MUTED, linewidth=1)
        axes.set_yticks(range(len(rows)), list(rows))
        axes.set_ylim(len(rows) - 0.5, -0.7)
        axes.grid(axis="x", color=GRID)
        axes.set_axisbelow(True)
        axes.set(title=title)
        return drawn(figure, title)


def bar_figure(values: Mapping[str, float], *, title: str) -> str:
    """A bar and its number a row."""
    with matplotlib.rc_context(STYLE):
        figure, axes = new_figure(5.2, 0.6 + 0.27 * len(values))
        bars = axes.barh(range(len(values)), list(values.values()), color=COLOURS[0], height=0.62)
        axes.bar_label(bars, [f"{value:.2g}" if value < 100 else f"{value:,.0f}" for value in values.values()],
                       padding=4, fontsize=8)  # fmt: skip
        axes.set_yticks(range(len(values)), list(values))
        axes.set_ylim(len(values) - 0.4, -0.6)
        axes.set_xlim(0, 1.15 * max([*values.values(), 1e-9]))
        axes.spines["bottom"].set_visible(False)
        axes.tick_params(axis="x", length=0, labelbottom=False)
        axes.set(title=title)
        return drawn(figure, title)


def score_figure(
    scores: Float[np.ndarray, "slide"], labels: Sequence[str], classes: Sequence[str], *, title: str, x: str
) -> str:
    """Each slide as a dot at its predicted probability, one line a class."""
    with matplotlib.rc_context(STYLE):
        figure, axes = new_figure(5.2, 0.9 + 0.55 * len(classes))
        scatter = np.random.default_rng(0).uniform(-0.22, 0.22, len(scores))
        for number, name in enumerate(classes):
            here = np.array([label == name for label in labels], dtype=bool)
            look = {"color": COLOURS[number % 6], "marker": MARKERS[number % 6]}
            axes.scatter(scores[here], number + scatter[here], s=18, alpha=0.7, linewidths=0, **look)
        axes.set_yticks(range(len(classes)), list(classes))
        axes.set(xlim=(-0.02, 1.02), ylim=(len(classes) - 0.5, -0.5), xlabel=x, title=title)
        axes.grid(axis="x", color=GRID)
        axes.set_axisbelow(True)
        return drawn(figure, title)


def history_figure(histories: Mapping[str, Mapping[str, Sequence[float]]], *, chosen: Mapping[str, int]) -> str:
    """Training and selection loss by epoch, one thin line a fold, the chosen epoch marked."""
    with matplotlib.rc_context(STYLE):
        figure, axes = new_figure(5.2, 3.0)
        labelled: set[str] = set()
        for name, history in histories.items():
            for number, part in enumerate(("fit_loss", "select_loss")):
                values = np.array(history.get(part, ()), dtype=float)
                if not len(values) or np.isnan(values).all():
                    continue
                label = {"fit_loss": "fit", "select_loss": "select"}[part] if part not in labelled else None
                labelled.add(part)
                axes.plot(
                    np.arange(1, len(values) + 1), values, DASHES[number], color=COLOURS[number], linewidth=1,
                    alpha=0.7, label=label,
                )  # fmt: skip
                if part == "select_loss" and name in chosen:
                    epoch = chosen[name]
                    axes.plot([epoch], [values[epoch - 1]], "o", color=COLOURS[number], markersize=4)
        axes.set(xlabel="epoch", ylabel="loss", title="Training, one line a fold; dots mark the chosen epochs")
        axes.set_ylim(bottom=0)
        axes.grid(color=GRID)
        if labelled:
            axes.legend(frameon=False)
        return drawn(figure, "training curves")


def new_figure(width: float, height: float) -> tuple[Figure, Any]:
    """An empty figure of some inches, and its axes."""
    figure = Figure(figsize=(width, height), layout="constrained")
    return figure, figure.add_subplot()


def drawn(figure: Figure, title: str) -> str:
    """The figure as SVG text."""
    out = io.StringIO()
    figure.savefig(out, format="svg", transparent=True, metadata={"Date": None, "Title": title})
    text = out.getvalue()
    return text[text.index("<svg") :]
