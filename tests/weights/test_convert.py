"""Foreign checkpoints, generated here in their formats, through `danet convert`."""

import io
import re
import sys
import types
import zipfile
from collections import OrderedDict

import numpy as np
import pytest
import torch
from released import mmseg_state, released_dranet_state, released_state

from danet import DANet, DRANet, InputError, load
from danet.cli import main
from danet.data.classes import Classes, distinct_palette
from danet.data.datasets import camvid, cityscapes
from danet.data.datasets.camvid import CLASSES
from danet.weights import convert as module
from danet.weights.convert import convert, from_foreign, read_foreign, recognize


@pytest.fixture(scope="module")
def network() -> DANet:
    """A ResNet-50 DANet of 11 classes with no parameter at its initial value."""
    torch.manual_seed(3)
    net = DANet(11, "resnet50", layer4_dilations=(4, 8, 16), width=64)
    with torch.no_grad():
        for parameter in net.parameters():
            parameter.add_(0.01 * torch.randn_like(parameter))
    return net.eval()


@pytest.fixture
def checkpoint(network, tmp_path):
    """Write DANet.pth.tar as the released trainer does, in either of torch's file formats."""

    def write(state=None, zipped=True, **extra):
        content = {"epoch": 240, "state_dict": released_state(network) if state is None else state}
        content |= {"best_pred": np.float64(0.879), "optimizer": {"state": {}, "param_groups": []}, **extra}
        torch.save(content, tmp_path / "DANet.pth.tar", _use_new_zipfile_serialization=zipped)
        return tmp_path / "DANet.pth.tar"

    return write


@pytest.mark.parametrize("zipped", [True, False])
def test_released_checkpoint_is_converted_and_used(network, checkpoint, tmp_path, capsys, zipped):
    destination = tmp_path / "danet50.safetensors"
    assert main(["convert", str(checkpoint(zipped=zipped)), str(destination)]) == 0
    assert "resnet50" in capsys.readouterr().out
    predictor = load(destination)
    assert predictor.card.network["layer4_dilations"] == (4, 8, 16)
    assert predictor.classes == CLASSES
    images = torch.randn(1, 3, 33, 41)
    with torch.no_grad():
        for ours, theirs in zip(predictor.network(images), network(images), strict=True):
            torch.testing.assert_close(ours, theirs)
    assert predictor(np.zeros((20, 30, 3), np.uint8)).labels.shape == (20, 30)


@pytest.mark.parametrize("auxiliary", [True, False])
def test_released_dranet_is_converted_and_used(checkpoint, tmp_path, capsys, auxiliary):
    torch.manual_seed(5)
    network = DRANet(11, "resnet50s", layer4_dilations=(4, 8, 16), width=64, auxiliary=auxiliary)
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.add_(0.01 * torch.randn_like(parameter))
    destination = tmp_path / "dranet50.safetensors"
    assert main(["convert", str(checkpoint(released_dranet_state(network))), str(destination)]) == 0
    assert "architecture dranet" in capsys.readouterr().out
    predictor = load(destination)
    expected = {"num_classes": 11, "backbone": "resnet50s", "width": 64, "architecture": "dranet"}
    expected |= {"layer4_dilations": (4, 8, 16), "align_corners": True, "auxiliary": auxiliary}
    assert predictor.card.network == expected
    for key, tensor in network.state_dict().items():
        assert torch.equal(predictor.network.state_dict()[key], tensor), key
    images = torch.randn(1, 3, 33, 41)
    with torch.no_grad():
        torch.testing.assert_close(predictor.network(images).fused, network.eval()(images).fused)
    assert predictor(np.zeros((20, 30, 3), np.uint8)).labels.shape == (20, 30)


def test_dranet_keys_must_all_be_used(checkpoint, tmp_path):
    state = released_dranet_state(DRANet(11, "resnet50s", width=64))
    with pytest.raises(InputError, match=r"head.clgd.gamma is missing; .*unchanged released checkpoint"):
        convert(checkpoint({k: v for k, v in state.items() if k != "head.clgd.gamma"}), tmp_path / "w.safetensors")
    with pytest.raises(InputError, match=r"head.sa.gamma is unexpected"):
        convert(checkpoint(state | {"head.sa.gamma": torch.zeros(1)}), tmp_path / "w.safetensors")


