"""The multi-loss "on the end of the network" (section 4.1): the sum of each output's cross-entropy.

The released 2018 code weights the three losses by 1, 1, 1 and averages over the valid pixels, and so does this module.
mmsegmentation adds the loss of its auxiliary head with factor 0.4. The attention loss is ours.
"""

from collections.abc import Mapping
from typing import Any

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int64
from torch import Tensor

from danet.model.attention_kernels import row_logsumexp
from danet.model.criterion import IGNORE, REGION_LOSSES, output_loss
from danet.model.danet import AttentionRows, Outputs, TrainingOutputs

FACTORS: dict[str, float] = {
    "fused": 1.0,
    "position": 1.0,
    "channel": 1.0,
    "auxiliary": 0.4,
    "attention": 0.0,
    "presence": 0.2,
}
"""Those of DANet's released code; of the auxiliary head in mmsegmentation; of EncNet's SE-loss in its released code."""


def multi_loss(
    outputs: Outputs | TrainingOutputs,
    labels: Int64[Tensor, "B H W"],
    factors: Mapping[str, float] = FACTORS,
    valid_pixels: float | Tensor | None = None,
    class_weights: Float[Tensor, " K"] | None = None,
    criterion: Mapping[str, Any] | None = None,
) -> tuple[Float[Tensor, ""], dict[str, Float[Tensor, ""]]]:
    """Return the weighted sum of the losses, and each of them by its name.

    The loss of each output of logits is its mean cross-entropy over valid pixels, or that of `criterion`; the one of
    `attention` is `attention_loss`, that of `presence` is `presence_loss`.

    Args:
        outputs: logits B,K,H,W.
        labels: train ids in [0, K), 255 = ignore.
        factors: weights of the losses, by the names of `TrainingOutputs`.
        valid_pixels: the divisor. None counts the valid pixels of `labels`. If a step is split over several batches or
            processes, pass the count of the whole step; the gradients then add up to that of one large batch. A batch
            without valid pixels has loss 0 and gradient 0.
        class_weights: a factor for the pixels of each class in the cross-entropies. They do not change the divisor, so
            use weights whose mean over the training set's pixels is 1 (`danet.data.class_weights`).
        criterion: further arguments of `output_loss`; Dice and Lovasz-Softmax are of the fused output only.
    """
    if valid_pixels is None:
        valid_pixels = (labels != IGNORE).sum()
    divisor = torch.as_tensor(valid_pixels, device=labels.device).clamp(min=1)
    parts: dict[str, Tensor] = {}
    for name, output in outputs._asdict().items():
        if isinstance(output, AttentionRows):
            parts[name] = attention_loss(output, labels, outputs.fused.shape[1]) / divisor
        elif name == "presence" and output is not None:
            parts[name] = presence_loss(output, labels) / divisor
        elif output is not None:
            dtype = torch.promote_types(output.dtype, torch.float32)
            logits = output.to(dtype, memory_format=torch.contiguous_format)  # softmax over the last axis is slow
            chosen = {
                key: value for key, value in (criterion or {}).items() if name == "fused" or key not in REGION_LOSSES
            }
            weights = None if class_weights is None else class_weights.to(logits)
            parts[name] = output_loss(logits, labels, weights, **chosen) / divisor
    return torch.stack([factors[name] * part for name, part in parts.items()]).sum(), parts


def presence_loss(presence: Float[Tensor, "B K"], labels: Int64[Tensor, "B H W"]) -> Float[Tensor, ""]:
    """Return EncNet's SE-loss, the binary cross-entropy of which classes are in an image, times its valid pixels.

    Zhang et al., CVPR 2018, section 3.1. It is the mean over classes, and the sum over images.

    Args:
        presence: logits.
        labels: train ids in [0, K), 255 = ignore.
    """
    counts = torch.stack([torch.bincount(image, minlength=256) for image in labels.flatten(1)])  # B,256
    truth = (counts[:, : presence.shape[1]] > 0).to(torch.promote_types(presence.dtype, torch.float32))
    losses = F.binary_cross_entropy_with_logits(presence.to(truth.dtype), truth, reduction="none").mean(1)
    return (losses * (labels != IGNORE).flatten(1).sum(1)).sum()


def attention_loss(attention: AttentionRows, labels: Int64[Tensor, "B H W"], num_classes: int) -> Float[Tensor, ""]:
    """Return how far the rows of S are from attending evenly to the positions of their own class, summed over pixels.

    Ours: a supervised contrastive loss on the position weights, used in training only. The target of row i is uniform
    over the n positions of its class, so the Kullback-Leibler divergence from it is

        logsumexp_j(q_i . k_j) - q_i . mean_{j of the class} k_j - log n

    which needs no N x N matrix: the mean keys are one product, and `row_logsumexp` works in tiles. Each position
    counts as the H W / N pixels that it covers; ignored positions are left out.

    Args:
        attention: query and key of the position module.
        labels: train ids in [0, K), 255 = ignore. A position has the label of the pixel in its middle.
        num_classes: K.
    """
    query, key = (x.to(torch.promote_types(x.dtype, torch.float32)) for x in attention[:2])
    small = F.interpolate(labels[:, None].to(query.dtype), attention.grid, mode="nearest-exact").long().flatten(1)
    valid = small != IGNORE  # B,N
    classes = F.one_hot(small.where(valid, num_classes), num_classes + 1)[..., :num_classes].to(query.dtype)  # B,N,K
    with torch.autocast(query.device.type, enabled=False):
        counts = classes.sum(1).clamp(min=1)  # B,K
        mean_keys = classes.transpose(1, 2) @ key / counts[..., None]  # B,K,D
        own = (query * (classes @ mean_keys)).sum(2)  # B,N
        size = (classes @ counts.log()[..., None]).squeeze(2)
        divergence = row_logsumexp(query, key) - own - size
    return divergence.where(valid, 0).sum() * (labels[0].numel() / query.shape[1])
