"""Make a package callable, so that `danet.train(...)` trains although `danet.train` is also the package of the code."""

import inspect
import sys
from collections.abc import Callable
from importlib import import_module
from types import ModuleType
from typing import Any


class CallablePackage(ModuleType):
    """A package that is called like the function of the same name in one of its modules.

    The function is imported at the first call. `help` and `inspect.signature` show its documentation and arguments too.
    """

    _module = ""

    def __call__(self, *args: Any, **options: Any) -> Any:
        """Call the function."""
        return self._function(*args, **options)

    @property
    def _function(self) -> Callable[..., Any]:
        return getattr(import_module(self._module), self.__name__.rpartition(".")[2])

    @property
    def __signature__(self) -> inspect.Signature:
        return inspect.signature(self._function)


def _documentation(package: CallablePackage) -> str:
    """Return the docstring of a package, followed by the signature and the docstring of its function."""
    own = package.__dict__["__doc__"]
    try:
        function = package._function
    except ImportError:
        return own
    return f"{own}\n\n{function.__name__}{inspect.signature(function)}\n\n{inspect.getdoc(function)}"


def make_callable(package: str, module: str) -> None:
    """Let a package, `a.b`, be called like the function `b` in a module of it."""
    called = sys.modules[package]
    members = {"_module": module, "__doc__": property(_documentation)}
    called.__class__ = type("CallablePackage", (CallablePackage,), members)
