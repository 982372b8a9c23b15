"""RUN/report.html: one page that opens offline: curves, IoU of each class, confusion matrix, settings."""

import html
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import yaml

from danet import recipes
from danet.data.labels import Classes
from danet.files import write_atomically
from danet.metrics import Confusion
from danet.recipes import Recipe

_COLOURS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7")  # Okabe and Ito's, told apart by every eye
_STYLE = """
:root { color-scheme: light dark; } body { font: 15px/1.5 system-ui, sans-serif; max-width: 62rem; margin: 2rem auto;
padding: 0 1rem; } svg { max-width: 100%; height: auto; } svg text { font-size: 12px; fill: currentColor; } figure {
display: inline-block; margin: 0 1rem 1rem 0; } table { border-collapse: collapse; font-size: 12px; } td, th { padding:
2px 6px; text-align: right; } th { font-weight: 600; } pre { overflow-x: auto; } .bar { background: #0072b2; height:
0.8em; display: inline-block; }
"""


def write(
    folder: Path, recipe: Recipe, history: Sequence[Mapping[str, Any]], confusion: Confusion, classes: Classes
) -> None:
    """Write the page of a run so far.

    Args:
        history: the rows of metrics.csv, one a validation.
        confusion: of the last validation.
    """
    last = history[-1]
    losses = [key for key in last if key.startswith("loss_") and key != "loss_total"]
    scales = [key for key in last if key.endswith("_scale")]
    charts = [
        _chart("validation mIoU", history, ["miou"]),
        _chart("training losses", history, losses),
        _chart("learning rate", history, ["lr"]),
        *([_chart("scales of the attention (alpha, beta)", history, scales)] if scales else []),
    ]
    best = max(history, key=lambda row: row["miou"])
    page = f"""<!doctype html><html lang="en"><meta charset="utf-8"><meta name="viewport" content="width=device-width">
<title>{html.escape(folder.name)}</title><style>{_STYLE}</style>
<h1>{html.escape(folder.name)}</h1>
<p>{html.escape(recipe.about)}. Epoch {last["epoch"]} of {recipe.optim.epochs}; best validation mIoU {
        100 * best["miou"]:.2f} % in epoch {best["epoch"]}, over full pictures.</p>
<h2>Curves</h2>{"".join(charts)}
<h2>Classes, in epoch {last["epoch"]}</h2>{_class_table(confusion, classes)}
<h2>Confusion, in % of each true class</h2>{_confusion_table(confusion, classes)}
<h2>Settings</h2><pre>{html.escape(yaml.safe_dump(recipes.to_dict(recipe), sort_keys=False))}</pre>
</html>
"""
    write_atomically(folder / "report.html", page.encode())


def _chart(title: str, history: Sequence[Mapping[str, Any]], keys: Sequence[str]) -> str:
    """A line chart over the epochs, as SVG."""
    width, height, left, bottom = 440, 240, 56, 26
    epochs = [row["epoch"] for row in history]
    values = np.array([[row[key] for key in keys] for row in history], float)
    finite = values[np.isfinite(values)]
    low, high = (finite.min().item(), finite.max().item()) if finite.size else (0.0, 1.0)
    margin = 0.05 * (high - low) or 0.05 * abs(high) or 1.0
    low, high = low - margin, high + margin
    span = max(epochs[-1] - epochs[0], 1)

    def x(epoch: int) -> float:
        return left + (epoch - epochs[0]) / span * (width - left - 12)

    def y(value: float) -> float:
        return (height - bottom) - (value - low) / (high - low) * (height - bottom - 12)

    parts = []
    for value in np.linspace(low + margin, high - margin, 4):
        parts.append(f'<line x1="{left}" x2="{width - 12}" y1="{y(value):.1f}" y2="{y(value):.1f}" stroke="#8884"/>')
        parts.append(f'<text x="{left - 6}" y="{y(value) + 4:.1f}" text-anchor="end">{value:.3g}</text>')
    ticks = sorted({epochs[0], epochs[len(epochs) // 2], epochs[-1]})
    parts += [f'<text x="{x(tick):.1f}" y="{height - 6}" text-anchor="middle">{tick}</text>' for tick in ticks]
    for column, colour in zip(values.T, _COLOURS, strict=False):
        points = " ".join(f"{x(e):.1f},{y(v):.1f}" for e, v in zip(epochs, column, strict=True) if np.isfinite(v))
        parts.append(f'<polyline points="{points}" fill="none" stroke="{colour}" stroke-width="2"/>')
        if points:  # a run of one validation is a point
            cx, cy = points.split()[-1].split(",")
            parts.append(f'<circle cx="{cx}" cy="{cy}" r="3" fill="{colour}"/>')
    legend = " ".join(
        f'<span style="color:{_COLOURS[i % 4]}">■</span> {html.escape(key)}' for i, key in enumerate(keys)
    )
    caption = f"<figcaption><b>{html.escape(title)}</b> by epoch: {legend}</figcaption>"
    svg = f'<svg viewBox="0 0 {width} {height}" width="{width}" role="img" aria-label="{html.escape(title)}">'
    return f"<figure>{caption}{svg}{''.join(parts)}</svg></figure>"


def _class_table(confusion: Confusion, classes: Classes) -> str:
    rows = []
    for name, iou in zip(classes.names, confusion.scores().iou, strict=True):
        number = "n/a" if np.isnan(iou) else f"{100 * iou:.1f}"
        bar = "" if np.isnan(iou) else f'<span class="bar" style="width:{240 * iou:.0f}px"></span>'
        rows.append(f'<tr><th>{html.escape(name)}<td>{number}<td style="text-align:left">{bar}')
    return f"<table><tr><th>class<th>IoU %<th>{''.join(rows)}</table>"


def _confusion_table(confusion: Confusion, classes: Classes) -> str:
    shares = confusion.matrix / np.maximum(confusion.matrix.sum(1, keepdims=True), 1)
    head = "".join(f"<th>{html.escape(name)}" for name in classes.names)
    rows = []
    for name, row in zip(classes.names, shares, strict=True):
        cells = "".join(f'<td style="background:rgb(0 114 178 / {share:.2f})">{100 * share:.0f}' for share in row)
        rows.append(f"<tr><th>{html.escape(name)}{cells}")
    return f'<div style="overflow-x:auto"><table><tr><th>true \\ predicted{head}{"".join(rows)}</table></div>'
