"""Whether attention looks where the paper says, measured against ground truth: `danet evaluate --attention`.

Figure 6 of the paper shows position attention that gathers from pixels of the same class, however far away. Here that
is a number: the share of a pixel's attention on its own class, next to its value by chance, the share of the image
that the class has. Both also without the pixel's neighborhood, where every smooth map scores well. Rows of S are
computed in blocks, exactly and in O(N) memory.
"""

from dataclasses import dataclass, field
from typing import Any, NamedTuple

import numpy as np
import torch
from jaxtyping import Float64, UInt8
from torch import Tensor

from danet.data.classes import IGNORE, Classes
from danet.errors import InputError
from danet.evaluate.confusion import Confusion, nan_mean, to_json
from danet.evaluate.intervals import paired_difference
from danet.model.attention_kernels import attention_weights
from danet.predict.attention import Inspection, Module

NEIGHBORHOOD = 2
"""Positions at most this far in both directions, 5 x 5, are left out of the shares beyond the neighborhood."""

_SHARES = ("own", "chance", "own_beyond", "chance_beyond")
_SCALES = {"position": "alpha", "channel": "beta"}
_BLOCK = 1 << 22  # attention weights held at once


class RowMetrics(NamedTuple):
    """Position attention of one image, against its ground truth; nan if undefined.

    Args:
        classes: label of each position, 255 = ignore.
        own: share of each position's attention that is on its own class.
        chance: share of the positions that have its class: the value of `own` if attention is uniform.
        own_beyond: `own` without the neighborhood, as a share of the attention outside it.
        chance_beyond: `chance` without the neighborhood.
        entropy: mean over all rows of entropy / log N: 1 is uniform, 0 a single position.
        cosine: mean cosine between two different rows: 1 if all positions attend alike.
    """

    classes: UInt8[np.ndarray, " N"]
    own: Float64[np.ndarray, " N"]
    chance: Float64[np.ndarray, " N"]
    own_beyond: Float64[np.ndarray, " N"]
    chance_beyond: Float64[np.ndarray, " N"]
    entropy: float
    cosine: float


