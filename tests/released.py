"""A state dict in the released format, made up from one of our networks."""

from collections import OrderedDict

import torch

from danet import DANet
from danet.deploy.convert import RELEASED


def released_state(network: DANet) -> OrderedDict:
    """The network's weights under the released names and shapes, with the ImageNet classifier that v1 kept."""
    state = OrderedDict()
    for key, tensor in network.state_dict().items():
        theirs, ours = next((t, o) for t, o in RELEASED.items() if key.startswith(o))
        name = theirs + key.removeprefix(ours)
        state[name] = tensor.reshape(1) if name.endswith("gamma") else tensor.clone()
    state["pretrained.fc.weight"], state["pretrained.fc.bias"] = torch.zeros(1000, 2048), torch.zeros(1000)
    return state
