"""Find the files to segment, and name what is left out. Conflicts of their results are found before the work begins."""

import re
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from types import MappingProxyType

from PIL import Image

from danet.data.images.channels import RGB, Bands, Header
from danet.data.images.formats import HAS_HEIF, HEIF_SUFFIXES, SUFFIXES
from danet.data.images.geotiff import has_coordinates, has_longitudes, has_rasterio
from danet.data.images.pillow import MAX_PIXELS
from danet.data.images.read import ARRAYS, describe_suffixes, read_header
from danet.data.images.results import is_result
from danet.errors import InputError, list_names, missing_folder, missing_package
from danet.files import check_new, ignores_case
from danet.portability import address_text
from danet.predict.existing import check_apart, find_done
from danet.predict.job import Job
from danet.predict.outputs import Kind, Maps
from danet.predict.settings import Settings

VIDEOS = (
    *(".mp4", ".mov", ".m4v", ".mkv", ".webm", ".avi", ".3gp", ".mts", ".m2ts", ".ts", ".mpg", ".mpeg", ".wmv"),
    *(".flv", ".ogv"),
)
"""Suffixes of videos."""

_LARGE = (".tif", ".tiff", ".png", ".jpg", ".jpeg", ".jpe", ".jfif")
_STREAM = re.compile(r"(rtsps?):/+(.+)")
_CAMERA = re.compile(r"camera:.+|/dev/video\d+")
_MAX_SHOWN = 8
_MAX_NAME = 255  # bytes, of most file systems


@dataclass
class Found:
    """The files to segment, and what is left out.

    Args:
        jobs: to segment.
        existing: jobs whose results exist, with `skip_existing`.
        unrecorded: number of them whose JSON does not say with which settings they were made.
        skipped: reason -> suffix -> number of files in folders that are left out.
        without_coordinates: number of images whose labels lose their coordinates, as rasterio is not installed.
    """

    jobs: list[Job] = field(default_factory=list)
    existing: list[Job] = field(default_factory=list)
    unrecorded: int = 0
    skipped: dict[str, Counter[str]] = field(default_factory=dict)
    without_coordinates: int = 0

    def skip(self, reason: str, what: str) -> None:
        """Count a file or folder that is left out."""
        self.skipped.setdefault(reason, Counter())[what] += 1

    def skipped_line(self) -> str | None:
        """Return, for example, "12 skipped: 3 .heic (uv sync --extra heif), 9 .txt (not images)"; None if none."""
        parts = []
        for reason, own in self.skipped.items():
            shown = [f"{number} {what}" for what, number in own.most_common()]
            parts.append(f"{list_names(shown, _MAX_SHOWN)} ({reason})")
        count = sum(own.total() for own in self.skipped.values())
        return f"{count} skipped: {', '.join(parts)}" if parts else None


def find_jobs(
    inputs: Iterable[Path],
    out: Path,
    bands: Bands = RGB,
    *,
    overwrite: bool = False,
    skip_existing: bool = False,
    recursive: bool = False,
    pages: bool = False,
    polygons: bool = False,
    further: tuple[str, ...] = (),
    settings: Settings | None = None,
    min_confidence: float | None = None,
    others: Mapping[str, Path] = MappingProxyType({}),
    one_file: bool = False,
) -> Found:
    """Find the files to segment: the given ones, and the images in given folders.

    Results of danet in folders are left out.

    Args:
        inputs: files, folders, addresses of streams, and cameras.
        out: the folder of the results; those of subfolders are in subfolders of the same names.
        bands: the bands that the network takes.
        overwrite: replace results that exist.
        skip_existing: leave out files whose results exist, and replace incomplete results of danet; see `find_done`.
        recursive: whether to search subfolders too.
        pages: whether each page of a stack or frame of an animation is segmented; otherwise, such files are refused.
        polygons: whether polygons are written too.
        further: see `Job`.
        settings: with which the files are segmented; None: results with any are left out by `skip_existing`.
        min_confidence: see `outputs.Maps`.
        others: parameter -> further output.
        one_file: whether a single file for all inputs is written in place of their results, which are not checked.

    Raises:
        InputError: a folder without images; two files with the same results; a result exists, or its name is too long;
            an output that would overwrite an input or another output; with `skip_existing`, a file that danet did not
            write, or a result with other settings; polygons of an image without coordinates.
    """
    if overwrite and skip_existing:
        raise InputError("skip_existing", "excludes `overwrite`", "leave out one of them")
    found = Found()
    by_result: dict[tuple[Path, str], Path] = {}
    one_case, jobs = ignores_case(out), list[Job]()
    for path in inputs:
        files = list_folder(path, out, bands, recursive, found, out) if path.is_dir() else [(path, out)]
        for file, folder in files:
            for each in jobs_of(file, folder, pages, overwrite, polygons, found):
                job = replace(each, overwrite=overwrite or skip_existing, further=further)
                _check_unique(job, by_result, one_case)
                jobs.append(job)
    check_apart(jobs, others, one_case, one_file)
    if one_file:
        found.jobs = jobs
        return found
    for job in jobs:
        if skip_existing and (done := find_done(job, settings, min_confidence)):
            found.existing.append(job)
            found.unrecorded += done == "unrecorded"
        else:
            check_new(*job.paths, overwrite=job.overwrite)
            found.jobs.append(job)
    return found