def test_options_override_dilations_and_align_corners(checkpoint, tmp_path):
    args = ["convert", str(checkpoint()), str(tmp_path / "w.safetensors"), "--layer4-dilations", "2", "4", "4"]
    assert main([*args, "--no-align-corners"]) == 0
    network = load(tmp_path / "w.safetensors").network
    convs = [m for name, m in network.backbone.named_modules() if name.startswith("layer4") and name.endswith("conv2")]
    assert [conv.dilation[0] for conv in convs] == [2, 4, 4]
    assert network.align_corners is False


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda s: s.update({"head.extra.weight": torch.zeros(1)}), "head.extra.weight is unexpected"),
        (lambda s: s.pop("head.conv6.1.bias"), r"head.conv6.1.bias is missing"),
        (lambda s: s.update({"head.conv51.0.weight": torch.zeros(64, 64, 1, 1)}), r"has shape \(64, 64, 1, 1\)"),
        (lambda s: s["head.sa.query_conv.weight"].transpose_(0, 1), r"query_conv.weight has shape \(\d+, \d+, 1, 1\)"),
        (lambda s: s.pop("head.conv8.1.weight"), "not a supported DANet checkpoint"),
    ],
)
def test_every_key_must_be_used(network, checkpoint, tmp_path, change, message):
    state = released_state(network)
    change(state)
    with pytest.raises(InputError, match=message):
        convert(checkpoint(state), tmp_path / "w.safetensors")
    assert not (tmp_path / "w.safetensors").exists()


def test_mmsegmentation_checkpoint_is_recognized_by_its_keys(tmp_path):
    torch.manual_seed(4)
    network = DANet(11, "resnet50c", align_corners=False, width=64).eval()
    torch.save({"meta": {}, "state_dict": mmseg_state(network)}, tmp_path / "danet_r50-d8.pth")
    card = convert(tmp_path / "danet_r50-d8.pth", tmp_path / "w.safetensors")
    assert card.network["backbone"] == "resnet50c"
    assert card.network["layer4_dilations"] == (2, 4, 4)
    assert card.network["align_corners"] is False
    assert card.recipe["format"] == "mmsegmentation"
    images = torch.randn(1, 3, 33, 41)
    with torch.no_grad():
        for ours, theirs in zip(load(tmp_path / "w.safetensors").network(images), network(images), strict=True):
            torch.testing.assert_close(ours, theirs)


def test_module_prefix_is_removed(network, checkpoint):
    prefixed = {f"module.{key}": tensor for key, tensor in released_state(network).items()}
    assert read_foreign(checkpoint(prefixed))[0].keys() == released_state(network).keys()


