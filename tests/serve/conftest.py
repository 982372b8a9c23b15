"""A network and an application that the tests of danet/serve share."""

import asyncio
import multiprocessing
from collections.abc import Awaitable, Callable
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from serve_client import Client, serving

from danet import DANet, Predictor, load
from danet.serve import decoder
from danet.serve.limits import Limits


@pytest.fixture(scope="module")
def predictor(tiny_weights):
    """Return a small untrained network that predicts more than one class."""
    card = load(tiny_weights, "cpu").card
    torch.manual_seed(4)
    return Predictor(DANet(**card.network), card, "cpu")


@pytest.fixture(autouse=True)
def forked_decoders(monkeypatch) -> None:
    """Fork the decoders of new applications from a process that has imported Pillow, as dozens of tests start one."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload([decoder.__name__])
    monkeypatch.setattr(decoder, "multiprocessing", SimpleNamespace(get_context=lambda _: context))


@pytest.fixture(scope="module")
def ask(predictor):
    """Return a function that runs `await talk(client)`: with a shared application, or with a new one."""
    with asyncio.Runner() as runner:
        shared = serving(predictor)
        client = runner.run(shared.__aenter__())

        def run(talk: Callable[[Client], Awaitable[Any]], limits: Limits | None = None, of: Predictor | None = None):
            async def alone() -> Any:
                async with serving(of or predictor, limits) as own:
                    return await talk(own)

            return runner.run(talk(client) if limits is None and of is None else alone())

        yield run
        runner.run(shared.__aexit__(None, None, None))
