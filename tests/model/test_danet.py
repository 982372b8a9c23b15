"""The whole network: shapes, ablations, gradients, backbones."""

import pytest
import timm
import torch
import torch.nn.functional as F
from torch import nn

from danet import DANet, InputError
from danet.model.backbone import build_backbone, load_backbone, normalization
from danet.model.danet import TrainingOutputs


def tiny(**changes) -> DANet:
    """A DANet over timm's smallest ResNet."""
    torch.manual_seed(0)
    return DANet(**{"num_classes": 5, "backbone": "test_resnet", "width": 16, **changes})


@pytest.mark.parametrize("size", [(1, 1), (7, 7), (33, 65), (64, 48)])
def test_logits_have_the_size_of_the_input(size):
    out = tiny().eval()(torch.randn(2, 3, *size))
    assert [tuple(logits.shape) for logits in out] == [(2, 5, *size)] * 3


@pytest.mark.parametrize("auxiliary", [False, True])
@pytest.mark.parametrize("align_corners", [False, True])
def test_upsampled_feature_grid_logits_are_the_outputs(auxiliary, align_corners):
    net, images = tiny(auxiliary=auxiliary, align_corners=align_corners).eval(), torch.randn(1, 3, 33, 65)
    small = net.logits(images)
    assert [tuple(logits.shape) for logits in small] == [(1, 5, 5, 9)] * 3
    for logits, expected in zip(small, net(images), strict=True):
        found = F.interpolate(logits, (33, 65), mode="bilinear", align_corners=align_corners)
        torch.testing.assert_close(found, expected)


@pytest.mark.parametrize(
    ("position", "channel", "outputs"), [(True, True, 3), (True, False, 1), (False, True, 1), (False, False, 1)]
)
def test_every_parameter_of_every_ablation_gets_a_gradient(position, channel, outputs):
    net = tiny(position=position, channel=channel, dropout=0.0)
    for parameter in net.parameters():
        if not parameter.any():  # the scales, and timm's last normalization of each block, start at 0
            nn.init.constant_(parameter, 0.5)
    out = [logits for logits in net(torch.randn(2, 3, 64, 64)) if logits is not None]
    assert len(out) == outputs
    sum(logits.square().mean() for logits in out).backward()  # pyright: ignore[reportAttributeAccessIssue]
    unused = [name for name, p in net.named_parameters() if p.grad is None or not p.grad.any()]
    # a constant added to every key shifts a whole row of energies, which does not change the softmax
    assert [name for name in unused if name != "position.attention.key.bias"] == []


def test_ablations_differ_only_by_their_modules():
    both, position, neither = (tiny(position=p, channel=c) for p, c in ((True, True), (True, False), (False, False)))
    assert position.position is not None
    assert position.channel is None
    assert neither.reduce is not None
    assert {k for k in position.state_dict() if k.startswith("position.")} == {
        k for k in both.state_dict() if k.startswith("position.")
    }


@pytest.mark.parametrize(("backbone", "parameters"), [("resnet50", 47_462_651), ("resnet101", 66_454_779)])
def test_parameter_counts_equal_the_released_networks(backbone, parameters):
    with torch.device("meta"):
        net = DANet(19, backbone)
    assert sum(p.numel() for p in net.parameters()) == parameters


@pytest.mark.parametrize(
    ("backbone", "stride"),
    [
        ("resnet18", 8),
        ("resnet34", 16),
        ("resnet50c", 8),
        ("resnet50s", 16),
        ("mobilenetv2_100", 8),
        ("tf_efficientnet_lite0", 16),
    ],
)
def test_features_have_the_output_stride(backbone, stride):
    net, (channels,) = build_backbone(backbone, stride)
    (features,) = net.eval()(torch.randn(1, 3, 64, 96))
    assert features.shape == (1, channels, 64 // stride, 96 // stride)


@pytest.mark.parametrize(
    ("given", "expected"), [(None, [2, 4, 4]), ((4, 8, 16), [4, 8, 16]), ((3,), [3, 3, 3]), ((1, 2, 3, 4), [1, 2, 3])]
)
def test_multi_grid_sets_the_dilation_of_each_layer4_block(given, expected):
    with torch.device("meta"):
        net, _ = build_backbone("resnet50", 8, given)
    blocks = [m for name, m in net.named_modules() if name.startswith("layer4") and name.endswith("conv2")]
    assert [conv.dilation for conv in blocks] == [(d, d) for d in expected]
    assert all(conv.dilation == conv.padding for conv in blocks)
    layer3 = [m.dilation[0] for name, m in net.named_modules() if name.startswith("layer3") and name.endswith("conv2")]
    assert layer3 == [1, 2, 2, 2, 2, 2]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"backbone": "resnt50"}, "did you mean .*resnet50"),
        ({"backbone": "vit_tiny_patch16_224"}, "'vit_tiny_patch16_224' does not support dilation"),
        (
            {"backbone": "swin_tiny_patch4_window7_224", "decoder": True},
            "backbone: 'swin_tiny_patch4_window7_224' does not take images of any size",
        ),
        ({"backbone": "hrnet_w18_small", "decoder": True}, "'hrnet_w18_small' does not take images of any size"),
        ({"backbone": "mambaout_femto", "decoder": True}, r"'mambaout_femto' are \(1, 5, 7, 288\), not B,288,h,w"),
        ({"backbone": "seresnet18", "pretrained": True}, "timm has no weights for 'seresnet18'; turn `pretrained` off"),
        ({"output_stride": 4}, "output_stride: must be 8, 16 or 32, got 4"),
        ({"backbone": "mobilenetv2_100", "layer4_dilations": (4, 8, 16)}, "needs the layer4 of a ResNet"),
        ({"layer4_dilations": (0,)}, "layer4_dilations: must be positive integers"),
        ({"num_classes": 0}, "num_classes: must be at least 1, got 0"),
        ({"in_channels": 0}, "in_channels: must be from 1 to 64, got 0"),
        ({"in_channels": 65}, "in_channels: must be from 1 to 64, got 65"),
        ({"width": 0}, "width: must be at least 1, got 0"),
        ({"dropout": 1.0}, "dropout: must be from 0 to below 1, got 1.0"),
    ],
)
def test_invalid_arguments_are_errors(arguments, message):
    with pytest.raises(InputError, match=message):
        tiny(**arguments)


