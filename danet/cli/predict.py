"""The command `danet predict`."""

import sys
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import groupby
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import tyro

from danet.cli.output import progress
from danet.cli.parsing import error_line, parse
from danet.cli.predict_batch import BatchOptions, run_batch
from danet.errors import InputError, list_names, print_note, printable

if TYPE_CHECKING:
    from danet.predict.folder import Saved, Throughput
    from danet.predict.inputs import Found
    from danet.predict.job import Job
    from danet.predict.outputs import Maps
    from danet.predict.preannotations import AnnotationFile
    from danet.predict.predictor import Predictor
    from danet.predict.protocols import Protocol
    from danet.weights.card import Card


LOW_CONFIDENCE = 0.75
"""Mean confidence of an image below which there is a hint; CamVid images have 0.94 to 0.97 with the bundled weights."""


@dataclass(frozen=True)
class Predict:
    """Segment images and videos. For each image, write an overlay with a legend, a label map and a JSON summary.

    An image NAME.jpg gives NAME_overlay.png, NAME_labels.png (pixel values are class ids) and NAME.json (each class's
    share and mean confidence). A video gives a video overlay, and JSON with the shares in each frame. The labels of an
    image with coordinates (GeoTIFF) are a TIFF with the same coordinates. An image of more than 64 million pixels
    (TIFF, PNG, JPEG) is processed in parts: its labels are a TIFF, and its overlay is downsampled.

    With --format, one file of annotations is written instead, for COCO tools, Label Studio or CVAT.

    Example: danet predict street.jpg photos/ clip.mp4 --out results
    """

    images: tyro.conf.Positional[tuple[Path, ...]]
    """images, videos, or folders of images; the address of a stream (rtsp://...); or a camera (camera:0)"""
    weights: Path | None = None
    """a .safetensors file, an exported model (.onnx, .xml, .pte), or hf://user/repo on the Hugging Face Hub; default:
    the bundled weights"""
    out: Annotated[Path, tyro.conf.arg(metavar="DIR")] = Path("segmented")
    """folder for the results"""
    overwrite: bool = False
    """replace existing results"""
    skip_existing: bool = False
    """leave out files whose results exist, to continue an interrupted run; incomplete results of danet are replaced;
    other files, and results with other weights or options, are refused"""
    recursive: bool = False
    """also segment the images in subfolders of the given folders, into subfolders of the same names"""
    pages: bool = False
    """segment each page of a stack (TIFF) or frame of an animation (GIF, WebP), instead of refusing the file"""
    format: Literal["coco", "label-studio", "cvat"] | None = None
    """write all predictions as one file that this tool imports, instead of overlays, label maps and summaries"""
    tolerance: float | None = None
    """with --format: write polygons that deviate from the predicted regions by at most this many pixels; default:
    masks, exactly as predicted"""
    csv: Path | None = None
    """also write a table to this file: one row per image, with the share of each class"""
    probabilities: Literal["npy", "png"] | None = None
    """also write the probabilities of all classes: npy, one array NAME_probabilities.npy (classes, height, width) of
    float16; or png, an 8-bit image NAME_probability_ID.png for each class id"""
    margin: bool = False
    """also write NAME_margin.png: how much more probable each pixel's class is than the second, from 0 to 255"""
    min_confidence: float | None = None
    """give pixels whose class is less probable than this the label 255, unknown; the JSON counts them"""
    polygons: bool = False
    """also write the polygons of the classes as NAME.geojson; only for images with coordinates"""
    mosaic: bool = False
    """also write labels.vrt, which shows the labels of all images with coordinates as one image"""
    size: int | None = None
    """resize images to this long side, in pixels, before the network; with --windows, the side of the windows; default:
    the size used in training"""
    windows: bool = False
    """segment images of more than 64 million pixels in windows at their own resolution, instead of resizing them to the
    size used in training, as smaller ones; weights without a size, and of danet 0.1.0, do so anyway"""
    protocol: str = "whole"
    """test-time protocol: whole (once, fastest), paper-multi (8 scales, flipped and averaged),
    released-single-cityscapes, released-multi-cityscapes, released-multi, mmseg-whole, mmseg-whole-512,
    mmseg-whole-512-multi, mmseg-slide-769 or mmseg-slide-769-multi"""
    device: str | None = None
    """cpu, cuda or mps; default: an NVIDIA GPU if there is one, otherwise the CPU"""
    dtype: Literal["float32", "bfloat16"] = "float32"
    """bfloat16 is about twice as fast on hardware that supports it, with nearly the same labels"""
    batch: Annotated[BatchOptions, tyro.conf.arg(name="")] = field(default_factory=BatchOptions)


