"""Start or resume a run. In Python `danet.train(...)` and `danet.iterate_training(...)`; command: `danet train`."""

import os
from collections.abc import Callable, Generator, Mapping
from functools import wraps
from pathlib import Path
from typing import Any, ParamSpec

from danet import recipes
from danet.errors import InputError, print_note
from danet.recipes import Recipe
from danet.train import loop
from danet.train.auto import Choice, choose
from danet.train.result import Result
from danet.train.run_folder import RunOptions
from danet.train.time_budget import fit_to, parse_seconds
from danet.train.user_transform import Transform

_NOTHING: Mapping[str, Any] = {}
_Arguments = ParamSpec("_Arguments")


def iterate_training(
    recipe: Recipe | str | None = None,
    data: Path | str | None = None,
    *,
    out: Path | str | None = None,
    settings: Mapping[str, Any] = _NOTHING,
    initial_weights: Path | str | None = None,
    backbone_weights: Path | str | None = None,
    resume: Path | str | None = None,
    transform: Transform | None = None,
    time_budget: str | None = None,
    auto: bool = False,
    device: str | None = None,
    workers: int = 1,
    cache: Path | str | None = None,
    tensorboard: bool = False,
    tracker: str | None = None,
    deterministic: bool = False,
) -> Generator[dict[str, Any], None, Result]:
    """Train, and yield the row of metrics.csv of each validation; return the result.

    Each row is yielded after its checkpoint: a run whose iterator is closed can be resumed.

    Args:
        recipe: a recipe or its name; None with `resume`.
        data: the folder of the dataset, if the recipe has none or another one.
        out: the run folder; None: runs/RECIPE, or runs/RECIPE-2, -3, ... if it exists.
        settings: values of the recipe by the names of the command's options: {"optim.epochs": 40}, or nested,
            {"optim": {"epochs": 40}}; what is not named keeps the value of the recipe.
        initial_weights: start from this weights file, or from the bundled ones: "default".
        backbone_weights: a .safetensors file with ImageNet weights of the backbone under timm's names.
        resume: continue the run in this folder, with its recipe.
        transform: your own augmentation in the style of Albumentations, applied to the crops after that of the recipe:
            `transform(image=, mask=)` returns {"image": , "mask": } of the same sizes and types. The image is H,W,3
            uint8, or H,W,N, float32 if the files have more than 8 bits; the mask is H,W uint8 train ids, 255 = ignore.
            A run is resumed with the same transform.
        time_budget: choose the number of steps, and how often to validate, so that the run ends in this time: "30m",
            "1.5h", "1h30m". A resumed run takes the remaining steps, whatever the time.
        auto: choose size, crop, accumulation, workers and steps from the images, the memory and the measured speed of
            this machine, except for what `settings` holds; see `danet.train.auto`.
        device: "cpu", "cuda" or "cuda:1"; None: a GPU if there is one.
        workers: number of processes that load images; with `auto`, only another number than 1 is kept.
        cache: folder for decoded training images.
        tensorboard: also write the curves to OUT/tensorboard.
        tracker: also send them to this tracker: wandb, mlflow, trackio or tensorboard.
        deterministic: refuse operations whose results vary between runs.

    Raises:
        InputError: an unknown recipe or setting; both `resume` and what it determines; see also `loop.iterate`.
    """
    _check_transform(transform)
    execution = {"device": device, "workers": workers, "tensorboard": tensorboard, "deterministic": deterministic}
    execution |= {"cache": cache, "tracker": tracker}
    if resume is not None:
        own = {"recipe": recipe, "out": out, "settings": settings or None, "initial_weights": initial_weights}
        own |= {"backbone_weights": backbone_weights, "time_budget": time_budget, "auto": auto or None}
        _check_resumed(resume, own)
        options = run_options(resume, data_root=_path(data), **execution)
        return loop.iterate(None, options, resume=True, transform=transform)
    settings = recipes.flatten(settings)
    name, chosen = resolve(recipe, data, settings)
    folder = unused_folder(name) if out is None else Path(out)
    weights = {"backbone_weights": backbone_weights, "initial_weights": initial_weights}
    options = run_options(folder, **weights, **execution)
    seconds = None if time_budget is None else parse_seconds(time_budget)
    if auto:
        given = settings.keys() | ({"workers"} if workers != 1 else set())
        return print_choices(choose(chosen, options, given, seconds, transform)).start(transform)
    if seconds is None:
        return loop.iterate(chosen, options, transform=transform)
    return loop.iterate(chosen, options, transform=transform, fit=fit_to(seconds, settings))


