"""Segment a video by PyAV: the result shows the classes' colors over the same video. Command: `danet predict clip.mp4`.

Size and timestamps are kept. Sound is dropped, and there is no legend: the JSON lists the colors. FFmpeg gets the open
file and the demuxer of its suffix, so that a playlist named .mp4 opens no other file. A stream (rtsp://...) or a camera
(camera:0) is segmented until it ends or the user interrupts it; see `danet.predict.live`.
"""

import json
import struct
from collections.abc import Callable, Iterator
from contextlib import ExitStack, nullcontext, suppress
from fractions import Fraction
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO, NamedTuple

import numpy as np

from danet.data.images.channels import as_pixels
from danet.data.images.pillow import MAX_PIXELS, regular_file
from danet.errors import InputError, missing_package
from danet.files import atomic_path, check_new, make_folder, write_atomically
from danet.predict import overlay
from danet.predict.folder import Saved, Throughput, pipelined
from danet.predict.inputs import result_name
from danet.predict.live import is_live, open_live
from danet.predict.outputs import output_paths
from danet.predict.predictor import Predictor
from danet.predict.protocols import WHOLE, Protocol
from danet.predict.segmentation import Segmentation, class_shares, describe_classes

if TYPE_CHECKING:
    from av import VideoFrame
    from av.container import InputContainer
    from av.video.stream import VideoStream

_DEMUXERS = {
    **dict.fromkeys((".mp4", ".mov", ".m4v", ".3gp"), "mov"),
    **dict.fromkeys((".mkv", ".webm"), "matroska"),
    ".avi": "avi",
    **dict.fromkeys((".mts", ".m2ts", ".ts"), "mpegts"),
    **dict.fromkeys((".mpg", ".mpeg"), "mpeg"),
    ".wmv": "asf",
    ".flv": "flv",
    ".ogv": "ogg",
}
_HD = 720  # rows from which a video is high definition, whose colors are encoded by BT.709
_MATRICES = {True: "itu709", False: "itu601"}
_STANDARDS = {True: 1, False: 6}  # BT.709, SMPTE 170M: the same number for matrix, primaries and transfer
_LIMITED_RANGE = 1
_DECLARED = {1: "itu709", 5: "itu601", 6: "itu601", 7: "smpte240m", 9: "bt2020"}
_TICKS = Fraction(1, 60_000)  # 24, 25, 30, 50 and 60 frames/s, and 30,000/1,001, are whole numbers of ticks


def segment_video(
    predictor: Predictor,
    path: Path,
    out: Path,
    overwrite: bool = False,
    protocol: Protocol = WHOLE,
    size: int | None = None,
    throughput: Throughput | None = None,
    advance: Callable[[int, int], None] = lambda _done, _total: None,
) -> Saved:
    """Segment every frame of a video, and write NAME_overlay.mp4 and NAME.json.

    The video is H.264, or MPEG-4 if FFmpeg lacks x264. The JSON has the classes' shares of each frame and their means.
    Only a few frames are held in memory.

    Args:
        predictor: the network.
        path: the video.
        out: folder of the results.
        overwrite: replace files that exist.
        protocol: see `Predictor`.
        size: see `Predictor`.
        throughput: counts and times the frames.
        advance: called with (frames done, total as far as known).

    Raises:
        InputError: an unreadable video, or one of more than MAX_PIXELS per frame; PyAV is not installed; results that
            cannot be written. Also for a truncated or damaged video, after its readable frames have been written.
    """
    name = result_name(path)
    video_path, json_path = paths = output_paths(out, name, "video")
    check_new(*paths, overwrite=overwrite)
    try:
        import av
        from av.error import FFmpegError
    except ImportError as error:
        raise missing_package(path, "is a video, and PyAV is not installed", "video") from error
    make_folder(out)
    record = _Record(name, predictor)
    with ExitStack() as stack:
        live = is_live(path)
        video = _Video(None if live else stack.enter_context(regular_file(path)), path, stack)
        work = _segmenter(predictor, path, protocol, size)
        try:
            with (
                atomic_path(video_path, overwrite) as temporary,
                av.open(str(temporary), "w", format="mp4") as container,
            ):
                writer = _Writer(container, video.rate)
                done = pipelined(
                    video, _read, work if throughput is None else throughput.timed(work), writer.write, writers=1
                )
                with suppress(KeyboardInterrupt) if live else nullcontext():  # a stream has no other end
                    for number, frame in enumerate(done, 1):
                        if isinstance(frame, InputError):
                            raise frame
                        record.add(frame)
                        advance(number, max(number, video.expected))
                if not record.seconds:
                    raise video.stopped or InputError(path, "has no frames", "copy it again")
                writer.finish()
        except (FFmpegError, OSError) as error:
            raise InputError(video_path, f"cannot write it ({error.strerror})", "free some space") from error
        summary = record.summary() | {"settings": predictor.settings(protocol, size).entry("video")}
        summary |= {"files": [path.name.removeprefix(name) for path in paths]}
        write_atomically(json_path, (json.dumps(summary) + "\n").encode(), overwrite)
        if video.stopped is not None:
            raise video.stopped
    return Saved(paths, summary)


