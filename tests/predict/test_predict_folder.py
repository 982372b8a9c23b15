"""Reading and writing beside the network: the order, the errors, the bounds, and what an interruption leaves."""

import errno
import json
import os
import signal
import threading
import time

import numpy as np
import pytest
import torch
from PIL import Image

from danet import InputError, files
from danet.cli import main
from danet.data.images.read import read_image, read_mask
from danet.predict import overlay
from danet.predict.folder import AHEAD, Pace, overlapped, segment_images
from danet.predict.predictor import find_images, kind_of, load, output_paths
from danet.predict.protocols import find_protocol


@pytest.fixture
def predictor(tiny_weights):
    return load(tiny_weights)


@pytest.fixture
def images(tmp_path):
    folder, rng = tmp_path / "photos", np.random.default_rng(0)
    folder.mkdir()
    for i in range(6):
        Image.fromarray(rng.integers(0, 256, (30 + i, 40, 3), np.uint8)).save(folder / f"p{i}.png")
    return folder


@pytest.fixture
def one_thread():
    """The last bits may depend on their number."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def test_the_pipeline_writes_what_the_plain_way_writes(predictor, images, tmp_path, one_thread):
    found = find_images([images], tmp_path / "fast")
    results = list(segment_images(predictor, found, tmp_path / "fast"))
    for file, result in zip(found, results, strict=True):
        paths = predictor(file).save(tmp_path / "plain")
        assert result.paths == [tmp_path / "fast" / path.name for path in paths]
        assert [path.read_bytes() for path in result.paths] == [path.read_bytes() for path in paths]
        assert result.summary == json.loads(paths[2].read_text())


def test_results_keep_the_order_and_errors_their_place():
    def read(i: int) -> int:
        if i == 3:
            raise InputError(i, "cannot be read", "leave it")
        return i

    def work(i: int) -> int:
        if i == 5:
            raise InputError(i, "cannot be segmented", "leave it")
        return i

    def write(i: int) -> int:
        time.sleep(0.02 * (i % 3 == 0))
        return 10 * i

    results = list(overlapped(range(8), read, work, write, writers=3))
    assert [r.where if isinstance(r, InputError) else r for r in results] == [0, 10, 20, 3, 40, 5, 60, 70]


def test_the_three_run_at_the_same_time():
    """Each step of an item waits for another step of another item: done in turn, this would never end."""
    meet = threading.Barrier(3, timeout=5)

    def read(i: int) -> int:
        if i == 2:
            meet.wait()
        return i

    def work(i: int) -> int:
        if i == 1:
            meet.wait()
        return i

    def write(i: int) -> int:
        if i == 0:
            meet.wait()
        return i

    assert list(overlapped(range(4), read, work, write, writers=1)) == [0, 1, 2, 3]


def test_a_bounded_number_of_items_is_held():
    held, most, lock = 0, 0, threading.Lock()

    def read(i: int) -> int:
        nonlocal held, most
        with lock:
            held += 1
            most = max(most, held)
        return i

    def write(i: int) -> int:
        nonlocal held
        time.sleep(0.002)
        with lock:
            held -= 1
        return i

    assert list(overlapped(iter(range(60)), read, lambda i: i, write, writers=2)) == list(range(60))
    assert 2 < most <= AHEAD + 2 + 1


def test_a_full_disk_ends_the_run_in_one_line(predictor, images, tmp_path, monkeypatch, tiny_weights, capsys):
    real, flushed = files.flush, []

    def full(path):
        if path.suffix == ".png" and len(flushed) > 4:
            raise OSError(errno.ENOSPC, "No space left on device")
        flushed.append(path)
        real(path)

    monkeypatch.setattr(files, "flush", full)
    out = tmp_path / "out"
    assert main(["predict", str(images), "--weights", str(tiny_weights), "--out", str(out)]) == 2
    error = capsys.readouterr().err
    assert "bytes cannot be written (No space left on device); free some space" in error
    assert error.count("error:") == 1
    for file in out.iterdir():
        assert not file.name.startswith(".")
        json.loads(file.read_text()) if file.suffix == ".json" else read_image(file)


def test_a_folder_that_cannot_be_made_is_named(predictor, images, tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(InputError, match=r"file/out: cannot be written.*give --out another folder"):
        list(segment_images(predictor, [images / "p0.png"], tmp_path / "file/out"))


def test_closing_early_ends_the_threads(predictor, images, tmp_path):
    before = threading.active_count()
    results = segment_images(predictor, find_images([images], tmp_path / "out"), tmp_path / "out")
    next(results)
    results.close()
    assert threading.active_count() == before
    names = {path.name for path in (tmp_path / "out").iterdir()}
    assert 3 <= len(names) < 18
    assert len(names) % 3 == 0  # what was begun was ended


def test_ctrl_c_leaves_whole_files(tiny_weights, tmp_path, capsys):
    rng, folder, out = np.random.default_rng(0), tmp_path / "photos", tmp_path / "out"
    folder.mkdir()
    for i in range(40):
        Image.fromarray(rng.integers(0, 256, (300, 400, 3), np.uint8)).save(folder / f"p{i:02}.png")
    begun = threading.Event()

    def interrupt() -> None:
        while not begun.wait(0.001) and len(list(out.glob("*.json"))) < 3:
            pass
        signal.pthread_kill(threading.main_thread().ident or 0, signal.SIGINT)

    watching = threading.Thread(target=interrupt)
    handler = signal.signal(signal.SIGINT, signal.default_int_handler)  # ignored where a shell began the tests with &
    watching.start()
    try:
        assert main(["predict", str(folder), "--weights", str(tiny_weights), "--out", str(out)]) == 130
    finally:
        begun.set()
        watching.join()
        signal.signal(signal.SIGINT, handler)
    assert "Traceback" not in capsys.readouterr().err
    written = sorted(out.iterdir())
    assert 3 <= len(written) < 120
    assert len(written) % 3 == 0
    for file in written:
        json.loads(file.read_text()) if file.suffix == ".json" else read_image(file)


def test_the_pace_is_told_where_there_is_one(images, tiny_weights, tmp_path, capsys):
    args = ["predict", "--weights", str(tiny_weights), "--out"]
    assert main([*args, str(tmp_path / "one"), str(images / "p0.png")]) == 0
    assert capsys.readouterr().err == ""
    (images / "p1.png").write_text("hello")
    assert main([*args, str(tmp_path / "all"), str(images)]) == 2
    lines = capsys.readouterr().err.splitlines()
    assert lines[1] == "error: 1 of 6 images: could not be segmented; see the lines above"
    assert lines[2].startswith("5 images in ")
    assert " images/s, in the network " in lines[2]


def test_a_pace_counts_and_times_the_network():
    with Pace("image") as pace:
        work = pace.timed(lambda x: time.sleep(0.02) or 2 * x)
        assert [work(i) for i in range(3)] == [0, 2, 4]
        time.sleep(0.06)
    assert pace.count == 3
    assert 0.06 <= pace.network <= pace.seconds - 0.06
    assert pace.line().startswith(f"3 images in {pace.seconds:.1f} s: {3 / pace.seconds:.1f} images/s")


def test_size_and_protocol_are_followed(predictor, images, tiny_weights, tmp_path):
    file = images / "p0.png"
    args = ["predict", str(file), "--weights", str(tiny_weights), "--out"]
    assert main([*args, str(tmp_path / "a"), "--size", "64"]) == 0
    assert np.array_equal(read_mask(tmp_path / "a/p0_labels.png"), predictor(file, size=64).labels)
    assert main([*args, str(tmp_path / "b"), "--protocol", "mmseg-slide-769"]) == 0
    by_name = predictor(file, protocol=find_protocol("mmseg-slide-769"))
    assert np.array_equal(read_mask(tmp_path / "b/p0_labels.png"), by_name.labels)
    shown = []
    predictor.logits = lambda images: shown.append(images.shape[-2:]) or images.new_zeros(len(images), 6, 4, 4)
    predictor(file)
    predictor(file, size=64)
    predictor(file, protocol=find_protocol("released-single-cityscapes"))
    assert [max(size) for size in shown[:2]] == [128, 64]
    assert set(shown[2:]) == {(768, 768)}


@pytest.mark.parametrize(
    ("options", "line"),
    [
        (["--size", "0"], "error: --size: 0 is less than 1; give the long side in pixels"),
        (
            ["--size", "64", "--protocol", "released-single-cityscapes"],
            "error: --size: the protocol has a base size of its own, 2048; give --size or such a --protocol",
        ),
        (["--protocol", "whle"], "error: --protocol: 'whle' is unknown; did you mean whole?"),
    ],
)
def test_sizes_and_protocols_that_cannot_be(options, line, images, tiny_weights, tmp_path, capsys):
    args = ["predict", str(images / "p0.png"), "--weights", str(tiny_weights), "--out", str(tmp_path / "out")]
    assert main(args + options) == 2
    assert capsys.readouterr().err.strip() == line


def test_a_name_of_255_bytes_can_be_written(predictor, tmp_path):
    name = "x" * (255 - len("_overlay.png"))
    Image.fromarray(np.zeros((8, 8, 3), np.uint8)).save(tmp_path / f"{name}.png")
    (file,) = find_images([tmp_path], tmp_path / "out")
    predictor(file).save(tmp_path / "out")
    assert all(path.exists() for path in output_paths(tmp_path / "out", name))


def test_kinds_go_by_suffix_and_header(tmp_path, monkeypatch):
    Image.fromarray(np.zeros((8, 9, 3), np.uint8)).save(tmp_path / "a.png")
    (tmp_path / "b.png").write_text("no image")
    monkeypatch.setattr("danet.predict.predictor.MAX_PIXELS", 72)
    names = ("clip.MP4", "a.png", "b.png", "absent.tif")
    assert [kind_of(tmp_path / name) for name in names] == ["video", "image", "image", "image"]
    monkeypatch.setattr("danet.predict.predictor.MAX_PIXELS", 71)
    assert kind_of(tmp_path / "a.png") == "huge"


def test_pngs_hold_every_pixel(tmp_path):
    image = np.random.default_rng(0).integers(0, 256, (33, 47, 3), np.uint8)
    (tmp_path / "x.png").write_bytes(overlay.to_png(Image.fromarray(image)))
    assert np.array_equal(read_image(tmp_path / "x.png"), image)


def test_a_failed_write_leaves_the_old_file_and_no_other(tmp_path, monkeypatch):
    files.write_atomically(tmp_path / "x", b"old")

    def broken(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr(os, "fsync", broken)
    with pytest.raises(KeyboardInterrupt):
        files.write_atomically(tmp_path / "x", b"new")
    assert [path.read_bytes() for path in tmp_path.iterdir()] == [b"old"]