class Evil:
    """Creates a folder when unpickled by Python's pickle."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        import os

        return os.mkdir, (self.path,)


def test_no_code_in_a_checkpoint_is_run(checkpoint, tmp_path, capsys):
    path = checkpoint(best_pred=Evil(str(tmp_path / "evil")))
    assert main(["convert", str(path), str(tmp_path / "w.safetensors")]) == 2
    assert not (tmp_path / "evil").exists()
    error = capsys.readouterr().err
    assert "without running its code" in error
    assert error.count("\n") == 1


def saved(content: object, zipped: bool = True) -> bytes:
    buffer = io.BytesIO()
    torch.save(content, buffer, _use_new_zipfile_serialization=zipped)
    return buffer.getvalue()


def archive() -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as file:
        file.writestr("DANet101.pth.tar", b"inside")
    return buffer.getvalue()


OTHERS = {
    "empty": (b"", "the file is empty; download or copy it again"),
    "text": (b"not a checkpoint", "not a checkpoint: it begins with b'not a checkpoint'; use the checkpoint itself"),
    "web page": (b"<!DOCTYPE html><html>", "not a checkpoint: it begins with b'<!DOCTYPE html><'; use"),
    "PNG": (b"\x89PNG\r\n\x1a\n" + bytes(99), r"not a checkpoint: it begins with b'\\x89PNG\\r\\n"),
    "truncated zip": (b"PK\x03\x04 cut", "truncated or damaged; download or copy it again"),
    "truncated archive": (saved({"a": torch.zeros(999)})[:-999], "truncated or damaged"),
    "archive without its last bytes": (saved({"a": torch.zeros(999)})[:-9], "truncated or damaged"),
    "truncated file in the legacy format": (saved({"a": torch.zeros(999)}, False)[:-999], "truncated or damaged"),
    "other archive": (archive(), "a zip archive, but not one written by torch.save; use the checkpoint itself"),
    "truncated .safetensors": (b'\x40\0\0\0\0\0\0\0{"a"', r"not a valid \.safetensors file"),
    "network": (
        saved(torch.nn.ReLU()),
        r"it contains torch\.nn\.modules\.activation\.ReLU\); .*state_dict\(\)",
    ),
    "not a network": (saved({"epoch": 3}), "has no state dict"),
}


@pytest.mark.parametrize("kind", OTHERS)
def test_other_files_are_errors(kind, tmp_path):
    content, message = OTHERS[kind]
    (tmp_path / "x.pth").write_bytes(content)
    with pytest.raises(InputError, match=rf"x\.pth: .*{message}") as error:
        read_foreign(tmp_path / "x.pth")
    assert "\n" not in str(error.value)


def test_existing_files_are_not_overwritten(card, tmp_path):
    (tmp_path / "w.safetensors").write_text("mine")
    with pytest.raises(InputError, match="already exists; choose another name, or move it away"):
        card({})
    assert (tmp_path / "w.safetensors").read_text() == "mine"


@pytest.mark.parametrize(
    ("name", "message"),
    [("cityscape", "classes: unknown dataset 'cityscape'"), ("toy", "has 6 classes, but the weights have 11")],
)
def test_classes_must_be_a_dataset_with_as_many(card, name, message):
    with pytest.raises(InputError, match=message):
        card({}, count=11, classes=name)


SEVEN = {"backbone.conv1.weight": torch.zeros(64, 3, 7, 7)}
V1C = {"backbone.stem.0.weight": torch.zeros(32, 3, 3, 3)}


def head(classes: int = 19, name: str = "decode_head.conv_seg.weight") -> dict[str, torch.Tensor]:
    return {name: torch.zeros(classes, 8, 1, 1)}


@pytest.fixture
def card(monkeypatch, tmp_path):
    """Return a function that converts an mmsegmentation checkpoint, without its network, and returns the card."""
    monkeypatch.setattr(
        module, "from_foreign", lambda state, _, dilations, align: (None, arguments(state, dilations, align))
    )
    monkeypatch.setattr(module.weights_file, "save", lambda path, network, card, **_: card)

    def arguments(state, dilations, align):
        classes = state["decode_head.conv_seg.weight"].shape[0]
        return {"num_classes": classes, "backbone": "resnet50c", "layer4_dilations": dilations, "align_corners": align}

    def convert_it(meta, name="danet.pth", count=19, **options):
        torch.save({"meta": meta, "state_dict": V1C | head(count)}, tmp_path / name)
        return convert(tmp_path / name, tmp_path / "w.safetensors", **options)

    return convert_it


def config(align: object = False, backbone: str = "dilations=(1, 1, 2, 4), contract_dilation=True") -> str:
    """As mmsegmentation prints it."""
    return f"""norm_cfg = dict(type='SyncBN', requires_grad=True)
model = dict(
    type='EncoderDecoder',
    backbone=dict(type='ResNetV1c', depth=50, strides=(1, 2, 1, 1), {backbone}),
    decode_head=dict(
        type='DAHead',
        align_corners={align},  # align_corners=None
        loss_decode=dict(type='CrossEntropyLoss', use_sigmoid=False)),
    auxiliary_head=dict(type='FCNHead', align_corners={align}))
