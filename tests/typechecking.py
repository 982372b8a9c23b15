"""The run-time type checker that jaxtyping applies to danet in tests (see pyproject.toml).

jaxtyping binds the arguments of each call to find the sizes that arrays share, and checks them twice: a third of the
time of the tests. Most functions have no arrays. For these the type checker alone makes the same checks.
"""

import inspect
from collections.abc import Callable
from types import FunctionType, SimpleNamespace
from typing import Any, get_args, get_type_hints

import jaxtyping
from beartype import BeartypeConf, beartype

checked = beartype(conf=BeartypeConf(is_pep484_tower=True))  # accept an int where a float is annotated, as pyright does

_jaxtyped = jaxtyping.jaxtyped


def quickly_jaxtyped(*, typechecker: Callable) -> Callable:
    """Return what jaxtyping's import hook decorates functions and classes with."""

    def decorate(decorated: Any) -> Any:
        if type(decorated) is not FunctionType or inspect.isgeneratorfunction(decorated):
            return _jaxtyped(decorated, typechecker=typechecker)
        annotations = decorated.__annotations__
        hints = {name: _resolved(hint, decorated) for name, hint in annotations.items()}
        if any(map(_has_array, hints.values())):
            return _jaxtyped(decorated, typechecker=typechecker)
        decorated.__annotations__ = hints
        wrapped = typechecker(decorated)
        decorated.__annotations__ = wrapped.__annotations__ = annotations
        return wrapped

    return decorate


def _resolved(hint: Any, function: FunctionType) -> Any:
    """Resolve names in quotes; as in jaxtyping, what cannot be resolved is not checked."""
    if isinstance(hint, type):
        return hint
    holder = SimpleNamespace(__annotations__={"hint": hint})
    try:
        return get_type_hints(holder, function.__globals__, include_extras=True)["hint"]
    except Exception:  # of any kind, as annotations are evaluated
        return Any


def _has_array(hint: Any) -> bool:
    if isinstance(hint, type) and issubclass(hint, jaxtyping.AbstractArray):
        return True
    return any(map(_has_array, hint if isinstance(hint, list) else get_args(hint)))  # a list of a callable's arguments


jaxtyping.jaxtyped = quickly_jaxtyped  # pyright: ignore[reportAttributeAccessIssue]