@pytest.mark.parametrize("name", ["test_convnext", "test_nfnet", "resnetv2_18", "rexnet_100"])
def test_backbone_weights_load_if_timm_flattens_the_keys(name):
    """Feature networks have stages_0 where a classification network's file has stages.0."""
    torch.manual_seed(1)
    whole = timm.create_model(name, output_stride=16).eval()
    backbone, _ = build_backbone(name, 16)
    load_backbone(backbone, name, whole.state_dict(), "file")
    x = torch.randn(1, 3, 64, 64)
    expected = whole.forward_intermediates(x, indices=1, intermediates_only=True)[-1]
    torch.testing.assert_close(backbone.eval()(x)[-1], expected)
    gray, _ = build_backbone(name, 16, in_channels=1)
    load_backbone(gray, name, whole.state_dict(), "file")


def test_backbone_weights_must_match_every_key():
    source, _ = build_backbone("test_resnet")
    target, _ = build_backbone("test_resnet")
    state = {**source.state_dict(), "fc.weight": torch.zeros(1000, 96), "fc.bias": torch.zeros(1000)}
    load_backbone(target, "test_resnet", state, "file")
    assert all(
        torch.equal(a, b) for a, b in zip(source.state_dict().values(), target.state_dict().values(), strict=True)
    )
    with pytest.raises(InputError, match=r"file: .*conv1.* is missing"):
        load_backbone(target, "test_resnet", {k: v for k, v in state.items() if "conv1" not in k}, "file")
    with pytest.raises(InputError, match="other is not a key of test_resnet"):
        load_backbone(target, "test_resnet", {**state, "other": torch.zeros(1)}, "file")
    with pytest.raises(InputError, match="has shape"):
        load_backbone(target, "test_resnet", {k: v[:1] if v.ndim else v for k, v in state.items()}, "file")


@pytest.mark.parametrize(("missing", "more"), [(3, ""), (4, "; and 1 more"), (6, "; and 3 more")])
def test_three_wrong_keys_are_named_and_the_rest_counted(missing, more):
    backbone, _ = build_backbone("test_resnet")
    keys = [key for key in backbone.state_dict() if not key.endswith("num_batches_tracked")]
    state = {key: tensor for key, tensor in backbone.state_dict().items() if key not in keys[:missing]}
    with pytest.raises(InputError) as error:
        load_backbone(backbone, "test_resnet", state, "file")
    named = "; ".join(f"{key} is missing" for key in keys[:3])
    assert str(error.value).startswith(f"file: not the weights of test_resnet: {named}{more}; use a file")


def test_normalization_is_that_of_the_backbone_weights():
    assert normalization("resnet50") == ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
    assert normalization("tf_efficientnet_lite0") == ((0.5, 0.5, 0.5), (0.5, 0.5, 0.5))


def test_auxiliary_head_equals_mmsegmentation_and_is_train_only():
    with torch.device("meta"):
        network = DANet(19, "resnet50c", auxiliary=True)
    head = network.auxiliary_head
    assert head is not None
    assert sum(p.numel() for p in network.parameters()) == 49_846_574  # as counted in mmsegmentation's network
    assert sum(p.numel() for p in head.parameters()) == 2_364_691
    small = tiny(auxiliary=True)
    images = torch.randn(2, 3, 33, 33)
    trained = small.train()(images)
    assert isinstance(trained, TrainingOutputs)
    assert trained.auxiliary.shape == (2, 5, 33, 33)
    trained.auxiliary.sum().backward()
    assert {name.split(".")[0] for name, p in small.named_parameters() if p.grad is not None} == {
        "backbone",
        "auxiliary_head",
    }
    assert len(small.eval()(images)) == 3
