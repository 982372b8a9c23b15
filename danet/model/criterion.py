"""Losses of one output: cross-entropy as in the paper, and others that practitioners add for small or rare objects.

Every loss is a sum over images of the image's loss times its valid pixels. A step therefore has the same gradients
whether its images are computed at once, in parts, or by several processes.

    cross-entropy  also with label smoothing                                          Szegedy et al., CVPR 2016, sec. 7
    focal          (1 - p)^2 times the cross-entropy; p: the true class's probability  Lin et al., ICCV 2017, Eq. 4
    ohem           the cross-entropy where p < 0.7, at least a sixteenth of the pixels Shrivastava et al., CVPR 2016
    boundary       the cross-entropy, five times within 3 pixels of another class      Ronneberger et al., 2015, Eq. 2
    dice           1 - 2 |A B| / (|A| + |B|), the mean over the classes in the image   Milletari et al., 3DV 2016
    lovasz         Lovasz-Softmax: 1 - IoU extended to probabilities, likewise         Berman et al., CVPR 2018

Focal, OHEM and boundary replace the cross-entropy; Dice and Lovasz-Softmax are added to it. OHEM and boundary use fixed
values of our own choice in place of the papers' schedules.
"""

from collections.abc import Callable

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int64
from torch import Tensor

IGNORE = 255
"""The label that losses and metrics ignore."""

FOCAL_POWER = 2.0
EASY, HARD_SHARE = 0.7, 1 / 16
BOUNDARY_WIDTH, BOUNDARY_FACTOR = 3, 5.0
ERROR_BINS = 2**16

REGION_LOSSES = ("dice", "lovasz")
"""The losses of whole regions. They are slow, so only the fused output has them (`multi_loss`)."""

Logits = Float[Tensor, "B K H W"]
Labels = Int64[Tensor, "B H W"]
Pixels = Float[Tensor, "B H W"]


def output_loss(
    logits: Logits,
    labels: Labels,
    class_weights: Float[Tensor, " K"] | None = None,
    pixel: str = "cross-entropy",
    label_smoothing: float = 0.0,
    dice: float = 0.0,
    lovasz: float = 0.0,
) -> Float[Tensor, ""]:
    """Return the loss of an output, summed over valid pixels.

    Args:
        logits: in float32 or float64.
        labels: train ids in [0, K), 255 = ignore.
        class_weights: a factor for the pixels of each class in the pixel loss.
        pixel: "cross-entropy", "focal", "ohem" or "boundary".
        label_smoothing: probability that the target spreads evenly over all classes.
        dice: weight of the Dice loss.
        lovasz: weight of Lovasz-Softmax.
    """
    if pixel == "cross-entropy":
        total = F.cross_entropy(
            logits, labels, class_weights, ignore_index=IGNORE, reduction="sum", label_smoothing=label_smoothing
        )
    else:
        losses = F.cross_entropy(
            logits, labels, class_weights, ignore_index=IGNORE, reduction="none", label_smoothing=label_smoothing
        )
        total = (losses * PIXEL_LOSSES[pixel](logits.detach() if pixel == "ohem" else logits, labels)).sum()
    if dice or lovasz:
        for scores, truth in zip(logits.softmax(1), labels, strict=True):
            valid = truth != IGNORE
            if valid.any():
                probabilities, target = _of_present_classes(scores, truth, valid)
                for weight, loss in ((dice, dice_loss), (lovasz, lovasz_loss)):
                    total = total + weight * loss(probabilities, target) * len(target) if weight else total
    return total


def _of_present_classes(
    scores: Float[Tensor, "K H W"], labels: Int64[Tensor, "H W"], valid: Bool[Tensor, "H W"]
) -> tuple[Float[Tensor, "k n"], Int64[Tensor, " n"]]:
    """Return the valid pixels' probabilities of the k classes in the labels, and their labels, numbered anew."""
    target = labels[valid]
    present = torch.bincount(target, minlength=len(scores)) > 0
    probabilities = scores[present] if len(target) == labels.numel() else scores[present][:, valid]
    return probabilities.flatten(1), (present.cumsum(0) - 1)[target]


