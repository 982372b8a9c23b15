"""The learning rate and the parameter groups (section 4.1 of the paper).

The poly schedule, (1 - step / steps)^0.9, optionally above a floor (mmsegmentation's eta_min) and after a linear
warm-up.
"""

import torch
from torch import nn

from danet.recipes import Optim


def learning_rate(optim: Optim, step: int, steps: int) -> float:
    """Return the base learning rate of a step in [0, steps)."""
    poly = optim.lr_floor + (optim.lr - optim.lr_floor) * (1 - step / steps) ** optim.power
    return poly * min(1.0, (step + 1) / (optim.warmup + 1))


def make_optimizer(network: nn.Module, optim: Optim) -> torch.optim.SGD:
    """Return SGD with two parameter groups, backbone and head; `set_learning_rate` keeps the ratio of their rates."""
    backbone = [p for name, p in network.named_parameters() if name.startswith("backbone.")]
    head = [p for name, p in network.named_parameters() if not name.startswith("backbone.")]
    groups = [{"params": backbone, "factor": 1.0}, {"params": head, "factor": optim.head_lr_factor}]
    return torch.optim.SGD(groups, optim.lr, momentum=optim.momentum, weight_decay=optim.weight_decay)


def set_learning_rate(optimizer: torch.optim.Optimizer, rate: float) -> None:
    """Set the learning rate of each group to `rate` times its factor."""
    for group in optimizer.param_groups:
        group["lr"] = rate * group["factor"]
