"""`danet predict`."""

import sys
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import tyro

from danet.cli.output import progress
from danet.cli.parsing import error_line, parse, printable
from danet.errors import InputError

if TYPE_CHECKING:
    from danet.predict.folder import Saved
    from danet.predict.predictor import Kind, Predictor
    from danet.predict.protocols import Protocol


@dataclass(frozen=True)
class Predict:
    """Segment images: for each an overlay with legend, its labels as a palette PNG, and JSON with each class's share.

    A video becomes a video of overlays, and JSON with the shares of each frame. A TIFF, PNG or JPEG of more than 64
    million pixels is read by rows, its labels are a TIFF with the same coordinates, and its overlay is a small one.

    For example: danet predict street.jpg photos/ clip.mp4 --out results
    """

    images: tyro.conf.Positional[tuple[Path, ...]]
    """images, folders of images, videos"""
    weights: Path | None = None
    """a .safetensors file, or an exported model; the weights that come with the package if not given"""
    out: Path = Path("segmented")
    """folder for the results"""
    overwrite: bool = False
    """replace results that exist"""
    size: int | None = None
    """long side in pixels that images are brought to before the network, of images read by rows the side of the
    windows; the size that the weights were trained at if not given"""
    protocol: str = "whole"
    """how images are shown: whole, paper-multi, released-single-cityscapes, released-multi-cityscapes,
    released-multi, mmseg-whole, mmseg-whole-512, mmseg-whole-512-multi, mmseg-slide-769 or mmseg-slide-769-multi"""
    device: str | None = None
    """cpu or cuda; a GPU if there is one"""
    dtype: Literal["float32", "bfloat16"] = "float32"
    """bfloat16: nearly the same labels, about twice as fast where the processor or GPU computes in it"""


def run(args: Sequence[str]) -> int:
    options = parse(Predict, args, "predict")
    import torch

    from danet.files import check_writable
    from danet.predict.predictor import find_images, kind_of, load
    from danet.predict.protocols import find_protocol

    if not options.images:
        raise InputError("IMAGE", "none given", "name images or folders of images")
    protocol = find_protocol(options.protocol)
    predictor = load(options.weights, options.device, getattr(torch, options.dtype))
    files = find_images(options.images, options.out, options.overwrite, predictor.card.bands)
    check_writable(options.out)
    failed, paces = 0, []
    for kind, group in groupby(files, kind_of):
        for result in _segmented(kind, group, predictor, protocol, options, paces):
            if not isinstance(result, InputError):
                shares = ", ".join(f"{found['name']} {found['share']:.0%}" for found in result.summary["classes"][:4])
                print(printable(f"{result.paths[0]}  {shares}"))
            elif len(files) == 1:
                raise result
            else:
                failed += 1
                print(error_line(result), file=sys.stderr)
    if failed:
        left = InputError(f"{failed} of {len(files)} images", "could not be segmented", "see the lines above")
        print(error_line(left), file=sys.stderr)
    for pace in paces:
        if pace.count > 1:
            print(pace.line(), file=sys.stderr)
    return 2 if failed else 0


def _segmented(
    kind: "Kind", files: Iterable[Path], predictor: "Predictor", protocol: "Protocol", options: Predict, paces: list
) -> Iterator["Saved | InputError"]:
    from danet.predict import folder, large_image, video

    if kind == "image":
        with folder.Pace("image") as pace:
            paces.append(pace)
            yield from folder.segment_images(
                predictor, files, options.out, options.overwrite, protocol, options.size, pace
            )
        return
    for file in files:
        try:
            with progress(printable(file.name)) as advance:
                if kind == "huge":
                    yield large_image.segment_file(
                        predictor, file, options.out, options.overwrite, protocol, options.size, advance=advance
                    )
                    continue
                with folder.Pace("frame") as pace:
                    paces.append(pace)
                    yield video.segment_video(
                        predictor, file, options.out, options.overwrite, protocol, options.size, pace, advance
                    )
        except InputError as error:
            yield error
