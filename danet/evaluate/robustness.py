"""Networks side by side on the same corrupted images: mIoU and calibration of each corruption and severity, and what
they come to. Command: `danet robustness W ... --dataset NAME --root DIR`.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from danet.data.classes import Classes
from danet.data.samples import Samples
from danet.errors import InputError
from danet.evaluate.absent import mean, plain
from danet.evaluate.calibration import Calibration
from danet.evaluate.confusion import Confusion
from danet.evaluate.corruptions import CORRUPTIONS, SEVERITIES, corrupt
from danet.predict.predictor import Predictor
from danet.predict.protocols import WHOLE, Protocol


class Condition(NamedTuple):
    """A corruption with its severity."""

    corruption: str
    severity: int


CLEAN = Condition("clean", 0)


def conditions_of(corruptions: Sequence[str], severities: Sequence[int]) -> list[Condition]:
    """The clean images, then each corruption at each severity, in the order of CORRUPTIONS.

    Raises:
        InputError: an unknown name, or a severity that is not from 1 to 5.
    """
    if unknown := sorted(set(corruptions) - set(CORRUPTIONS)):
        raise InputError("--corruptions", f"{unknown[0]} is none", f"use {', '.join(CORRUPTIONS)}")
    if wrong := sorted(set(severities) - set(SEVERITIES)):
        raise InputError("--severities", f"{wrong[0]} is not from 1 to 5", "give some of 1 2 3 4 5")
    for option, given in (("--corruptions", corruptions), ("--severities", severities)):
        if not given:
            raise InputError(option, "is empty", "give one at least, or leave it out for all")
    named = [name for name in CORRUPTIONS if name in corruptions]
    return [CLEAN, *(Condition(name, severity) for name in named for severity in sorted(set(severities)))]


@dataclass
class Robustness:
    """What was counted of one network, by condition, over any number of images."""

    classes: Classes
    confusion: dict[Condition, Confusion] = field(default_factory=dict)
    calibration: dict[Condition, Calibration] = field(default_factory=dict)

    def miou(self, condition: Condition) -> float:
        """In [0, 1]."""
        return self.confusion[condition].scores().miou

    def of(self, corruption: str) -> list[float]:
        """MIoU at each severity that was counted, by rising severity."""
        return [self.miou(condition) for condition in sorted(self.confusion) if condition.corruption == corruption]

    def ece(self, corruption: str) -> list[float]:
        """The expected calibration error at each severity, likewise."""
        counted = sorted(self.calibration.items())
        return [calibration.error for condition, calibration in counted if condition.corruption == corruption]

    @property
    def corruptions(self) -> list[str]:
        """Those that were counted, in the order of CORRUPTIONS."""
        there = {condition.corruption for condition in self.confusion}
        return [name for name in CORRUPTIONS if name in there]

    @property
    def mean_miou(self) -> float:
        """The mean over the corruptions of their mean over the severities."""
        return mean(mean(self.of(name)) for name in self.corruptions)

    @property
    def kept(self) -> float:
        """The share of the clean mIoU that the mean keeps; nan if that is 0."""
        return self.mean_miou / self.miou(CLEAN) if self.miou(CLEAN) else float("nan")

    @property
    def mean_ece(self) -> float:
        """The expected calibration error, likewise averaged."""
        return mean(mean(self.ece(name)) for name in self.corruptions)

    def degradation(self, reference: "Robustness", corruption: str, relative: bool = False) -> float:
        """CD of Kamann and Rother (CVPR 2020): the sum over the severities of 1 - mIoU, divided by the reference's;
        `relative`: of the loss against the clean images (rCD). Below 1 is better than the reference. nan where the
        reference's sum is not positive.
        """

        def lost(network: Robustness) -> float:
            best = network.miou(CLEAN) if relative else 1.0
            return sum(best - miou for miou in network.of(corruption))

        return lost(self) / lost(reference) if lost(reference) > 0 else float("nan")

    def mean_degradation(self, reference: "Robustness", relative: bool = False) -> float:
        """mCD: the mean over the corruptions."""
        return mean(self.degradation(reference, name, relative) for name in self.corruptions)

    def as_dict(self, reference: "Robustness") -> dict[str, Any]:
        """For JSON: fractions; nan becomes None. Lists have a value for each severity."""
        corruptions = {
            name: {
                "miou": self.of(name),
                "ece": self.ece(name),
                "degradation": self.degradation(reference, name),
                "relative_degradation": self.degradation(reference, name, relative=True),
            }
            for name in self.corruptions
        }
        clean = self.confusion[CLEAN].scores().as_dict(self.classes.names)
        return plain(
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


Seen = Callable[[int, Condition, str, Confusion], None]


def study(
    networks: Mapping[str, Predictor],
    samples: Samples,
    conditions: Sequence[Condition],
    seed: int = 0,
    protocol: Protocol = WHOLE,
    seen: Seen | None = None,
) -> dict[str, Robustness]:
    """Show all networks the same images under each condition.

    Images are corrupted at their own size, before they are brought to a network's, and by chance that depends on seed,
    image, corruption and severity alone: the result does not depend on which networks, conditions or other images
    there are.

    Args:
        networks: of the samples' classes, see `evaluate.check_classes`.
        seen: is told index, condition, network and confusion matrix of each image as it is counted.

    Raises:
        InputError: images that are not RGB of 8 bits; an image that cannot be read.
    """
    if samples.bands.channels is not None:
        what = f"has images of {samples.bands.channels} bands"
        raise InputError("--dataset", what, "corruptions are defined for RGB images of 8 bits")
    counted = {name: Robustness(samples.classes) for name in networks}
    for index in range(len(samples)):
        sample = samples[index]
        if sample.image.dtype != "uint8":
            raise InputError(sample.name, "has more than 8 bits a value", "corruptions are defined for 8 bits")
        for condition in conditions:
            shown = sample.image if condition == CLEAN else corrupt(sample.image, *condition, f"{seed}/{sample.name}")
            for name, predictor in networks.items():
                found = predictor.segment(sample.name, shown, protocol)
                image = Confusion(len(samples.classes))
                image.update(sample.labels, found.labels)
                result = counted[name]
                result.confusion.setdefault(condition, Confusion(len(samples.classes))).merge(image)
                calibration = result.calibration.setdefault(condition, Calibration())
                calibration.update(sample.labels, found.labels, found.confidence)
                if seen is not None:
                    seen(index, condition, name, image)
    return counted
