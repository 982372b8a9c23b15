"""State dicts in the formats of the released code and of mmsegmentation, made from our networks."""

import importlib.util
from collections import OrderedDict
from pathlib import Path
from types import ModuleType

import torch

from danet import DANet, DRANet
from danet.weights.key_maps import MMSEG, RELEASED, RELEASED_DRANET, KeyMap


def released_state(network: DANet) -> OrderedDict:
    """The network's weights with the released names and shapes, and the ImageNet classifier that v1 kept."""
    state = _renamed(network, RELEASED)
    state = OrderedDict((key, t.reshape(1) if key.endswith("gamma") else t) for key, t in state.items())
    state["pretrained.fc.weight"], state["pretrained.fc.bias"] = torch.zeros(1000, 2048), torch.zeros(1000)
    return state


def released_dranet_state(network: DRANet) -> OrderedDict:
    """The network's weights with the released names and shapes."""
    state = _renamed(network, RELEASED_DRANET)
    return OrderedDict((key, t.reshape(1) if key.endswith(("gamma", "scale")) else t) for key, t in state.items())


def mmseg_state(network: DANet) -> OrderedDict:
    """A V1c network's weights with mmsegmentation's names, and its auxiliary head."""
    state = _renamed(network, MMSEG)
    state["auxiliary_head.conv_seg.weight"] = torch.zeros(11, 256, 1, 1)
    return state


def _renamed(network: DANet | DRANet, key_map: KeyMap) -> OrderedDict:
    state = OrderedDict()
    for key, tensor in network.state_dict().items():
        theirs, ours = next((t, o) for t, o in key_map.prefixes.items() if key.startswith(o))
        state[theirs + key.removeprefix(ours)] = tensor.clone()
    return state


def fill_module(folder: Path) -> ModuleType:
    spec = importlib.util.spec_from_file_location("fill", folder / "fill.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module
