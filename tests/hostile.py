"""Files that somebody wrote to do harm, for test_fuzz.py: cards of weights, tiles of TIFFs, and run folders."""

import contextlib
import copy
import functools
import io
import json
import os
import random
import shutil
import struct
import zlib
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

# cards of weights

VALUES: list[Any] = [
    *(None, True, False, 0, 1, 2, 3, 6, 8, -1, 255, 256, 4096, 4097, 10**6, 10**9, 1 << 63, 1 << 70),
    *(0.0, 0.5, -0.5, 1e-320, 1e-6, 1e300, float("nan"), float("inf"), -float("inf")),
    *("", "x", "a" * 5000, "\ud800", "\x1b[31m", "a\nb", "[/red]", "=cmd|' /C calc'!A0", "../../x", "hf-hub:a/b"),
    *("/etc/passwd", "resnet18", "test_resnet", "nan", "\N{RIGHT-TO-LEFT OVERRIDE}"),
    *([], {}, [0.5] * 3, [float("nan")] * 3, [[0, 0, 0]] * 6, [[0, 0, 300]] * 6, ["a", "b"], [["a"]] * 6, {"a": {}}),
    *(list("abcdef"), ["a"] * 6, ["x" * 10_000] * 6, list(range(6)), [1] * 64),
]


def damaged_card(seeds: list[bytes], index: int) -> bytes:
    """Return a weights file, one to three values of whose card are replaced, added, repeated or removed."""
    rng = random.Random(index)
    length = int.from_bytes(seeds[0][:8], "little")
    header, tensors = json.loads(seeds[0][8 : 8 + length]), seeds[0][8 + length :]
    card = json.loads(header["__metadata__"]["danet"])
    for _ in range(rng.choice((1, 1, 2, 3))):
        _change(card, rng)
    header["__metadata__"]["danet"] = json.dumps(card)
    content = json.dumps(header).encode()
    return len(content).to_bytes(8, "little") + content + tensors


def _change(card: Any, rng: random.Random) -> None:
    """Change a value anywhere in a card; the outer ones are the likeliest."""
    keys = list(card) if isinstance(card, dict) else list(range(len(card)))
    if not keys:
        return
    key = rng.choice(keys)
    if isinstance(card[key], dict | list) and rng.random() < 0.6:
        _change(card[key], rng)
    elif isinstance(card, dict) and rng.random() < 0.1:
        del card[key]
    elif isinstance(card[key], list) and rng.random() < 0.3:
        card[key] = card[key] * rng.choice((0, 2, 50))
    else:
        card[key] = copy.deepcopy(rng.choice(VALUES))


def use_weights(file: Path) -> None:
    """Load weights, segment an image, and describe result and weights as JSON and as a figure."""
    from danet.predict.overlay import to_png
    from danet.predict.predictor import load
    from danet.serve.responses import model_card

    predictor = load(file, "cpu")
    if (predictor.card.size or 0) > 1024:
        return  # a size that danet trains, but minutes of work on a CPU
    bands = predictor.card.bands.count
    shape = (48, 64) if bands == 1 else (48, 64, bands)
    result = predictor(np.random.default_rng(0).integers(0, 256, shape, np.uint8))
    assert result.labels.max() < len(result.classes)
    assert np.isfinite(result.confidence).all()
    json.dumps([model_card(predictor), result.summary()], allow_nan=False).encode()
    to_png(result.overlay())


# tiles and strips of TIFFs

SIDES = (0, 1, 7, 16, 64, 512, 4096, 16_384, 65_535, 1 << 20, (1 << 31) - 1, (1 << 32) - 1)


def tiff(tags: dict[int, tuple[int, int, int]], data: bytes) -> bytes:
    """Return a little-endian TIFF of 64 x 64 pixels, whose content follows the header, and more tags."""
    own = {256: (3, 1, 64), 257: (3, 1, 64), 258: (3, 1, 8), 259: (3, 1, 8), 262: (3, 1, 1), 277: (3, 1, 1)}
    directory = struct.pack("<H", len(own | tags))
    for tag, (kind, count, value) in sorted((own | tags).items()):
        directory += struct.pack("<HHII", tag, kind, count, value)
    data += bytes(len(data) % 2)
    return struct.pack("<2sHI", b"II", 42, 8 + len(data)) + data + directory + bytes(4)


def tiled(side: int, samples: int = 1) -> bytes:
    """Return a TIFF of 64 x 64 pixels in one tile of `side` x `side` pixels."""
    data = deflated(side * samples, side)
    tags = {322: (4, 1, side), 323: (4, 1, side), 324: (4, 1, 8), 325: (4, 1, len(data)), 277: (3, 1, samples)}
    return tiff(tags | ({262: (3, 1, 2)} if samples == 3 else {}), data)


@functools.cache
def deflated(row: int, rows: int) -> bytes:
    compress = zlib.compressobj(1)
    return b"".join(compress.compress(bytes(row)) for _ in range(rows)) + compress.flush()


def tiles() -> list[bytes]:
    return [tiled(64), tiled(512), tiled(64, samples=3)]


