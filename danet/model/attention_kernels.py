"""softmax(Q K^T) V, the sum of Eq. 1-2, with and without the N x N map.

N = H*W positions. Rows are positions: query B,N,D, key B,M,D, value B,M,C. There is no 1/sqrt(D), as in the paper and
in the released code. All kernels compute the same sums and differ only by rounding:

    plain         the N x M weights as one matrix; the reference, for small maps and for export
    tiled         one tile of weights at a time by torch's matrix products; any device, any precision
    fused         torch's fused kernels, with the value split into heads; for GPUs in half precision
    triton_tiled  one kernel for D up to 128 and any C; where the fused kernels do not support the sizes

`attend` chooses one of them. `python -m benchmarks.attention` compares their speed.
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from importlib.util import find_spec

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn import functional as F
from torch.nn.attention import SDPBackend, sdpa_kernel

from danet.errors import InputError
from danet.model.tiled_attention import TILE, tiled, tiled_logsumexp

__all__ = [
    "SMALL_MAP",
    "attend",
    "attention_bytes",
    "attention_weights",
    "fused",
    "is_out_of_memory",
    "plain",
    "row_logsumexp",
    "supports_fused",
    "tiled",
    "triton_tiled",
]

SMALL_MAP = 1 << 20
"""The largest number of attention weights in a batch that `attend` holds at once: 4 MiB in float32, 1,024 positions."""


def attend(
    query: Float[Tensor, "B N D"], key: Float[Tensor, "B M D"], value: Float[Tensor, "B M C"]
) -> Float[Tensor, "B N C"]:
    """Return softmax(Q K^T) V by the kernel that suits the size, device and precision.

    Above `SMALL_MAP`, nothing of size N x M is allocated or saved, forward or backward. While a graph is traced for
    export or by torch.compile, the kernel is `plain`.

    Raises:
        InputError: out of memory; the message says how much is needed.
    """
    if torch.compiler.is_compiling() or torch.jit.is_tracing():  # pyright: ignore[reportPrivateImportUsage]
        return plain(query, key, value)
    with _report_out_of_memory(query.shape, key.shape[1], value.shape[2], value.dtype):
        if query.shape[0] * query.shape[1] * key.shape[1] <= SMALL_MAP:
            return plain(query, key, value)
        if not value.is_cuda or value.dtype not in (torch.float16, torch.bfloat16):
            return tiled(query, key, value)
        if supports_fused(query, value):
            return fused(query, key, value)
        return triton_tiled(query, key, value) if _supports_triton(query) else tiled(query, key, value)


def attention_weights(query: Float[Tensor, "B N D"], key: Float[Tensor, "B M D"]) -> Float[Tensor, "B N M"]:
    """Return the weights of Eq. 1: each row is one position's attention over all M positions and sums to 1.

    Energies and weights are computed in float32 or better, also under autocast: an energy of 60 rounded to the 8 bits
    of bfloat16 changes its weight visibly.
    """
    full = torch.promote_types(query.dtype, torch.float32)
    if full == query.dtype and not torch.is_autocast_enabled(query.device.type):
        return torch.softmax(query @ key.transpose(1, 2), dim=-1)  # exported graphs hold just these two operators
    with torch.autocast(query.device.type, enabled=False):
        return torch.softmax(query.to(full) @ key.to(full).transpose(1, 2), dim=-1)


def row_logsumexp(query: Float[Tensor, "B N D"], key: Float[Tensor, "B M D"]) -> Float[Tensor, "B N"]:
    """Return log sum_j exp(q_i . k_j), the normalizer of each row of Eq. 1, in float32 or better.

    Above `SMALL_MAP`, nothing of size N x M is allocated or saved, forward or backward.
    """
    if query.shape[0] * query.shape[1] * key.shape[1] > SMALL_MAP:
        return tiled_logsumexp(query, key)
    full = torch.promote_types(query.dtype, torch.float32)
    with torch.autocast(query.device.type, enabled=False):
        return torch.logsumexp(query.to(full) @ key.to(full).transpose(1, 2), dim=-1)


def plain(
    query: Float[Tensor, "B N D"], key: Float[Tensor, "B M D"], value: Float[Tensor, "B M C"]
) -> Float[Tensor, "B N C"]:
    """Return softmax(Q K^T) V from one matrix of weights, as Eq. 1-2 are written."""
    return attention_weights(query, key).to(value.dtype) @ value


def supports_fused(query: Tensor, value: Tensor) -> bool:
    """Return whether `fused` supports these widths."""
    return query.shape[2] % 8 == 0 and query.shape[2] <= 256 and value.shape[2] % query.shape[2] == 0


def fused(
    query: Float[Tensor, "B N D"], key: Float[Tensor, "B M D"], value: Float[Tensor, "B M C"]
) -> Float[Tensor, "B N C"]:
    """Return softmax(Q K^T) V by torch's fused attention, with the value split into C / D heads.

    The fused kernels need query, key and value of one width. All heads share query and key, so Q K^T is computed once
    per head. This pays off where products are cheap: on GPUs in half precision. On a CPU `tiled` is faster
    (docs/log.md).

    Raises:
        RuntimeError: no kernel without the N x M map supports these sizes; see `supports_fused`.
    """
    heads = value.shape[2] // query.shape[2]
    query, key = (x[:, None].expand(-1, heads, -1, -1) for x in (query, key))  # B,h,N,D
    value = value.unflatten(2, (heads, -1)).transpose(1, 2)
    with sdpa_kernel([SDPBackend.FLASH_ATTENTION, SDPBackend.EFFICIENT_ATTENTION]):
        out = F.scaled_dot_product_attention(query, key, value, scale=1.0)
    return out.transpose(1, 2).flatten(2)


def triton_tiled(
    query: Float[Tensor, "B N D"], key: Float[Tensor, "B M D"], value: Float[Tensor, "B M C"]
) -> Float[Tensor, "B N C"]:
    """Return softmax(Q K^T) V by the kernel of triton_attention.py; D up to 128, any C.

    Raises:
        ImportError: Triton is not installed.
    """
    from danet.model import triton_attention

    return triton_attention.triton_tiled(query, key, value)


def _supports_triton(query: Tensor) -> bool:
    return query.shape[2] <= 128 and find_spec("triton") is not None


def attention_bytes(
    batch: int,
    queries: int,
    keys: int,
    width: int,
    channels: int,
    dtype: torch.dtype = torch.float32,
    *,
    backward: bool = False,
    kernel: str = "tiled",
    device: str = "cpu",
) -> int:
    """Return the peak memory of a kernel in bytes: everything but its inputs, the result included.

    Args:
        batch: B.
        queries: N.
        keys: M.
        width: D, the channels of query and key.
        channels: C, the channels of value.
        dtype: of the inputs.
        backward: count a forward and a backward pass, with the gradients of query, key and value.
        kernel: "plain" or "tiled".
        device: "cpu" or "cuda", which have different tile sizes.
    """
    size, full = dtype.itemsize, torch.promote_types(dtype, torch.float32).itemsize
    out = batch * queries * channels
    gradients = batch * (queries * width + keys * (width + channels)) if backward else 0
    if kernel == "plain":
        weights = batch * queries * keys * (3 if backward else 2)  # energies, their softmax, and its gradient
        copies = 0 if full == size else batch * (queries + keys) * width
        return (weights + copies) * full + (out + gradients) * size
    rows, columns = (min(*pair) for pair in zip(TILE[device], (queries, keys), strict=True))
    copies = 0 if full == size else batch * (queries * (width + channels) + keys * (width + channels))
    tile = rows * columns * (2 if backward else 1) + (2 * rows * channels if backward else 0)
    return (tile + copies + out + gradients + 2 * batch * queries) * full


def is_out_of_memory(error: BaseException) -> bool:
    """Return whether an allocator raised this error. On the CPU it is a plain RuntimeError, known by its message."""
    if isinstance(error, torch.OutOfMemoryError | MemoryError):
        return True
    return "DefaultCPUAllocator" in str(error) or "can't allocate memory" in str(error)


@contextmanager
def _report_out_of_memory(query: Sequence[int], keys: int, channels: int, dtype: torch.dtype) -> Iterator[None]:
    """Replace an allocator's error by an InputError that says how much memory is needed."""
    try:
        yield
    except (RuntimeError, MemoryError) as error:
        if not is_out_of_memory(error):
            raise
        batch, queries, width = query
        needed = attention_bytes(batch, queries, keys, width, channels, dtype)
        raise InputError(
            f"position attention over {queries:,} positions",
            f"out of memory: the result, {batch} x {queries:,} x {channels} {str(dtype).removeprefix('torch.')}, and "
            f"one tile of weights need {needed / 1e6:,.0f} MB",
            "use smaller images, a smaller batch, or a larger output stride",
        ) from error
