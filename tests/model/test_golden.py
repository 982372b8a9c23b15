"""Outputs of the released code, in float64, for weights generated from a seed (golden/README.md)."""

import json
from typing import NamedTuple

import numpy as np
import pytest
import torch
from released import fill_module

from danet import DANet, DRANet
from danet.model.loss import multi_loss
from danet.weights.convert import from_foreign, recognize


class Golden(NamedTuple):
    """A reference, and the network with its weights; logits by the names of our outputs."""

    settings: dict
    logits: dict
    network: DANet | DRANet
    renamed: dict  # our parameter names -> the released ones


NAMES = {"fused": "fused", "position": "position", "channel": "channel", "aux": "auxiliary"}  # theirs -> ours


@pytest.fixture(scope="module", params=["official_danet_resnet50", "official_dranet_resnet101"])
def golden(golden_folder, request) -> Golden:
    fill, file = fill_module(golden_folder), golden_folder / request.param
    settings = json.loads(file.with_suffix(".json").read_text())
    with np.load(file.with_suffix(".npz")) as arrays:
        logits = {NAMES[name]: array for name, array in arrays.items()}
    state = fill.fill(fill.keys_and_shapes(file.with_suffix(".keys")), settings["seed"])
    network, _ = from_foreign(state, file.name, tuple(settings["layer4_dilations"]), settings["align_corners"])
    prefixes = recognize(state, file.name).prefixes.items()
    renamed = {}
    for name, _ in network.named_parameters():
        theirs, ours = next((theirs, ours) for theirs, ours in prefixes if name.startswith(ours))
        renamed[name] = theirs + name.removeprefix(ours)
    # the released code also has auxiliary logits in evaluation, ours only in training: batch normalization and dropout
    # stay in evaluation mode
    network.training = True
    return Golden(settings, logits, network, renamed)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_logits_equal_the_released_code(golden_folder, golden, dtype):
    settings, logits, network, _ = golden
    images = fill_module(golden_folder).image_batch(settings["seed"], settings["shape"])
    with torch.no_grad():
        out = network.to(dtype)(images.to(dtype))
    assert logits.keys() == {name for name, found in out._asdict().items() if found is not None}
    for name, expected in logits.items():
        relative = 1e-5 * np.abs(expected).max() if isinstance(network, DRANet) else 2e-5
        tolerance = relative if dtype == torch.float32 else 1e-6
        assert np.abs(getattr(out, name).numpy() - expected).max() <= tolerance, name


def test_loss_and_gradients_equal_the_released_code(golden_folder, golden):
    settings, fill, network = golden.settings, fill_module(golden_folder), golden.network
    images = fill.image_batch(settings["seed"], settings["shape"]).double()
    labels = fill.label_batch(settings["seed"], (1, *settings["shape"][2:]), num_classes=settings["num_classes"])
    network.double().zero_grad()
    loss, _ = multi_loss(network(images), labels, dict.fromkeys(golden.logits, 1.0))
    loss.backward()
    assert loss.item() == pytest.approx(settings["loss"], rel=1e-9)
    norms = {golden.renamed[name]: parameter.grad.norm().item() for name, parameter in network.named_parameters()}
    assert norms.keys() == settings["gradient_norm"].keys()
    for name, expected in settings["gradient_norm"].items():
        assert norms[name] == pytest.approx(expected, rel=1e-6, abs=1e-12), name
