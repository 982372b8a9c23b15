"""Fuzzing: each damaged file is read, or rejected with InputError, in bounded time and memory.

A child process (`test_fuzz.py KIND FIRST LAST STATE`) opens the files, so that crashes are detected and counted. It
writes the number of the current file to STATE. A signal ends it after 5 s of CPU time for one file.
"""

import contextlib
import io
import json
import os
import random
import resource
import signal
import struct
import sys
import time
import zlib
from collections import Counter
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path
from typing import NamedTuple

import hostile
import killed
import numpy as np
import pytest
from exported import onnx_content
from PIL import Image, PngImagePlugin

from danet.errors import InputError

SECONDS, BYTES = 5, 1_000_000_000

# damage

Edit = Callable[[bytearray, random.Random, list[bytes]], None]


def flip(content: bytearray, rng: random.Random, _: list[bytes]) -> None:
    for _ in range(rng.choice((1, 1, 2, 8))):
        content[rng.randrange(len(content))] ^= 1 << rng.randrange(8)


def number(content: bytearray, rng: random.Random, _: list[bytes]) -> None:
    """Insert an extreme number, most often near the start, where headers are."""
    at = rng.randrange(min(len(content), rng.choice((64, 256, 1 << 30))))
    value = rng.choice((0, 1, 2, 127, 255, 8000, 32_767, 65_535, (1 << 31) - 1, 1 << 31, (1 << 32) - 1))
    size, order = rng.choice((1, 2, 4)), rng.choice(("little", "big"))
    content[at : at + size] = (value % (1 << 8 * size)).to_bytes(size, order)


def cut(content: bytearray, rng: random.Random, _: list[bytes]) -> None:
    del content[rng.randrange(1, len(content) + 1) :]


def splice(content: bytearray, rng: random.Random, seeds: list[bytes]) -> None:
    other = rng.choice(seeds)
    start = rng.randrange(len(other))
    at = rng.randrange(len(content))
    content[at : at + rng.choice((0, 16, 1 << 30))] = other[start : start + rng.choice((4, 64, 1 << 30))]


def move(content: bytearray, rng: random.Random, _: list[bytes]) -> None:
    start = rng.randrange(len(content))
    piece = content[start : start + rng.choice((1, 4, 32, 512))]
    if rng.random() < 0.5 and len(piece) < len(content):
        del content[start : start + len(piece)]
    at = rng.randrange(len(content) + 1)
    content[at:at] = piece * rng.choice((0, 1, 1, 3))


def words(content: bytearray, rng: random.Random, _: list[bytes]) -> None:
    """Insert tokens that have a meaning in YAML or JSON."""
    at = rng.randrange(len(content))
    content[at : at + rng.choice((0, 0, 1, 3))] = rng.choice(WORDS)


WORDS = [
    *(b"&a ", b"*a", b"!!python/object/apply:os.system", b"!!binary ", b"!!bool x", b"!!float ", b"2001-99-99", b"0x_"),
    *(
        b"{",
        b"}",
        b"[",
        b"]",
        b": ",
        b"- ",
        b"? ",
        b"| ",
        b"> ",
        b"'",
        b'"',
        b"#",
        b"%",
        b"\n",
        b"\t",
        b"---\n",
        b"<<: ",
    ),
    *(b"null", b"true", b".nan", b".inf", b"-1", b"1e999", b"9" * 40, b"[" * 2000, b"{a: " * 300, b"\xff", b"\0"),
    *("\u2028".encode(), "é".encode(), b"\\ud800", b"[[]]", b"[]", b"{}", b"[-5]", b"1.5", b"999999999", b"null,"),
]
BINARY: list[Edit] = [flip, flip, number, number, cut, splice, move]
TEXT: list[Edit] = [words, words, words, flip, cut, splice, move]


def damaged(seeds: list[bytes], edits: list[Edit], index: int, others: list[bytes] | None = None) -> bytes:
    """Return damaged file number `index`; it depends on nothing else. Pieces of `others` are spliced in."""
    rng = random.Random(index)
    content = bytearray(rng.choice(seeds))
    for _ in range(rng.choice((1, 1, 1, 2, 3, 6))):
        if content:
            rng.choice(edits)(content, rng, others or seeds)
    if content[:4] == b"\x89PNG" and rng.random() < 0.7:
        correct_checksums(content)
    return bytes(content)