"""


IMAGENET = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
ZOO = "danet_r50-d8_769x769_40k_cityscapes_20200530_025703-76681c60.pth"


@pytest.mark.parametrize(
    ("meta", "name", "options", "align", "by"),
    [
        ({"config": config(True)}, "danet.pth", {}, True, "read from the file"),
        ({"cfg": config(True)}, "danet.pth", {}, True, "read from the file"),
        ({"config": config(False)}, ZOO, {}, False, "read from the file"),
        ({"config": "{'decode_head': {'align_corners': True}}"}, "danet.pth", {}, True, "read from the file"),
        ({"config": config("True), neck=dict(align_corners=False")}, ZOO, {}, True, "from the file name"),
        ({"config": config("True), neck=dict(align_corners=False")}, "danet.pth", {}, False, "assumed"),
        ({"config": "resize_align_corners=True"}, "danet.pth", {}, False, "assumed"),
        ({"config": b"align_corners=True"}, "danet.pth", {}, False, "assumed"),
        ({"config": np.zeros(3)}, ZOO, {}, True, "from the file name"),
        (None, ZOO, {}, True, "from the file name"),
        (["align_corners=True"], "danet_512x1024.pth", {}, False, "assumed"),
        ({"config": config(True)}, ZOO, {"align_corners": False}, False, "given"),
    ],
)
def test_align_corners_is_given_or_from_the_file_or_its_name(card, meta, name, options, align, by):
    made = card(meta, name, **options)
    assert made.network["align_corners"] is align
    assert made.recipe["known"]["align_corners"] == by


@pytest.mark.parametrize(
    ("text", "mean", "std", "by"),
    [
        ("mean=[123.675, 116.28, 103.53], std=[58.395, 57.12, 57.375], to_rgb=True", IMAGENET[0], IMAGENET[1], "read"),
        ("'mean': [0, 0, 0], 'std': [255.0, 255.0, 255.0,], 'bgr_to_rgb': True", (0, 0, 0), (1, 1, 1), "read"),
        (
            "mean=[\n    51,\n    102,\n    0,\n], std=[\n    255, 255, 255]), model=dict(data_preprocessor=dict("
            "mean=[\n        51,\n        102,\n        0,\n    ], std=[255, 255, 255]",
            (0.2, 0.4, 0),
            (1, 1, 1),
            "read",
        ),
        ("mean=[1, 2, 3]), other=dict(mean=[3, 2, 1], std=[1, 1, 1]", *IMAGENET, "assumed"),
        ("", *IMAGENET, "assumed"),
    ],
)
def test_normalization_is_from_the_file_or_that_of_the_backbone(card, text, mean, std, by):
    made = card({"config": f"img_norm_cfg = dict({text})\n" + config(True)})
    assert made.mean == pytest.approx(mean, abs=1e-9)
    assert made.std == pytest.approx(std, abs=1e-9)
    assert made.recipe["known"]["normalization"].startswith(by)


def test_binary_heads_are_refused(card):
    with pytest.raises(InputError, match=r"danet.pth: has one output per pixel \(a binary head\), and"):
        card(None, count=1)


@pytest.mark.parametrize("name", ["to_rgb", "bgr_to_rgb"])
def test_networks_for_bgr_are_refused(card, name):
    with pytest.raises(InputError, match="takes images as BGR, by its config; train it with RGB images"):
        card({"config": f"img_norm_cfg = dict({name}=False)"})


@pytest.mark.parametrize(
    ("backbone", "options", "dilations", "by"),
    [
        ("dilations=(1, 1, 2, 4), contract_dilation=True", {}, (2, 4, 4), "read from the file"),
        ("dilations=[1,1,2,4,], 'contract_dilation': True", {}, (2, 4, 4), "read from the file"),
        ("dilations=(1, 1, 2, 4), contract_dilation=True, multi_grid=(4, 8, 16)", {}, (4, 8, 16), "read from the file"),
        ("depth=50", {}, (2, 4, 4), "assumed"),
        ("multi_grid=(1, 2, 400)", {}, (2, 4, 4), "assumed"),
        ("dilations=(1, 1, 1, 2)", {"layer4_dilations": (4, 8, 16)}, (4, 8, 16), "given"),
    ],
)
def test_dilations_are_given_or_from_the_file(card, backbone, options, dilations, by):
    made = card({"config": config(backbone=backbone)}, **options)
    assert made.network["layer4_dilations"] == dilations
    assert made.recipe["known"]["layer4_dilations"] == by


@pytest.mark.parametrize("backbone", ["dilations=(1, 1, 1, 2), contract_dilation=True", "dilations=(1, 1, 2, 4)"])
def test_config_with_other_layers_is_an_error(card, backbone):
    with pytest.raises(InputError, match=r"danet\.pth: its config has dilations \(1, 1, .*; set `layer4_dilations`"):
        card({"config": config(backbone=backbone)})


NAMES = tuple(f"organ {i}" for i in range(19))
PALETTE = tuple((i, 2 * i, 3 * i) for i in range(19))


@pytest.mark.parametrize(
    ("meta", "classes"),
    [
        ({"CLASSES": NAMES, "PALETTE": [list(c) for c in PALETTE]}, Classes(NAMES, PALETTE)),
        ({"dataset_meta": {"classes": list(NAMES), "palette": PALETTE}}, Classes(NAMES, PALETTE)),
        ({"dataset_meta": {"CLASSES": (" x ", *NAMES[1:]), "PALETTE": PALETTE}}, Classes(("x", *NAMES[1:]), PALETTE)),
        ({"CLASSES": NAMES, "PALETTE": PALETTE[1:]}, Classes.named(NAMES)),
        ({"CLASSES": NAMES, "PALETTE": [*PALETTE[1:], (0, 0, 256)]}, Classes.named(NAMES)),
        ({"CLASSES": NAMES, "PALETTE": [*PALETTE[1:], (0, 0, 1.0)]}, Classes.named(NAMES)),
        ({"CLASSES": NAMES, "PALETTE": np.array(PALETTE)}, Classes.named(NAMES)),
        ({"CLASSES": cityscapes.CLASSES.names, "PALETTE": None}, cityscapes.CLASSES),
    ],
)
def test_class_names_and_colors_are_read_from_the_file(card, meta, classes):
    made = card(meta)
    assert made.classes == classes
    assert made.recipe["known"]["classes"] == "read from the file"


@pytest.mark.parametrize(
    "names",
    [
        NAMES[1:],
        (*NAMES, "\n"),
        (*NAMES[1:], NAMES[1]),
        (*NAMES[1:], f" {NAMES[1]}"),
        (*NAMES[1:], " "),
        (*NAMES[1:], "\x1b[31m"),
        (*NAMES[1:], "a\u202eb"),
        (*NAMES[1:], "x" * 101),
        (*NAMES[1:], 3),
        "".join(chr(97 + i) for i in range(19)),
        np.float64(19),
    ],
)
def test_invalid_names_are_replaced_by_a_dataset_of_that_size(card, names):
    made = card({"CLASSES": names, "PALETTE": PALETTE})
    assert made.classes == cityscapes.CLASSES
    assert made.recipe["known"]["classes"] == "those of cityscapes, which also has 19"


def test_given_classes_come_first_and_numbers_last(card):
    given = card({"CLASSES": NAMES}, classes="cityscapes")
    assert given.classes == cityscapes.CLASSES
    assert given.recipe["known"]["classes"] == "given"
    assert card({"CLASSES": NAMES}, count=11).classes == camvid.CLASSES  # NAMES has 19
    numbered = card({}, count=12)
    assert numbered.classes == Classes(tuple(f"class {i}" for i in range(12)), distinct_palette(12))
    assert numbered.recipe["known"]["classes"] == "numbered"


def test_mmengine_training_checkpoint_with_7x7_stem_is_converted(network, tmp_path, capsys, monkeypatch):
    """Its loss histories are pickled objects with arrays and methods."""

    class HistoryBuffer:
        def __init__(self):
            self.log, self.methods = np.arange(3.0), {"mean": HistoryBuffer.mean}

        def mean(self):
            return self.log.mean()

    HistoryBuffer.__module__, HistoryBuffer.__qualname__ = "mmengine.logging.history_buffer", "HistoryBuffer"
    HistoryBuffer.mean.__module__, HistoryBuffer.mean.__qualname__ = HistoryBuffer.__module__, "HistoryBuffer.mean"
    state = {
        key.replace("stem.7.", "bn1.").replace("stem.weight", "conv1.weight"): tensor
        for key, tensor in mmseg_state(network).items()
    }
    names = tuple(f"organ {i}" for i in range(11))
    content = {"meta": {"cfg": config(True), "dataset_meta": {"classes": names}}, "state_dict": state}
    with monkeypatch.context() as installed:
        for name in ("mmengine", "mmengine.logging", HistoryBuffer.__module__):
            installed.setitem(sys.modules, name, types.ModuleType(name))
        sys.modules[HistoryBuffer.__module__].HistoryBuffer = HistoryBuffer
        content["message_hub"] = {"log_scalars": OrderedDict(loss=HistoryBuffer()), "best": np.int64(3)}
        torch.save(content, tmp_path / "iter_80000.pth")
    args = ["convert", str(tmp_path / "iter_80000.pth"), str(tmp_path / "w.safetensors")]
    assert main([*args, "--layer4-dilations", "4", "8", "16"]) == 0
    printed = capsys.readouterr().out
    assert printed.count("\n") == 1
    assert "backbone resnet50, " in printed
    assert "layer4_dilations (4, 8, 16) (given), align_corners True (read from the file); " in printed
    assert printed.endswith("organ 2 (read from the file); to change: --no-align-corners, --classes NAME\n")
    images = torch.randn(1, 3, 33, 41)
    with torch.no_grad():
        for ours, theirs in zip(load(tmp_path / "w.safetensors").network(images), network(images), strict=True):
            torch.testing.assert_close(ours, theirs)


@pytest.mark.parametrize("zipped", [True, False])
def test_objects_other_than_tensors_are_discarded(zipped, tmp_path):
    """A method is pickled as a call of getattr."""
    meta = {"method": np.ndarray.tofile, "array": np.zeros(3, np.int64), "scalar": np.float64(1), "text": "a"}
    (tmp_path / "a.pth").write_bytes(saved({"state_dict": head(), "meta": meta}, zipped))
    discarded = dict(read_foreign(tmp_path / "a.pth")[1])
    assert discarded.pop("text") == "a"
    assert {type(value) for value in discarded.values()} == {module._Discarded}
    assert not any(hasattr(value, "__dict__") or callable(value) for value in discarded.values())


def test_attributes_of_discarded_objects_are_not_called(tmp_path):
    """The bytes mean getattr(numpy.ndarray, "tofile")("x")."""
    (tmp_path / "a.pth").write_bytes(
        b"\x80\x02c__builtin__\ngetattr\ncnumpy\nndarray\nX\x06\0\0\0tofile\x86RX\x01\0\0\0x\x85R."
    )
    with pytest.raises(InputError, match=r"without running its code \(UnpicklingError\)"):
        read_foreign(tmp_path / "a.pth")


@pytest.mark.parametrize("shape", [(19,), (19, 8), (300, 8, 1, 1), (0, 8, 1, 1), (19, 1 << 20, 1, 1)])
@pytest.mark.parametrize("name", ["head.conv8.1.weight", "decode_head.conv_seg.weight"])
def test_classifier_with_wrong_shape_is_an_error(name, shape):
    state = {name: torch.zeros(1).expand(shape), "backbone.x" if "decode" in name else "head.x": torch.zeros(1)}
    message = (
        rf"a\.pth: {re.escape(name)} has shape {re.escape(str(shape))}, expected \(classes up to 255, .*up to 255 class"
    )
    with pytest.raises(InputError, match=message):
        from_foreign(state, "a.pth", (2, 4, 4), False)


def test_keys_of_two_implementations_are_an_error():
    state = dict.fromkeys(("backbone.a", "backbone.b", "backbone.c", "backbone.d", "head.conv6.1.bias"), torch.zeros(1))
    both = r"released \(head.conv6.1.bias\) and mmsegmentation \(backbone.a, backbone.b, backbone.c\)"
    with pytest.raises(InputError, match=rf"a\.pth: has keys of both {both}; "):
        recognize(state, "a.pth")


@pytest.mark.parametrize(
    ("state", "message"),
    [
        (SEVEN | head(), "backbone.bn1.weight is missing; backbone.bn1.bias is missing; .*unchanged mmsegmentation"),
        (V1C | head(), "backbone.stem.1.weight is missing"),
        (
            {"pretrained.conv1.weight": SEVEN["backbone.conv1.weight"]} | head(name="head.conv8.1.weight"),
            "pretrained.bn1",
        ),
    ],
)
def test_missing_keys_have_the_names_of_the_checkpoint(state, message):
    layer3 = "pretrained.layer3" if "head.conv8.1.weight" in state else "backbone.layer3"
    blocks = {f"{layer3}.{i}.conv2.weight": torch.zeros(256, 256, 3, 3) for i in range(6)}
    with pytest.raises(InputError, match=rf"a\.pth: {message}"):
        from_foreign(state | blocks, "a.pth", (2, 4, 4), False)


@pytest.mark.parametrize(
    ("state", "message"),
    [
        (SEVEN | head(), r"0 blocks in backbone.layer3; only ResNet-50, 101, 152 are supported, with \[6, 23, 36\]"),
        (head(), r"0 blocks in backbone.layer3, and no backbone.stem.0.weight or backbone.conv1.weight; "),
        (
            head(name="head.conv8.1.weight"),
            "in pretrained.layer3, and no pretrained.conv1.weight or pretrained.conv1.0",
        ),
    ],
)
def test_unsupported_backbone_error_names_blocks_and_stem(state, message):
    with pytest.raises(InputError, match=message):
        from_foreign(state, "a.pth", (2, 4, 4), False)