def dice_loss(probabilities: Float[Tensor, "K n"], target: Int64[Tensor, " n"]) -> Float[Tensor, ""]:
    """Return the mean soft Dice loss of the classes that occur in `target`."""
    truth = F.one_hot(target, len(probabilities)).T.to(probabilities.dtype)
    present = truth.any(1)
    common, sizes = (probabilities * truth).sum(1), probabilities.sum(1) + truth.sum(1)
    return (1 - 2 * common / sizes.clamp(min=1e-6))[present].mean()


def lovasz_loss(probabilities: Float[Tensor, "K n"], target: Int64[Tensor, " n"]) -> Float[Tensor, ""]:
    """Return the mean Lovasz-Softmax loss of the classes that occur in `target`.

    Errors are counted in bins of 1 / `ERROR_BINS` instead of sorted, which is five times faster. Those of one bin share
    the change of 1 - IoU that they make together.
    """
    classes, own = len(probabilities), target[None]
    errors = probabilities.scatter(0, own, 1 - probabilities.gather(0, own))
    bins = ((1 - errors.detach()) * ERROR_BINS).long().clamp_(0, ERROR_BINS - 1)  # the largest errors first
    bins += ERROR_BINS * torch.arange(classes, device=bins.device)[:, None]
    counted = (torch.bincount(x.flatten(), minlength=ERROR_BINS * classes) for x in (bins, bins.gather(0, own)))
    pixels, positives = (counts.view(classes, ERROR_BINS).to(errors.dtype) for counts in counted)
    total = positives.sum(1, keepdim=True)
    union = total + (pixels - positives).cumsum(1)
    jaccard = 1 - (total - positives.cumsum(1)) / union.clamp(min=1)
    steps = jaccard.diff(dim=1, prepend=jaccard.new_zeros(classes, 1)) / pixels.clamp(min=1)
    return (errors * steps.take(bins)).sum(1)[total[:, 0] > 0].mean()


def near_boundary(labels: Labels, width: int = BOUNDARY_WIDTH) -> Bool[Tensor, "B H W"]:
    """Return whether another class is at most `width` rows and columns away. Ignored pixels are no class."""
    known, side = (labels != IGNORE)[:, None], 2 * width + 1
    values = labels[:, None].float()
    largest = F.max_pool2d(values.where(known, -1), side, 1, width)
    smallest = -F.max_pool2d(-values.where(known, IGNORE), side, 1, width)
    return ((largest != smallest) & known)[:, 0]


def _true_probability(logits: Logits, labels: Labels) -> Pixels:
    target = labels.where(labels != IGNORE, 0)
    return logits.softmax(1).gather(1, target[:, None])[:, 0]


def _focal(logits: Logits, labels: Labels) -> Pixels:
    return (1 - _true_probability(logits, labels)) ** FOCAL_POWER


def _ohem(logits: Logits, labels: Labels) -> Pixels:
    """Return weights that are 0 for easy pixels, and whose mean over the valid pixels of an image is 1."""
    valid = labels != IGNORE
    probability = _true_probability(logits, labels).where(valid, 2).flatten(1)  # ignored pixels last
    counts = valid.flatten(1).sum(1)
    at_least = (counts * HARD_SHARE).ceil().long().clamp(min=1)
    threshold = probability.sort(1).values.gather(1, at_least[:, None] - 1).clamp(min=EASY)
    hard = (probability <= threshold).view_as(labels) & valid
    return hard * (counts / hard.flatten(1).sum(1).clamp(min=1))[:, None, None]


def _boundary(logits: Logits, labels: Labels) -> Pixels:
    """Return weights whose mean over the valid pixels of an image is 1."""
    valid = (labels != IGNORE).to(logits.dtype)
    weights = valid * (1 + (BOUNDARY_FACTOR - 1) * near_boundary(labels))
    return weights * (valid.flatten(1).sum(1) / weights.flatten(1).sum(1).clamp(min=1))[:, None, None]


PIXEL_LOSSES: dict[str, Callable[[Logits, Labels], Pixels]] = {"focal": _focal, "ohem": _ohem, "boundary": _boundary}
"""Name -> the factor of each pixel's cross-entropy."""
