"""softmax(Q K^T) V, the sum of Eq. 1-2, with and without the N x N map. Used by `attention.PositionAttention`.

N = H*W positions. Rows are positions: query B,N,D, key B,M,D, value B,M,C. There is no 1/sqrt(D), as in the paper and
in the released code. Every way computes the same sums and differs from the others by rounding alone:

    plain   reference.py     the N x M weights as one matrix; the reference, for small maps and for export
    tiled   tiles.py         a tile of weights at a time by torch's matrix products; any device, any precision
    fused   fused.py         torch's fused kernels, the value cut into heads; chosen on GPUs in half precision
    triton  triton_tiles.py  one kernel for any D up to 128 and any C; chosen where the fused kernels refuse the sizes

`attend` chooses. `python -m benchmarks attention` times them side by side.
"""

import torch
from jaxtyping import Float
from torch import Tensor

from danet.model.attention_memory import attention_bytes, is_out_of_memory, out_of_memory
from danet.model.fused_attention import fits, fused
from danet.model.plain_attention import attention_weights, plain
from danet.model.tiled_attention import tiled

__all__ = [
    "SMALL_MAP",
    "attend",
    "attention_bytes",
    "attention_weights",
    "fits",
    "fused",
    "is_out_of_memory",
    "plain",
    "tiled",
    "triton_tiled",
]

SMALL_MAP = 1 << 20
"""Attention weights of a batch up to which `attend` holds them all: 4 MiB in float32, 1,024 positions."""


def attend(
    query: Float[Tensor, "B N D"], key: Float[Tensor, "B M D"], value: Float[Tensor, "B M C"]
) -> Float[Tensor, "B N C"]:
    """softmax(Q K^T) V by whichever way suits size, device and precision; beyond `SMALL_MAP` nothing of size N x M is
    allocated or saved, forward and backward. While a graph is traced for export or by torch.compile it is `plain`.

    Raises:
        InputError: out of memory; says for what and how much.
    """
    if torch.compiler.is_compiling() or torch.jit.is_tracing():  # pyright: ignore[reportPrivateImportUsage]
        return plain(query, key, value)
    with out_of_memory(query.shape, key.shape[1], value.shape[2], value.dtype):
        if query.shape[0] * query.shape[1] * key.shape[1] <= SMALL_MAP:
            return plain(query, key, value)
        if not value.is_cuda or value.dtype not in (torch.float16, torch.bfloat16):
            return tiled(query, key, value)
        if fits(query, value):
            return fused(query, key, value)
        return triton_tiled(query, key, value) if _has_triton(query) else tiled(query, key, value)


def triton_tiled(
    query: Float[Tensor, "B N D"], key: Float[Tensor, "B M D"], value: Float[Tensor, "B M C"]
) -> Float[Tensor, "B N C"]:
    """The Triton kernel of triton_tiles.py: D up to 128, any C. Raises ImportError where Triton is not installed."""
    from danet.model import triton_attention

    return triton_attention.triton_tiled(query, key, value)


def _has_triton(query: Tensor) -> bool:
    from importlib.util import find_spec

    return query.shape[2] <= 128 and find_spec("triton") is not None
