"""Check that a run can be resumed: its recipe, its data and its network are still those it was started with."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from torch import nn

from danet import recipes
from danet.errors import InputError, join_messages
from danet.recipes import Recipe
from danet.train.checkpoint import TrainingState
from danet.train.fingerprint import describe_changes
from danet.train.run_folder import planned
from danet.weights.card import Card

HONORED = "about", "fine_tunes", "skip_bad", "data.root"
"""Fields of the recipe that may be edited in recipe.yaml: they do not change the result."""


def check_state(
    folder: Path, state: TrainingState, recipe: Recipe, data: Mapping[str, Any], steps: int, step: int
) -> None:
    """Check that a run can continue from its checkpoint and end as if it had not been interrupted.

    Args:
        folder: the run folder.
        state: from the checkpoint; those of danet 0.1.0 have neither a recipe nor a fingerprint.
        recipe: the content of recipe.yaml.
        data: the fingerprint of the data as it is now.
        steps: the last step of the run.
        step: the step of the checkpoint.

    Raises:
        InputError: the recipe or the data has changed.
    """
    file = folder / "recipe.yaml"
    if state.recipe is not None:
        before, now = (recipes.flatten(entries) for entries in (state.recipe, recipes.to_dict(recipe)))
        changed = [name for name in now if before.get(name, now[name]) != now[name] and name not in HONORED]
        if changed:
            lines = [
                f"{name} is {_shown(now[name])}, but the run started with {_shown(before[name])}" for name in changed
            ]
            raise InputError(file, join_messages(lines), "restore it, or start a new run with other settings")
    trained = (folder / "best.safetensors").exists()
    remedy = f"restore the data, or start a new run{' from the weights in best.safetensors' if trained else ''}"
    images = data["images"]["train"]
    if state.data is not None:
        if changes := describe_changes(state.data, data):
            raise InputError(folder, f"the data of the run has changed: {join_messages(changes)}", remedy)
    elif state.images not in (None, images):
        what = f"the run started with {state.images} training images, but there are {images} now"
        raise InputError(folder, what, remedy)
    if step > steps:
        what = f"the checkpoint is at step {step}, but recipe.yaml ends at step {steps}"
        raise InputError(folder, what, "restore the number of epochs or steps in recipe.yaml")


def restarted_recipe(recipe: Recipe, saved: Mapping[str, Any]) -> Recipe:
    """Return the recipe of a run that torchrun has restarted: that of its command, fitted to the time as before."""
    return planned(recipe, recipes.from_dict(saved["recipe"], "checkpoint")) if saved.get("recipe") else recipe


def license_of(saved: Mapping[str, Any]) -> str:
    """Return the license of the initial weights, which a checkpoint of 0.1.0 does not have."""
    return Card.from_json(saved["card"]).license if "card" in saved else ""


def check_transform(folder: Path, before: str | None, now: str | None) -> None:
    """Check that a run is resumed with the augmentation it was started with, as far as its name tells.

    Raises:
        InputError: it is another one, or missing.
    """
    if before == now:
        return
    what = f"the run was started with {before or 'no transform'}, but is resumed with {now or 'none'}"
    remedy = "resume it with the same `transform`" if before else "leave it out"
    raise InputError("transform", f"{what} ({folder})", remedy)


def load_network(network: nn.Module, state: Mapping[str, Any], folder: Path) -> None:
    """Load the weights in a checkpoint.

    Raises:
        InputError: they are those of another network; checkpoints of danet 0.1.0 do not say what has changed.
    """
    expected, found = ({key: tuple(t.shape) for key, t in tensors.items()} for tensors in (network.state_dict(), state))
    if differing := [key for key in {**expected, **found} if expected.get(key) != found.get(key)]:
        key = differing[0]
        shapes = (f"of shape {shapes[key]}" if key in shapes else "missing" for shapes in (found, expected))
        what = "{} is {} in the checkpoint, but {} in the network of recipe.yaml and the dataset".format(key, *shapes)
        raise InputError(folder, what, "restore recipe.yaml and the classes in dataset.yaml")
    network.load_state_dict(state)


def _shown(value: Any) -> str:
    return "not set" if value is None else " ".join(map(str, value)) if isinstance(value, list) else str(value)
