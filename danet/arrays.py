"""One code for NumPy arrays and torch tensors: exported networks are run where torch is not installed.

Functions of arrays call `namespace(x)` for what NumPy and torch name alike, and the functions below for the rest.
"""

import sys
from collections.abc import Callable
from functools import wraps
from typing import Any, ParamSpec, TypeVar

import numpy as np

Given = ParamSpec("Given")
Result = TypeVar("Result")

Array = Any
"""A NumPy array or a torch tensor. In jaxtyping annotations, its shape and type are checked."""


def namespace(x: Array) -> Any:
    """Return the module with the functions for an array: numpy or torch."""
    return np if isinstance(x, np.ndarray) else sys.modules["torch"]


def is_tensor(x: object) -> bool:
    """Return whether an object is a torch tensor, without importing torch."""
    torch = sys.modules.get("torch")
    return torch is not None and isinstance(x, torch.Tensor)


def like(values: np.ndarray, x: Array) -> Array:
    """Return values in the library, the type and on the device of `x`."""
    return (
        values.astype(x.dtype)
        if isinstance(x, np.ndarray)
        else namespace(x).from_numpy(values).to(x.dtype).to(x.device)
    )


def take(x: Array, index: np.ndarray, axis: int) -> Array:
    """Return a copy of x[index] along the axis -1 or -2."""
    if isinstance(x, np.ndarray):
        return np.take(x, index, axis)
    indices = namespace(x).from_numpy(index)
    if axis == -1:  # the faster of two ways for each axis
        return x.gather(-1, indices.to(x.device).expand(*x.shape[:-1], -1))
    first = int(index.min())  # index_select copies its whole input if that is not contiguous
    return x.narrow(axis, first, int(index.max()) - first + 1).index_select(axis, (indices - first).to(x.device))


def add_product(x: Array, other: Array, factor: Array) -> Array:
    """Return x + other * factor; both arrays are overwritten."""
    if not isinstance(x, np.ndarray):
        return x.addcmul_(other, factor)
    other *= factor
    x += other
    return x


def softmax(x: Array) -> Array:
    """Return the softmax along the first axis."""
    if not isinstance(x, np.ndarray):
        return namespace(x).softmax(x, dim=0)
    result = np.exp(x - x.max(0))
    result /= result.sum(0)
    return result


def largest(x: Array) -> tuple[Array, Array]:
    """Return the largest values along the first axis, and their first indices; NaN counts as the largest."""
    if not isinstance(x, np.ndarray):
        return x.max(dim=0)
    values, index = x[0].copy(), np.zeros(x.shape[1:], np.uint8 if len(x) <= 256 else np.int64)
    for i in range(1, len(x)):  # np.argmax is several times slower along the first axis
        np.copyto(index, i, where=x[i] > values)
        np.maximum(values, x[i], out=values)
    return values, index


def to_numpy(x: Array) -> np.ndarray:
    """Return an array as a NumPy array, on the CPU."""
    return x if isinstance(x, np.ndarray) else x.detach().cpu().numpy()


def on_device_of(x: Array, values: np.ndarray) -> Array:
    """Return values in the library and on the device of `x`, in their own type."""
    return values if isinstance(x, np.ndarray) else namespace(x).from_numpy(values).to(x.device)


def without_gradients(function: Callable[Given, Result]) -> Callable[Given, Result]:
    """Decorate a function or a generator that computes with torch in inference mode, if torch has been imported."""

    @wraps(function)
    def run(*args: Given.args, **kwargs: Given.kwargs) -> Result:
        torch = sys.modules.get("torch")
        called = function if torch is None else torch.inference_mode()(function)
        return called(*args, **kwargs)

    return run
