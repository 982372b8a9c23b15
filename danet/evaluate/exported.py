"""mIoU of an exported file next to that of its network. Command: `danet export --verify-on FOLDER`."""

from pathlib import Path

from danet.data import registry
from danet.evaluate.confusion import Confusion
from danet.evaluate.evaluation import check_classes
from danet.weights import file as weights_file
from danet.weights.export_check import check_bytes, open_labels
from danet.weights.export_preprocessing import segment


def check_folder(weights: Path, folder: Path) -> None:
    """Check, before the export, that a folder can be used to measure it.

    Raises:
        InputError: see `measure_export`.
    """
    _, card = weights_file.load(weights)
    check_classes(card, registry.load("folder", folder, "val"), str(weights))


def measure_export(
    weights: Path, file: Path, folder: Path, size: tuple[int, int] | None, whole: bool
) -> dict[str, float]:
    """Return the mIoU, from 0 to 1, of the network ("network") and of the exported file (its path).

    Args:
        weights: the network that was exported.
        file: the exported file.
        folder: with images, masks and dataset.yaml; its val split is segmented.
        size: height and width of the only image that the file takes; None: any.
        whole: whether preprocessing is inside.

    Raises:
        InputError: an unreadable file, or a dataset with other classes, see `check_classes`.
    """
    network, card = weights_file.load(weights)
    samples = registry.load("folder", folder, "val")
    check_classes(card, samples, str(weights))
    ways = {"network": lambda pixels: segment(network, card, pixels)[0], str(file): open_labels(file, size, whole)}
    confusions = {name: Confusion(len(card.classes)) for name in ways}
    for sample in (samples[i] for i in range(len(samples))):
        if whole:
            check_bytes(sample.image, sample.name)
        for name, labels in ways.items():
            confusions[name].update(sample.labels, labels(sample.image))
    return {name: confusion.scores().miou for name, confusion in confusions.items()}
