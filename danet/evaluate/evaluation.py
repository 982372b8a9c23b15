"""Evaluate predictions over full images. Commands: danet evaluate, and the validation of danet train."""

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np
from jaxtyping import Integer

from danet.data.classes import Classes
from danet.data.samples import Sample, Samples
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
from danet.predict.sliding_window import Logits, Part
from danet.weights.card import Card

if TYPE_CHECKING:
    from danet.evaluate.attention_metrics import AttentionMetrics
    from danet.evaluate.cross_entropy import CrossEntropy
    from danet.predict.attention import Inspection


def check_classes(card: Card, samples: Samples, source: str) -> None:
    """Check that a network and a dataset have the same classes and bands.

    Args:
        card: of the network.
        samples: the dataset.
        source: named in the error.

    Raises:
        InputError: the number or names of the classes differ, or the number of bands.
    """
    bands = card.bands.count, samples.bands.count
    if bands[0] != bands[1]:
        what = f"the network takes images with {bands[0]} bands, but the dataset has {bands[1]}"
        raise InputError(source, what, "evaluate on the dataset it was trained for")
    names, expected = card.classes.names, samples.classes.names
    if names != expected:
        pairs = enumerate(zip(names, expected, strict=False))
        differing = next((f"class {i} is {a!r} here, {b!r} there" for i, (a, b) in pairs if a != b), "")
        counts = f"{len(names)} here, {len(expected)} there" if len(names) != len(expected) else ""
        what = f"its classes differ from the dataset's ({'; '.join(filter(None, (counts, differing)))})"
        raise InputError(source, what, "evaluate on a dataset with the same classes")


def evaluate(
    logits: Logits,
    card: Card,
    samples: Samples,
    device: Any,
    indices: Iterable[int] | None = None,
    protocol: Protocol = WHOLE,
    loss: "CrossEntropy | None" = None,
) -> Confusion:
    """Return only the confusion matrix over full images, which is fast enough for validation.

    Args:
        logits: the network.
        card: of the network.
        samples: the dataset.
        device: of the network.
        indices: of the samples; None: all.
        protocol: how images are resized and averaged; with `loss`, it must average logits.
        loss: the cross-entropy of the images is added to it.
    """
    assert loss is None or protocol.average == "logits"

    def observe(sample: Sample, part: Part) -> None:
        rows, columns, logits = part
        if loss is not None:
            loss.update(logits, sample.labels[rows, columns])

    confusion = Confusion(len(samples.classes))
    for sample, labels, _ in predict_samples(logits, card, samples, device, indices, protocol, observe):
        confusion.update(sample.labels, labels)
    return confusion


@dataclass
class Evaluation:
    """All metrics over any number of full images.

    Args:
        classes: of the dataset.
        instances: for Cityscapes' iIoU; None without instance files.
        images: the scores of each image, in the order of the updates.
        attention: of the images that were inspected; None without any.
    """

    classes: Classes
    instances: cityscapes.Instances | None = None
    confusion: Confusion = field(init=False)
    boundary: Boundary = field(init=False)
    calibration: Calibration = field(default_factory=Calibration)
    images: list[ImageScores] = field(default_factory=list)
    attention: "AttentionMetrics | None" = None

    def __post_init__(self):
        self.confusion, self.boundary = Confusion(len(self.classes)), Boundary(len(self.classes))

    def update(self, prediction: Prediction, instance_ids: Integer[np.ndarray, "H W"] | None = None) -> None:
        """Add an image, with its instances as returned by `cityscapes.read_instances`."""
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
        """Add other images, for example those of another process."""
        self.confusion.merge(other.confusion)
        self.boundary.merge(other.boundary)
        self.calibration.merge(other.calibration)
        self.images += other.images
        if other.instances is not None:
            self.instances = self.instances or cityscapes.Instances()
            self.instances.merge(other.instances)

    @property
    def cityscapes_scores(self) -> cityscapes.CityscapesScores | None:
        """The further scores of Cityscapes; None for other classes than its 19."""
        if self.classes.names != cityscapes.CLASSES.names:
            return None
        return cityscapes.scores(self.confusion, self.instances)

    def as_dict(self) -> dict[str, Any]:
        """Return all scores but those of single images as JSON values; nan becomes None."""
        names, further = self.classes.names, self.cityscapes_scores
        return {
            **self.confusion.scores().as_dict(names),
            **({} if self.attention is None else {"attention": self.attention.as_dict()}),
            "confusion": self.confusion.matrix.tolist(),
            "boundary_f": self.boundary.scores().as_dict(names),
            "calibration": self.calibration.as_dict(),
            **({} if further is None else {"cityscapes": further.as_dict()}),
        }


def measure(
    predictions: Iterable[Prediction],
    samples: Samples,
    submission: Submission | None = None,
    inspect: "Callable[[Sample], Inspection | None]" = lambda _: None,
) -> Evaluation:
    """Compute all metrics of predictions in one pass.

    Args:
        predictions: of the samples.
        samples: the dataset.
        submission: write each prediction into it too.
        inspect: returns the attention of a sample, to be measured too, or None to leave it out.

    Raises:
        InputError: missing or invalid instance files; the submission cannot be written.
    """
    instances, evaluation = cityscapes.instance_files(samples), Evaluation(samples.classes)
    for prediction in predictions:
        name, labels = prediction.sample.name, prediction.labels
        if submission is not None:
            submission.write(name, labels)
        ids = cityscapes.read_instances(instances[name], labels.shape) if instances else None
        evaluation.update(prediction, ids)
        if (inspection := inspect(prediction.sample)) is not None:
            from danet.evaluate.attention_metrics import AttentionMetrics

            evaluation.attention = evaluation.attention or AttentionMetrics(samples.classes)
            evaluation.attention.update(inspection, prediction.sample.labels)
    return evaluation
