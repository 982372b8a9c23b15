"""Baselines to compare with DANet, on the same timm backbones.

Baselines are trained, evaluated and used like a DANet: `danet train camvid --network.architecture smp:PSPNet`.
"""

from danet.model.baselines.baseline import Baseline
from danet.model.baselines.build import ARCHITECTURES, AnyNetwork, build_network

__all__ = ["ARCHITECTURES", "AnyNetwork", "Baseline", "build_network"]