def correct_checksums(content: bytearray) -> None:
    """Correct the checksums of a PNG, so that the decoder goes beyond checking them."""
    at = 8
    while at + 12 <= len(content):
        end = at + 8 + struct.unpack_from(">I", content, at)[0]
        if end + 4 > len(content):
            return
        struct.pack_into(">I", content, end, zlib.crc32(content[at + 4 : end]))
        at = end + 4


# images and masks


def images() -> list[bytes]:
    """Return small images in every supported format, mode and compression."""
    y, x = np.mgrid[:24, :32]
    rgb = Image.fromarray(np.stack([8 * x, 10 * y, 255 - 8 * x], -1).astype(np.uint8))
    gray16 = Image.fromarray((1500 * x + 50 * y).astype(np.uint16))
    frames = {"save_all": True, "append_images": [rgb.rotate(180), rgb.rotate(90)]}
    exif, text = Image.Exif(), PngImagePlugin.PngInfo()
    exif[0x0112] = 6
    text.add_text("note", "x" * 300, zip=True)
    palette = rgb.quantize(16)
    cases: list[tuple[Image.Image, str, dict]] = [
        *((rgb.convert(mode), "JPEG", {}) for mode in ("RGB", "L", "CMYK")),
        (rgb, "JPEG", {"progressive": True, "subsampling": 0}),
        (rgb, "JPEG", {"exif": exif}),
        *((rgb.convert(mode), "PNG", {}) for mode in ("RGB", "RGBA", "L", "LA", "1")),
        (rgb, "PNG", {"exif": exif, "pnginfo": text}),
        (rgb, "PNG", frames),
        (gray16, "PNG", {}),
        (palette, "PNG", {}),
        (palette, "PNG", {"transparency": 3}),
        (rgb, "WEBP", {}),
        (rgb.convert("RGBA"), "WEBP", {"lossless": True}),
        (rgb, "WEBP", frames),
        *((rgb.convert(mode), "BMP", {}) for mode in ("RGB", "L", "1", "RGBA")),
        (palette, "BMP", {}),
        *((rgb, "TIFF", {"compression": name}) for name in ("raw", "tiff_lzw", "tiff_deflate", "packbits", "jpeg")),
        *((rgb.convert(mode), "TIFF", {}) for mode in ("RGBA", "CMYK", "LA", "YCbCr", "LAB")),
        (rgb.convert("1"), "TIFF", {"compression": "group4"}),
        (gray16, "TIFF", {}),
        (palette, "TIFF", {}),
        (rgb, "TIFF", {**frames, "big_tiff": True}),
        (rgb, "GIF", {}),
        (rgb, "GIF", frames),
    ]
    files = []
    for image, kind, options in cases:
        buffer = io.BytesIO()
        image.save(buffer, kind, **options)
        files.append(buffer.getvalue())
    image_16_bit = np.stack([1500 * x, 2000 * y, 65_535 - 1000 * x], -1).astype(">u2")
    rows = b"".join(b"\0" + row.tobytes() for row in image_16_bit)
    header = struct.pack(">IIBBBBB", 32, 24, 16, 2, 0, 0, 0)
    chunks = ((b"IHDR", header), (b"IDAT", zlib.compress(rows)), (b"IEND", b""))
    files.append(b"\x89PNG\r\n\x1a\n" + b"".join(struct.pack(">I", len(c)) + k + c + bytes(4) for k, c in chunks))
    content = bytearray(files[-1])
    correct_checksums(content)
    files[-1] = bytes(content)
    for dtype in (np.uint8, np.uint16):
        buffer = io.BytesIO()
        np.save(buffer, image_16_bit.astype(dtype))
        files.append(buffer.getvalue())
    return files + many_bands(image_16_bit.astype(np.uint16))


def many_bands(image: np.ndarray) -> list[bytes]:
    """Return TIFFs of five bands, if rasterio is installed."""
    try:
        import rasterio
        from rasterio.io import MemoryFile
    except ImportError:
        return []
    files, bands = [], np.concatenate([image, image[..., :2]], -1).transpose(2, 0, 1)
    shape = {"driver": "GTiff", "height": 24, "width": 32, "count": 5, "dtype": "uint16"}
    where = {"transform": rasterio.Affine(1, 0, 5, 0, -1, 9)}
    for options in ({}, {"compress": "lzw", "tiled": True, "blockxsize": 16, "blockysize": 16}, {"compress": "zstd"}):
        with MemoryFile() as memory:
            with memory.open(**shape, **where, **options) as made:
                made.write(bands)
            files.append(memory.read())
    return files


