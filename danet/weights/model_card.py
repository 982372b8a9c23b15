"""Write the model card of weights in the format of the Hugging Face Hub: metadata in YAML, and a text."""

import math
from typing import Any

import yaml

from danet.weights.card import Card

_LICENSES = ("apache-2.0", "mit", "bsd-3-clause", "cc0-1.0", "cc-by-4.0", "cc-by-sa-4.0", "cc-by-nc-4.0", "gpl-3.0")
"""Identifiers of the Hub; other terms are `other`, and in the text."""

_METRICS = {
    "miou": ("mean_iou", "mIoU"),
    "pixel_accuracy": ("accuracy", "pixel accuracy"),
    "mean_accuracy": (
        "mean_accuracy",
        "mean accuracy",
    ),
}
"""Name in the card -> type on the Hub, and the name there."""


def model_card(card: Card, name: str) -> str:
    """Return the text of README.md.

    Args:
        card: of the weights.
        name: "user/repo", or a title.
    """
    kind = str(card.network.get("architecture", "danet"))
    head = yaml.safe_dump(metadata(card, name), sort_keys=False, allow_unicode=True)
    size = "of any size" if card.size is None else f"resized to a long side of {card.size} pixels"
    lines = [
        f"---\n{head}---\n",
        f"# {name.rpartition('/')[2]}\n",
        f"Semantic segmentation with danet: {kind} on {card.network['backbone']}, "
        f"{len(card.classes)} classes, images {size}.\n",
        "```python\nimport danet\n\n"
        f'segmentation = danet.load("hf://{name}")("image.jpg")\nsegmentation.overlay().save("overlay.png")\n```\n',
        f"## Classes\n\n{', '.join(card.classes.names)}\n",
        *_scores(card),
        f"## License\n\n{card.license or 'Not stated.'}\n",
    ]
    return "\n".join(lines)


def metadata(card: Card, name: str) -> dict[str, Any]:
    """Return the metadata of the model card: license, library, tags, datasets and results."""
    license_id = card.license.strip().lower()
    entries: dict[str, Any] = {
        "license": "unknown" if not license_id else license_id if license_id in _LICENSES else "other",
        "library_name": "danet",
        "pipeline_tag": "image-segmentation",
        "tags": ["danet", "semantic-segmentation", *_tags(card)],
    }
    if published := card.dataset and card.dataset != "folder":
        entries["datasets"] = [card.dataset]
    metrics = [{"type": kind, "value": value, "name": title} for kind, value, title in _totals(card)]
    if metrics:
        entries["metrics"] = [row["type"] for row in metrics]
        dataset = (
            {"type": card.dataset, "name": card.dataset} if published else {"type": "custom", "name": "own images"}
        )
        task = {"type": "image-segmentation", "name": "semantic segmentation"}
        results = [{"task": task, "dataset": {**dataset, "split": "validation"}, "metrics": metrics}]
        entries["model-index"] = [{"name": name.rpartition("/")[2], "results": results}]
    return entries


def _tags(card: Card) -> list[str]:
    architecture = str(card.network.get("architecture", "danet"))
    return [word for word in (architecture, str(card.network["backbone"])) if word != "danet"]


def _totals(card: Card) -> list[tuple[str, float, str]]:
    """Return the Hub's type, the value and the name of each score over all classes that the card has."""
    values = [(kind, card.metrics.get(key), title) for key, (kind, title) in _METRICS.items()]
    return [
        (kind, float(value), title)
        for kind, value, title in values
        if isinstance(value, int | float) and math.isfinite(value)
    ]


def _scores(card: Card) -> list[str]:
    """Return the scores on the validation images, over all classes and of each."""
    totals = [f"{title} {value:.1%}" for _, value, title in _totals(card)]
    if not totals:
        return []
    rows = [f"| {name} | {100 * iou:.1f} |" for name, iou in (card.metrics.get("iou") or {}).items() if iou is not None]
    table = "\n".join(["| class | IoU, % |", "|---|---|", *rows]) + "\n" if rows else ""
    return [f"## Accuracy\n\nOn the validation images: {', '.join(totals)}.\n", *([table] if table else [])]
