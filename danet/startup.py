"""Import torchvision and timm without what danet does not use, which is most of the time that they take.

`torch._dynamo` is 40 % of the time that danet would need to start. timm imports a file per architecture, torchvision
with all its models, and the client of the Hugging Face Hub; danet needs two of the files.
"""

import importlib
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from importlib.util import find_spec, module_from_spec
from types import ModuleType
from typing import Any

import torch  # noqa: F401 (its own import must see the real module)

_HUB = "timm.models._hub"


@contextmanager
def without_dynamo() -> Iterator[None]:
    """Replace `torch._dynamo` while timm or torchvision is imported in this block.

    Both import the compiler for functions that danet does not use: torchvision's deterministic `roi_align`, which then
    runs uncompiled, and a method of timm's NaFlexViT that opts out of compilation. Afterwards `torch.compile` and
    `torch.export` import the real module. Does nothing if the real module is loaded already.
    """
    if "torch._dynamo" in sys.modules:
        yield
        return
    dynamo, tools = ModuleType("torch._dynamo"), ModuleType("torch._dynamo.utils")
    dynamo.__dict__.update(utils=tools, disable=_undecorated)
    tools.__dict__.update(is_compile_supported=lambda _device: False)
    replaced = {module.__name__: module for module in (dynamo, tools)}
    sys.modules.update(replaced)
    try:
        yield
    finally:
        for name, module in replaced.items():
            if sys.modules.get(name) is module:
                del sys.modules[name]


@contextmanager
def parts_of_timm() -> Iterator[None]:
    """Import only the named modules of timm in this block, and what they need.

    The packages `timm`, `timm.models` and `timm.data` stay unfinished: their `__init__` runs when an attribute is
    asked for that they do not have yet, for example by `import timm; timm.create_model`. Does nothing if timm is loaded
    already.
    """
    if "timm" in sys.modules:
        with without_dynamo():
            yield
        return
    for name in ("timm", "timm.data", "timm.models"):
        sys.modules[name] = _unfinished(name)
        if "." in name:
            setattr(sys.modules["timm"], name.partition(".")[2], sys.modules[name])
    sys.modules["timm"].__dict__["__version__"] = importlib.import_module("timm.version").__version__
    constants = vars(importlib.import_module("timm.data.constants"))
    sys.modules["timm.data"].__dict__.update({k: v for k, v in constants.items() if k.isupper()})
    with without_dynamo(), _without_torchvision(), _without_hub():
        yield


def finish_timm() -> None:
    """Import all of timm, for architectures in other files and for downloads of weights."""
    for name in ("timm", "timm.data", "timm.models"):
        if isinstance(package := sys.modules.get(name), _Unfinished):
            package.finish()


class _Unfinished(ModuleType):
    """A package whose `__init__` runs when an attribute is missing."""

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):  # the import system asks for these
            raise AttributeError(f"module {self.__name__!r} has no attribute {name!r}")
        self.finish()
        return getattr(self, name)

    def finish(self) -> None:
        self.__class__ = ModuleType  # pyright: ignore[reportAttributeAccessIssue]; first, as it imports itself
        assert self.__spec__ is not None
        assert self.__spec__.loader is not None
        with without_dynamo():
            self.__spec__.loader.exec_module(self)
            if _HUB in sys.modules and not sys.modules[_HUB]._has_hf_hub:
                importlib.reload(sys.modules[_HUB])  # the functions that others imported from it see the new names


def _unfinished(name: str) -> ModuleType:
    spec = find_spec(name)
    if spec is None:
        raise ModuleNotFoundError(f"No module named {name!r}", name=name)
    module = module_from_spec(spec)
    module.__class__ = _Unfinished
    return module


@contextmanager
def _without_torchvision() -> Iterator[None]:
    """Import torchvision's own modules in this block without its packages, and forget them afterwards."""
    if "torchvision" in sys.modules:
        yield
        return
    for name in ("torchvision", "torchvision.models", "torchvision.ops"):
        spec = find_spec(name)
        assert spec is not None
        sys.modules[name] = module_from_spec(spec)
    try:
        yield
    finally:
        for name in [name for name in sys.modules if name.partition(".")[0] == "torchvision"]:
            del sys.modules[name]


@contextmanager
def _without_hub() -> Iterator[None]:
    """Hide the client of the Hugging Face Hub in this block; timm works without it, but for downloads."""
    if "huggingface_hub" in sys.modules:
        yield
        return
    sys.modules["huggingface_hub"] = None  # pyright: ignore[reportArgumentType]  (None: cannot be imported)
    try:
        yield
    finally:
        del sys.modules["huggingface_hub"]


def _undecorated(function: Callable[..., Any] | None = None, *_: object, **__: object) -> Any:
    """Return `function` itself, as a decorator with or without arguments."""
    return function if function is not None else lambda decorated: decorated
