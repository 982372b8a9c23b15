"""The multi-loss "on the end of the network" (section 4.1): cross-entropy of each output, summed. Used by `train.loop`.

The released 2018 code weighs the three by 1, 1, 1 and averages over the valid pixels; so does this. mmsegmentation adds
its auxiliary head's loss with factor 0.4.
"""

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int64
from torch import Tensor

from danet.model.danet import AuxiliaryOutputs, Outputs

IGNORE = 255
"""The label that no loss and no metric sees."""


def multi_loss(
    outputs: Outputs | AuxiliaryOutputs,
    labels: Int64[Tensor, "B H W"],
    factors: tuple[float, float, float, float] = (1.0, 1.0, 1.0, 0.4),
    valid_pixels: float | Tensor | None = None,
    class_weights: Float[Tensor, " K"] | None = None,
) -> tuple[Float[Tensor, ""], dict[str, Float[Tensor, ""]]]:
    """The weighted sum of the outputs' mean cross-entropies over the valid pixels, and each of them by the output's
    name.

    Args:
        labels: train ids in [0, K), 255 = ignore.
        factors: of fused, position, channel, auxiliary.
        valid_pixels: what to divide the sums by; None counts the valid pixels of `labels`. A step spread over several
            batches or processes gives the count of the whole step, so that its gradient is that of one large batch.
            Batches with nothing to learn have loss 0 and gradient 0.
        class_weights: factors of each class's pixels. They do not change the divisor, so give weights whose mean over
            the training set's pixels is 1 (`danet.data.class_weights`).
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