def print_choices(choice: Choice) -> Choice:
    """Print a note for each chosen setting; return the choice."""
    for line in choice.lines():
        print_note(line)
    return choice


def _check_transform(transform: Any) -> None:
    if transform is not None and not callable(transform):
        raise InputError("transform", f"must be a function, got {transform!r}", "pass transform(image=, mask=)")


def _check_resumed(run: Path | str, given: Mapping[str, Any]) -> None:
    """Check that nothing is given that the run has determined."""
    for name, value in given.items():
        if value is not None:
            what = f"is determined by the run in {run}"
            raise InputError(name, what, "leave it out, or start a new run without `resume`")


def _to_the_end(
    start: Callable[_Arguments, Generator[dict[str, Any], None, Result]],
) -> Callable[_Arguments, Result]:
    @wraps(start)
    def train(*args: _Arguments.args, **options: _Arguments.kwargs) -> Result:
        return loop.exhaust(start(*args, **options))

    train.__name__ = train.__qualname__ = "train"
    train.__doc__ = (
        f"Train, and return the result.\n\n    It is that of `iterate_training`, which says: {start.__doc__}"
    )
    return train


train = _to_the_end(iterate_training)
"""Train until the recipe's last step, or until SIGINT or SIGTERM, and return the result; see `iterate_training`."""


def resolve(recipe: Recipe | str | None, data: Path | str | None, settings: Mapping[str, Any]) -> tuple[str, Recipe]:
    """Return the name for the run folder and the recipe; arguments and errors as in `iterate_training`."""
    if recipe is None:
        raise InputError("recipe", "missing", 'specify a recipe, for example "folder", or `resume`')
    name = recipe if isinstance(recipe, str) else "run"
    chosen = recipes.find(recipe) if isinstance(recipe, str) else recipe
    given = recipes.flatten(settings)
    if data is not None and given.get("data.root") is not None:
        raise InputError("data", "is also given as `data.root` in `settings`", "leave out one of the two")
    return name, recipes.with_settings(chosen, given | ({} if data is None else {"data.root": data}))


def run_options(
    folder: Path | str,
    tensorboard: bool = False,
    tracker: str | None = None,
    cache: Path | str | None = None,
    initial_weights: Path | str | None = None,
    backbone_weights: Path | str | None = None,
    **rest: Any,
) -> RunOptions:
    """Return the options of a run; arguments as in `iterate_training`, and those of `RunOptions`."""
    names = ["tensorboard"] * (tensorboard and tracker != "tensorboard") + [tracker] * (tracker is not None)
    paths = {"cache": cache, "initial_weights": initial_weights, "backbone_weights": backbone_weights}
    given = {name: _path(value) for name, value in paths.items()}
    return RunOptions(Path(folder), trackers=tuple(filter(None, names)), **given, **rest)


def unused_folder(name: str) -> Path:
    """Return the default run folder of a recipe.

    Raises:
        InputError: several processes train together; each would choose another one.
    """
    if "WORLD_SIZE" in os.environ:
        raise InputError("out", "missing; all processes of torchrun use one folder", "add `out`")
    numbered = (Path("runs") / (name if i == 1 else f"{name}-{i}") for i in range(1, 10_000))
    return next(folder for folder in numbered if not folder.exists())


def _path(value: Path | str | None) -> Path | None:
    return None if value is None else Path(value)