class _Frame(NamedTuple):
    seconds: float
    pixels: np.ndarray  # H,W,3 uint8, upright


class _Video:
    """The times and frames of an open video. `stopped` is the error that ended them early, or None."""

    def __init__(self, file: BinaryIO | None, path: Path, stack: ExitStack):
        import av

        self.path, self.stopped = path, None
        if file is None:
            container, self._missing = stack.enter_context(open_live(path)), 0
        else:
            kind = _DEMUXERS[path.suffix.lower()]
            if not file.seek(0, 2):
                raise InputError(path, "empty file (0 bytes)", "copy it again")
            self._missing = _declared_size(file, kind) - file.seek(0, 2)
            container = stack.enter_context(_open_file(file, kind, path))
        if not container.streams.video:
            raise InputError(path, "has no video stream", "use another file")
        self._container, self._stream = container, container.streams.video[0]
        self._check_size(self._stream.codec_context.width, self._stream.codec_context.height)
        self._stream.thread_type = "AUTO"
        self.rate = self._stream.average_rate or Fraction(25)
        seconds = (container.duration or 0) / av.time_base
        self.expected = self._stream.frames or round(seconds * self.rate)

    def __iter__(self) -> Iterator[tuple[float, "VideoFrame"]]:
        from av.error import FFmpegError

        number, first = 0, None
        try:
            for number, frame in enumerate(self._container.decode(self._stream), 1):
                self._check_size(frame.width, frame.height)
                first = first or (frame.width, frame.height)
                if (frame.width, frame.height) != first:
                    what = (
                        f"frame {number} has {frame.width} x {frame.height} pixels, the first {first[0]} x {first[1]}"
                    )
                    raise InputError(self.path, what, "encode the video in one size")
                yield (float((number - 1) / self.rate) if frame.time is None else frame.time), frame
            if self._missing > 0:
                what = f"truncated: it ends after frame {number}, and {self._missing:,} bytes are missing"
                raise InputError(self.path, what, "copy it again")
        except InputError as error:
            self.stopped = error
        except FFmpegError:
            what = f"damaged after frame {number}"
            self.stopped = InputError(self.path, what, "copy it again")

    def _check_size(self, width: int, height: int) -> None:
        if width * height > MAX_PIXELS:
            what = f"frames have {width} x {height} pixels, more than the limit of {MAX_PIXELS:,}"
            raise InputError(self.path, what, "reduce their size")


def _open_file(file: BinaryIO, kind: str, path: Path) -> "InputContainer":
    import av
    from av.error import FFmpegError

    file.seek(0)
    try:
        return av.open(file, "r", format=kind)
    except (FFmpegError, ValueError) as error:
        raise InputError(path, "not a readable video, or truncated", "copy it again") from error


def _read(frame: tuple[float, "VideoFrame"]) -> _Frame:
    seconds, stored = frame
    pixels = stored.to_ndarray(format="rgb24", src_colorspace=_matrix(stored))
    return _Frame(seconds, np.ascontiguousarray(np.rot90(pixels, round(stored.rotation / 90))))


def _segmenter(
    predictor: Predictor, path: Path, protocol: Protocol, size: int | None
) -> Callable[[_Frame], tuple[float, Segmentation]]:
    def segmented(frame: _Frame) -> tuple[float, Segmentation]:
        pixels = as_pixels(frame.pixels, predictor.card.bands, path)
        return frame.seconds, predictor.segment(path.stem, pixels, protocol, size)

    return segmented


def _is_hd(height: int) -> bool:
    return height >= _HD


def _matrix(frame: "VideoFrame") -> str:
    """Return the color matrix of a frame as PyAV names it: the one it declares, or the usual one of its size."""
    return _DECLARED.get(frame.colorspace, _MATRICES[_is_hd(frame.height)])


