"""The tests check the types of all arguments and results in danet, and the sizes of its arrays."""

# pyright: reportArgumentType=false
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

import jaxtyping
import numpy as np
import pytest
from jaxtyping import Float
from typechecking import checked

if TYPE_CHECKING:
    from nowhere import Absent  # pyright: ignore[reportMissingImports]

hooked = jaxtyping.jaxtyped(typechecker=checked)  # what the import hook applies
Vector = Float[np.ndarray, "n"]


@hooked
def plain(a: int, b: "str | None" = None) -> int:
    return a if b is None else b  # pyright: ignore[reportReturnType]


@hooked
def unresolved(a: "Absent", b: "list[Absent]") -> "Absent":
    return a


@hooked
def array(a: Vector, b: Vector | None = None) -> Vector:
    return a[:-1] if b is None else np.zeros(len(a) + 1)


@hooked
def generator(a: int) -> Iterator[int]:
    yield a


@hooked
def with_callable(a: Callable[[Vector], int]) -> int:
    return a(np.zeros(2))


@hooked
@dataclass
class Record:
    a: float

    @hooked
    def method(self, a: float) -> float:
        return a


def test_valid_calls_are_unchanged():
    assert plain(1) == 1
    assert plain.__annotations__ == {"a": int, "b": "str | None", "return": int}
    assert unresolved(1, [2]) == 1
    assert list(generator(1)) == [1]
    assert with_callable(len) == 2
    assert Record(1).method(2) == 2


@pytest.mark.parametrize(
    "call",
    [
        lambda: plain("1"),
        lambda: plain(1, 2),
        lambda: plain(1, "2"),
        lambda: array([1.0]),
        lambda: array(np.zeros((2, 2))),
        lambda: array(np.zeros(2), np.zeros(3)),
        lambda: array(np.zeros(2), np.zeros(2)),
        lambda: generator("1"),
        lambda: with_callable(1),
        lambda: Record("1"),
        lambda: Record(1).method("1"),
    ],
)
def test_invalid_arguments_results_and_sizes_are_errors(call):
    with pytest.raises(Exception, match=r"(?i)type-check error|violates type hint"):
        call()
