"""What a command does before it imports torch, in processes of its own."""

import gc
import os
import subprocess
import sys
from pathlib import Path

import pytest
from PIL import Image

from danet import cli
from danet.weights import card
from danet.weights import file as weights_file

SCRIPT = """
import sys
from danet.cli import main
status = main(sys.argv[1:])
print(status, *sorted({"torch", "timm", "onnx"} & set(sys.modules)))
"""


def run(folder: Path, *args: str) -> tuple[str, str]:
    environment = os.environ | {"PYTHONPATH": str(Path(__file__).parents[2])}
    command = [sys.executable, "-c", SCRIPT, *args]
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=True, env=environment)
    return done.stdout.splitlines()[-1], done.stderr


@pytest.mark.parametrize(
    ("args", "error"),
    [
        (["a.png"], "error: segmented/a_overlay.png: already exists; choose another --out, or add --overwrite\n"),
        (["a.png", "b/a.png"], "error: b/a.png: would overwrite the results of a.png"),
        (["empty"], "error: empty: contains no images"),
        (["a.png", "--protocol", "papre-multi"], "error: --protocol: 'papre-multi' is unknown"),
    ],
)
def test_predict_checks_its_outputs_before_it_imports_torch(args, error, tmp_path):
    for name in ("a.png", "b/a.png", "segmented/a_overlay.png", "empty/readme.png/x.png"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (8, 6)).save(tmp_path / name)
    if args == ["a.png", "b/a.png"]:
        (tmp_path / "segmented/a_overlay.png").unlink()
    status, stderr = run(tmp_path, "predict", *args)
    assert status == "2"
    assert stderr.startswith(error)


def test_the_card_is_read_without_the_tensors(tiny_weights, tmp_path):
    assert card.peek(tiny_weights) == weights_file.read(tiny_weights)[1]
    assert card.peek(None) == weights_file.read(card.DEFAULT)[1]
    (tmp_path / "cut.safetensors").write_bytes(tiny_weights.read_bytes()[:100])
    (tmp_path / "text.onnx").write_text("not a model")
    os.mkfifo(tmp_path / "pipe.safetensors")  # which has no writer
    names = ("cut.safetensors", "text.onnx", "absent", "pipe.safetensors")
    assert [card.peek(tmp_path / name) for name in names] == [None] * 4


def test_garbage_collection_is_delayed_until_much_is_made(monkeypatch):
    registered, usual, callbacks = [], gc.get_threshold(), list(gc.callbacks)
    monkeypatch.setattr(cli.atexit, "register", registered.append)
    cli._delay_garbage_collection()
    assert gc.get_threshold()[0] == 400_000
    gc.collect()
    assert (gc.get_threshold(), gc.callbacks) == (usual, callbacks)
    assert registered == [cli._leave_garbage]
