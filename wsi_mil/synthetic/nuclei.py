"""The grain of synthetic tissue: pictures of single nuclei, fibres and camera noise, drawn once for all slides."""

from __future__ import annotations

import math

import numpy as np
from jaxtyping import Float32

Rng = np.random.Generator


class Grain:
    """Pictures of single nuclei by kind (haematoxylin, 0 to about 1.5), and sheets of fibres and noise that tile."""

    def __init__(self, rng: Rng) -> None:
        self.normal = [_nucleus(rng, rng.uniform(5.5, 7.5), rng.uniform(0.55, 0.95)) for _ in range(48)]
        self.small = [_nucleus(rng, rng.uniform(4.5, 5.5), rng.uniform(0.9, 1.0)) for _ in range(24)]
        self.large = [_nucleus(rng, rng.uniform(10, 15), rng.uniform(0.7, 1.0), is_vesicular=True) for _ in range(48)]
        self.fibres = _fibres(rng, 1024)
        self.noise = rng.normal(0, 1.3, (1024, 1024)).astype(np.float32)


def _nucleus(rng: Rng, radius: float, aspect: float, *, is_vesicular: bool = False) -> Float32[np.ndarray, "side side"]:
    """Haematoxylin of one nucleus; a vesicular one is pale within, with a dark rim and nucleoli."""
    reach = math.ceil(radius * 1.3) + 1
    y, x = np.mgrid[-reach : reach + 1, -reach : reach + 1].astype(np.float32)
    turn = rng.uniform(0, np.pi)
    along, across = x * np.cos(turn) + y * np.sin(turn), (y * np.cos(turn) - x * np.sin(turn)) / aspect
    angle = np.arctan2(across, along)
    dent = 1 + sum(
        rng.uniform(0, 0.09 if is_vesicular else 0.03) * np.cos(order * angle + rng.uniform(0, 6))
        for order in (2, 3, 4)
    )
    depth = radius * dent - np.hypot(along, across)
    stain = np.clip(depth / 1.5, 0, 1) * rng.uniform(0.85, 1.15)
    if is_vesicular:
        stain *= 1 - 0.55 * np.clip((depth - 2) / 2, 0, 1)
        for _ in range(int(rng.integers(1, 3))):
            place = rng.uniform(-0.4, 0.4, 2) * radius
            stain += 0.8 * np.exp(-((x - place[0]) ** 2 + (y - place[1]) ** 2) / 5) * (depth > 2)
    return stain.astype(np.float32)


def _fibres(rng: Rng, side: int) -> Float32[np.ndarray, "side side"]:
    """Streaky noise of mean 0 and deviation 1 that continues over its edges."""
    fy, fx = np.meshgrid(np.fft.fftfreq(side), np.fft.rfftfreq(side), indexing="ij")
    keep = np.exp(-((fx * 60) ** 2) - (fy * 14) ** 2) + 0.5 * np.exp(-((fx * 9) ** 2) - (fy * 30) ** 2)
    sheet = np.fft.irfft2(np.fft.rfft2(rng.normal(size=(side, side))) * keep, s=(side, side))
    return ((sheet - sheet.mean()) / sheet.std()).astype(np.float32)
