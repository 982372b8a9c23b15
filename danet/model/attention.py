"""The paper's two attention modules (Fu et al., CVPR 2019, sections 3.2 and 3.3), usable in any network.

Symbols of the paper: A is the input x; B and C are query and key, D is value; S are the position weights, X the
channel weights; alpha and beta are `scale`. Both modules return E = scale * attended + x, in the shape of x. They start
as the identity because scale starts at 0.
"""

import torch
from jaxtyping import Float
from torch import Tensor, nn

from danet.errors import InputError
from danet.model.attention_kernels import attend, attention_weights

FORMS = ("released", "paper")
"""The two forms of channel attention: as in every released implementation, and Eq. 3."""


class PositionAttention(nn.Module):
    """Position attention, Eq. 1-2: add to each position a weighted sum over all positions.

    query, key and value are 1x1 convolutions with bias; query and key have channels // reduction channels. In the
    paper B and C have all channels; every released implementation reduces them by 8, which is the default here.

    Args:
        channels: C of the input.
        reduction: the ratio of C to the channels of query and key, of which there is at least one.

    Raises:
        InputError: channels or reduction is less than 1.
    """

    def __init__(self, channels: int, reduction: int = 8):
        super().__init__()
        for name, value in (("channels", channels), ("reduction", reduction)):
            if value < 1:
                raise InputError(name, f"must be at least 1, got {value}", "use the input's channels and reduction 8")
        narrow = max(1, channels // reduction)
        self.query = nn.Conv2d(channels, narrow, 1)
        self.key = nn.Conv2d(channels, narrow, 1)
        self.value = nn.Conv2d(channels, channels, 1)
        self.scale = nn.Parameter(torch.zeros(()))

    def forward(self, x: Float[Tensor, "B C H W"]) -> Float[Tensor, "B C H W"]:
        """Return scale * attended + x."""
        attended = attend(*self.query_key(x), _rows(self.value(x)))  # B,N,C
        return torch.addcmul(x, attended.transpose(1, 2).unflatten(2, x.shape[-2:]), self.scale)

    def weights(self, x: Float[Tensor, "B C H W"], positions: Tensor | slice = slice(None)) -> Float[Tensor, "B n N"]:
        """Return rows of S: the attention of the given positions over all N positions; each row sums to 1.

        Args:
            x: features.
            positions: indices y * W + x into the feature grid; all by default.
        """
        query, key = self.query_key(x)
        return attention_weights(query[:, positions], key)

    def query_key(self, x: Float[Tensor, "B C H W"]) -> tuple[Float[Tensor, "B N D"], Float[Tensor, "B N D"]]:
        """Return query and key, one row per position."""
        return _rows(self.query(x)), _rows(self.key(x))


class ChannelAttention(nn.Module):
    """Channel attention, Eq. 3-4: add to each channel map a weighted sum over all channel maps. No convolutions.

    Deviation: Eq. 3 is softmax(A A^T), which is `form="paper"`. The code behind the paper's numbers, and every port of
    it, computes softmax(rowmax(A A^T) - A A^T), which attends to the *least* similar channels. This is
    `form="released"`, the default.

    Args:
        form: "released" or "paper".

    Raises:
        InputError: an unknown form.
    """

    def __init__(self, form: str = "released"):
        super().__init__()
        if form not in FORMS:
            raise InputError("form", f"{form!r} is unknown", "use 'released' or 'paper'")
        self.form = form
        self.scale = nn.Parameter(torch.zeros(()))

    def forward(self, x: Float[Tensor, "B C H W"]) -> Float[Tensor, "B C H W"]:
        """Return scale * attended + x."""
        weights = self.weights(x).to(x.dtype)
        rows = _is_channels_last(x)  # multiply in the memory order of x, without a copy
        attended = (_rows(x) @ weights.transpose(1, 2)).transpose(1, 2) if rows else weights @ x.flatten(2)  # B,C,N
        return torch.addcmul(x, attended.unflatten(2, x.shape[-2:]), self.scale)

    def weights(self, x: Float[Tensor, "B C H W"]) -> Float[Tensor, "B C C"]:
        """Return X, in float32 or better: each row is one channel's attention over all channels and sums to 1."""
        # The energies are sums of N products: too large, and too close together, for the 8 bits of bfloat16.
        with torch.autocast(x.device.type, enabled=False):
            features = x.flatten(2).to(torch.promote_types(x.dtype, torch.float32))  # no copy in either memory format
            energy = features @ features.transpose(1, 2)  # B,C,C
            # softmax subtracts the row's maximum, so rowmax - energy and -energy give the same weights
            return torch.softmax(-energy if self.form == "released" else energy, dim=-1)

    def extra_repr(self) -> str:
        """Show the form when the module is printed."""
        return f"form={self.form!r}"


def _rows(x: Float[Tensor, "B C H W"]) -> Float[Tensor, "B N C"]:
    return x.flatten(2).transpose(1, 2)


def _is_channels_last(x: Tensor) -> bool:
    """Return whether memory is ordered B,H,W,C. Always False while a graph is traced, where sizes are symbolic."""
    return not torch.compiler.is_compiling() and not x.is_contiguous() and x.stride(1) == 1
