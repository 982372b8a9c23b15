"""Fold batch normalization into the preceding convolutions: the same results with fewer passes over memory."""

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


def fold_batchnorm(network: Network, images: Float[Tensor, "B N H W"]) -> Network:
    """Return a copy for inference in which BatchNorm2d layers are folded into the convolutions before them.

    A layer is folded if it alone reads the convolution's output; activations inside timm's norm layers are kept. All
    other tensors are shared with the network. The folded weights do not follow later changes of the network.

    Args:
        network: in evaluation mode.
        images: the network is run on them once, to find out which layer reads which tensor; they may be small.
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
    """Record the inputs and outputs of each operator. The tensors are kept alive so that no id is used twice."""

    def __init__(self):
        super().__init__()
        self.records: list[tuple[list[Tensor], list[Tensor]]] = []

    @classmethod
    def _should_skip_dynamo(cls) -> bool:
        return False  # otherwise torch imports its compiler, which takes seconds, just to exempt the method below

    def __torch_dispatch__(self, func: Callable, types: Sequence, args: Sequence = (), kwargs: Any = None) -> Any:
        result = func(*args, **(kwargs or {}))
        self.records.append((_tensors((args, kwargs)), _tensors(result)))
        return result


def _pairs(network: nn.Module, images: Tensor) -> list[tuple[str, str]]:
    """Return the names of convolutions with the norms that read their outputs.

    Both layers run exactly once, and nothing else reads the convolution's output.
    """
    with torch.no_grad(), _Calls() as calls:
        network(images)
    named = list(network.named_modules())
    convolutions = {id(m.weight): name for name, m in named if isinstance(m, nn.Conv2d)}
    norms = {id(m.running_mean): name for name, m in named if isinstance(m, nn.BatchNorm2d) and m.track_running_stats}
    reads = Counter(id(tensor) for inputs, _ in calls.records for tensor in inputs)
    read_once = {tensor for tensor, times in reads.items() if times == 1}
    sources: dict[int, str] = {}  # output tensor -> its convolution
    pairs = []
    for inputs, outputs in calls.records:
        ids = read_once.intersection(map(id, inputs))
        sources |= {id(outputs[0]): convolutions[weight] for weight in ids & convolutions.keys()}
        if inputs and id(inputs[0]) in ids & sources.keys():
            pairs += [(sources[id(inputs[0])], norms[mean]) for mean in ids & norms.keys()]
    return pairs


def _tensors(tree: Any) -> list[Tensor]:
    return [leaf for leaf in tree_leaves(tree) if isinstance(leaf, Tensor)]