def open_image(content: bytes, index: int, folder: Path) -> bool:
    """Open a file with the functions that read images and masks, and return whether any of them succeeded."""
    from danet.data.images.channels import Bands
    from danet.data.images.color_masks import palette_of, read_colored_mask
    from danet.data.images.read import decode_image, image_size, read_header, read_image, read_mask

    file = folder / "fuzzed"
    file.write_bytes(content)
    more = [
        lambda: read_image(file, bands=Bands(5)),
        lambda: read_image(file, bands=Bands(1)),
        lambda: decode_image(content, "fuzzed"),
        lambda: read_colored_mask(file, {(0, 0, 0): 0, (255, 255, 255): 1}),
        lambda: (read_header(file), image_size(file)),
        lambda: palette_of(file),
    ]
    ways = (lambda: read_image(file), lambda: read_image(file, page=0, upright=False), lambda: read_mask(file))
    return any_succeeds(*ways, more[index % len(more)])


def any_succeeds(*ways: Callable[[], object]) -> bool:
    """Call all functions and return whether any of them succeeded. They may only raise InputError."""
    errors = []
    for way in ways:
        try:
            way()
        except InputError as error:
            errors.append(str(error))
    assert not any("\n" in text for text in errors), errors
    return len(errors) < len(ways)


# settings


def settings() -> list[bytes]:
    import yaml

    from danet import recipes

    text = """classes: [road, tree, sky]   # ids
palette: [[1, 2, 3], [4, 5, 6], [7, 8, 9]]
ignore: 255
label_map: {0: 0, 7: 1, 8: 2}
images: images
masks: masks
mask_suffix: .png
val: 0.2
channels: 4
white: 10000
"""
    more = """classes: [road, car, bus]
ignore: [255, 9]
images: "{split}/*/img"
masks: "{split}/*/lab"
mask_replace: {camera: label}
splits: {train: train.txt, val: val.txt}
split_by: sequence
exif: ignore
merge: {vehicle: [car, bus]}
keep: [vehicle]
others: background
"""
    colors = "classes: [road, tree]\ncolors: [[1, 2, 3], [[4, 5, 6], [7, 8, 9]]]\nignore: [0, 0, 0]\nsplits: s.csv\n"
    runs = [yaml.safe_dump(recipes.to_dict(recipes.find(name)), sort_keys=False) for name in ("toy", "camvid")]
    return [part.encode() for part in (text, more, colors, *runs)]


def open_settings(content: bytes, _: int, folder: Path) -> bool:
    from danet import recipes
    from danet.data.custom.dataset_yaml import read_settings
    from danet.train.run_folder import read_recipe

    for name in ("dataset.yaml", "recipe.yaml"):
        (folder / name).write_bytes(content)
    return any_succeeds(lambda: read_settings(folder), lambda: recipes.check(read_recipe(folder)))


# lists of classes and of splits


def lists() -> list[bytes]:
    return [
        b"name,r,g,b\nroad,128,64,128\ntree,0,128,0\n",
        b"Pixel Value, Class\n0, background\n1, crack\n",
        b'{"road": [1, 1, 1], "tree": [2, 2, 2]}',
        b"background:0,0,0::\nroad:128,64,128::\n",
        b"64 128 64\tAnimal\n0 0 0\tVoid\n",
        b"image,split\na.jpg,train\nb.jpg,val\n",
        b"images/a.jpg masks/a.png\nimages/b.jpg masks/b.png\n",
    ]


def open_lists(content: bytes, _: int, folder: Path) -> bool:
    """Read a file as every kind of list, and return whether it gives values or colors of classes, or known images."""
    from danet.data.custom.class_lists import read_class_list
    from danet.data.custom.layout import Layout
    from danet.data.custom.split_lists import read_splits

    images, found = [folder / f"images/{name}.jpg" for name in "ab"], []
    for suffix in (".csv", ".txt", ".json"):
        file = folder / f"list{suffix}"
        file.write_bytes(content)
        layout = Layout(folder, lists={"train": file.name})
        any_succeeds(lambda file=file: found.extend(entry[1:] != (None, None) for entry in read_class_list(file)))
        found.append(any_succeeds(lambda layout=layout: read_splits(layout, images)))
    return any(found)


