"""The learning rate and the parameter groups (section 4.1 of the paper).

The poly schedule, (1 - step / steps)^0.9, optionally above a floor (mmsegmentation's eta_min) and after a linear
warm-up.
"""

import re
from bisect import bisect_left
from collections.abc import Container

import torch
from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm

from danet.model.backbone import feature_names
from danet.recipes import Optim
from danet.train.distributed import CpuSyncBatchNorm

_ATTENTION = re.compile(r"attention\.(scale|sharpness|query\.|key\.)")


def learning_rate(optim: Optim, step: int, steps: int) -> float:
    """Return the base learning rate of a step in [0, steps)."""
    poly = optim.lr_floor + (optim.lr - optim.lr_floor) * (1 - step / steps) ** optim.power
    return poly * min(1.0, (step + 1) / (optim.warmup + 1))


def make_optimizer(network: nn.Module, optim: Optim) -> torch.optim.Optimizer:
    """Return the optimizer with the parameter groups of the backbone, the head and the attention, if they differ.

    The attention's group holds what decides where pixels attend and how much: alpha, beta, query, key and sharpness.
    `set_learning_rate` keeps the ratio of the groups' learning rates.
    """
    decay = optim.weight_decay if optim.attention_weight_decay is None else optim.attention_weight_decay
    apart = (optim.attention_lr_factor, decay) != (1.0, optim.weight_decay)
    parameters: dict[str, list[nn.Parameter]] = {"backbone": [], "head": [], "attention": []}
    factors = {"backbone": 1.0, "head": optim.head_lr_factor}
    factors["attention"] = optim.head_lr_factor * optim.attention_lr_factor
    depths = {} if optim.layer_decay == 1 else backbone_depths(network)
    for name, parameter in network.named_parameters():
        if not parameter.requires_grad:
            continue
        kind = "backbone" if name.startswith("backbone.") else "head"
        kind = "attention" if apart and _ATTENTION.search(name) and kind == "head" else kind
        if depth := depths.get(name):
            kind = f"backbone, {depth} below the top"
            factors[kind] = optim.layer_decay**depth
        parameters.setdefault(kind, []).append(parameter)
    groups = [
        {
            "params": params,
            "factor": factors[kind],
            "weight_decay": decay if kind == "attention" else optim.weight_decay,
        }
        for kind, params in parameters.items()
        if params or kind in ("backbone", "head")
    ]
    if optim.algorithm == "adamw":
        return torch.optim.AdamW(groups, optim.lr)
    return torch.optim.SGD(groups, optim.lr, momentum=optim.momentum)


def backbone_depths(network: nn.Module) -> dict[str, int]:
    """Return the stage of each parameter of the backbone, counted from its last stage, which is 0.

    A stage ends with a feature map that timm names; what follows the last of them belongs to it. Some of timm's
    networks have feature maps, mostly of the stem, that are no module's output: they end no stage.
    """
    backbone = network.get_submodule("backbone")
    order = [_normalized(name) for name, _ in backbone.named_modules()]
    ends = [
        max(i for i, name in enumerate(order) if name == end or name.startswith(f"{end}."))
        for end in map(_normalized, feature_names(backbone))
        if end in order
    ]
    stages = {
        name: bisect_left(ends[:-1], order.index(_normalized(name.removeprefix("backbone.").rpartition(".")[0])))
        for name, _ in network.named_parameters()
        if name.startswith("backbone.")
    }
    return {name: max(stages.values()) - stage for name, stage in stages.items()}


def _normalized(name: str) -> str:
    """Return a name that a module of timm has with and without `features_only`, which makes a_b or model.a.b of a.b."""
    return name.removeprefix("model.").replace("_", ".")


def set_learning_rate(optimizer: torch.optim.Optimizer, rate: float) -> None:
    """Set the learning rate of each group to `rate` times its factor."""
    for group in optimizer.param_groups:
        group["lr"] = rate * group["factor"]


def freeze(network: nn.Module, part: str, class_layers: Container[str]) -> None:
    """Exclude parameters from the training.

    Args:
        network: the network.
        part: "none", "backbone", or "features": all but `class_layers`.
        class_layers: the names of the parameters that have an entry per class.
    """
    for name, parameter in network.named_parameters():
        frozen = name.startswith("backbone.") if part == "backbone" else name not in class_layers
        parameter.requires_grad_(part == "none" or not frozen)


def set_training_mode(network: nn.Module, part: str) -> None:
    """Put a network into training mode, but its frozen part into evaluation mode; `part` is that of `freeze`."""
    network.train(part != "features")
    network.training = True  # so that it returns the outputs of all layers that are trained
    if part == "backbone":
        network.get_submodule("backbone").eval()


def freeze_batch_norm(network: nn.Module) -> None:
    """Put batch normalization in the backbone into evaluation mode, until the next `network.train()`."""
    for name, module in network.named_modules():
        if name.startswith("backbone.") and isinstance(module, _BatchNorm | CpuSyncBatchNorm):
            module.eval()