def run(args: Sequence[str]) -> int:
    """Run the command and return its exit status."""
    options = parse(Predict, args, "predict")
    if options.batch.wanted(*options.images, options.out):
        return run_batch(options, options.batch)
    from danet.files import check_new, check_outputs, check_writable, remove_incomplete
    from danet.predict.protocols import find_protocol
    from danet.weights.card import peek

    if not options.images:
        raise InputError("danet predict", "no images given", "specify images, videos or folders")
    if str(options.csv) == "-":
        raise InputError("csv", "must be a file; standard output lists the label maps", "for example: --csv shares.csv")
    protocol = find_protocol(options.protocol)
    card = peek(options.weights)
    found = None if card is None else _find(options, card, card.sha256, protocol)
    from danet.predict.georeferenced import MOSAIC
    from danet.predict.overlay import share_text
    from danet.predict.predictor import load
    from danet.predict.table import is_table, write_table

    target = _annotation_file(options)
    predictor = load(options.weights, options.device, options.dtype)
    predictor = predictor.in_windows() if options.windows else predictor
    found = _find(options, predictor.card, predictor.fingerprint, protocol) if found is None else found
    if target is not None:
        from danet.predict.preannotations import check_target

        check_target(target, found.jobs)
    check_writable(options.out)
    for folder in {options.out, *(job.folder for job in found.jobs)}:
        remove_incomplete(folder)
    again = options.overwrite or options.skip_existing
    renew = options.overwrite or (options.skip_existing and options.csv is not None and is_table(options.csv))
    check_outputs(options.csv, overwrite=renew)
    if options.mosaic:
        check_new(options.out / MOSAIC, overwrite=again)
    start, rows, speeds, failed, unsure = time.perf_counter(), [], [], 0, []
    for job, result in _segmented(found.jobs, predictor, protocol, options, target, speeds):
        if options.csv is not None or options.mosaic:  # otherwise nothing is kept
            rows.append((job, result if isinstance(result, InputError) else result.summary))
        if not isinstance(result, InputError):
            if _unsure(result.summary):
                unsure.append(f"{job.file}" if job.page is None else f"{job.file} (page {job.page + 1})")
            shares = ", ".join(
                f"{entry['name']} {share_text(entry['share'], 0)}" for entry in result.summary["classes"][:4]
            )
            where = result.paths[0] if target is None else result.summary["name"]
            print(printable(f"{where}  {shares}"))
            if long_side := result.summary.get("long_side"):
                note = f"{job.file}: resized to a long side of {long_side}, as smaller images; see `windows`"
                print_note(f"note: {note}")
        elif len(found.jobs) == 1:
            raise result
        else:
            failed += 1
            print(error_line(result), file=sys.stderr)
    if target is not None:
        print(printable(f"wrote {' and '.join(map(str, target.paths))}"))
    if options.csv is not None:
        write_table(options.csv, [*((job, None) for job in found.existing), *rows], predictor.classes, renew)
    if options.mosaic:
        _write_mosaic(found, rows, predictor, options.out / MOSAIC, again)
    for line in _summary(found, failed, speeds, time.perf_counter() - start):
        print_note(line)
    if unsure:
        print_note(_hint(unsure, len(found.jobs) - failed))
    return 2 if failed else 0


def _maps(options: Predict) -> "Maps":
    from danet.predict.outputs import Maps

    return Maps(options.probabilities, options.margin, options.min_confidence)


def _find(options: Predict, card: "Card", weights: str, protocol: "Protocol") -> "Found":
    from danet.predict.georeferenced import MOSAIC, check_mosaic
    from danet.predict.inputs import check_maps, find_jobs
    from danet.predict.settings import Settings

    maps = _maps(options)
    card = replace(card, scale_rule="native") if options.windows else card
    others = {"csv": options.csv, "mosaic": options.out / MOSAIC if options.mosaic else None}
    found = find_jobs(
        options.images,
        options.out,
        card.bands,
        overwrite=options.overwrite,
        skip_existing=options.skip_existing,
        recursive=options.recursive,
        pages=options.pages,
        polygons=options.polygons,
        further=maps.suffixes(len(card.classes)),
        settings=Settings.of(card, weights, protocol, options.size, options.dtype),
        min_confidence=maps.min_confidence,
        others={name: path for name, path in others.items() if path is not None},
        one_file=options.format is not None,
    )
    check_maps(maps, found.jobs)
    if options.mosaic:
        georeferenced = [job.file for job in (*found.jobs, *found.existing) if job.georeferenced]
        check_mosaic(georeferenced)
    return found


def _annotation_file(options: Predict) -> "AnnotationFile | None":
    """Return the file of annotations to write, or None for overlays, label maps and summaries."""
    if options.format is None:
        if options.tolerance is not None:
            raise InputError("tolerance", "is for polygons in a file of annotations", "add `format`, or leave it out")
        return None
    for name in ("skip_existing", "pages", "polygons", "mosaic", *_maps(options).names):
        if getattr(options, name):
            raise InputError(name, "excludes `format`, which writes one file for all images", "leave out one of them")
    from danet.predict.preannotations import AnnotationFile

    return AnnotationFile(options.out, options.format, options.tolerance, options.overwrite)


