"""Outputs of the released code, in float64, for weights generated from a seed (golden/README.md)."""

import json

import numpy as np
import pytest
import torch
from released import fill_module

from danet import DANet
from danet.model.loss import multi_loss
from danet.weights.convert import from_foreign
from danet.weights.key_maps import RELEASED

NAME = "official_danet_resnet50"


@pytest.fixture(scope="module")
def reference(golden_folder) -> tuple[dict, dict]:
    with np.load(golden_folder / f"{NAME}.npz") as logits:
        return json.loads((golden_folder / f"{NAME}.json").read_text()), dict(logits)


@pytest.fixture(scope="module")
def network(golden_folder, reference) -> DANet:
    fill, settings = fill_module(golden_folder), reference[0]
    state = fill.fill(fill.keys_and_shapes(golden_folder / f"{NAME}.keys"), settings["seed"])
    return from_foreign(state, NAME, tuple(settings["layer4_dilations"]), settings["align_corners"])[0]


@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float32, 2e-5), (torch.float64, 1e-6)])
def test_logits_equal_the_released_code(golden_folder, reference, network, dtype, tolerance):
    settings, logits = reference
    images = fill_module(golden_folder).image_batch(settings["seed"], settings["shape"])
    with torch.no_grad():
        out = network.to(dtype)(images.to(dtype))
    for name, expected in logits.items():
        assert np.abs(getattr(out, name).numpy() - expected).max() <= tolerance, name


def test_loss_and_gradients_equal_the_released_code(golden_folder, reference, network):
    settings, fill = reference[0], fill_module(golden_folder)
    images = fill.image_batch(settings["seed"], settings["shape"]).double()
    labels = fill.label_batch(settings["seed"], (1, *settings["shape"][2:]), num_classes=settings["num_classes"])
    network.double().zero_grad()
    loss, _ = multi_loss(network(images), labels)
    loss.backward()
    assert loss.item() == pytest.approx(settings["loss"], rel=1e-9)
    renamed = released_names(network)
    norms = {renamed[name]: parameter.grad.norm().item() for name, parameter in network.named_parameters()}
    assert norms.keys() == settings["gradient_norm"].keys()
    for name, expected in settings["gradient_norm"].items():
        assert norms[name] == pytest.approx(expected, rel=1e-6, abs=1e-12), name


def released_names(network: DANet) -> dict[str, str]:
    names = {}
    for ours in network.state_dict():
        theirs, prefix = next((t, o) for t, o in RELEASED.prefixes.items() if ours.startswith(o))
        names[ours] = theirs + ours.removeprefix(prefix)
    return names
