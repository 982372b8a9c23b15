"""danet convert RUN/last.ckpt: the averaged or the raw weights of a run as a weights file."""

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from run_states import state_of

import danet
from danet import InputError, recipes
from danet.cli import main
from danet.data.datasets import synthetic
from danet.train import checkpoint, loop
from danet.train.convert_checkpoint import convert_checkpoint
from danet.train.loop import train
from danet.train.run_folder import RunOptions
from danet.weights import file as weights_file


@pytest.fixture(scope="module", params=[0.8, 0.0], ids=["average", "no average"])
def run(request, tmp_path_factory) -> Path:
    small = replace(recipes.TOY.data, batch=2, crop=(32, 32))
    network = replace(recipes.TOY.network, width=8)
    optim = replace(recipes.TOY.optim, steps=2, ema=request.param)
    folder = tmp_path_factory.mktemp("run") / "run"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(synthetic, "COUNTS", {"train": 10, "val": 2})
        patch.setattr(loop.report, "finish", lambda *_: None)
        train(replace(recipes.TOY, data=small, network=network, optim=optim), RunOptions(folder, workers=0))
    return folder


@pytest.mark.parametrize("raw", [False, True])
def test_converted_weights_are_those_of_the_checkpoint(run, tmp_path, raw, capsys):
    destination = tmp_path / "out.safetensors"
    assert main(["convert", str(run / "last.ckpt"), str(destination), *["--raw"] * raw]) == 0
    state = state_of(run)
    averaged = "average" in state and not raw
    prefix, part = ("module.", state["average"]) if averaged else ("", state["network"])
    tensors, card = weights_file.read(destination)
    assert tensors.keys() == state["network"].keys()
    assert all(torch.equal(tensor, part[prefix + key]) for key, tensor in tensors.items())
    assert card.classes == synthetic.CLASSES
    assert card.metrics["step"] == 2
    validated = averaged or "average" not in state
    assert ("miou" in card.metrics) == validated
    said = capsys.readouterr().out
    assert ("moving average of the weights at step 2" in said) == averaged
    assert ("not validated" in said) != validated
    assert len(danet.load(destination)(torch.zeros(20, 30, 3, dtype=torch.uint8).numpy()).labels) == 20


def test_average_equals_the_best_weights_of_the_only_validation(run, tmp_path):
    convert_checkpoint(run / "last.ckpt", tmp_path / "out.safetensors")
    last, best = (weights_file.read(file)[0] for file in (tmp_path / "out.safetensors", run / "best.safetensors"))
    assert all(torch.equal(last[key], best[key]) for key in best)


def test_checkpoint_of_0_1_0_uses_the_card_of_the_best_weights(run, tmp_path):
    entries = {key: value for key, value in state_of(run).items() if key != "card"}
    checkpoint.save(tmp_path, entries)
    with pytest.raises(InputError, match=r"written by danet 0\.1\.0, .* put best\.safetensors of the run beside it"):
        convert_checkpoint(tmp_path / "last.ckpt", tmp_path / "out.safetensors")
    (tmp_path / "best.safetensors").write_bytes((run / "best.safetensors").read_bytes())
    assert convert_checkpoint(tmp_path / "last.ckpt", tmp_path / "out.safetensors").metrics["step"] == 2


def test_mistakes_are_one_line_and_write_nothing(run, tmp_path, capsys):
    def error_of(*words: object) -> str:
        assert main(["convert", *map(str, words)]) == 2
        return capsys.readouterr().err

    out = tmp_path / "out.safetensors"
    assert "--classes: checkpoints of danet train say how" in error_of(run / "last.ckpt", out, "--classes", "toy")
    assert "--raw: " in error_of(run / "best.safetensors", out, "--raw")
    (tmp_path / "cut.ckpt").write_bytes((run / "last.ckpt").read_bytes()[:-9])
    assert "do not match its checksum" in error_of(tmp_path / "cut.ckpt", out)
    assert not out.exists()
    out.write_text("mine")
    assert "already exists" in error_of(run / "last.ckpt", out)
    assert out.read_text() == "mine"
