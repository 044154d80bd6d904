"""The book's cover: an addition table that fills in above embeddings that form a ring."""

from __future__ import annotations

from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
import torch
from matplotlib.colors import ListedColormap

from .. import figures, fourier, isolated, tasks

MOMENTS = (0.0, 0.9, 1.1, 2.0)  # slow times: memorized, half-way up the rise and past it, generalized
SHADES = ["#D55E00", "#56B4E9", "#E8E8E8"]  # wrong, right, training pair


def draw(path: Path, p: int = 37, width: int = 512) -> None:
    """Simulate one network at the study's size and write the cover to ``path`` (PNG)."""
    task = tasks.modular(p)
    records = isolated.simulate(
        task, width, seeds=[0], method="adaptive", tau_end=MOMENTS[-1], points=400, snapshots=MOMENTS
    ).isel(run=0)
    E = torch.from_numpy(records.E.values)  # (4, p, width)
    at = int(fourier.power(E[-1]).argmax())
    F = fourier.features(E[-1])[at]
    around = np.arange(p + 1) * pow(at + 1, -1, p) % p  # the tokens as a circle of that frequency passes them
    plane, _ = torch.linalg.qr(torch.stack([F.real, F.imag], dim=1))
    figure, panels = figures.axes(2, len(MOMENTS), ratio=1.06)
    for column, tau in enumerate(records.snapshot.values):
        above, below = panels[:, column]
        above.imshow(_table(records, tau, p), cmap=ListedColormap(SHADES), vmin=-0.5, vmax=2.5)
        above.set_title(f"τ = {tau:.1f}", loc="center")
        x, y = (E[column] @ plane).T.numpy()
        reach = 1.1 * np.hypot(x, y).max()
        below.plot(x[around], y[around], color="0.8", lw=0.6, ls="-")
        below.scatter(x, y, c=np.arange(p), cmap="twilight", s=14, zorder=3)
        below.set(xlim=(-reach, reach), ylim=(-reach, reach), aspect="equal")
        for ax in (above, below):
            ax.set(xticks=[], yticks=[])
            ax.grid(False)
            ax.spines[:].set_visible(False)
    path.write_bytes(figures.png(figure)[0])
    plt.close(figure)


def _table(records, tau: float, p: int) -> np.ndarray:
    a, b = records.a.values, records.b.values
    at = int(np.abs(records.tau.values - tau).argmin())
    right = records.prediction.isel(step=at).values == (a + b) % p
    grid = np.zeros((p, p), dtype=int)
    grid[a, b] = grid[b, a] = np.where(records.is_train.values, 2, right.astype(int))
    return grid
