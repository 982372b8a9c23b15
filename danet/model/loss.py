"""The multi-loss "on the end of the network" (section 4.1): the sum of each output's cross-entropy.

The released 2018 code weights the three losses by 1, 1, 1 and averages over the valid pixels, and so does this module.
mmsegmentation adds the loss of its auxiliary head with factor 0.4.
"""

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int64
from torch import Tensor

from danet.model.danet import AuxiliaryOutputs, Outputs

IGNORE = 255
"""The label that losses and metrics ignore."""


def multi_loss(
    outputs: Outputs | AuxiliaryOutputs,
    labels: Int64[Tensor, "B H W"],
    factors: tuple[float, float, float, float] = (1.0, 1.0, 1.0, 0.4),
    valid_pixels: float | Tensor | None = None,
    class_weights: Float[Tensor, " K"] | None = None,
) -> tuple[Float[Tensor, ""], dict[str, Float[Tensor, ""]]]:
    """Return the weighted sum of the outputs' mean cross-entropies over valid pixels, and each term by output name.

    Args:
        outputs: logits B,K,H,W.
        labels: train ids in [0, K), 255 = ignore.
        factors: weights of the fused, position, channel and auxiliary loss.
        valid_pixels: the divisor. None counts the valid pixels of `labels`. If a step is split over several batches or
            processes, pass the count of the whole step; the gradients then add up to that of one large batch. A batch
            without valid pixels has loss 0 and gradient 0.
        class_weights: a factor for the pixels of each class. They do not change the divisor, so use weights whose mean
            over the training set's pixels is 1 (`danet.data.class_weights`).
    """
    if valid_pixels is None:
        valid_pixels = (labels != IGNORE).sum()
    divisor = torch.as_tensor(valid_pixels, device=labels.device).clamp(min=1)
    weights = None if class_weights is None else class_weights.to(labels.device)
    parts = {
        name: F.cross_entropy(
            logits.to(torch.promote_types(logits.dtype, torch.float32)),
            labels,
            weights,
            ignore_index=IGNORE,
            reduction="sum",
        )
        / divisor
        for name, logits in outputs._asdict().items()
        if logits is not None
    }
    total = torch.stack(
        [factor * parts[name] for name, factor in zip(AuxiliaryOutputs._fields, factors, strict=True) if name in parts]
    ).sum()
    return total, parts
