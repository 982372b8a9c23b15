"""How much memory position attention takes, before it is taken; and what is said when there is not enough."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import torch

from danet.errors import InputError
from danet.model.tiled_attention import TILE


def attention_bytes(
    batch: int,
    queries: int,
    keys: int,
    width: int,
    channels: int,
    dtype: torch.dtype = torch.float32,
    *,
    backward: bool = False,
    way: str = "tiled",
    device: str = "cpu",
) -> int:
    """Bytes at the highest point of a call above its inputs, its result included.

    Args:
        width: D, the channels of query and key.
        channels: C, those of value.
        backward: a forward and a backward pass, with the gradients of query, key and value.
        way: "plain" or "tiled".
    """
    size, full = dtype.itemsize, torch.promote_types(dtype, torch.float32).itemsize
    out = batch * queries * channels
    gradients = batch * (queries * width + keys * (width + channels)) if backward else 0
    if way == "plain":
        weights = batch * queries * keys * (3 if backward else 2)  # energies and their softmax; its gradient
        copies = 0 if full == size else batch * (queries + keys) * width
        return (weights + copies) * full + (out + gradients) * size
    rows, columns = (min(*pair) for pair in zip(TILE[device], (queries, keys), strict=True))
    copies = 0 if full == size else batch * (queries * (width + channels) + keys * (width + channels))
    tile = rows * columns * (2 if backward else 1) + (2 * rows * channels if backward else 0)
    return (tile + copies + out + gradients + 2 * batch * queries) * full


@contextmanager
def out_of_memory(query: Sequence[int], keys: int, channels: int, dtype: torch.dtype) -> Iterator[None]:
    """Raises InputError in place of the allocator's error, on GPUs and CPUs.

    Args:
        query: the shape B,N,D.
    """
    try:
        yield
    except (RuntimeError, MemoryError) as error:
        if not is_out_of_memory(error):
            raise
        batch, queries, width = query
        needed = attention_bytes(batch, queries, keys, width, channels, dtype)
        raise InputError(
            f"position attention over {queries:,} positions",
            f"its result, {batch} x {queries:,} x {channels} {str(dtype).removeprefix('torch.')}, and a tile of its "
            f"weights take {needed / 1e6:,.0f} MB, and so much is not free",
            "show smaller images, fewer at once, or use a backbone of a larger output stride",
        ) from error


def is_out_of_memory(error: BaseException) -> bool:
    """Whether an allocator raised it: CUDA has an exception of its own, the CPU's raises a RuntimeError."""
    if isinstance(error, torch.OutOfMemoryError | MemoryError):
        return True
    return "DefaultCPUAllocator" in str(error) or "can't allocate memory" in str(error)