# weights


def weights_files() -> list[bytes]:
    """Return the weights file of a tiny network."""
    import torch

    from danet import DANet
    from danet.data.registry import DATASETS
    from danet.weights import file as weights_file

    torch.manual_seed(0)
    torch.set_num_threads(1)
    arguments = {"num_classes": 6, "backbone": "test_resnet", "width": 16}
    card = weights_file.Card(arguments, DATASETS["toy"].classes, (0.5,) * 3, (0.5,) * 3, size=128, dataset="toy")
    file = Path(os.environ["FUZZ_FOLDER"]) / "tiny.safetensors"
    weights_file.save(file, DANet(**arguments), card)
    return [file.read_bytes()]


def damaged_weights(seeds: list[bytes], index: int) -> bytes:
    """Damage, in turn, the whole file, the header, and the card in the header."""
    length = int.from_bytes(seeds[0][:8], "little")
    header, tensors = seeds[0][8 : 8 + length], seeds[0][8 + length :]
    if index % 3 == 0:
        return damaged(seeds, BINARY, index)
    if index % 3 == 1:
        header = damaged([header], [*TEXT, number], index)
    else:
        entries = json.loads(header)
        card = damaged([entries["__metadata__"]["danet"].encode()], TEXT, index)
        entries["__metadata__"]["danet"] = card.decode(errors="replace")
        header = json.dumps(entries).encode()
    return len(header).to_bytes(8, "little") + header + tensors


def open_weights(content: bytes, _: int, folder: Path) -> bool:
    from danet.weights import file as weights_file

    file = folder / "w.safetensors"
    file.write_bytes(content)
    return any_succeeds(lambda: weights_file.load(file))


# exported networks


def exported_files() -> list[bytes]:
    """Return an ONNX file like those of danet export, with a single convolution."""
    return [onnx_content()]


def damaged_exported(seeds: list[bytes], index: int) -> bytes:
    """Damage, in turn, the whole file and the card in it."""
    if index % 2 == 0:
        return damaged(seeds, BINARY, index)
    import onnx

    model = onnx.load_model_from_string(seeds[0])
    card = damaged([model.metadata_props[0].value.encode()], TEXT, index)
    model.metadata_props[0].value = card.decode(errors="replace")
    return model.SerializeToString()


def open_exported(content: bytes, _: int, folder: Path) -> bool:
    import torch

    from danet.weights import runtimes

    def run() -> None:
        network, card = runtimes.load(file)
        network.labels(torch.zeros(1, card.bands.count, 8, 8))

    file = folder / ("net.xml" if (folder / "net.bin").exists() else "net.onnx")
    file.write_bytes(content)
    return any_succeeds(run)


def openvino_files() -> list[bytes]:
    """Return the OpenVINO graph of the same network; its weights file is not damaged."""
    from danet.data.registry import DATASETS
    from danet.weights import file as weights_file
    from danet.weights.export import to_openvino

    card = weights_file.Card({"num_classes": 6}, DATASETS["toy"].classes, (0.5,) * 3, (0.5,) * 3, size=128)
    binary, graph = to_openvino(exported_files()[0], card)
    (Path(os.environ["FUZZ_FOLDER"]) / "net.bin").write_bytes(binary)
    return [graph]


# annotations

ANNOTATIONS = {  # format -> the files that are damaged in turn
    "coco": ("annotations.json",),
    "labelme": ("a.json", "labels.txt"),
    "cvat": ("annotations.xml",),
    "cvat-masks": ("labelmap.txt", "ImageSets/Segmentation/default.txt"),
    "label-studio": ("project.json",),
    "label-studio-png": ("project.json",),
    "supervisely": ("street/ann/a.png.json", "meta.json"),
    "via": ("via_region_data.json",),
    "yolo": ("labels/a.txt", "data.yaml"),
    "rle-csv": ("train.csv",),
}


def annotation_files() -> list[bytes]:
    """Write an export of each format, and return its files, each after its format and path, separated by NUL."""
    import exports

    files = []
    for name, paths in ANNOTATIONS.items():
        root = exports.with_every_shape(name, Path(os.environ["FUZZ_FOLDER"]) / "exports" / name)
        files += [f"{name}\0{path}\0".encode() + (root / path).read_bytes() for path in paths]
    return files


