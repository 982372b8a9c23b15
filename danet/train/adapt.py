"""Settings of a recipe that are chosen when a run starts, from the data and the initial weights."""

from dataclasses import asdict, replace
from pathlib import Path

from danet.data.classes import Classes
from danet.data.images.channels import RGB, Bands
from danet.data.samples import Samples
from danet.errors import InputError, print_note
from danet.recipes import Network, Recipe
from danet.train.build import with_network_of
from danet.train.calibrate import UNCALIBRATED
from danet.train.distributed import Process
from danet.train.pretrained import find_pretrained
from danet.train.run_folder import RunOptions
from danet.train.scale import check_scales, measure, with_size
from danet.weights import file as weights_file
from danet.weights.card import Card


def adapt(recipe: Recipe, options: RunOptions, samples: Samples, process: Process) -> tuple[Recipe, RunOptions]:
    """Return the settings and options of a new run; the main process says what was chosen.

    Args:
        recipe: as given.
        options: as given.
        samples: the training samples.
        process: this process.

    Raises:
        InputError: training and prediction are at different scales; ImageNet's weights cannot be downloaded, and the
            bundled ones do not fit; the initial weights do not fit.
    """
    recipe = at_scale(recipe, samples, process)
    options = without_connection(recipe, options, samples.bands, process)
    if options.initial_weights is not None:
        recipe = start_from(options.initial_weights, recipe, samples.classes, process)
    return calibratable(recipe, process), options


def at_scale(recipe: Recipe, samples: Samples, process: Process) -> Recipe:
    """Return the recipe with a chosen `data.size`, after comparing the scales of training and prediction."""
    if recipe.data.size is None:
        return recipe
    found = measure(samples)
    chosen = with_size(recipe, found)
    check_scales(chosen, found)
    if chosen != recipe and process.main:
        facts = "" if found is None else f" ({found.describe(chosen.data.size)})"
        print_note(f"size: {chosen.data.size}{facts}; set `data.size` to change it")
    return chosen


def calibratable(recipe: Recipe, process: Process | None = None) -> Recipe:
    """Return the recipe without `calibrate` if its architecture cannot be calibrated; the main process says so."""
    if not recipe.calibrate or recipe.network.architecture not in UNCALIBRATED:
        return recipe
    if process is not None and process.main:
        print_note(f"calibrate: off, as {recipe.network.architecture} has other layers after those that output classes")
    return replace(recipe, calibrate=False)


def needs_imagenet(recipe: Recipe, options: RunOptions) -> bool:
    """Return whether the run starts from ImageNet weights that `timm` downloads."""
    return recipe.network.pretrained and options.backbone_weights is None and options.initial_weights is None


def missing_imagenet(recipe: Recipe, options: RunOptions) -> InputError | None:
    """Return why ImageNet weights that the run needs cannot be downloaded; None if they can, or if it needs none."""
    if not needs_imagenet(recipe, options):
        return None
    try:
        find_pretrained(recipe.network.backbone)
    except InputError as error:
        return error
    return None


def can_use_bundled(recipe: Recipe, bands: Bands) -> bool:
    """Return whether the bundled weights may replace ImageNet's: for your own RGB images, and the same network.

    The width of its decoder may differ: the bundled weights' then replaces the recipe's.
    """
    if recipe.data.dataset != "folder" or bands != RGB:
        return False
    changed = {name for name in with_network_of(recipe, Path("default"))[1] if name.startswith("network.")}
    return changed <= {"network.decoder_width"}


def without_connection(recipe: Recipe, options: RunOptions, bands: Bands, process: Process) -> RunOptions:
    """Return options that start from the bundled weights if ImageNet's cannot be downloaded, and say so.

    Raises:
        InputError: they cannot be downloaded, and the bundled weights do not fit.
    """
    error = None if process.world > 1 else missing_imagenet(recipe, options)
    if error is None:
        return options
    if not can_use_bundled(recipe, bands):
        raise error
    print_note(f"warning: {error.what}; starting from the bundled weights instead; {error.remedy}")
    return replace(options, initial_weights=Path("default"))


_FUNCTION = "output_stride", "layer4_dilations", "align_corners", "position_form", "channel_form"
"""Fields of the network that change what it computes from the same tensors."""


def _other_functions(network: Network, card: Card) -> list[str]:
    """Return the fields, with the values in a card, by which its network computes something else from its tensors."""
    theirs, ours = ({**asdict(Network()), **values} for values in (card.network, asdict(network)))
    return [f"`network.{name}` {_text(theirs[name])}" for name in _FUNCTION if theirs[name] != ours[name]]


def _text(value: object) -> str:
    return " ".join(map(str, value)) if isinstance(value, tuple) else str(value)


def start_from(weights: Path, recipe: Recipe, classes: Classes, process: Process) -> Recipe:
    """Return the recipe with what the initial weights determine, and say what is kept of them."""
    recipe, changed = with_network_of(recipe, weights)
    card = weights_file.read(weights_file.resolve(weights))[1]
    new = [name for name in classes.names if name not in card.classes.names]
    finer = recipe.network.decoder and recipe.network.decoder_stride < card.network.get("decoder_stride", 4)
    facts = [f"{', '.join(changed)} taken from them"] if changed else []
    if finer:
        facts.append(f"the decoder's part at stride {recipe.network.decoder_stride} and the classifier are new")
    if new:
        facts.append(f"the outputs of {', '.join(new)} are new")
    if other := _other_functions(recipe.network, card):
        facts.append(f"trained with {', '.join(other)}, unlike this run")
    if facts and process.main:
        print_note(f"initial weights {weights}: {'; '.join(facts)}")
    return recipe
