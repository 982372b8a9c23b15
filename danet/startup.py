"""Import torchvision and timm without `torch._dynamo`, which is 40 % of the time that danet needs to start."""

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import ModuleType
from typing import Any

import torch  # noqa: F401 (its own import must see the real module)


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


def _undecorated(function: Callable[..., Any] | None = None, *_: object, **__: object) -> Any:
    """Return `function` itself, as a decorator with or without arguments."""
    return function if function is not None else lambda decorated: decorated