def damaged_tiles(seeds: list[bytes], index: int) -> bytes:
    """Return a TIFF whose tiles or strips, samples, bits and layout are drawn from ordinary and extreme values."""
    rng = random.Random(index)
    if rng.random() < 0.02:
        return rng.choice(seeds)
    height, width = rng.choice(SIDES), rng.choice(SIDES)
    samples = rng.choice((1, 1, 3, 4, 64, 65_535))
    data = deflated(min(width, 4096), rng.choice((1, 64, 4096, 40_000)))
    tags = {
        277: (3, 1, samples),
        258: (3, 1, rng.choice((1, 8, 8, 16, 32, 64, 65_535))),
        259: (3, 1, rng.choice((1, 5, 7, 8, 8, 8, 32_773, 32_946, 34_887, 50_000))),
        262: (3, 1, rng.choice((0, 1, 2, 3, 5, 6))),
        284: (3, 1, rng.choice((1, 2))),
        317: (3, 1, rng.choice((1, 2, 3))),
        339: (3, 1, rng.choice((1, 2, 3, 4))),
    }
    if rng.random() < 0.7:
        tags |= {322: (4, 1, width), 323: (4, 1, height), 324: (4, 1, 8), 325: (4, 1, rng.choice((len(data), 1 << 31)))}
    else:
        tags |= {278: (4, 1, height), 273: (4, 1, 8), 279: (4, 1, rng.choice((len(data), 1 << 31)))}
    if rng.random() < 0.3:
        tags |= {256: (4, 1, rng.choice((1, 64, 4096))), 257: (4, 1, rng.choice((1, 64, 4096)))}
    return tiff(tags, data)


# run folders

NAMES = (
    *("recipe.yaml", "environment.json", "metrics.csv", "last.ckpt", "previous.ckpt", "best.safetensors"),
    *(".lock", "bad.txt", "report.html", "batch.jpg", "class_pixels.json", "tensorboard", ".danet-1-2"),
)
KINDS = ("link", "hard link", "dangling link", "link to a folder", "pipe", "device", "folder", "empty", "text", "large")
COMMANDS = (("train", "--device", "cpu", "--workers", "0", "--resume"), ("report",), ("report", "--overwrite"))


def run_folders() -> list[bytes]:
    """Train a finished run, and return no hostile change of it."""
    from danet import recipes
    from danet.data.datasets import synthetic
    from danet.train.loop import train
    from danet.train.run_folder import RunOptions

    synthetic.COUNTS.update(train=4, val=2)
    data = replace(recipes.TOY.data, batch=4, crop=(32, 32))
    network, optim = replace(recipes.TOY.network, width=16), replace(recipes.TOY.optim, epochs=1)
    with contextlib.redirect_stderr(io.StringIO()), contextlib.redirect_stdout(io.StringIO()):
        finished = RunOptions(Path(os.environ["FUZZ_FOLDER"]) / "finished", workers=0)
        shutil.rmtree(finished.folder, ignore_errors=True)
        train(replace(recipes.TOY, data=data, network=network, optim=optim), finished)
    return [b"{}"]


def damaged_run(_: list[bytes], index: int) -> bytes:
    """Return which entries of a run folder are replaced, and by what."""
    rng = random.Random(index)
    return json.dumps({rng.choice(NAMES): rng.choice(KINDS) for _ in range(rng.choice((1, 1, 1, 2, 4)))}).encode()


def open_run(content: bytes, index: int, folder: Path) -> bool:
    """Resume or report a run after its entries were replaced, and return whether the command succeeded."""
    from danet.cli import main

    run, outside = folder / "run", folder / "outside"
    for each in (run, outside):
        shutil.rmtree(each, ignore_errors=True)
    shutil.copytree(folder / "finished", run)
    outside.mkdir()
    precious = outside / "precious"
    precious.write_text("mine\n")
    for name, kind in json.loads(content).items():
        _replace(run / name, kind, precious, index)
    command = [*COMMANDS[index % len(COMMANDS)], str(run)]
    errors = io.StringIO()
    with contextlib.redirect_stderr(errors), contextlib.redirect_stdout(io.StringIO()):
        status = main(command)
    assert status in (0, 2), errors.getvalue()
    assert sum(line.startswith("error: ") for line in errors.getvalue().splitlines()) == (status == 2)
    assert precious.read_text() == "mine\n", "a file outside the run was changed"
    assert [path.name for path in outside.iterdir()] == ["precious"], "a file outside the run was created"
    return status == 0


def _replace(path: Path, kind: str, precious: Path, index: int) -> None:
    content = path.read_bytes() if path.is_file() else b"x"
    path.unlink(missing_ok=True)
    if kind == "link":
        path.symlink_to(precious)
    elif kind == "hard link":
        path.hardlink_to(precious)
    elif kind == "dangling link":
        path.symlink_to(precious.parent / "new")
    elif kind == "link to a folder":
        path.symlink_to(precious.parent)
    elif kind == "pipe":
        os.mkfifo(path)
    elif kind == "device":
        path.symlink_to(("/dev/zero", "/dev/full", "/dev/null", "/proc/self/mem")[index % 4])
    elif kind == "folder":
        (path / "inside").mkdir(parents=True)
    elif kind == "large":
        with open(path, "wb") as file:
            file.write(content)
            file.truncate(1 << 33)
    else:
        path.write_bytes(b"" if kind == "empty" else b"[a: {\n\xff\0" + content[:50])
