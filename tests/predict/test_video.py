"""Videos: size, timestamps and rotation are kept; truncated files are reported in one line."""

import json
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest

from danet import InputError
from danet.cli import main
from danet.predict import overlay as draw
from danet.predict.folder import Throughput
from danet.predict.predictor import load
from danet.predict.segmentation import class_shares
from danet.predict.video import segment_video

av = pytest.importorskip("av")


@pytest.fixture
def predictor(tiny_weights):
    return load(tiny_weights)


def video(path: Path, times: list[int], size: tuple[int, int] = (48, 64), rotation: int = 0, **options: str) -> Path:
    """Write a video of noise with frames at these times in milliseconds."""
    rng = np.random.default_rng(0)
    with av.open(str(path), "w", options=options) as container:
        stream = container.add_stream("libx264" if path.suffix != ".avi" else "mpeg4", rate=10)
        stream.height, stream.width, stream.pix_fmt = *size, "yuv420p"
        if rotation:
            stream.set_display_rotation(rotation)
        if path.suffix != ".avi":
            stream.codec_context.time_base = Fraction(1, 1000)
        for i, ms in enumerate(times):
            frame = av.VideoFrame.from_ndarray(rng.integers(0, 256, (*size, 3), np.uint8), format="rgb24")
            frame.pts, frame.time_base = (i, Fraction(1, 10)) if path.suffix == ".avi" else (ms, Fraction(1, 1000))
            container.mux(stream.encode(frame))
        container.mux(stream.encode())
    return path


def frames(path: Path) -> tuple[list[float], list[np.ndarray]]:
    with av.open(str(path)) as container:
        found = [(frame.time, frame.to_ndarray(format="rgb24")) for frame in container.decode(video=0)]
    return [time for time, _ in found], [image for _, image in found]


def test_every_frame_is_segmented_and_keeps_its_time(predictor, tmp_path):
    times = [0, 100, 130, 330, 400]  # of a variable rate
    source, steps = video(tmp_path / "clip.mp4", times), []
    with Throughput("frame") as throughput:
        saved = segment_video(
            predictor, source, tmp_path / "out", throughput=throughput, advance=lambda *numbers: steps.append(numbers)
        )
    assert [path.name for path in saved.paths] == ["clip_overlay.mp4", "clip.json"]
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == ["clip.json", "clip_overlay.mp4"]
    written, overlays = frames(saved.paths[0])
    assert written == pytest.approx([ms / 1000 for ms in times], abs=1e-3)
    assert steps == [(i, 5) for i in range(1, 6)]
    assert throughput.count == 5

    shares = []
    for image, overlay in zip(frames(source)[1], overlays, strict=True):
        segmentation = predictor(image)
        drawn = draw.overlay(image, segmentation.labels, segmentation.classes).astype(float)
        assert np.abs(drawn.mean((0, 1)) - overlay.mean((0, 1))).max() < 12  # the video is compressed
        shares.append(dict(class_shares(segmentation.labels, segmentation.classes)))
    summary = json.loads(saved.paths[1].read_text())
    assert summary == saved.summary
    assert (summary["width"], summary["height"], summary["frames"]) == (64, 48, 5)
    assert summary["seconds"] == pytest.approx([ms / 1000 for ms in times])
    assert {entry["id"] for entry in summary["classes"]} == {i for frame in shares for i in frame}
    for entry in summary["classes"]:
        assert entry["shares"] == pytest.approx([frame.get(entry["id"], 0) for frame in shares], abs=1e-4)
        assert entry["share"] == pytest.approx(np.mean(entry["shares"]), abs=1e-4)