def damaged_annotations(seeds: list[bytes], index: int) -> bytes:
    name, path, _ = seeds[index % len(seeds)].split(b"\0", 2)
    contents = [seed.split(b"\0", 2)[2] for seed in seeds]
    own = contents[index % len(seeds)]
    return b"\0".join((name, path, damaged([own], [*TEXT, number], index, others=contents)))


def open_annotations(content: bytes, _: int, folder: Path) -> bool:
    """Read an export after one of its files was replaced, and draw its shapes."""
    from danet.data.annotations.frames import draw_frame, find_frame
    from danet.data.annotations.recognize import FORMATS, recognize
    from danet.data.annotations.source import Source

    def read() -> None:
        recognize(Source(root))
        export = FORMATS[name.decode()].read(Source(root))
        ids = {each: i for i, each in enumerate(export.classes)}
        for image in export.images:
            if image.file or image.embedded:
                draw_frame(find_frame(image), ids, line_width=3, largest_first=False)

    name, path, text = content.split(b"\0", 2)
    root = folder / "exports" / name.decode()
    file = root / path.decode()
    intact = file.read_bytes()
    file.write_bytes(text)
    try:
        return any_succeeds(read)
    finally:
        file.write_bytes(intact)


# files that somebody wrote to do harm


def open_card(content: bytes, _: int, folder: Path) -> bool:
    file = folder / "w.safetensors"
    file.write_bytes(content)
    return any_succeeds(lambda: hostile.use_weights(file))


class Kind(NamedTuple):
    """A kind of file.

    Args:
        seeds: returns intact files.
        damage: returns damaged file number N.
        opens: opens a file, and returns whether it could be read.
        limit: on the memory of the process, in bytes; 400 MB of it are torch's.
        part: number of files that one process opens, in less than `killed.SECONDS`.
    """

    seeds: Callable[[], list[bytes]]
    damage: Callable[[list[bytes], int], bytes]
    opens: Callable[[bytes, int, Path], bool]
    limit: int = BYTES
    part: int = 5_000


KINDS = {
    "images": Kind(images, lambda seeds, index: damaged(seeds, BINARY, index), open_image),
    "lists": Kind(lists, lambda seeds, index: damaged(seeds, TEXT, index), open_lists),
    "settings": Kind(settings, lambda seeds, index: damaged(seeds, TEXT, index), open_settings),
    "annotations": Kind(annotation_files, damaged_annotations, open_annotations),
    "weights": Kind(weights_files, damaged_weights, open_weights),
    "onnx": Kind(exported_files, damaged_exported, open_exported),
    "openvino": Kind(openvino_files, lambda seeds, index: damaged(seeds, [*TEXT, number], index), open_exported),
    "cards": Kind(weights_files, hostile.damaged_card, open_card, part=500),
    "tiles": Kind(hostile.tiles, hostile.damaged_tiles, open_image, 1_300_000_000, part=500),  # a block may have 512 MB
    "runs": Kind(hostile.run_folders, hostile.damaged_run, hostile.open_run, 1_300_000_000, part=25),  # which train
}


# child process


def child(kind: Kind, first: int, last: int, state: Path) -> None:
    """Open the files `first` to `last` - 1, and print the counts as JSON in the last line."""
    resource.setrlimit(
        resource.RLIMIT_AS, (16 << 30, 16 << 30)
    )  # a decompression bomb must not exhaust the machine's memory
    seeds, folder = kind.seeds(), Path(os.environ["FUZZ_FOLDER"])
    unreadable = [number for number, content in enumerate(seeds) if not kind.opens(content, 0, folder)]
    assert not unreadable, "intact files must be readable"
    position = os.open(state, os.O_WRONLY | os.O_CREAT)
    counts, slowest, exceptions, peak, sizes = Counter(), (0.0, -1), [], 0, []
    for index in range(first, last):
        content = kind.damage(seeds, index)
        os.pwrite(position, b"%9d" % index, 0)
        signal.setitimer(signal.ITIMER_PROF, SECONDS)
        signal.setitimer(signal.ITIMER_REAL, 12 * SECONDS)  # of wall time, for calls that block
        start = time.process_time()
        try:
            counts["read" if kind.opens(content, index, folder) else "rejected"] += 1
        except Exception as error:
            exceptions.append((index, f"{type(error).__module__}.{type(error).__name__}: {str(error)[:200]}"))
        signal.setitimer(signal.ITIMER_PROF, 0)
        signal.setitimer(signal.ITIMER_REAL, 0)
        slowest = max(slowest, (time.process_time() - start, index))
        if (found := memory("VmHWM")) > peak + 50e6:
            sizes.append((index, found))
        peak = max(peak, found)
    print(json.dumps({**counts, "exceptions": exceptions, "slowest": slowest, "peak": peak, "sizes": sizes}))


