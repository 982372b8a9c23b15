"""The paper's two modules (Fu et al., CVPR 2019, section 3.2 and 3.3), usable alone in anyone's network.

Paper symbols: A is the input x, B and C are query and key, D is value, S the position weights, X the channel weights,
alpha and beta `scale`. Both modules return E = scale * attended + x, of x's shape, and begin as the identity because
scale begins at 0.
"""

import torch
from jaxtyping import Float
from torch import Tensor, nn

from danet.errors import InputError
from danet.model.attention_kernels import attend, attention_weights

FORMS = ("released", "paper")
"""Of channel attention: what every released implementation computes, and Eq. 3."""


class PositionAttention(nn.Module):
    """Position attention, Eq. 1-2: every position becomes x plus a weighted sum over all positions.

    query, key and value are 1x1 convolutions with bias; query and key have channels // reduction channels. The paper
    gives B and C all the channels; every released implementation reduces them by 8, and so does this one by default.

    Args:
        channels: C of the input.
        reduction: C divided by the channels of query and key; at least one channel is kept.

    Raises:
        InputError: channels or reduction less than 1.
    """

    def __init__(self, channels: int, reduction: int = 8):
        super().__init__()
        if min(channels, reduction) < 1:
            what = f"{channels} channels and reduction {reduction} are not both at least 1"
            raise InputError("position attention", what, "give the input's channels, and 8 as released")
        narrow = max(1, channels // reduction)
        self.query = nn.Conv2d(channels, narrow, 1)
        self.key = nn.Conv2d(channels, narrow, 1)
        self.value = nn.Conv2d(channels, channels, 1)
        self.scale = nn.Parameter(torch.zeros(()))

    def forward(self, x: Float[Tensor, "B C H W"]) -> Float[Tensor, "B C H W"]:
        attended = attend(_rows(self.query(x)), _rows(self.key(x)), _rows(self.value(x)))  # B,N,C
        return torch.addcmul(x, attended.transpose(1, 2).unflatten(2, x.shape[-2:]), self.scale)

    def weights(self, x: Float[Tensor, "B C H W"], positions: Tensor | slice = slice(None)) -> Float[Tensor, "B n N"]:
        """Rows of S for the given positions (index y * W + x of the feature grid; all by default): where each of them
        looks.
        """
        return attention_weights(_rows(self.query(x))[:, positions], _rows(self.key(x)))


class ChannelAttention(nn.Module):
    """Channel attention, Eq. 3-4: every channel map becomes x plus a weighted sum over all channel maps. No
    convolution.

    Deviation: Eq. 3 is softmax(A A^T), and `form="paper"` computes that. The code that produced the paper's numbers,
        and every port of it, computes
    softmax(rowmax(A A^T) - A A^T), which attends to the *least* similar channels; `form="released"`, the default,
    computes that.

    Args:
        form: "released" or "paper".

    Raises:
        InputError: an unknown form.
    """

    def __init__(self, form: str = "released"):
        super().__init__()
        if form not in FORMS:
            raise InputError("channel attention", f"form {form!r} is unknown", "use 'released' or 'paper'")
        self.form = form
        self.scale = nn.Parameter(torch.zeros(()))

    def forward(self, x: Float[Tensor, "B C H W"]) -> Float[Tensor, "B C H W"]:
        weights = self.weights(x).to(x.dtype)
        rows = _is_rows(x)  # B,C,N, its memory ordered as that of x
        attended = (_rows(x) @ weights.transpose(1, 2)).transpose(1, 2) if rows else weights @ x.flatten(2)
        return torch.addcmul(x, attended.unflatten(2, x.shape[-2:]), self.scale)

    def weights(self, x: Float[Tensor, "B C H W"]) -> Float[Tensor, "B C C"]:
        """X: each row is one channel's attention over all channels, summing to 1; in float32 at least."""
        with torch.autocast(
            x.device.type, enabled=False
        ):  # sums over N of squares: too large and too close for 8 bits of mantissa
            # neither flatten nor the product copies, channels_last or not, and `to` does not where x is float32
            features = x.flatten(2).to(torch.promote_types(x.dtype, torch.float32))
            energy = features @ features.transpose(1, 2)  # B,C,C
            # softmax subtracts the row's maximum itself, so rowmax - energy and -energy give the same weights
            return torch.softmax(-energy if self.form == "released" else energy, dim=-1)

    def extra_repr(self) -> str:
        return f"form={self.form!r}"


def _rows(x: Float[Tensor, "B C H W"]) -> Float[Tensor, "B N C"]:
    return x.flatten(2).transpose(1, 2)


def _is_rows(x: Tensor) -> bool:
    """Whether memory holds B,H,W,C; not asked while a graph is traced, whose sizes are symbols."""
    return not torch.compiler.is_compiling() and not x.is_contiguous() and x.stride(1) == 1