def kind_of(file: Path) -> Kind:
    """Return how a file is segmented; see `Job`."""
    return _kind(file, _header(file))[0]


def stream_address(path: Path | str) -> str | None:
    """Return the address of a stream, whose slashes `Path` has joined, or None for a file."""
    found = _STREAM.fullmatch(address_text(path))
    return f"{found[1]}://{found[2]}" if found else None


def result_name(path: Path | str) -> str:
    """Return what the names of an input's results begin with: its stem, or the words of an address or a camera."""
    named = stream_address(path) or is_camera(path)
    return re.sub(r"\W+", "_", str(path)).strip("_") if named else Path(path).stem


def is_camera(path: Path | str) -> bool:
    """Return whether a path is a camera: camera:0 or /dev/video0."""
    return _CAMERA.fullmatch(str(path)) is not None


def check_still(file: Path) -> None:
    """Check that a path is no video, stream or camera, of which a batch of images cannot consist.

    Raises:
        InputError: it is.
    """
    if _is_video(file):
        raise InputError(file, "is a video, and the manifest lists images", "leave it out, and segment it on its own")


def check_maps(maps: Maps, jobs: Iterable[Job]) -> None:
    """Check that all inputs are images that are segmented as a whole.

    Raises:
        InputError: a video or a huge image, whose labels are written as they are computed.
    """
    for job in jobs if maps.names else ():
        if job.kind in ("video", "large"):
            kind = "a video" if job.kind == "video" else "an image of more than 64 million pixels"
            remedy = f"leave it out, or leave out `{maps.names[0]}`"
            raise InputError(job.file, f"is {kind}, for which `{maps.names[0]}` is not available", remedy)


def jobs_of(file: Path, folder: Path, pages: bool, overwrite: bool, polygons: bool, found: Found) -> Iterator[Job]:
    """Yield the jobs of a file: one, or one for each page.

    Args:
        file: the file.
        folder: the folder of the results.
        pages: see `find_jobs`.
        overwrite: see `find_jobs`.
        polygons: see `find_jobs`.
        found: counts the images whose labels lose their coordinates.

    Raises:
        InputError: polygons of an image without coordinates, or without rasterio.
    """
    header = _header(file)
    kind, georeferenced = _kind(file, header)
    if polygons and not georeferenced:
        remedy = "leave out `polygons`, or segment only images with coordinates"
        raise InputError(file, "has no coordinates, so it has no polygons", remedy)
    if polygons and not has_rasterio():
        raise missing_package(file, "polygons need rasterio, which is not installed", "geo")
    if polygons and not has_longitudes(file):
        what = "has no coordinate system, or no coordinates of its pixels, so it has no polygons"
        raise InputError(file, what, "leave out `polygons`, or add it with gdalwarp or gdal_edit.py")
    if georeferenced and not has_rasterio():
        found.without_coordinates += kind == "image"
    count = 1 if header is None else header.pages
    name = result_name(file)
    if count > 1 and pages:
        digits = len(str(count))
        for page in range(count):
            yield Job(file, folder, f"{name}_page{page + 1:0{digits}}", "image", page, count, overwrite, False)
        return
    yield Job(file, folder, name, kind, None, count, overwrite, polygons, georeferenced and kind != "image")


