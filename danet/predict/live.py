"""Streams and cameras, opened by PyAV: `danet predict rtsp://host/path` and `danet predict camera:0`.

An address is opened only if the user gives it, and with FFmpeg's RTSP demuxer, which follows no other protocol.
"""

import sys
from pathlib import Path
from typing import TYPE_CHECKING

from danet.errors import InputError
from danet.predict.inputs import is_camera, stream_address

if TYPE_CHECKING:
    from av.container import InputContainer

_TIMEOUT = 10  # seconds to connect, and to wait for a packet
_OPTIONS = {"rtsp_transport": "tcp", "timeout": str(_TIMEOUT * 1_000_000)}


def is_live(path: Path | str) -> bool:
    """Return whether a path is the address of a stream, or a camera."""
    return stream_address(path) is not None or is_camera(path)


def open_live(path: Path | str) -> "InputContainer":
    """Open a stream or a camera.

    Raises:
        InputError: it does not answer, or cannot be read.
    """
    import av
    from av.error import FFmpegError

    try:
        if address := stream_address(path):
            return av.open(address, "r", format="rtsp", options=_OPTIONS, timeout=_TIMEOUT)
        device, kind = _device(str(path))
        return av.open(device, "r", format=kind)
    except (FFmpegError, OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or str(error)
        if address := stream_address(path):
            what = f"the stream cannot be opened ({reason})"
            raise InputError(address, what, "check the address, the network and the camera's password") from error
        remedy = "check that it is connected, and that no other program uses it"
        raise InputError(path, f"the camera cannot be opened ({reason})", remedy) from error


def _device(name: str) -> tuple[str, str]:
    """Return the device of a camera and FFmpeg's name of its driver on this system."""
    number = name.removeprefix("camera:")
    if sys.platform == "darwin":
        return number, "avfoundation"
    if sys.platform == "win32":
        return f"video={number}", "dshow"
    return name if name.startswith("/") else f"/dev/video{number}", "v4l2"
