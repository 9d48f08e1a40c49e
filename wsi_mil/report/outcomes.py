"""Figures of numbers and of survival as SVG text: true against predicted, and Kaplan-Meier curves by group."""

from __future__ import annotations

from collections.abc import Mapping

import matplotlib
import numpy as np
from jaxtyping import Float

from wsi_mil.report.figures import COLOURS, DASHES, GRID, MUTED, STYLE, drawn, new_figure

Steps = tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray, int]
"""Times, survival, its lower and upper bound, and the number of cases."""


def scatter_figure(
    truth: Float[np.ndarray, "case"], predicted: Float[np.ndarray, "case"], *, title: str, name: str
) -> str:
    """Each case at its true and its predicted number; a dotted line where the two are the same."""
    with matplotlib.rc_context(STYLE):
        figure, axes = new_figure(3.8, 3.6)
        ends = [float(min(truth.min(), predicted.min())), float(max(truth.max(), predicted.max()))]
        axes.plot(ends, ends, ":", color=MUTED, linewidth=1)
        axes.scatter(truth, predicted, s=18, alpha=0.7, color=COLOURS[0], linewidths=0)
        axes.set(xlabel=f"true {name}", ylabel=f"predicted {name}", title=title)
        axes.grid(color=GRID)
        axes.set_axisbelow(True)
        return drawn(figure, title)


def survival_figure(groups: Mapping[str, Steps], *, title: str, time: str, note: str = "") -> str:
    """A step curve with its band for each group of cases, from 1 down."""
    with matplotlib.rc_context(STYLE):
        figure, axes = new_figure(4.6, 3.5)
        for number, (name, (times, survival, low, high, count)) in enumerate(groups.items()):
            colour = COLOURS[number % len(COLOURS)]
            axes.fill_between(times, low, high, step="post", color=colour, alpha=0.15, linewidth=0)
            look = {"color": colour, "linewidth": 1.8, "linestyle": DASHES[number % len(DASHES)]}
            axes.step(times, survival, where="post", label=f"{name} (n = {count})", **look)
        axes.set(xlabel=time, ylabel="share free of the event", ylim=(0, 1.02), title=title)
        axes.set_xlim(left=0)
        axes.legend(loc="lower left", frameon=False, fontsize=8, title=note or None, title_fontsize=8)
        return drawn(figure, title)
