"""Outputs of an independent implementation, in float64, of a network with a narrow head; see golden/reference.py.

These need nothing that is not in the repository. Where the outputs of the released code are next to the checkout, the
implementation is compared with them too.
"""

import json

import numpy as np
import pytest
import torch
from golden import reference
from released import fill_module

from danet import DANet
from danet.model.loss import multi_loss
from danet.weights.convert import from_foreign
from danet.weights.key_maps import RELEASED


@pytest.fixture(scope="module")
def stored() -> dict[str, np.ndarray]:
    with np.load(reference.FILE) as arrays:
        return dict(arrays)


@pytest.fixture(scope="module")
def network() -> DANet:
    network, arguments = from_foreign(reference.fill(), "narrow", reference.LAYER4_DILATIONS, align_corners=True)
    assert arguments["width"] == reference.WIDTH
    assert isinstance(network, DANet)
    return network


def largest_difference(network: DANet, stored: dict[str, np.ndarray], prefix: str = "") -> float:
    with torch.no_grad():
        out = network(reference.images().to(next(network.parameters()).dtype))
    names = ("fused", "channel") if prefix else ("fused", "position", "channel")
    return max(np.abs(getattr(out, name).numpy() - stored[prefix + name]).max() for name in names)


def test_logits_equal_the_independent_ones(network, stored):
    assert largest_difference(network.float(), stored) <= 2e-5
    assert largest_difference(network.double(), stored) <= 1e-10
    network.channel.attention.form = "paper"
    try:
        assert largest_difference(network, stored, "paper_") <= 1e-10
        assert np.abs(stored["paper_channel"] - stored["channel"]).max() > 0.1  # the forms differ
    finally:
        network.channel.attention.form = "released"


def test_loss_and_gradients_equal_the_independent_ones(network, stored):
    network.double().zero_grad()
    loss, _ = multi_loss(
        network(reference.images().double()), reference.labels(), dict.fromkeys(("fused", "position", "channel"), 1.0)
    )
    loss.backward()
    assert loss.item() == pytest.approx(stored["loss"].item(), rel=1e-12)
    compared = 0
    for name, parameter in network.named_parameters():
        theirs, ours = next((theirs, ours) for theirs, ours in RELEASED.prefixes.items() if name.startswith(ours))
        expected = stored[f"gradient/{theirs}{name.removeprefix(ours)}"].item()
        assert parameter.grad.norm().item() == pytest.approx(expected, rel=1e-9, abs=1e-12), name
        compared += 1
    assert compared == sum(name.startswith("gradient/") for name in stored)


def test_the_file_holds_what_the_independent_implementation_returns(stored):
    state = {name: value.double() for name, value in reference.fill().items()}
    with torch.no_grad():
        logits = reference.outputs(state, reference.images().double())
    for name, one in logits.items():
        np.testing.assert_allclose(stored[name], one.numpy(), rtol=0, atol=1e-11)


def test_weights_are_the_same_numbers_everywhere():
    assert reference.uniform("image", (3,)).tolist() == [-0.7926787019474086, 0.8844310969422258, -0.4167886576676809]


def test_the_independent_implementation_equals_the_released_code(golden_folder):
    fill, file = fill_module(golden_folder), golden_folder / "official_danet_resnet50"
    settings = json.loads(file.with_suffix(".json").read_text())
    state = fill.fill(fill.keys_and_shapes(file.with_suffix(".keys")), settings["seed"])
    images = fill.image_batch(settings["seed"], settings["shape"]).double()
    with torch.no_grad():
        logits = reference.outputs(
            {name: value.double() for name, value in state.items()}, images, settings["layer4_dilations"]
        )
    with np.load(file.with_suffix(".npz")) as released:
        for name, one in logits.items():
            assert np.abs(one.numpy() - released[name]).max() <= 1e-6, name
