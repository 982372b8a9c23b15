"""Backbones from timm: dilated to output stride 8 or 16 with optional multi-grid (section 3.1), or undilated pyramids.

Names are timm's: resnet50, resnet101 (the paper's 7x7 stem), resnet50c (three 3x3, mmseg's V1c), resnet50s (DRANet's
deep stem), resnet18, mobilenetv2_100, tf_efficientnet_lite0, and every other model that timm can build with
`features_only` and `output_stride`. State-dict keys are timm's.
"""

import difflib
import re
from collections.abc import Container, Mapping
from itertools import cycle, islice
from typing import Any

import torch
from torch import Tensor, nn

from danet.errors import InputError, first_line, join_messages
from danet.startup import finish_timm, parts_of_timm

with parts_of_timm():
    import timm.models.efficientnet  # noqa: F401 (with MobileNetV2 and EfficientNet-Lite)
    from timm.data.constants import IMAGENET_DEFAULT_MEAN, IMAGENET_DEFAULT_STD
    from timm.models._factory import create_model
    from timm.models._features import FeatureInfo
    from timm.models._manipulate import adapt_input_conv
    from timm.models._registry import get_pretrained_cfg, is_model, list_models
    from timm.models.resnet import BasicBlock, Bottleneck

_KNOWN = re.compile(r"(test_|tf_)?(resnet|mobilenetv|efficientnet)")  # families that need no `_check_maps`


def build_backbone(
    name: str,
    output_stride: int = 8,
    layer4_dilations: tuple[int, ...] | None = None,
    pretrained: bool = False,
    stages: int = 1,
    in_channels: int = 3,
) -> tuple[nn.Module, list[int]]:
    """Return a module that maps images B,N,H,W to a list of feature maps, and the channels of each map.

    The last map has shape B,C,ceil(H/stride),ceil(W/stride).

    Args:
        name: a timm model name.
        output_stride: 8 (the paper), 16 or 32; later stages are dilated instead of strided.
        layer4_dilations: multi-grid: the *absolute* dilation of each block of a ResNet's layer4, repeated if there are
            more blocks; (4, 8, 16) in the paper (DeepLabv3 writes this as unit rates (1, 2, 4) at stride 8). None keeps
            timm's dilations: 2, 4, 4 at stride 8, as in the released code.
        pretrained: download ImageNet weights from the Hugging Face Hub.
        stages: the number of feature maps, those of the last stages.
        in_channels: N. If not 3, timm repeats the first convolution's weights cyclically, times 3 / N, or sums them for
            N = 1.

    Raises:
        InputError: an unknown model, a model that does not support dilation, or multi-grid without a ResNet's layer4.
    """
    _check_stride(output_stride)
    shape = {"output_stride": output_stride, "out_indices": tuple(range(-stages, 0)), "in_chans": in_channels}
    net = _create(name, pretrained, shape)
    features: FeatureInfo = net.feature_info  # pyright: ignore[reportAssignmentType]
    if (stride := features.reduction()[-1]) != output_stride:
        what = f"features of {name!r} have stride {stride}, not {output_stride}"
        raise InputError("backbone", what, "use a ResNet, MobileNetV2 or EfficientNet, or add `decoder`")
    _check_maps(net, name, in_channels)
    if layer4_dilations is not None:
        _set_multi_grid(net, name, layer4_dilations)
    return net, features.channels()


def build_pyramid(
    name: str, stride: int, pretrained: bool = False, in_channels: int = 3, finest: int = 4
) -> tuple[nn.Module, list[int], list[int]]:
    """Return an undilated backbone that maps images to feature maps, from fine to coarse, their channels and strides.

    Args:
        name: a timm model name.
        stride: 8, 16 or 32, which one of the maps must have.
        pretrained: see `build_backbone`.
        in_channels: see `build_backbone`.
        finest: 4 or 2, the stride of the first map.

    Raises:
        InputError: an unknown model, one without a map of one of the strides, or an invalid stride.
    """
    _check_stride(stride)
    if finest not in (2, 4):
        raise InputError("decoder_stride", f"must be 4 or 2, got {finest}", "use 4, or 2 for objects of few pixels")
    net = _create(name, False, {"in_chans": in_channels})
    features: FeatureInfo = net.feature_info  # pyright: ignore[reportAssignmentType]
    strides = features.reduction()
    if finest not in strides or stride not in strides:
        what = (
            f"features of {name!r} have strides {', '.join(map(str, strides))}; a decoder needs {finest} and {stride}"
        )
        raise InputError("backbone", what, "use a backbone with such feature maps, or other strides")
    _check_maps(net, name, in_channels)
    indices = tuple(i for i, stride in enumerate(strides) if stride >= finest)
    if indices != tuple(range(len(strides))) or pretrained:
        net = _create(name, pretrained, {"in_chans": in_channels, "out_indices": indices})
    return net, [features.channels()[i] for i in indices], [strides[i] for i in indices]


def feature_names(backbone: nn.Module) -> list[str]:
    """Return timm's names of all the modules that have a feature map, from fine to coarse."""
    features: FeatureInfo = backbone.feature_info  # pyright: ignore[reportAssignmentType]
    return [info["module"] for info in features.info]


