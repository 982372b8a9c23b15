"""One network and one application that the tests of danet/web share."""

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

import pytest
import torch
from web_client import Client, serving

from danet import DANet, Predictor, load
from danet.serve.guard import Limits


@pytest.fixture(scope="module")
def predictor(tiny_weights):
    """An untrained little network that finds more than one class."""
    card = load(tiny_weights, "cpu").card
    torch.manual_seed(4)
    return Predictor(DANet(**card.network), card, "cpu")


@pytest.fixture(scope="module")
def ask(predictor):
    """Runs `await questions(client)`: of one application that all tests share, or of one of their own."""
    with asyncio.Runner() as runner:
        shared = serving(predictor)
        client = runner.run(shared.__aenter__())

        def asked(
            questions: Callable[[Client], Awaitable[Any]], limits: Limits | None = None, of: Predictor | None = None
        ):
            async def alone() -> Any:
                async with serving(of or predictor, limits) as own:
                    return await questions(own)

            return runner.run(questions(client) if limits is None and of is None else alone())

        yield asked
        runner.run(shared.__aexit__(None, None, None))
