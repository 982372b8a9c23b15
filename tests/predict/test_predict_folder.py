"""Segmentation of many files: order, errors, memory bounds and interruptions."""

import errno
import json
import os
import signal
import threading
import time

import numpy as np
import pytest
import torch
from killed import command_in_little_memory
from PIL import Image

from danet import InputError, files
from danet.cli import main
from danet.data.images.read import read_image, read_mask
from danet.predict import overlay
from danet.predict.folder import AHEAD, Throughput, pipelined, segment_images
from danet.predict.inputs import find_jobs, kind_of
from danet.predict.job import Job
from danet.predict.outputs import output_paths
from danet.predict.predictor import load
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
    """One thread, because the last bits may depend on their number."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def test_the_pipeline_writes_the_same_files_as_the_predictor(predictor, images, tmp_path, one_thread):
    jobs = find_jobs([images], tmp_path / "fast").jobs
    results = list(segment_images(predictor, jobs))
    for job, result in zip(jobs, results, strict=True):
        paths = predictor(job.file).save(tmp_path / "plain")
        assert result.paths == [tmp_path / "fast" / path.name for path in paths]
        assert [path.read_bytes() for path in result.paths] == [path.read_bytes() for path in paths]
        assert result.summary == json.loads(paths[2].read_text())


def test_results_and_errors_come_in_the_order_of_the_items():
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

    results = list(pipelined(range(8), read, work, write, writers=3))
    assert [r.where if isinstance(r, InputError) else r for r in results] == [0, 10, 20, 3, 40, 5, 60, 70]


def test_read_work_and_write_run_concurrently():
    """Each step of an item waits for another step of another item, which would never end in sequence."""
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

    assert list(pipelined(range(4), read, work, write, writers=1)) == [0, 1, 2, 3]


def test_a_bounded_number_of_items_is_held():
    held, maximum, lock = 0, 0, threading.Lock()

    def read(i: int) -> int:
        nonlocal held, maximum
        with lock:
            held += 1
            maximum = max(maximum, held)
        return i

    def write(i: int) -> int:
        nonlocal held
        time.sleep(0.002)
        with lock:
            held -= 1
        return i

    assert list(pipelined(iter(range(60)), read, lambda i: i, write, writers=2)) == list(range(60))
    assert 2 < maximum <= AHEAD + 2 + 1


def test_a_full_disk_ends_the_run_with_one_error_line(predictor, images, tmp_path, monkeypatch, tiny_weights, capsys):
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
    assert "bytes (No space left on device); free some space" in error
    assert error.count("error:") == 1
    for file in out.iterdir():
        assert not file.name.startswith(".")
        json.loads(file.read_text()) if file.suffix == ".json" else read_image(file)


def test_the_error_names_a_folder_that_cannot_be_created(predictor, images, tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(InputError, match=r"file/out: cannot create the folder .*; choose another folder"):
        list(segment_images(predictor, [Job(images / "p0.png", tmp_path / "file/out", "p0")]))


def test_closing_early_ends_the_threads(predictor, images, tmp_path):
    before = threading.active_count()
    results = segment_images(predictor, find_jobs([images], tmp_path / "out").jobs)
    next(results)
    results.close()
    assert threading.active_count() == before
    names = {path.name for path in (tmp_path / "out").iterdir()}
    assert 3 <= len(names) < 18
    assert len(names) % 3 == 0  # files that were begun were completed


def test_ctrl_c_leaves_complete_files_only(tiny_weights, tmp_path, capsys):
    rng, folder, out = np.random.default_rng(0), tmp_path / "photos", tmp_path / "out"
    folder.mkdir()
    for i in range(40):
        Image.fromarray(rng.integers(0, 256, (300, 400, 3), np.uint8)).save(folder / f"p{i:02}.png")
    finished = threading.Event()

    def interrupt() -> None:
        while not finished.wait(0.001) and len(list(out.glob("*.json"))) < 3:
            pass
        signal.pthread_kill(threading.main_thread().ident or 0, signal.SIGINT)

    watching = threading.Thread(target=interrupt)
    handler = signal.signal(signal.SIGINT, signal.default_int_handler)  # ignored if a shell started the tests with &
    watching.start()
    try:
        assert main(["predict", str(folder), "--weights", str(tiny_weights), "--out", str(out)]) == 130
    finally:
        finished.set()
        watching.join()
        signal.signal(signal.SIGINT, handler)
    assert "Traceback" not in capsys.readouterr().err
    written = sorted(out.iterdir())
    assert 3 <= len(written) < 120
    assert len(written) % 3 == 0
    for file in written:
        json.loads(file.read_text()) if file.suffix == ".json" else read_image(file)


def test_throughput_is_printed_for_several_images(images, tiny_weights, tmp_path, capsys):
    args = ["predict", "--weights", str(tiny_weights), "--out"]
    assert main([*args, str(tmp_path / "one"), str(images / "p0.png")]) == 0
    assert "images in" not in capsys.readouterr().err
    (images / "p1.png").write_text("hello")
    assert main([*args, str(tmp_path / "all"), str(images)]) == 2
    lines = capsys.readouterr().err.splitlines()
    assert lines[1] == "error: 1 of 6 files could not be segmented; see the errors above"
    assert lines[2].startswith("5 images in ")
    assert " images/s, network alone " in lines[2]


def test_throughput_counts_items_and_times_the_network():
    with Throughput("image") as throughput:
        work = throughput.timed(lambda x: time.sleep(0.02) or 2 * x)
        assert [work(i) for i in range(3)] == [0, 2, 4]
        time.sleep(0.06)
    assert throughput.count == 3
    assert 0.06 <= throughput.network <= throughput.seconds - 0.06
    assert throughput.line().startswith(
        f"3 images in {throughput.seconds:.1f} s: {3 / throughput.seconds:.1f} images/s"
    )


def test_predict_follows_size_and_protocol(predictor, images, tiny_weights, tmp_path):
    file = images / "p0.png"
    args = ["predict", str(file), "--weights", str(tiny_weights), "--out"]
    assert main([*args, str(tmp_path / "a"), "--size", "64"]) == 0
    assert np.array_equal(read_mask(tmp_path / "a/p0_labels.png"), predictor(file, size=64).labels)
    assert main([*args, str(tmp_path / "b"), "--protocol", "mmseg-slide-769"]) == 0
    by_name = predictor(file, protocol=find_protocol("mmseg-slide-769"))
    assert np.array_equal(read_mask(tmp_path / "b/p0_labels.png"), by_name.labels)
    sizes = []
    predictor.logits = lambda images: sizes.append(images.shape[-2:]) or images.new_zeros(len(images), 6, 4, 4)
    predictor(file)
    predictor(file, size=64)
    predictor(file, protocol=find_protocol("released-single-cityscapes"))
    assert [max(size) for size in sizes[:2]] == [128, 64]
    assert set(sizes[2:]) == {(768, 768)}


@pytest.mark.parametrize(
    ("options", "line"),
    [
        (["--size", "0"], "error: --size: must be at least 1 pixel, got 0; use the long side in pixels"),
        (
            ["--size", "64", "--protocol", "released-single-cityscapes"],
            "error: --size: the --protocol already resizes images, to 2048 pixels; "
            "leave out --size, or choose another --protocol",
        ),
        (["--protocol", "whle"], "error: --protocol: 'whle' is unknown; did you mean whole?"),
    ],
)
def test_invalid_sizes_and_protocols_are_rejected(options, line, images, tiny_weights, tmp_path, capsys):
    args = ["predict", str(images / "p0.png"), "--weights", str(tiny_weights), "--out", str(tmp_path / "out")]
    assert main(args + options) == 2
    assert capsys.readouterr().err.strip() == line


def test_a_name_of_255_bytes_can_be_written(predictor, tmp_path):
    name = "x" * (255 - len("_overlay.png"))
    Image.fromarray(np.zeros((8, 8, 3), np.uint8)).save(tmp_path / f"{name}.png")
    (job,) = find_jobs([tmp_path], tmp_path / "out").jobs
    predictor(job.file).save(tmp_path / "out")
    assert all(path.exists() for path in output_paths(tmp_path / "out", name))


def test_kinds_are_recognized_by_suffix_and_header(tmp_path, monkeypatch):
    Image.fromarray(np.zeros((8, 9, 3), np.uint8)).save(tmp_path / "a.png")
    (tmp_path / "b.png").write_text("no image")
    monkeypatch.setattr("danet.predict.inputs.MAX_PIXELS", 72)
    names = ("clip.MP4", "a.png", "b.png", "absent.tif")
    assert [kind_of(tmp_path / name) for name in names] == ["video", "image", "image", "image"]
    monkeypatch.setattr("danet.predict.inputs.MAX_PIXELS", 71)
    assert kind_of(tmp_path / "a.png") == "large"


def test_pngs_are_lossless(tmp_path):
    image = np.random.default_rng(0).integers(0, 256, (33, 47, 3), np.uint8)
    (tmp_path / "x.png").write_bytes(overlay.to_png(Image.fromarray(image)))
    assert np.array_equal(read_image(tmp_path / "x.png"), image)


def test_a_failed_write_leaves_the_old_file_only(tmp_path, monkeypatch):
    files.write_atomically(tmp_path / "x", b"old")

    def broken(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr(os, "fsync", broken)
    with pytest.raises(KeyboardInterrupt):
        files.write_atomically(tmp_path / "x", b"new")
    assert [path.read_bytes() for path in tmp_path.iterdir()] == [b"old"]


def outputs(folder) -> list[str]:
    return sorted(path.name.removesuffix(".json") for path in folder.glob("*.json"))


@pytest.mark.skipif(not os.path.exists("/proc/self/mem"), reason="needs /proc")  # noqa: PTH110
def test_an_error_of_the_disk_ends_only_its_image(images, tiny_weights, tmp_path, capsys):
    (images / "p2.png").unlink()
    (images / "p2.png").symlink_to("/proc/self/mem")  # reading it is an I/O error
    assert main(["predict", str(images), "--weights", str(tiny_weights), "--out", str(tmp_path / "out")]) == 2
    assert f"error: {images / 'p2.png'}: cannot be read (Input/output error); check the disk" in capsys.readouterr().err
    assert outputs(tmp_path / "out") == ["p0", "p1", "p3", "p4", "p5"]


def test_too_little_memory_for_an_image_ends_only_that_image(predictor, images, tmp_path, monkeypatch):
    encode, compute, computed = overlay.to_png, predictor.logits, []

    def to_png(image, files):
        if image.height == 34:  # p4
            raise MemoryError
        return encode(image, files)

    def logits(inputs):
        computed.append(inputs.shape)
        if len(computed) == 2:  # p1
            raise RuntimeError("[enforce fail at alloc_cpu.cpp] DefaultCPUAllocator: can't allocate memory")
        return compute(inputs)

    monkeypatch.setattr(overlay, "to_png", to_png)
    predictor.logits = logits
    monkeypatch.setattr(overlay, "LARGEST_TEXT", 9)  # the legend is no higher than the image
    results = list(segment_images(predictor, find_jobs([images], tmp_path).jobs))
    assert [str(result) for result in results if isinstance(result, InputError)] == [
        "p1: not enough memory to segment 40 x 31 pixels; use a smaller `size`, or free some memory",
        f"{images / 'p4.png'}: not enough memory to draw the results; free some memory",
    ]
    assert outputs(tmp_path) == ["p0", "p2", "p3", "p5"]


@pytest.mark.slow
def test_an_image_that_does_not_fit_into_memory_ends_only_itself(warm, images, tiny_weights, tmp_path):
    Image.new("RGB", (9_000, 7_000)).save(images / "p2.png")
    words = ["predict", str(images), "--weights", str(tiny_weights), "--out", str(tmp_path / "out"), "--device", "cpu"]
    program = warm.start(command_in_little_memory, 600, *words, errors=tmp_path / "errors")
    assert program.wait() == 2, program.stderr()[-2000:]
    assert "not enough memory" in program.stderr()
    assert "Traceback" not in program.stderr()
    assert outputs(tmp_path / "out") == ["p0", "p1", "p3", "p4", "p5"]
