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
    (tmp_path / "empty.mp4").write_bytes(b"")
    with pytest.raises(InputError, match=r"empty\.mp4: empty file \(0 bytes\); copy it again"):
        segment_video(predictor, tmp_path / "empty.mp4", tmp_path / "out")
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


CODECS = {
    "clip.3gp": "mpeg4",
    "clip.mts": "mpeg2video",
    "clip.ts": "mpeg2video",
    "clip.mpg": "mpeg1video",
    "clip.wmv": "wmv2",
    "clip.flv": "flv1",
    "CLIP.M2TS": "mpeg2video",
}
FORMATS = {".3gp": "3gp", ".mpg": "mpeg", ".wmv": "asf", ".flv": "flv"}


@pytest.mark.parametrize("name", CODECS)
def test_videos_of_all_usual_containers_are_segmented(predictor, tmp_path, name):
    codec = CODECS[name] if CODECS[name] in av.codecs_available else CODECS[name].rstrip("1")
    source = tmp_path / name
    with av.open(str(source), "w", format=FORMATS.get(source.suffix, "mpegts")) as container:
        stream = container.add_stream(codec, rate=25)
        stream.height, stream.width, stream.pix_fmt = 48, 64, "yuv420p"
        for _ in range(5):
            container.mux(stream.encode(av.VideoFrame.from_ndarray(np.zeros((48, 64, 3), np.uint8), format="rgb24")))
        container.mux(stream.encode())
    saved = segment_video(predictor, source, tmp_path / "out")
    assert saved.summary["frames"] == 5
    assert saved.paths[0].name == f"{source.stem}_overlay.mp4"


COLOR = np.array([200, 30, 90], np.uint8)
MATRICES = {1: (0.2126, 0.0722), 6: (0.299, 0.114)}  # red and blue in the luma of BT.709 and BT.601


def encoded(color: np.ndarray, standard: int) -> list[float]:
    """Y, Cb, Cr in the limited range, by the standard's formulas."""
    r, g, b = color / 255
    kr, kb = MATRICES[standard]
    luma = kr * r + (1 - kr - kb) * g + kb * b
    return [16 + 219 * luma, 128 + 112 * (b - luma) / (1 - kb), 128 + 112 * (r - luma) / (1 - kr)]


@pytest.mark.parametrize(("size", "standard"), [((720, 1280), 1), ((1080, 64), 1), ((480, 640), 6), ((48, 64), 6)])
def test_overlays_are_tagged_and_encoded_by_the_standard_of_their_size(
    predictor, tmp_path, monkeypatch, size, standard
):
    monkeypatch.setattr("danet.predict.overlay.overlay", lambda image, *_: np.broadcast_to(COLOR, image.shape).copy())
    source = video(tmp_path / "clip.mp4", [0], size)
    saved = segment_video(predictor, source, tmp_path / "out", size=32)
    with av.open(str(saved.paths[0])) as container:
        frame = next(container.decode(video=0))
        context = container.streams.video[0].codec_context
        tags = context.colorspace, context.color_primaries, context.color_trc, context.color_range
        planes = frame.to_ndarray(format="yuv420p").ravel()
    assert tags == (standard, standard, standard, 1)
    count = size[0] * size[1]
    for plane, value in zip(np.split(planes, [count, count * 5 // 4]), encoded(COLOR, standard), strict=True):
        assert abs(plane.mean() - value) < 2


@pytest.mark.parametrize(
    ("size", "tagged", "standard"), [((720, 80), 2, 1), ((48, 64), 2, 6), ((48, 64), 1, 1), ((720, 80), 6, 6)]
)
def test_frames_are_decoded_by_the_matrix_that_they_declare(predictor, tmp_path, size, tagged, standard):
    planes = [np.full(n, round(v), np.uint8) for n, v in zip((4, 1, 1), encoded(COLOR, standard), strict=True)]
    frame = av.VideoFrame(size[1], size[0], "yuv420p")
    for plane, values in zip(frame.planes, planes, strict=True):
        plane.update(np.full(plane.buffer_size, values[0], np.uint8))
    with av.open(str(tmp_path / "clip.mp4"), "w") as container:
        stream = container.add_stream("libx264", rate=10, options={"crf": "1"})
        stream.height, stream.width, stream.pix_fmt = *size, "yuv420p"
        stream.codec_context.colorspace = tagged
        container.mux(stream.encode(frame))
        container.mux(stream.encode())
    inputs = []
    predictor.segment = lambda name, pixels, *_: (
        inputs.append(pixels) or type(predictor).segment(predictor, name, pixels, size=32)
    )
    segment_video(predictor, tmp_path / "clip.mp4", tmp_path / "out")
    assert np.abs(inputs[0].reshape(-1, 3).mean(0) - COLOR).max() < 4


def test_a_stream_is_written_until_it_is_interrupted(predictor, tmp_path, monkeypatch):
    source = video(tmp_path / "clip.mp4", [100 * i for i in range(20)])
    monkeypatch.setattr("danet.predict.video.open_live", lambda _: av.open(str(source)))

    def interrupt(done: int, _total: int) -> None:
        if done == 7:
            raise KeyboardInterrupt

    saved = segment_video(predictor, Path("rtsp:/cam/live"), tmp_path / "out", advance=interrupt)
    assert [path.name for path in saved.paths] == ["rtsp_cam_live_overlay.mp4", "rtsp_cam_live.json"]
    assert saved.summary["frames"] == 7
    assert 7 <= len(frames(saved.paths[0])[0]) <= 20
    assert json.loads(saved.paths[1].read_text()) == saved.summary
