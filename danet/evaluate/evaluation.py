"""A network and a dataset -> scores over full images. Command: `danet evaluate W --dataset NAME --root DIR`; `train`
validates by the same predictions.
"""

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from jaxtyping import Integer

from danet.data.classes import Classes
from danet.data.samples import Samples
from danet.errors import InputError
from danet.evaluate import cityscapes
from danet.evaluate.boundary import Boundary
from danet.evaluate.calibration import Calibration
from danet.evaluate.confusion import Confusion
from danet.evaluate.per_image import ImageScores
from danet.evaluate.submission import Submission
from danet.predict.inference import predict_samples
from danet.predict.protocols import WHOLE, Protocol
from danet.predict.segmentation import Prediction
from danet.predict.sliding_window import Logits
from danet.weights.file import Card


def check_classes(card: Card, samples: Samples, source: str) -> None:
    """A network's numbers mean nothing on a dataset of other classes, or of other bands.

    Raises:
        InputError: the classes are not the same, by number or by name; the images have other bands.
    """
    bands = card.bands.count, samples.bands.count
    if bands[0] != bands[1]:
        what = f"the network takes images of {bands[0]} bands, the dataset has {bands[1]}"
        raise InputError(source, what, "evaluate on the dataset it was trained for")
    ours, theirs = card.classes.names, samples.classes.names
    if ours != theirs:
        different = next(
            (f"class {i} is {a!r}, not {b!r}" for i, (a, b) in enumerate(zip(ours, theirs, strict=False)) if a != b), ""
        )
        what = different or f"the network has {len(ours)} classes, the dataset {len(theirs)}"
        raise InputError(source, what, "evaluate on the dataset it was trained for")


def evaluate(
    logits: Logits,
    card: Card,
    samples: Samples,
    device: torch.device,
    indices: Iterable[int] | None = None,
    protocol: Protocol = WHOLE,
) -> Confusion:
    """The confusion matrix over whole images, each once, and nothing else: quick enough to validate by."""
    confusion = Confusion(len(samples.classes))
    for sample, labels, _ in predict_samples(logits, card, samples, device, indices, protocol):
        confusion.update(sample.labels, labels)
    return confusion


@dataclass
class Evaluation:
    """Everything that is measured of predictions, of any number of whole images.

    Args:
        instances: for iIoU; None where they are not known.
        images: the scores of each, in the order in which they were added.
    """

    classes: Classes
    instances: cityscapes.Instances | None = None
    confusion: Confusion = field(init=False)
    boundary: Boundary = field(init=False)
    calibration: Calibration = field(default_factory=Calibration)
    images: list[ImageScores] = field(default_factory=list)

    def __post_init__(self):
        self.confusion, self.boundary = Confusion(len(self.classes)), Boundary(len(self.classes))

    def update(self, prediction: Prediction, instance_ids: Integer[np.ndarray, "H W"] | None = None) -> None:
        """Add one image, with its instances as `cityscapes.read_instances` gives them."""
        sample, labels, confidence = prediction
        image = Confusion(len(self.classes))
        image.update(sample.labels, labels)
        self.images.append(ImageScores.of(sample.name, image, self.classes.names))
        self.confusion.merge(image)
        self.boundary.update(sample.labels, labels)
        self.calibration.update(sample.labels, labels, confidence)
        if instance_ids is not None:
            self.instances = self.instances or cityscapes.Instances()
            self.instances.update(instance_ids, labels)

    def merge(self, other: "Evaluation") -> None:
        """Add another's images, such as another process's."""
        self.confusion.merge(other.confusion)
        self.boundary.merge(other.boundary)
        self.calibration.merge(other.calibration)
        self.images += other.images
        if other.instances is not None:
            self.instances = self.instances or cityscapes.Instances()
            self.instances.merge(other.instances)

    @property
    def cityscapes_scores(self) -> cityscapes.CityscapesScores | None:
        """What the Cityscapes benchmark reports beside IoU; None for other classes than its 19."""
        if self.classes.names != cityscapes.CLASSES.names:
            return None
        return cityscapes.scores(self.confusion, self.instances)

    def as_dict(self) -> dict[str, Any]:
        """For JSON, but for the images: nan becomes None."""
        names, special = self.classes.names, self.cityscapes_scores
        return {
            **self.confusion.scores().as_dict(names),
            "confusion": self.confusion.matrix.tolist(),
            "boundary_f": self.boundary.scores().as_dict(names),
            "calibration": self.calibration.as_dict(),
            **({} if special is None else {"cityscapes": special.as_dict()}),
        }


def measure(predicted: Iterable[Prediction], samples: Samples, submission: Submission | None = None) -> Evaluation:
    """Measure predictions of these samples in one pass, and write each into the submission if there is one.

    Raises:
        InputError: files of instances that are missing or wrong; a submission that cannot be written.
    """
    instances, evaluation = cityscapes.instance_files(samples), Evaluation(samples.classes)
    for prediction in predicted:
        name, labels = prediction.sample.name, prediction.labels
        if submission is not None:
            submission.write(name, labels)
        ids = cityscapes.read_instances(instances[name], labels.shape) if instances else None
        evaluation.update(prediction, ids)
    return evaluation
