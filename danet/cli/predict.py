"""The command `danet predict`."""

import sys
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import tyro

from danet.cli.output import progress
from danet.cli.parsing import error_line, parse
from danet.errors import InputError, printable

if TYPE_CHECKING:
    from danet.predict.folder import Saved, Throughput
    from danet.predict.outputs import Kind
    from danet.predict.preannotations import AnnotationFile
    from danet.predict.predictor import Predictor
    from danet.predict.protocols import Protocol


@dataclass(frozen=True)
class Predict:
    """Segment images and videos. For each image, write an overlay with a legend, a label map and a JSON summary.

    An image NAME.jpg gives NAME_overlay.png, NAME_labels.png (pixel values are class ids) and NAME.json (each class's
    share and mean confidence). A video gives a video overlay, and JSON with the shares in each frame. An image of more
    than 64 million pixels (TIFF, PNG, JPEG) is processed in parts: its labels are a TIFF with the same coordinates, and
    its overlay is downsampled.

    With --format, one file of annotations is written instead, for COCO tools, Label Studio or CVAT.

    Example: danet predict street.jpg photos/ clip.mp4 --out results
    """

    images: tyro.conf.Positional[tuple[Path, ...]]
    """images, videos, or folders of images"""
    weights: Path | None = None
    """a .safetensors file, or an exported model (.onnx, .xml); default: the bundled weights"""
    out: Annotated[Path, tyro.conf.arg(metavar="DIR")] = Path("segmented")
    """folder for the results"""
    overwrite: bool = False
    """replace existing results"""
    format: Literal["coco", "label-studio", "cvat"] | None = None
    """write all predictions as one file that this tool imports, instead of overlays, label maps and summaries"""
    tolerance: float | None = None
    """with --format: write polygons that deviate from the predicted regions by at most this many pixels; default:
    masks, exactly as predicted"""
    size: int | None = None
    """resize images to this long side, in pixels, before the network; for images of more than 64 million pixels, the
    side of the windows; default: the size used in training"""
    protocol: str = "whole"
    """test-time protocol: whole (once, fastest), paper-multi (8 scales, flipped and averaged),
    released-single-cityscapes, released-multi-cityscapes, released-multi, mmseg-whole, mmseg-whole-512,
    mmseg-whole-512-multi, mmseg-slide-769 or mmseg-slide-769-multi"""
    device: str | None = None
    """cpu or cuda; default: the GPU if there is one, otherwise the CPU"""
    dtype: Literal["float32", "bfloat16"] = "float32"
    """bfloat16 is about twice as fast on hardware that supports it, with nearly the same labels"""


def run(args: Sequence[str]) -> int:
    """Run the command and return its exit status."""
    options = parse(Predict, args, "predict")
    import torch

    from danet.files import check_writable, remove_incomplete
    from danet.predict.outputs import find_images, kind_of
    from danet.predict.preannotations import check_target
    from danet.predict.predictor import load
    from danet.predict.protocols import find_protocol

    if not options.images:
        raise InputError("danet predict", "no images given", "specify images, videos or folders")
    protocol = find_protocol(options.protocol)
    predictor = load(options.weights, options.device, getattr(torch, options.dtype))
    target = _annotation_file(options)
    overwrite = options.overwrite or target is not None  # which is another file
    files = find_images(options.images, options.out, overwrite, predictor.card.bands)
    if target is not None:
        check_target(target, files)
    check_writable(options.out)
    remove_incomplete(options.out)
    failed, speeds = 0, []
    for kind, group in groupby(files, kind_of):
        for result in _segmented(kind, group, predictor, protocol, options, target, speeds):
            if not isinstance(result, InputError):
                shares = ", ".join(f"{entry['name']} {entry['share']:.0%}" for entry in result.summary["classes"][:4])
                where = result.paths[0] if target is None else result.summary["name"]
                print(printable(f"{where}  {shares}"))
            elif len(files) == 1:
                raise result
            else:
                failed += 1
                print(error_line(result), file=sys.stderr)
    if target is not None:
        print(printable(f"wrote {' and '.join(map(str, target.paths))}"))
    if failed:
        print(f"error: {failed} of {len(files)} files could not be segmented; see the errors above", file=sys.stderr)
    for throughput in speeds:
        if throughput.count > 1:
            print(throughput.line(), file=sys.stderr)
    return 2 if failed else 0


def _annotation_file(options: Predict) -> "AnnotationFile | None":
    """Return the file of annotations to write, or None for overlays, label maps and summaries."""
    from danet.predict.preannotations import AnnotationFile

    if options.format is not None:
        return AnnotationFile(options.out, options.format, options.tolerance, options.overwrite)
    if options.tolerance is not None:
        raise InputError("tolerance", "is for polygons in a file of annotations", "add `format`, or omit it")
    return None


def _segmented(
    kind: "Kind",
    files: Iterable[Path],
    predictor: "Predictor",
    protocol: "Protocol",
    options: Predict,
    target: "AnnotationFile | None",
    speeds: list["Throughput"],
) -> Iterator["Saved | InputError"]:
    """Segment files of one kind, yield results and errors, and append to `speeds` what was measured."""
    from danet.predict import folder, large_image, video
    from danet.predict.preannotations import segment_as_annotations

    given = options.out, options.overwrite, protocol, options.size
    if target is not None:
        with folder.Throughput("image") as throughput:
            speeds.append(throughput)
            yield from segment_as_annotations(predictor, files, target, protocol, options.size, throughput)
        return
    if kind == "image":
        with folder.Throughput("image") as throughput:
            speeds.append(throughput)
            yield from folder.segment_images(predictor, files, *given, throughput)
        return
    for file in files:
        try:
            with progress(file.name) as advance:
                if kind == "large":
                    yield large_image.segment_file(predictor, file, *given, advance=advance)
                    continue
                with folder.Throughput("frame") as throughput:
                    speeds.append(throughput)
                    yield video.segment_video(predictor, file, *given, throughput, advance)
        except InputError as error:
            yield error
