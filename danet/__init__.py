"""Dual Attention Networks for semantic segmentation (Fu et al., CVPR 2019): train, evaluate, explain, deploy.

import danet
seg = danet.load()("street.jpg")      # the bundled weights
seg.overlay().show()

net = danet.DANet(num_classes=19, backbone="resnet101", layer4_dilations=(4, 8, 16))
out = net(images)                     # out.fused, out.position, out.channel: B,19,H,W logits

result = danet.train("folder", "my_images")
danet.evaluate(result.weights, "my_images").miou
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from danet.errors import InputError
    from danet.evaluate.start import evaluate
    from danet.model.attention import ChannelAttention, PositionAttention
    from danet.model.danet import DANet, Outputs
    from danet.model.dranet import DRANet
    from danet.predict.predictor import Predictor, load
    from danet.predict.segmentation import Segmentation
    from danet.train.start import iterate_training, train

__version__ = "0.2.0.dev0"
__all__ = [
    "ChannelAttention",
    "DANet",
    "DRANet",
    "InputError",
    "Outputs",
    "PositionAttention",
    "Predictor",
    "Segmentation",
    "evaluate",
    "iterate_training",
    "load",
    "train",
]

_HOMES = {
    "InputError": "danet.errors",
    "ChannelAttention": "danet.model.attention",
    "PositionAttention": "danet.model.attention",
    "DANet": "danet.model.danet",
    "DRANet": "danet.model.dranet",
    "Outputs": "danet.model.danet",
    "Predictor": "danet.predict.predictor",
    "Segmentation": "danet.predict.segmentation",
    "load": "danet.predict.predictor",
    "iterate_training": "danet.train.start",
}
_CALLABLE_PACKAGES = "evaluate", "train"


def __getattr__(name: str) -> Any:
    """Import a public name on first use, so that `danet --help` does not wait for torch."""
    if name in _CALLABLE_PACKAGES:
        return import_module(f"danet.{name}")
    if name not in _HOMES:
        raise AttributeError(f"module 'danet' has no attribute {name!r}")
    return getattr(import_module(_HOMES[name]), name)


def __dir__() -> list[str]:
    """List the public names, as completion in notebooks and terminals does."""
    return sorted([*__all__, "__version__", "__doc__"])