@torch.inference_mode()
def row_metrics(
    query: Tensor, key: Tensor, labels: UInt8[np.ndarray, "h w"], regions: Tensor | None = None
) -> RowMetrics:
    """Measure the position attention of one image.

    Args:
        query: N,D, the queries of Eq. 1.
        key: N,D, the keys of Eq. 1; of a DRANet, M,D.
        labels: ground truth of each position, 255 = ignore.
        regions: M,N, of a DRANet, whose weights of centers are divided among the positions; see `Internals`.
    """
    device, (height, width) = query.device, labels.shape
    precise = torch.float32 if device.type == "mps" else torch.float64  # which Apple's GPUs do not have
    count = height * width
    classes = torch.from_numpy(labels.reshape(-1).astype(np.int64)).to(device)
    valid = classes != IGNORE
    row, column = torch.arange(count, device=device) // width, torch.arange(count, device=device) % width
    columns: dict[str, list[Tensor]] = {name: [] for name in (*_SHARES, "entropy")}
    directions = torch.zeros(count, dtype=precise, device=device)  # the sum of all rows, each of length 1
    for at in torch.arange(count, device=device).split(max(1, _BLOCK // count)):
        weights = attention_weights(query[None, at], key[None])[0]
        weights = weights if regions is None else weights @ regions  # n,N
        same = (classes[at, None] == classes) & valid
        near = ((row[at, None] - row).abs() <= NEIGHBORHOOD) & ((column[at, None] - column).abs() <= NEIGHBORHOOD)
        far, own = weights.masked_fill(near, 0), weights * same
        columns["own"].append(own.sum(1))
        columns["chance"].append(same.to(precise).mean(1))
        total = far.sum(1)
        beyond = (same & ~near).sum(1).to(precise) / (~near).sum(1)
        columns["own_beyond"].append((far * same).sum(1) / total)
        columns["chance_beyond"].append(beyond.where(total > 0, torch.nan))  # of the same positions
        columns["entropy"].append(-torch.xlogy(weights, weights).sum(1))
        directions += (weights / weights.norm(dim=1, keepdim=True)).sum(0, dtype=precise)
    joined = {name: torch.cat(parts).to(precise) for name, parts in columns.items()}
    entropies = joined.pop("entropy")
    entropy = entropies.mean().item() / np.log(count) if count > 1 else float("nan")
    pairs = count * (count - 1)
    cosine = (directions.square().sum().item() - count) / pairs if pairs else float("nan")
    shares = {name: values.where(valid, torch.nan).cpu().double().numpy() for name, values in joined.items()}
    return RowMetrics(classes.to(torch.uint8).cpu().numpy(), **shares, entropy=entropy, cosine=cosine)


@dataclass
class AttentionMetrics:
    """Sums over images; shares are means over all labeled positions, and everything else over images.

    Args:
        classes: of the dataset.
    """

    classes: Classes
    _rows: list[dict[str, np.ndarray]] = field(default_factory=list)
    _matrices: dict[str, list[np.ndarray]] = field(default_factory=dict)
    _values: dict[str, list[float]] = field(default_factory=dict)

    def update_shares(self, inspection: Inspection, labels: UInt8[np.ndarray, "H W"]) -> None:
        """Add only where the position attention of an image looks; arguments as in `update`."""
        internals = inspection.internals
        if internals.query is None or internals.key is None:
            return
        rows = row_metrics(internals.query, internals.key, grid_labels(inspection, labels), internals.regions)
        self._add("entropy", rows.entropy)
        self._add("cosine", rows.cosine)
        self._rows.append(_sums(rows, len(self.classes)))

    def update(self, inspection: Inspection, labels: UInt8[np.ndarray, "H W"]) -> None:
        """Add an image.

        Args:
            inspection: of the image.
            labels: its ground truth at the image's size, 255 = ignore.

        Raises:
            InputError: a network without attention.
        """
        internals = inspection.internals
        if not internals.scales:
            raise InputError("weights", "the network has no attention", "use weights of a DANet with attention modules")
        self.update_shares(inspection, labels)
        for module, contribution in internals.contributions.items():
            self._add(f"{module}_size", contribution.size)
            self._add(f"{module}_varying", contribution.varying)
            self._add(f"{module}_scale", internals.scales[module])
        predictions = {"with": inspection.segmentation.labels, "without_both": inspection.without(None).labels}
        predictions |= {f"without_{module}": inspection.without(module).labels for module in internals.scales}
        for name, predicted in predictions.items():
            confusion = Confusion(len(self.classes))
            confusion.update(labels, predicted)
            self._matrices.setdefault(name, []).append(confusion.matrix)

    def as_dict(self) -> dict[str, Any]:
        """Return all metrics as JSON values; nan becomes None."""
        return to_json({"position": self._position(), "modules": self._modules(), "without": self._without()})

    def text(self) -> str:
        """Return a few lines that a reader without this paper understands."""
        lines, metrics = [], self.as_dict()
        if (position := metrics["position"]) is not None:
            shares = {name: "n/a" if position[name] is None else f"{100 * position[name]:.1f}%" for name in _SHARES}
            lines += [
                f"attention on the pixel's own class: {shares['own']} (by chance {shares['chance']}); "
                f"beyond its neighborhood: {shares['own_beyond']} (by chance {shares['chance_beyond']})",
            ]
            if position["entropy"] is not None:  # None if the grid has a single position
                entropy, cosine = position["entropy"], position["cosine"]
                lines.append(
                    f"spread of a pixel's attention: {entropy:.1%} (100%: even over all positions; 0%: one position); "
                    f"similarity of the maps of two pixels: {cosine:.1%}"
                )
        lines += [
            f"{module} attention changes the features by {100 * values['size']:.1f}% of their size "
            f"({100 * values['varying']:.1f}% beyond a constant change; {_SCALES[module]} = {values['scale']:+.3f})"
            for module, values in metrics["modules"].items()
        ]
        for module, row in metrics["without"].items():
            if module != "none" and row["difference"] is not None:  # None without labels
                name = "both modules" if module == "both" else f"{module} attention"
                low, high = row["by_images_95"]
                interval = "n/a" if low is None else f"{100 * low:+.2f} to {100 * high:+.2f}"
                lines.append(
                    f"mIoU without {name}: {100 * row['miou']:.2f}% "
                    f"({100 * row['difference']:+.2f}, 95% interval {interval})"
                )
        return "\n".join(lines)

    def summary(self) -> dict[str, float]:
        """Return the metrics for one row of a run's history, by name; shares are nan without position attention."""
        position = self._position() or {}
        return {f"attention_{name}": position.get(name, float("nan")) for name in _SHARES}

    def _add(self, name: str, value: float) -> None:
        self._values.setdefault(name, []).append(value)

    def _position(self) -> dict[str, Any] | None:
        if not self._rows:
            return None
        sums = {name: np.sum([rows[name] for rows in self._rows], 0) for name in self._rows[0]}  # K each
        with np.errstate(invalid="ignore"):
            total = {name: float(sums[name].sum() / sums[f"{name}_count"].sum()) for name in _SHARES}
            by_class = {name: sums[name] / sums[f"{name}_count"] for name in _SHARES}
        values = {name: nan_mean(self._values[name]) for name in ("entropy", "cosine")}
        rows = {
            name: {key: float(value[i]) for key, value in by_class.items()} for i, name in enumerate(self.classes.names)
        }
        return {**total, **values, "classes": rows}

    def _modules(self) -> dict[str, dict[str, float]]:
        names: list[Module] = ["position", "channel"]
        return {
            module: {name: nan_mean(self._values[f"{module}_{name}"]) for name in ("scale", "size", "varying")}
            for module in names
            if f"{module}_scale" in self._values
        }

    def _without(self) -> dict[str, Any]:
        """Return the mIoU with and without attention, with 95% intervals of the differences, paired by image."""
        whole = np.stack(self._matrices["with"])
        confusion = Confusion(len(self.classes))
        confusion.matrix = whole.sum(0)
        result: dict[str, Any] = {"none": {"miou": confusion.scores().miou}}
        for name in ("position", "channel", "both"):
            if (matrices := self._matrices.get(f"without_{name}")) is not None:
                result[name] = paired_difference(np.stack(matrices), whole)
        return result


def grid_labels(inspection: Inspection, labels: UInt8[np.ndarray, "H W"]) -> UInt8[np.ndarray, "h w"]:
    """Return the label of each position: that of the image's pixel in the middle of its area."""
    rows, columns = inspection.grid
    y = np.array([inspection.pixel_of(row, 0)[1] for row in range(rows)])
    x = np.array([inspection.pixel_of(0, column)[0] for column in range(columns)])
    return labels[y[:, None], x].astype(np.uint8)


def _sums(rows: RowMetrics, num_classes: int) -> dict[str, np.ndarray]:
    """Return the sum of each share over the positions of each class, and the number of positions."""
    sums = {}
    for name in _SHARES:
        values = getattr(rows, name)
        defined = ~np.isnan(values)
        sums[name] = np.bincount(rows.classes[defined], values[defined], num_classes)
        sums[f"{name}_count"] = np.bincount(rows.classes[defined], minlength=num_classes)
    return sums
