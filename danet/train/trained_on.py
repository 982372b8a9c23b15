"""The dataset that weights were trained on, so that they can be evaluated without naming it again."""

from pathlib import Path

from danet.data import registry
from danet.errors import InputError, unknown_name
from danet.train import run_folder
from danet.weights.card import Card


def find_dataset(weights: Path, card: Card, dataset: str | None = None) -> tuple[str, Path | None]:
    """Return the name of the dataset that weights were trained on, and its folder; None if it is generated.

    The folder is the one recorded in the weights' run folder, or else the one in their card, which may be relative to
    the working directory of the training.

    Args:
        weights: the file.
        card: its card.
        dataset: the name of the dataset; None: any.

    Raises:
        InputError: an unknown dataset; the weights were trained on another one, or do not tell its folder; the folder
            is not on this machine.
    """
    if dataset is not None and dataset not in registry.DATASETS:
        raise unknown_name("dataset", dataset, registry.DATASETS)
    name = dataset or (card.dataset if card.dataset in registry.DATASETS else "folder")
    if registry.DATASETS[name].synthetic:
        return name, None
    data = card.recipe.get("data")
    recorded = data.get("root") if isinstance(data, dict) else None
    roots = [run_folder.recorded_root(weights.parent), Path(recorded) if isinstance(recorded, str) else None]
    known = [root for root in roots if root is not None] if name == card.dataset else []
    if root := next((root for root in known if root.is_dir()), None):
        return name, root
    if not known:
        raise registry.missing_root(name)
    what = f"missing, and the folder that the weights were trained on is not on this machine: {known[0]}"
    raise InputError("root", what, "specify the folder of the dataset")
