"""The paper's two attention modules (Fu et al., CVPR 2019, sections 3.2 and 3.3), usable in any network.

Symbols of the paper: A is the input x; B is the key, C the query, D the value; S are the position weights, X the
channel weights; alpha and beta are `scale`. In Eq. 1, s_ji is normalized over i, the index of B, so row j of
S = softmax(C^T B) is position j's attention over all positions i. Both modules return E = scale * attended + x, in the
shape of x. They start as the identity because scale starts at 0. Forms other than "paper" and "released" are not in the
paper.
"""

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional as F

from danet.errors import InputError
from danet.model.attention_kernels import attend, attention_weights

POSITION_FORMS = ("paper", "centered", "cosine")
CHANNEL_FORMS = ("released", "paper", "cosine")
SHARPNESS = 8.0
"""Of the cosine forms at the start of the training: the energy of two equal vectors. A row over N positions can single
one out if its energies differ by log N, which is 8 for a grid of 48 x 64."""


class PositionAttention(nn.Module):
    """Position attention, Eq. 1-2: add to each position a weighted sum over all positions.

    query, key and value are 1x1 convolutions with bias; query and key have channels // reduction channels. In the
    paper B and C have all channels; every released implementation reduces them by 8, which is the default here.

    Forms of the energies of Eq. 1: "paper", query . key. "centered" subtracts the mean over the image from the query,
    which removes what all rows have in common: the pairwise term of disentangled non-local networks (Yin et al., ECCV
    2020) without the unary term. "cosine" is the cosine of query and key times a learned `sharpness`.

    Args:
        channels: C of the input.
        reduction: the ratio of C to the channels of query and key, of which there is at least one.
        form: "paper", "centered" or "cosine".

    Raises:
        InputError: channels or reduction is less than 1, or an unknown form.
    """

    def __init__(self, channels: int, reduction: int = 8, form: str = "paper"):
        super().__init__()
        _check_form(form, POSITION_FORMS)
        for name, value in (("channels", channels), ("reduction", reduction)):
            if value < 1:
                raise InputError(name, f"must be at least 1, got {value}", "use the input's channels and reduction 8")
        narrow = max(1, channels // reduction)
        self.query = nn.Conv2d(channels, narrow, 1)
        self.key = nn.Conv2d(channels, narrow, 1)
        self.value = nn.Conv2d(channels, channels, 1)
        self.scale = nn.Parameter(torch.zeros(()))
        self.form = form
        self.sharpness = nn.Parameter(torch.tensor(SHARPNESS)) if form == "cosine" else None

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
        """Return query and key, one row per position, so that the energies are their products in every form."""
        query, key = _rows(self.query(x)), _rows(self.key(x))
        if self.form == "centered":
            return query - query.mean(1, keepdim=True), key
        if self.sharpness is not None:
            return F.normalize(query, dim=2) * self.sharpness, F.normalize(key, dim=2)
        return query, key

    def extra_repr(self) -> str:
        """Show the form when the module is printed."""
        return f"form={self.form!r}"


class ChannelAttention(nn.Module):
    """Channel attention, Eq. 3-4: add to each channel map a weighted sum over all channel maps. No convolutions.

    Deviation: Eq. 3 is softmax(A A^T), which is `form="paper"`. The code behind the paper's numbers, and every port of
    it, computes softmax(rowmax(A A^T) - A A^T), which attends to the *least* similar channels. This is
    `form="released"`, the default. In both, energies are sums over all positions, so rows are sharper in larger images.
    `form="cosine"` is the cosine of two channels times a learned `sharpness`, whatever the image's size.

    Args:
        form: "released", "paper" or "cosine".

    Raises:
        InputError: an unknown form.
    """

    def __init__(self, form: str = "released"):
        super().__init__()
        _check_form(form, CHANNEL_FORMS)
        self.form = form
        self.scale = nn.Parameter(torch.zeros(()))
        self.sharpness = nn.Parameter(torch.tensor(SHARPNESS)) if form == "cosine" else None

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
            if self.sharpness is not None:
                features = F.normalize(features, dim=2)
                return torch.softmax(features @ features.transpose(1, 2) * self.sharpness, dim=-1)
            energy = features @ features.transpose(1, 2)  # B,C,C
            # softmax subtracts the row's maximum, so rowmax - energy and -energy give the same weights
            return torch.softmax(-energy if self.form == "released" else energy, dim=-1)

    def extra_repr(self) -> str:
        """Show the form when the module is printed."""
        return f"form={self.form!r}"


def _check_form(form: str, known: tuple[str, ...]) -> None:
    if form not in known:
        raise InputError("form", f"{form!r} is unknown", f"use {', '.join(known)}")


def _rows(x: Float[Tensor, "B C H W"]) -> Float[Tensor, "B N C"]:
    return x.flatten(2).transpose(1, 2)


def _is_channels_last(x: Tensor) -> bool:
    """Return whether memory is ordered B,H,W,C. Always False while a graph is traced, where sizes are symbolic."""
    return not torch.compiler.is_compiling() and not x.is_contiguous() and x.stride(1) == 1
