"""Released checkpoints, made up here in their format, through `danet convert`."""

import numpy as np
import pytest
import torch
from released import mmseg_state, released_state

from danet import DANet, InputError, load
from danet.cli import main
from danet.data.camvid import CLASSES
from danet.deploy.convert import convert, read_foreign


@pytest.fixture(scope="module")
def network() -> DANet:
    """A ResNet-50 DANet of 11 classes with nothing at its initial value."""
    torch.manual_seed(3)
    net = DANet(11, "resnet50", layer4_dilations=(4, 8, 16))
    with torch.no_grad():
        for parameter in net.parameters():
            parameter.add_(0.01 * torch.randn_like(parameter))
    return net.eval()


@pytest.fixture
def checkpoint(network, tmp_path):
    """DANet.pth.tar as the released trainer writes it, in either of torch's file formats."""

    def write(state=None, zipped=True, **extra):
        content = {"epoch": 240, "state_dict": released_state(network) if state is None else state}
        content |= {"best_pred": np.float64(0.879), "optimizer": {"state": {}, "param_groups": []}, **extra}
        torch.save(content, tmp_path / "DANet.pth.tar", _use_new_zipfile_serialization=zipped)
        return tmp_path / "DANet.pth.tar"

    return write


@pytest.mark.parametrize("zipped", [True, False])
def test_a_released_checkpoint_is_converted_and_used_from_the_command_line(
    network, checkpoint, tmp_path, capsys, zipped
):
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


def test_what_weights_cannot_tell_is_taken_from_the_command_line(checkpoint, tmp_path):
    args = ["convert", str(checkpoint()), str(tmp_path / "w.safetensors"), "--layer4-dilations", "2", "4", "4"]
    assert main([*args, "--no-align-corners"]) == 0
    network = load(tmp_path / "w.safetensors").network
    convs = [m for name, m in network.backbone.named_modules() if name.startswith("layer4") and name.endswith("conv2")]
    assert [conv.dilation[0] for conv in convs] == [2, 4, 4]
    assert network.align_corners is False


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda s: s.update({"head.extra.weight": torch.zeros(1)}), "head.extra.weight is left over"),
        (lambda s: s.pop("head.conv6.1.bias"), r"position_classifier.1.bias is missing"),
        (lambda s: s.update({"head.conv51.0.weight": torch.zeros(512, 512, 1, 1)}), r"has shape \(512, 512, 1, 1\)"),
        (lambda s: s.pop("head.conv8.1.weight"), "no DANet checkpoint known here"),
    ],
)
def test_every_key_is_consumed_or_named(network, checkpoint, tmp_path, change, message):
    state = released_state(network)
    change(state)
    with pytest.raises(InputError, match=message):
        convert(checkpoint(state), tmp_path / "w.safetensors")
    assert not (tmp_path / "w.safetensors").exists()


def test_an_mmsegmentation_checkpoint_is_recognised_by_its_keys(tmp_path):
    torch.manual_seed(4)
    network = DANet(11, "resnet50c", align_corners=False).eval()
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


def test_a_module_prefix_is_stripped(network, checkpoint):
    prefixed = {f"module.{key}": tensor for key, tensor in released_state(network).items()}
    assert read_foreign(checkpoint(prefixed)).keys() == released_state(network).keys()


class Evil:
    """Unpickled by Python's own pickle, it makes a folder."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        import os

        return os.mkdir, (self.path,)


def test_nothing_in_a_checkpoint_is_run(checkpoint, tmp_path, capsys):
    path = checkpoint(best_pred=Evil(str(tmp_path / "evil")))
    assert main(["convert", str(path), str(tmp_path / "w.safetensors")]) == 2
    assert not (tmp_path / "evil").exists()
    error = capsys.readouterr().err
    assert "without running its code" in error
    assert error.count("\n") == 1


@pytest.mark.parametrize("content", [b"", b"not a checkpoint", b"PK\x03\x04 cut"])
def test_other_files_are_refused(tmp_path, content):
    (tmp_path / "x.pth").write_bytes(content)
    with pytest.raises(InputError, match=r"x\.pth: cannot be opened"):
        convert(tmp_path / "x.pth", tmp_path / "w.safetensors")


def test_nothing_is_overwritten(checkpoint, tmp_path):
    (tmp_path / "w.safetensors").write_text("mine")
    with pytest.raises(InputError, match="exists already"):
        convert(checkpoint(), tmp_path / "w.safetensors")
    assert (tmp_path / "w.safetensors").read_text() == "mine"


@pytest.mark.parametrize(
    ("name", "message"), [("cityscape", "no data set known"), ("toy", "has 6 classes, the weights 11")]
)
def test_classes_must_be_known_and_as_many(checkpoint, tmp_path, name, message):
    with pytest.raises(InputError, match=message):
        convert(checkpoint(), tmp_path / "w.safetensors", classes=name)