def memory(key: str) -> int:
    """Return a memory statistic of this process in bytes: VmHWM is its peak; ru_maxrss would include its parent's."""
    return 1024 * int(Path("/proc/self/status").read_text().split(f"{key}:")[1].split()[0])


# parent process


class Result(NamedTuple):
    """The numbers of files read and rejected, and the files with crashes and other exceptions, by number."""

    read: int
    rejected: int
    crashes: dict[int, str]
    exceptions: list[tuple[int, str]]
    slowest: tuple[float, int]
    peak: int


def fuzz(warm: killed.Warm, name: str, count: int, folder: Path) -> Result:
    """Open `count` damaged files in child processes; after a crash, continue with the next file in a new one."""
    crashes: dict[int, str] = {}
    parts: list[dict] = []
    first, state = 0, folder / "state"
    while first < count:
        last = min(count, first + KINDS[name].part)
        arguments = [__file__, name, str(first), str(last), str(state)]
        done = warm.start(killed.script, *arguments, errors=folder / "output", FUZZ_FOLDER=str(folder))
        if done.wait() >= 0:
            assert done.status == 0, done.stderr()[-2000:]
            parts.append(json.loads(done.stderr().splitlines()[-1]))
            first = last
            continue
        index = int(state.read_text())
        crashes[index] = signal.Signals(-(done.status or 0)).name
        first = index + 1
    total = Counter()
    for part in parts:
        total.update(read=part.get("read", 0), rejected=part.get("rejected", 0))
    exceptions = [tuple(error) for part in parts for error in part["exceptions"]]
    slowest = max((tuple(part["slowest"]) for part in parts), default=(0.0, -1))
    return Result(
        total["read"], total["rejected"], crashes, exceptions, slowest, max((part["peak"] for part in parts), default=0)
    )


NEEDED = {"onnx": ("onnx", "onnxruntime"), "openvino": ("onnx", "openvino")}
COUNTS = {
    "images": 100_000,
    "lists": 10_000,
    "settings": 20_000,
    "annotations": 10_000,
    "weights": 5_000,
    "onnx": 10_000,
    "openvino": 3_000,
    "cards": 2_000,
    "tiles": 1_000,
    "runs": 100,
}


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
@pytest.mark.parametrize(
    ("kind", "count"),
    [
        ("images", 500),
        ("lists", 200),
        ("settings", 100),
        ("annotations", 200),
        ("weights", 40),
        ("onnx", 100),
        ("cards", 20),
        ("tiles", 50),
        pytest.param("openvino", 60, marks=pytest.mark.slow),
        *(pytest.param(kind, count, marks=pytest.mark.stress) for kind, count in COUNTS.items()),
    ],
)
def test_damaged_files_are_read_or_rejected(kind, count, warm, tmp_path):
    if kind in NEEDED and not all(map(find_spec, NEEDED[kind])):  # not imported here, see conftest.py
        pytest.skip(f"needs {' and '.join(NEEDED[kind])}")
    result = fuzz(warm, kind, count, tmp_path)
    print(f"{count} {kind}: {result}")
    assert result.crashes == {}, "crashed, or took over 5 s (SIGPROF)"
    assert result.exceptions == []
    assert result.read + result.rejected == count
    assert min(result.read, result.rejected) > count / 200, "the damage is too weak or too strong for a meaningful test"
    assert result.peak < KINDS[kind].limit


if __name__ == "__main__":
    with contextlib.suppress(KeyboardInterrupt):
        child(KINDS[sys.argv[1]], int(sys.argv[2]), int(sys.argv[3]), Path(sys.argv[4]))
