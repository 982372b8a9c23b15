"""Evaluate networks on corrupted images: mIoU and calibration for each corruption and severity, and their means.

Command: danet robustness WEIGHTS ... --dataset NAME --root DIR.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from danet.data.classes import Classes
from danet.data.samples import Samples
from danet.errors import InputError, unknown_name
from danet.evaluate.calibration import Calibration
from danet.evaluate.confusion import Confusion, nan_mean, to_json
from danet.evaluate.corruptions import CORRUPTIONS, SEVERITIES, corrupt
from danet.predict.predictor import Predictor
from danet.predict.protocols import WHOLE, Protocol


class Condition(NamedTuple):
    """A corruption and its severity."""

    corruption: str
    severity: int


CLEAN = Condition("clean", 0)


def list_conditions(corruptions: Sequence[str], severities: Sequence[int]) -> list[Condition]:
    """Return the clean condition, then each corruption at each severity, in the order of `CORRUPTIONS`.

    Raises:
        InputError: an unknown corruption, a severity outside 1 to 5, or an empty list.
    """
    if unknown := sorted(set(corruptions) - set(CORRUPTIONS)):
        raise unknown_name("corruptions", unknown[0], CORRUPTIONS)
    if invalid := sorted(set(severities) - set(SEVERITIES)):
        raise InputError("severities", f"must be from 1 to 5, got {invalid[0]}", "choose from 1 2 3 4 5")
    for name, values in (("corruptions", corruptions), ("severities", severities)):
        if not values:
            raise InputError(name, "needs at least one value", "omit the option to use all")
    ordered = [name for name in CORRUPTIONS if name in corruptions]
    return [CLEAN, *(Condition(name, severity) for name in ordered for severity in sorted(set(severities)))]


@dataclass
class Robustness:
    """Results of a network for each condition."""

    classes: Classes
    confusion: dict[Condition, Confusion] = field(default_factory=dict)
    calibration: dict[Condition, Calibration] = field(default_factory=dict)

    def miou(self, condition: Condition) -> float:
        """Return the mean IoU under a condition, in [0, 1]."""
        return self.confusion[condition].scores().miou

    def mious(self, corruption: str) -> list[float]:
        """Return the mean IoU at each evaluated severity, in ascending order."""
        return [self.miou(condition) for condition in sorted(self.confusion) if condition.corruption == corruption]

    def eces(self, corruption: str) -> list[float]:
        """Return the expected calibration error at each evaluated severity, in ascending order."""
        ordered = sorted(self.calibration.items())
        return [calibration.error for condition, calibration in ordered if condition.corruption == corruption]

    @property
    def corruptions(self) -> list[str]:
        """The evaluated corruptions, in the order of `CORRUPTIONS`."""
        evaluated = {condition.corruption for condition in self.confusion}
        return [name for name in CORRUPTIONS if name in evaluated]

    @property
    def mean_miou(self) -> float:
        """The mean IoU, averaged over the severities of each corruption and then over the corruptions."""
        return nan_mean(nan_mean(self.mious(name)) for name in self.corruptions)

    @property
    def kept(self) -> float:
        """The mean IoU on corrupted images relative to clean images; nan if the latter is 0."""
        return self.mean_miou / self.miou(CLEAN) if self.miou(CLEAN) else float("nan")

    @property
    def mean_ece(self) -> float:
        """The expected calibration error, averaged like the mean IoU."""
        return nan_mean(nan_mean(self.eces(name)) for name in self.corruptions)

    def degradation(self, reference: "Robustness", corruption: str, relative: bool = False) -> float:
        """Return the corruption degradation (CD) of Kamann and Rother (CVPR 2020).

        It is the sum over the severities of 1 - mIoU, divided by that of the reference. Values below 1 are better than
        the reference. nan if the reference's sum is not positive.

        Args:
            reference: the network to compare with.
            corruption: a key of `CORRUPTIONS`.
            relative: sum the differences to the mIoU on clean images instead (rCD).
        """

        def total(network: Robustness) -> float:
            best = network.miou(CLEAN) if relative else 1.0
            return sum(best - miou for miou in network.mious(corruption))

        return total(self) / total(reference) if total(reference) > 0 else float("nan")

    def mean_degradation(self, reference: "Robustness", relative: bool = False) -> float:
        """Return the mean of `degradation` over the corruptions (mCD)."""
        return nan_mean(self.degradation(reference, name, relative) for name in self.corruptions)

    def as_dict(self, reference: "Robustness") -> dict[str, Any]:
        """Return all results as JSON values: fractions, lists with a value per severity; nan becomes None."""
        corruptions = {
            name: {
                "miou": self.mious(name),
                "ece": self.eces(name),
                "degradation": self.degradation(reference, name),
                "relative_degradation": self.degradation(reference, name, relative=True),
            }
            for name in self.corruptions
        }
        clean = self.confusion[CLEAN].scores().as_dict(self.classes.names)
        return to_json(
            {
                "clean": clean | {"ece": self.calibration[CLEAN].error},
                "mean_miou": self.mean_miou,
                "kept": self.kept,
                "mean_ece": self.mean_ece,
                "mean_degradation": self.mean_degradation(reference),
                "mean_relative_degradation": self.mean_degradation(reference, relative=True),
                "corruptions": corruptions,
            }
        )


OnImage = Callable[[int, Condition, str, Confusion], None]


def evaluate_corrupted(
    networks: Mapping[str, Predictor],
    samples: Samples,
    conditions: Sequence[Condition],
    seed: int = 0,
    protocol: Protocol = WHOLE,
    on_image: OnImage | None = None,
    indices: Iterable[int] | None = None,
) -> dict[str, Robustness]:
    """Evaluate all networks on the same images under each condition.

    Images are corrupted at their original size, before they are resized for a network. The random numbers depend only
    on seed, image, corruption and severity, so the results do not depend on the other networks, conditions or images.

    Args:
        networks: by name; their classes must be those of the samples, see `evaluation.check_classes`.
        samples: the dataset.
        conditions: see `list_conditions`.
        seed: of the random numbers.
        protocol: how images are resized and averaged.
        on_image: called with index, condition, network name and confusion matrix after each image.
        indices: which samples; None: all.

    Returns:
        The results of each network by name.

    Raises:
        InputError: the images are not 8-bit RGB; an image cannot be read.
    """
    if samples.bands.channels is not None:
        what = f"the images have {samples.bands.channels} bands"
        raise InputError("dataset", what, "corruptions need 8-bit RGB images")
    results = {name: Robustness(samples.classes) for name in networks}
    for index in range(len(samples)) if indices is None else indices:
        sample = samples[index]
        if sample.image.dtype != "uint8":
            raise InputError(sample.name, "has more than 8 bits per channel", "corruptions need 8-bit RGB images")
        for condition in conditions:
            key = f"{seed}/{sample.name}"
            pixels = sample.image if condition == CLEAN else corrupt(sample.image, *condition, key)
            for name, predictor in networks.items():
                segmentation = predictor.segment(sample.name, pixels, protocol)
                image = Confusion(len(samples.classes))
                image.update(sample.labels, segmentation.labels)
                result = results[name]
                result.confusion.setdefault(condition, Confusion(len(samples.classes))).merge(image)
                calibration = result.calibration.setdefault(condition, Calibration())
                calibration.update(sample.labels, segmentation.labels, segmentation.confidence)
                if on_image is not None:
                    on_image(index, condition, name, image)
    return results
