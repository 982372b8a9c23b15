"""The names of the attention modules, for parts that run where torch is not installed."""

from typing import Literal

Module = Literal["position", "channel"]
MODULES: tuple[Module, ...] = ("position", "channel")