def normalization(name: str, channels: int = 3) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Return mean and standard deviation, per channel in [0, 1], that the backbone's ImageNet weights expect.

    If `channels` is not 3, they are repeated cyclically as the weights are; for one channel they are averaged.
    """
    config = _pretrained_config(name)
    mean, std = (IMAGENET_DEFAULT_MEAN, IMAGENET_DEFAULT_STD) if config is None else (config.mean, config.std)
    if channels == 1:
        return (sum(mean) / len(mean),), (sum(std) / len(std),)
    return tuple(islice(cycle(mean), channels)), tuple(islice(cycle(std), channels))


def load_backbone(backbone: nn.Module, name: str, state: Mapping[str, Tensor], source: str) -> None:
    """Load ImageNet weights with timm's keys, and adapt the first convolution to the input channels as timm does.

    Weights of the classifier are skipped; any other unexpected key is an error.

    Args:
        backbone: a module from `build_backbone`.
        name: its timm name.
        state: the weights.
        source: where they are from, for messages.

    Raises:
        InputError: keys or shapes that do not match; the message names the first three.
    """
    wanted = backbone.state_dict()
    parts = {part for part, _ in backbone.named_children()}
    state = {_flat_key(key, parts): tensor for key, tensor in state.items()}
    first = _flat_key(f"{getattr(_pretrained_config(name), 'first_conv', None)}.weight", parts)
    if first in wanted and first in state and state[first].shape[1] == 3:
        state |= {first: adapt_input_conv(wanted[first].shape[1], state[first])}
    with torch.device("meta"):
        whole = {_flat_key(key, parts) for key in create_model(name).state_dict()}
    wrong = [f"{key} is missing" for key in wanted if key not in state and not key.endswith("num_batches_tracked")]
    wrong += [f"{key} is not a key of {name}" for key in state if key not in wanted and key not in whole]
    wrong += [
        f"{key} has shape {tuple(state[key].shape)}, expected {tuple(tensor.shape)}"
        for key, tensor in wanted.items()
        if key in state and state[key].shape != tensor.shape
    ]
    if wrong:
        what = f"not the weights of {name}: {join_messages(wrong)}"
        raise InputError(source, what, "use a file with timm's keys for this backbone")
    backbone.load_state_dict({key: state[key] for key in wanted if key in state}, strict=False)


def _check_stride(stride: int) -> None:
    if stride not in (8, 16, 32):
        what = f"must be 8, 16 or 32, got {stride}"
        raise InputError("output_stride", what, "use 8 as in the paper, or 16 to save time")


def _create(name: str, pretrained: bool, options: Mapping[str, Any]) -> nn.Module:
    """Create a timm network that returns feature maps."""
    if pretrained or not is_model(name):
        finish_timm()
    if not is_model(name):
        near = difflib.get_close_matches(name, list_models(), n=3)
        names = " or ".join(filter(None, (", ".join(near[:-1]), *near[-1:])))
        remedy = f"did you mean {names}?" if near else "for example, use resnet50; timm.list_models() lists all"
        raise InputError("backbone", f"timm has no model {name!r}", remedy)
    try:
        return create_model(name, pretrained, features_only=True, **options)
    except (TypeError, NotImplementedError, AssertionError, RuntimeError) as error:
        if pretrained and re.search("pretrained (weights exist|tag)", str(error)):
            remedy = "turn `pretrained` off, or set `backbone_weights` to a file"
            raise InputError("backbone", f"timm has no weights for {name!r}", remedy) from error
        dilated = "output_stride" in options
        what = f"{name!r} does not support {'dilation' if dilated else 'feature maps'} ({error})"
        remedy = "use a ResNet, MobileNetV2 or EfficientNet" + (", or add `decoder`" if dilated else "")
        raise InputError("backbone", what, remedy) from error
    except OSError as error:
        what = f"cannot download the pretrained weights of {name!r} ({error})"
        raise InputError("backbone", what, "set `backbone_weights` to a file") from error


def _check_maps(net: nn.Module, name: str, channels: int) -> None:
    """Check that a network takes images of any size, and returns maps B,C,h,w."""
    if _KNOWN.match(name):
        return
    features: FeatureInfo = net.feature_info  # pyright: ignore[reportAssignmentType]
    remedy = "use another one, such as a ResNet, MobileNet, EfficientNet, ConvNeXt, FastViT or DaViT"
    try:
        with torch.no_grad():
            maps = net.eval()(torch.zeros(1, channels, 150, 203))
    except (RuntimeError, AssertionError, ValueError, IndexError) as error:
        what = f"{name!r} does not take images of any size ({first_line(error)})"
        raise InputError("backbone", what, remedy) from error
    net.train()
    if [(each.ndim, each.shape[1]) for each in maps] != [(4, count) for count in features.channels()]:
        what = f"the features of {name!r} are {tuple(maps[-1].shape)}, not B,{features.channels()[-1]},h,w"
        raise InputError("backbone", what, remedy)


def _pretrained_config(name: str) -> Any:
    """Return what timm knows of the weights of a model; None if there are none."""
    if not is_model(name.partition(".")[0]):
        finish_timm()
    return get_pretrained_cfg(name)


def _flat_key(key: str, parts: Container[str]) -> str:
    """Return a key as timm's feature networks spell it: some flatten sequences, stages.0.x to stages_0.x."""
    joined = key.replace(".", "_", 1)
    return joined if joined.split(".")[0] in parts else key


def _set_multi_grid(net: nn.Module, name: str, dilations: tuple[int, ...]) -> None:
    blocks = [
        m for path, m in net.named_modules() if path.startswith("layer4") and isinstance(m, BasicBlock | Bottleneck)
    ]
    if not blocks:
        what = f"multi-grid needs the layer4 of a ResNet, which {name!r} does not have"
        raise InputError("layer4_dilations", what, "leave `layer4_dilations` out")
    if not dilations or min(dilations) < 1:
        raise InputError(
            "layer4_dilations", f"must be positive integers, got {dilations}", "use 4 8 16 as in the paper"
        )
    for i, block in enumerate(blocks):
        for conv in block.modules():
            if isinstance(conv, nn.Conv2d) and conv.kernel_size == (3, 3):
                conv.dilation = conv.padding = (dilations[i % len(dilations)],) * 2