@pytest.mark.parametrize("rotation", [90, 180, -90])
def test_rotated_videos_are_turned_upright(predictor, tmp_path, rotation):
    inputs = []
    predictor.segment = lambda name, pixels, *_: (
        inputs.append(pixels) or type(predictor).segment(predictor, name, pixels)
    )
    source = video(tmp_path / "clip.mp4", [0, 100], rotation=rotation)
    summary = segment_video(predictor, source, tmp_path / "out").summary
    stored = frames(source)[1][0]
    assert np.array_equal(inputs[0], np.rot90(stored, rotation // 90))
    assert (summary["width"], summary["height"]) == ((48, 64) if rotation != 180 else (64, 48))


def test_odd_frame_sizes_are_padded_to_even(predictor, tmp_path):
    with av.open(str(tmp_path / "clip.mkv"), "w") as container:
        stream = container.add_stream("ffv1", rate=10)
        stream.height, stream.width, stream.pix_fmt = 33, 47, "bgr0"
        frame = av.VideoFrame.from_ndarray(np.zeros((33, 47, 3), np.uint8), format="rgb24")
        container.mux(stream.encode(frame))
        container.mux(stream.encode())
    saved = segment_video(predictor, tmp_path / "clip.mkv", tmp_path / "out")
    assert frames(saved.paths[0])[1][0].shape == (34, 48, 3)
    assert (saved.summary["height"], saved.summary["width"]) == (33, 47)


@pytest.mark.parametrize(
    ("name", "options"), [("clip.mp4", {"movflags": "faststart"}), ("clip.mkv", {}), ("clip.avi", {})]
)
def test_readable_frames_of_a_truncated_video_are_written(name, options, tiny_weights, tmp_path, capsys):
    source = video(tmp_path / name, [100 * i for i in range(20)], (96, 128), **options)
    assert main(["predict", str(source), "--weights", str(tiny_weights), "--out", str(tmp_path / "whole")]) == 0
    assert capsys.readouterr().err.startswith("20 frames in ")
    content = source.read_bytes()
    source.write_bytes(content[: int(0.6 * len(content))])
    assert main(["predict", str(source), "--weights", str(tiny_weights), "--out", str(tmp_path / "out")]) == 2
    error = capsys.readouterr().err
    count = json.loads((tmp_path / "out/clip.json").read_text())["frames"]
    assert 5 < count < 20
    assert len(frames(tmp_path / "out/clip_overlay.mp4")[0]) == count
    assert f"error: {source}: truncated: it ends after frame {count}, and " in error
    assert error.count("error") == 1


def test_files_that_are_not_videos_are_rejected(predictor, tmp_path, monkeypatch):
    (tmp_path / "text.mp4").write_text("hello")
    with pytest.raises(InputError, match=r"text\.mp4: not a readable video"):
        segment_video(predictor, tmp_path / "text.mp4", tmp_path / "out")
    source = video(tmp_path / "clip.mp4", [0, 100])
    monkeypatch.setattr("danet.predict.video.MAX_PIXELS", 64 * 48 - 1)
    with pytest.raises(InputError, match="frames have 64 x 48 pixels, more than the limit of 3,071"):
        segment_video(predictor, source, tmp_path / "out")
    assert list((tmp_path / "out").iterdir()) == []


def test_a_playlist_named_mp4_opens_no_other_file(predictor, tmp_path):
    video(tmp_path / "secret.ts", [0, 100])
    playlist = "#EXTM3U\n#EXT-X-TARGETDURATION:1\n#EXTINF:1,\nsecret.ts\n#EXT-X-ENDLIST\n"
    for name in ("list.mp4", "list.mkv", "list.avi"):
        (tmp_path / name).write_text(playlist)
        with pytest.raises(InputError, match="not a readable video"):
            segment_video(predictor, tmp_path / name, tmp_path / "out")


def test_video_outputs_are_not_overwritten_and_stems_are_unique(tiny_weights, tmp_path, capsys):
    source = video(tmp_path / "clip.mp4", [0, 100])
    (tmp_path / "out").mkdir()
    (tmp_path / "out/clip_overlay.mp4").write_text("mine")
    args = ["predict", str(source), "--weights", str(tiny_weights), "--out", str(tmp_path / "out")]
    assert main(args) == 2
    assert "clip_overlay.mp4: already exists" in capsys.readouterr().err
    assert (tmp_path / "out/clip_overlay.mp4").read_text() == "mine"
    assert main([*args, "--overwrite"]) == 0
    assert len(frames(tmp_path / "out/clip_overlay.mp4")[0]) == 2
    assert main(["predict", str(tmp_path / "clip.png"), *args[1:], "--overwrite"]) == 2
    assert "would overwrite the results of" in capsys.readouterr().err
