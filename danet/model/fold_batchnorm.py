"""Batch normalization folded into the convolution before it: the evaluated network's numbers in fewer passes over
memory. Used by `danet.predict`.
"""

from collections import Counter
from collections.abc import Callable, Sequence
from copy import deepcopy
from typing import Any, TypeVar

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn.utils.fusion import fuse_conv_bn_weights
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

Network = TypeVar("Network", bound=nn.Module)


def folded(network: Network, images: Float[Tensor, "B N H W"]) -> Network:
    """A copy for inference in which each BatchNorm2d is part of the convolution whose output it alone reads; the
    activation that timm's norms hold stays. Every other tensor is the network's own, not copied. The folded weights do
    not follow later changes of the network.

    Args:
        network: in evaluation mode.
        images: the network is run on them once, to see which layer reads what; they may be small.
    """
    assert not network.training
    shared = {id(tensor): tensor for tensor in [*network.parameters(), *network.buffers()]}
    copy = deepcopy(network, shared)
    for convolution, norm in _pairs(network, images):
        conv, bn = copy.get_submodule(convolution), copy.get_submodule(norm)
        assert isinstance(conv, nn.Conv2d)
        assert isinstance(bn, nn.BatchNorm2d)
        assert bn.running_mean is not None
        assert bn.running_var is not None
        conv.weight, conv.bias = fuse_conv_bn_weights(
            conv.weight, conv.bias, bn.running_mean, bn.running_var, bn.eps, bn.weight, bn.bias
        )
        copy.set_submodule(norm, getattr(bn, "act", nn.Identity()))
    return copy


class _Calls(TorchDispatchMode):
    """The tensors that each operator read and made; kept, so that no id is given twice."""

    def __init__(self):
        super().__init__()
        self.seen: list[tuple[list[Tensor], list[Tensor]]] = []

    def __torch_dispatch__(self, func: Callable, types: Sequence, args: Sequence = (), kwargs: Any = None) -> Any:
        made = func(*args, **(kwargs or {}))
        self.seen.append((_tensors((args, kwargs)), _tensors(made)))
        return made


def _pairs(network: nn.Module, images: Tensor) -> list[tuple[str, str]]:
    """Names of convolutions and of the norms that read their outputs; both run once, and nothing else reads these."""
    with torch.no_grad(), _Calls() as calls:
        network(images)
    named = list(network.named_modules())
    convolutions = {id(m.weight): name for name, m in named if isinstance(m, nn.Conv2d)}
    norms = {id(m.running_mean): name for name, m in named if isinstance(m, nn.BatchNorm2d) and m.track_running_stats}
    reads = Counter(id(tensor) for read, _ in calls.seen for tensor in read)
    once = {tensor for tensor, times in reads.items() if times == 1}
    makers: dict[int, str] = {}  # the convolution that made a tensor
    pairs = []
    for read, made in calls.seen:
        ids = once.intersection(map(id, read))
        makers |= {id(made[0]): convolutions[weight] for weight in ids & convolutions.keys()}
        if read and id(read[0]) in ids & makers.keys():
            pairs += [(makers[id(read[0])], norms[mean]) for mean in ids & norms.keys()]
    return pairs


def _tensors(tree: Any) -> list[Tensor]:
    return [leaf for leaf in tree_leaves(tree) if isinstance(leaf, Tensor)]