class _Segmented(NamedTuple):
    seconds: float
    size: tuple[int, int]  # height, width
    shares: list[tuple[int, float]]


class _Writer:
    """Writes overlays into an open container."""

    def __init__(self, container, rate: Fraction):
        self._container, self._rate = container, rate
        self._stream: VideoStream | None = None
        self._last = -1

    def write(self, done: tuple[float, Segmentation]) -> _Segmented:
        import av

        seconds, segmentation = done
        drawn = overlay.overlay(segmentation.image, segmentation.labels, segmentation.classes)
        height, width = drawn.shape[:2]
        drawn = np.pad(drawn, ((0, height % 2), (0, width % 2), (0, 0)), "edge")  # yuv420p needs even sizes
        stream = self._stream = self._stream or self._new_stream(drawn.shape[1], drawn.shape[0])
        frame = av.VideoFrame.from_ndarray(drawn, format="rgb24")
        frame = frame.reformat(format="yuv420p", dst_colorspace=_MATRICES[_is_hd(drawn.shape[0])])
        self._last = max(round(seconds / _TICKS), self._last + 1)
        frame.pts, frame.time_base = self._last, _TICKS
        self._container.mux(stream.encode(frame))
        return _Segmented(seconds, (height, width), class_shares(segmentation.labels, segmentation.classes))

    def finish(self) -> None:
        if self._stream is not None:
            self._container.mux(self._stream.encode())

    def _new_stream(self, width: int, height: int) -> "VideoStream":
        import av

        h264 = "libx264" in av.codecs_available
        options = {"preset": "veryfast", "crf": "20"} if h264 else {"q": "4"}
        stream = self._container.add_stream("libx264" if h264 else "mpeg4", rate=self._rate, options=options)
        stream.width, stream.height, stream.pix_fmt = width, height, "yuv420p"
        context = stream.codec_context
        context.time_base, context.color_range = _TICKS, _LIMITED_RANGE
        context.colorspace = context.color_primaries = context.color_trc = _STANDARDS[_is_hd(height)]
        return stream


class _Record:
    """The shares of the classes in every frame, in 4 bytes per class and frame."""

    def __init__(self, name: str, predictor: Predictor):
        self.name, self.classes = name, predictor.classes
        self.seconds: list[float] = []
        self._shares: list[np.ndarray] = []
        self._size = (0, 0)

    def add(self, frame: _Segmented) -> None:
        shares = np.zeros(len(self.classes), np.float32)
        for i, share in frame.shares:
            shares[i] = share
        self._size = frame.size
        self.seconds.append(round(frame.seconds, 4))
        self._shares.append(shares)

    def summary(self) -> dict[str, Any]:
        """Return size and times, and each class with its mean share and its share of each frame, largest first."""
        shares = np.stack(self._shares)  # frames, K
        mean = shares.mean(0, dtype=np.float64)
        order = [int(i) for i in np.argsort(-mean, kind="stable") if mean[i]]
        entries = describe_classes(self.classes, ((i, float(mean[i])) for i in order))
        for entry in entries:
            entry["color"] = list(self.classes.palette[entry["id"]])
            entry["shares"] = [round(share, 4) for share in shares[:, entry["id"]].tolist()]
        height, width = self._size
        about = {"name": self.name, "width": width, "height": height, "frames": len(self.seconds)}
        return {**about, "seconds": self.seconds, "classes": entries}


def _declared_size(file: BinaryIO, kind: str) -> int:
    """Return the file size that the container declares; 0 if it declares none."""
    end, file_size = 0, file.seek(0, 2)
    if kind == "mov":  # boxes: size, name
        while end + 16 <= file_size:
            file.seek(end)
            size, _, large = struct.unpack(">I4sQ", file.read(16))
            if size == 0:  # to the end
                return file_size
            end += large if size == 1 else max(size, 8)
        return end
    file.seek(0)
    start = file.read(64)
    if kind == "avi":  # RIFF, size
        return 8 + int.from_bytes(start[4:8], "little")
    segment = start.find(b"\x18\x53\x80\x67") + 4  # Matroska: leading zeros give the length of the size
    if segment < 4 or len(start) < segment + 8 or not start[segment]:
        return 0
    length = 9 - start[segment].bit_length()
    value = int.from_bytes(start[segment : segment + length], "big") & ((1 << 7 * length) - 1)
    return 0 if value == (1 << 7 * length) - 1 else segment + length + value