def _summary(found: "Found", failed: int, speeds: Sequence["Throughput"], seconds: float) -> Iterator[str]:
    """Yield what was done and what was left out, unless a single file was segmented."""
    if failed:
        yield f"error: {failed} of {len(found.jobs)} files could not be segmented; see the errors above"
    yield from (throughput.line() for throughput in speeds if throughput.count > 1)
    if skipped := found.skipped_line():
        yield skipped
    if found.without_coordinates:
        what = f"{found.without_coordinates} images have coordinates, but their labels do not"
        yield f"{what}: rasterio is not installed (uv sync --extra geo)"
    if found.unrecorded:
        what = f"{found.unrecorded} existing results do not say with which weights and options they were made"
        yield f"note: {what}; to replace them, use `overwrite` in place of `skip_existing`"
    if len(found.jobs) + len(found.existing) > 1 or found.skipped:
        done = len(found.jobs) - failed
        skipped = sum(own.total() for own in found.skipped.values())
        speed = f"; {done / seconds:.1f} files/s in {seconds:.1f} s" if done else ""
        yield f"done {done}, existing {len(found.existing)}, skipped {skipped}, failed {failed}{speed}"


def _unsure(summary: Mapping[str, Any]) -> bool:
    """Return whether the mean confidence of an image is low."""
    known = sum(entry["share"] for entry in summary["classes"])
    parts = [entry["share"] * entry.get("mean_confidence", 1.0) for entry in summary["classes"]]
    return sum(parts) < LOW_CONFIDENCE * known or (not known and "no_data" not in summary)


def _hint(names: Sequence[str], count: int) -> str:
    which = names[0] if count == 1 else f"{len(names)} of {count} images ({list_names(names, 3)})"
    they = "it shows" if len(names) == 1 else "they show"
    why = f"perhaps {they} what the network was not trained on, or its training was too short"
    return f"hint: low confidence in {which}, below {LOW_CONFIDENCE:.0%} on average: {why}"


def _write_mosaic(
    found: "Found", rows: Sequence[tuple["Job", object]], predictor: "Predictor", path: Path, overwrite: bool
) -> None:
    from danet.predict.georeferenced import write_mosaic

    done = [*found.existing, *(job for job, result in rows if not isinstance(result, InputError))]
    tiles = [job.paths[1] for job in done if job.georeferenced]
    write_mosaic(path, tiles, predictor.classes, overwrite)
    print(printable(f"{path}  {len(tiles)} images"))


def _segmented(
    jobs: Sequence["Job"],
    predictor: "Predictor",
    protocol: "Protocol",
    options: Predict,
    target: "AnnotationFile | None",
    speeds: list["Throughput"],
) -> Iterator[tuple["Job", "Saved | InputError"]]:
    """Segment all jobs, yield each with its result or error, and append to `speeds` what was measured."""
    for pipelined, group in groupby(jobs, lambda job: job.kind in ("image", "geo")):
        own = list(group)
        if pipelined:
            done = _segment_images(own, predictor, protocol, options, target, speeds)
        else:
            done = _segment_one_by_one(own, predictor, protocol, options, speeds)
        yield from zip(own, done, strict=True)


def _segment_images(
    jobs: Iterable["Job"],
    predictor: "Predictor",
    protocol: "Protocol",
    options: Predict,
    target: "AnnotationFile | None",
    speeds: list["Throughput"],
) -> Iterator["Saved | InputError"]:
    from danet.predict import folder

    with folder.Throughput("image") as throughput:
        speeds.append(throughput)
        settings = protocol, options.size, throughput
        if target is None:
            yield from folder.segment_images(predictor, jobs, *settings, _maps(options))
        else:
            from danet.predict.preannotations import segment_as_annotations

            yield from segment_as_annotations(predictor, jobs, target, *settings)


def _segment_one_by_one(
    jobs: Iterable["Job"],
    predictor: "Predictor",
    protocol: "Protocol",
    options: Predict,
    speeds: list["Throughput"],
) -> Iterator["Saved | InputError"]:
    """Segment large images and videos."""
    from danet.predict import folder, large_image, video

    for job in jobs:
        given = job.file, job.folder, job.overwrite, protocol, options.size
        try:
            with progress(job.file.name) as advance:
                if job.kind == "large":
                    yield large_image.segment_file(predictor, *given, polygons=job.polygons, advance=advance)
                    continue
                with folder.Throughput("frame") as throughput:
                    speeds.append(throughput)
                    yield video.segment_video(predictor, *given, throughput, advance)
        except InputError as error:
            yield error