def _kind(file: Path, header: Header | None) -> tuple[Kind, bool]:
    """Return the kind of a file, and whether it is an image with coordinates."""
    if _is_video(file):
        return "video", False
    large = header is not None and header.height * header.width > MAX_PIXELS and file.suffix.lower() in _LARGE
    single = header is not None and header.pages == 1
    georeferenced = single and file.suffix.lower() in (".tif", ".tiff") and has_coordinates(file)
    return "large" if large else "geo" if georeferenced and has_rasterio() else "image", georeferenced


def _is_video(file: Path) -> bool:
    return bool(file.suffix.lower() in VIDEOS or stream_address(file) or is_camera(file))


def _header(file: Path) -> Header | None:
    """Return the header of an image; None for other files, and for damaged ones, which the segmentation reports."""
    if _is_video(file):
        return None
    try:
        return read_header(file)
    except InputError as error:
        bomb = isinstance(error.__cause__, Image.DecompressionBombError)
        return Header(MAX_PIXELS + 1, 1, 3, 8) if bomb else None


def _check_unique(job: Job, by_result: dict[tuple[Path, str], Path], one_case: bool) -> None:
    name = job.name.casefold() if one_case else job.name
    if (other := by_result.setdefault((job.folder, name), job.file)) is not job.file:
        if job.file.resolve() == other.resolve():
            raise InputError(job.file, "given twice", "list it once")
        remedy = "rename one of them, or segment them into different `out` folders"
        raise InputError(job.file, f"would overwrite the results of {other}", remedy)
    if (length := max(len(path.name.encode(errors="surrogateescape")) for path in job.paths)) > _MAX_NAME:
        what = f"the names of its outputs would have {length} bytes, more than {_MAX_NAME}"
        raise InputError(job.file, what, "rename the file")


def list_folder(
    root: Path, results: Path, bands: Bands, recursive: bool, found: Found, excluded: Path | None
) -> list[tuple[Path, Path]]:
    """Return the images in a folder, each with the folder of its results, and count in `found` what is left out.

    Args:
        root: the folder.
        results: the folder of the results of its own images; those of subfolders are in subfolders of the same names.
        bands: the bands that the network takes.
        recursive: whether to search subfolders too.
        found: counts what is left out.
        excluded: a folder that is not searched.

    Raises:
        InputError: it contains no images, or cannot be read.
    """
    images: list[tuple[Path, Path]] = []
    waiting = [(root, results)]
    while waiting:
        folder, results = waiting.pop()
        try:
            children = sorted(folder.iterdir())
        except OSError as error:
            raise InputError(folder, f"cannot be read ({error.strerror})", "change its permissions") from error
        subfolders = []
        for child in children:
            if child.name.startswith("."):
                continue
            if child.is_dir():
                if excluded is not None and child.resolve() == excluded.resolve():
                    continue
                if recursive and not child.is_symlink():
                    subfolders.append((child, results / child.name))
                else:
                    found.skip("a link" if recursive else "add `recursive`", "subfolders")
            elif (reason := reason_to_skip(child, bands)) is not None:
                found.skip(reason, child.suffix.lower() or "without suffix")
            else:
                images.append((child, results))
        waiting += reversed(subfolders)
    if not images:
        if not root.is_dir():
            raise missing_folder(root, "specify a folder that contains images")
        left_out = list_names([f"{n} {what}" for own in found.skipped.values() for what, n in own.items()], 6)
        what = f"contains no images ({describe_suffixes(bands)})" + (f", but {left_out}" if left_out else "")
        remedy = "specify a folder that contains images" + ("" if recursive else ", or add `recursive`")
        raise InputError(root, what, remedy)
    return images


def reason_to_skip(file: Path, bands: Bands) -> str | None:
    """Return why a file in a folder is not segmented; None if it is."""
    suffix = file.suffix.lower()
    if is_result(file):
        return "results of danet"
    if suffix in SUFFIXES or (suffix in ARRAYS and bands.channels is not None):
        return None
    if suffix in HEIF_SUFFIXES and not HAS_HEIF:
        return "uv sync --extra heif"
    if suffix in VIDEOS:
        return "videos: specify them one by one"
    return "arrays: the network takes RGB" if suffix in ARRAYS else "not images"
