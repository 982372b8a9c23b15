"""A timm network as a dilated backbone (section 3.1): features at output stride 8 or 16, multi-grid in layer4. Used by
`danet.DANet`.

Names are timm's: resnet50, resnet101 (the paper's 7x7 stem), resnet50c (three 3x3, mmseg's V1c), resnet50s (DRANet's
deep stem), resnet18, mobilenetv2_100, tf_efficientnet_lite0, and every other model that timm can build with
`features_only` and `output_stride`. State-dict keys are timm's.
"""

import difflib
from collections.abc import Container, Mapping
from itertools import cycle, islice

import timm
import torch
from timm.data.constants import IMAGENET_DEFAULT_MEAN, IMAGENET_DEFAULT_STD
from timm.models import FeatureInfo, adapt_input_conv
from timm.models.resnet import BasicBlock, Bottleneck
from torch import Tensor, nn

from danet.errors import InputError, join_messages


def build_backbone(
    name: str,
    output_stride: int = 8,
    layer4_dilations: tuple[int, ...] | None = None,
    pretrained: bool = False,
    stages: int = 1,
    in_channels: int = 3,
) -> tuple[nn.Module, list[int]]:
    """A module that maps B,N,H,W to the feature maps of its last stages, the last of them
    B,C,ceil(H/stride),ceil(W/stride); and the channels of each.

    Args:
        name: a timm model name.
        output_stride: 8 (the paper) or 16; later stages are dilated instead of strided.
        layer4_dilations: multi-grid: the *absolute* dilation of each block of a ResNet's layer4, repeated if there are
            more blocks, (4, 8, 16) in the paper (DeepLabv3 writes the same as unit rates (1, 2, 4) at stride 8). None
            leaves timm's, which is 2, 4, 4 at stride 8 as in the released code.
        pretrained: fetch ImageNet weights from timm's hub; the only thing here that needs a network connection.
        stages: how many feature maps.
        in_channels: N; for others than 3 timm repeats the first convolution's weights cyclically, times 3 / N, or sums
            them for N = 1.

    Raises:
        InputError: an unknown model, one without dilation, or multi-grid for a network that has no ResNet layer4.
    """
    if not timm.is_model(name):
        near = difflib.get_close_matches(name, timm.list_models(), n=3)
        raise InputError(
            f"backbone {name!r}", "timm has no such model", f"did you mean {' or '.join(near) or 'resnet50'}?"
        )
    if output_stride not in (8, 16, 32):
        raise InputError(
            "output stride", f"{output_stride} is not 8, 16 or 32", "use 8 as in the paper, or 16 to save time"
        )
    shape = {"output_stride": output_stride, "out_indices": tuple(range(-stages, 0)), "in_chans": in_channels}
    try:
        net = timm.create_model(name, pretrained, features_only=True, **shape)
    except (TypeError, NotImplementedError, AssertionError) as error:
        raise InputError(
            f"backbone {name!r}", f"it cannot be dilated ({error})", "use a ResNet, MobileNetV2 or EfficientNet"
        ) from error
    except OSError as error:
        raise InputError(
            f"backbone {name!r}",
            f"its pretrained weights could not be fetched ({error})",
            "give --backbone-weights FILE",
        ) from error
    features: FeatureInfo = net.feature_info  # pyright: ignore[reportAssignmentType]
    if features.reduction()[-1] != output_stride:
        raise InputError(
            f"backbone {name!r}",
            f"its features have stride {features.reduction()[-1]}, not {output_stride}",
            "use a ResNet, MobileNetV2 or EfficientNet",
        )
    if layer4_dilations is not None:
        _set_multi_grid(net, name, layer4_dilations)
    return net, features.channels()


def normalization(name: str, channels: int = 3) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """The mean and standard deviation, per channel in [0, 1], of the backbone's ImageNet weights; for other channels
    than 3 repeated cyclically, as the weights are, and averaged for one.
    """
    config = timm.get_pretrained_cfg(name)
    mean, std = (IMAGENET_DEFAULT_MEAN, IMAGENET_DEFAULT_STD) if config is None else (config.mean, config.std)
    if channels == 1:
        return (sum(mean) / len(mean),), (sum(std) / len(std),)
    return tuple(islice(cycle(mean), channels)), tuple(islice(cycle(std), channels))


def load_backbone(backbone: nn.Module, name: str, state: Mapping[str, Tensor], source: str) -> None:
    """Load ImageNet weights under timm's keys, the first convolution adapted to the backbone's input channels as timm
    does; what only the classifier needs is left out, anything else left over is an error.

    Raises:
        InputError: keys or shapes that do not fit, the first three named.
    """
    wanted = backbone.state_dict()
    parts = {part for part, _ in backbone.named_children()}
    state = {_listed(key, parts): tensor for key, tensor in state.items()}
    first = _listed(f"{getattr(timm.get_pretrained_cfg(name), 'first_conv', None)}.weight", parts)
    if first in wanted and first in state and state[first].shape[1] == 3:
        state |= {first: adapt_input_conv(wanted[first].shape[1], state[first])}
    with torch.device("meta"):
        whole = {_listed(key, parts) for key in timm.create_model(name).state_dict()}
    wrong = [f"{key} is missing" for key in wanted if key not in state and not key.endswith("num_batches_tracked")]
    wrong += [f"{key} belongs to no part of {name}" for key in state if key not in wanted and key not in whole]
    wrong += [
        f"{key} has shape {tuple(state[key].shape)}, not {tuple(tensor.shape)}"
        for key, tensor in wanted.items()
        if key in state and state[key].shape != tensor.shape
    ]
    if wrong:
        what = f"not the weights of {name}: {join_messages(wrong)}"
        raise InputError(source, what, "give a file with timm's keys for this backbone")
    backbone.load_state_dict({key: state[key] for key in wanted if key in state}, strict=False)


def _listed(key: str, parts: Container[str]) -> str:
    """The key in timm's feature networks, some of which list the parts of a sequence: stages_0.x for stages.0.x."""
    joined = key.replace(".", "_", 1)
    return joined if joined.split(".")[0] in parts else key


def _set_multi_grid(net: nn.Module, name: str, dilations: tuple[int, ...]) -> None:
    blocks = [
        m for path, m in net.named_modules() if path.startswith("layer4") and isinstance(m, BasicBlock | Bottleneck)
    ]
    if not blocks:
        raise InputError(f"backbone {name!r}", "multi-grid needs a ResNet's layer4", "leave layer4 dilations out")
    if not dilations or min(dilations) < 1:
        raise InputError("layer4 dilations", f"{dilations} holds no positive numbers", "give them as 4 8 16")
    for i, block in enumerate(blocks):
        for conv in block.modules():
            if isinstance(conv, nn.Conv2d) and conv.kernel_size == (3, 3):
                conv.dilation = conv.padding = (dilations[i % len(dilations)],) * 2
