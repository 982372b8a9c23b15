"""The tables of speed and memory in the docs: attention, whole networks, protocols, export, server and data."""

from collections.abc import Mapping
from typing import Any

from benchmarks.cost import NETWORKS
from benchmarks.markdown import latency, markdown, megabytes, percent, read
from benchmarks.plots import COST_CURVES
from danet.weights import file as weights_file


def attention() -> str:
    """Return time, memory and error of exact position attention."""
    names = {"plain": "plain", "tiled": "**tiled**", "fused": "torch's fused kernel, value in 8 heads"}
    rows = []
    for name in ("attention", "attention_backward", "attention_32768"):
        result = read(name)
        for size in result["sizes"]:
            title = f"{size['positions']:,} {'forward + backward' if result['backward'] else 'forward'}"
            for way, row in size["ways"].items():
                seconds = row["median_s"]
                rows.append(
                    (
                        title,
                        names[way],
                        f"{seconds:.3f}" if seconds < 10 else f"{seconds:.1f}",
                        "1" if way == "plain" else f"{row['of_plain']:.2f}",
                        f"{row['share_of_gemm_rate']:.0%}".replace("%", " %"),
                        megabytes(row["peak_bytes"]),
                        "" if result["backward"] else f"{row['largest_error']:.1e}".replace("e-0", "e-"),
                    )
                )
                title = ""
    head = ("N", "implementation", "s", "relative to plain", "of the matrix-product rate", "peak memory, MB")
    return markdown((*head, "error against float64"), rows)


def cost() -> str:
    """Return time and memory of attention and of whole networks as images grow."""

    def cell(entry: Mapping[str, Any], reason: str) -> str:
        if "left_out" in entry:
            return reason
        seconds = entry["median_s"]
        return f"{seconds:.{3 if seconds < 0.5 else 2 if seconds < 10 else 1}f} s, {megabytes(entry['peak_bytes'])} MB"

    sizes = read("cost")["sizes"]
    curves = {name: text for name, text in COST_CURVES.items() if name in sizes[0]}
    rows = [
        (
            f"{size['positions']:,}",
            *(cell(size[name], "" if name in NETWORKS else "does not fit") for name in curves),
        )
        for size in sizes
    ]
    return markdown(("N", *curves.values()), rows)


def network() -> str:
    """Return the latency of the whole network, prepared in several ways."""
    cases = read("network")["cases"]
    ways = {
        "eager": "as trained",
        "channels_last": "channels_last",
        "folded": "batch normalization folded (`danet predict`)",
        "bfloat16": "and `--dtype bfloat16`",
    }

    def cell(row: Mapping[str, Any], way: str) -> str:
        return latency(row["median_s"]) + (f", {row['speedup']:.2f} x" if way != "eager" else "")

    rows = [(text, *(cell(case[way], way) for case in cases.values())) for way, text in ways.items()]
    return markdown(("", *(case.replace("default", "second weights") for case in cases)), rows)


def protocols() -> str:
    """Return time and memory of multi-scale testing."""
    result = read("protocols")
    loop, whole, largest = result["released_loop"], result["whole"], result["largest"]

    def about(entry: Mapping[str, Any]) -> str:
        height, width = entry["image"]
        return f"{width} x {height}, {len(entry['scales'])} scales and flip, windows of {entry['crop']}"

    ways = {
        "released loop": f"{about(loop)}: the released loop",
        "ours, same network": "ours, same network",
        "ours": "ours, as `danet evaluate` runs it (folded, channels_last)",
    }
    rows = []
    for name, text in ways.items():
        row = loop["ways"][name]
        rows.append((text, f"{row['median_s']:.1f}", "1" if row["speedup"] == 1 else f"{row['speedup']:.2f}", ""))
    base = whole["ways"]["windows"]["seconds"]
    for name, text in (("windows", about(whole)), ("whole", "whole images instead")):
        row = whole["ways"][name]
        speedup = "1" if name == "windows" else f"{base / row['seconds']:.1f}"
        rows.append((text, f"{row['seconds']:.1f}", speedup, megabytes(row["peak_bytes"])))
    height, width = largest["image"]
    text = f"{width} x {height} whole at scale {largest['scale']}, N = {largest['positions']:,}"
    rows.append((text, f"{largest['seconds']:.1f}", "", megabytes(largest["peak_bytes"])))
    return markdown(("", "s", "speedup", "peak memory, MB"), rows)


def protocol_memory() -> str:
    """Return the peak memory of multi-scale testing."""
    rows = []
    for name, network in (
        ("protocol_memory", "a 1x1 convolution: the protocol alone"),
        ("protocol_memory_resnet50", "DANet-50"),
    ):
        result = read(name)
        scales = f"{len(result['scales'])}" if "scales" in result else "8 and flip"
        peak, before = (f"{result[key] / 1e9:.2f} GB" for key in ("peak_bytes", "before_bytes"))
        rows.append((network, scales, f"**{peak}**", before))
    return markdown(("network", "scales", "peak of the process", "before it starts"), rows)


def pipeline() -> str:
    """Return images/s of `danet predict` on a folder, and of its parts."""
    ways = {
        "network alone": "network alone",
        "in turn": "read, network and write in turn",
        "overlapped": "overlapped, as `danet predict` does",
    }
    found = read("pipeline")["images_per_second"]
    return markdown(("", "images/s"), [(text, f"{found[name]:.1f}") for name, text in ways.items()])


def kept_memory() -> str:
    """Return the time of a training step and of a prediction with freed memory returned and kept."""
    ways = {"returned": "returned to the system, as glibc does", "kept": "kept, as danet does"}
    rows = [
        (task, text, f"{row['seconds']:.2f}", f"{row['faults']:,}", megabytes(row["peak_bytes"]))
        for task, found in read("kept_memory")["tasks"].items()
        for row, text in ((found[way], text) for way, text in ways.items())
    ]
    return markdown(("", "freed memory is", "s", "page faults", "peak memory, MB"), rows)


def export() -> str:
    """Return latency, mIoU and file size of the exported bundled weights, and latency on a ResNet-50."""
    ways = {
        "PyTorch": "PyTorch",
        "PyTorch, folded": "PyTorch, batch normalization folded",
        "OpenVINO bfloat16": "OpenVINO, `--dtype bfloat16`",
    }
    bundled, dense = (read(name)["ways"] for name in ("export", "export_resnet50"))
    sizes = {"PyTorch": megabytes(weights_file.DEFAULT.stat().st_size, 1)}

    def cells(all_ways: Mapping[str, Any], name: str) -> tuple[str, str]:
        spent = all_ways[name]["milliseconds"]
        return f"{spent:,.0f}", f"{all_ways['PyTorch']['milliseconds'] / spent:.2f}"

    rows = []
    for name in (*ways, *(name for name in bundled if name not in ways)):
        way = bundled[name]
        score = percent(way["miou"], 2) if "miou" in way else ""
        size = megabytes(way["bytes"], 1) if "bytes" in way else sizes.get(name, "")
        rows.append((ways.get(name, name), *cells(bundled, name), score, size, *cells(dense, name)))
    return markdown(("", "ms/image", "speedup", "mIoU, %", "file, MB", "ResNet-50, ms", "speedup"), rows)


def serve() -> str:
    """Return latency, throughput and memory of the server."""
    result = read("serve")
    load, memory, health = result["load"], result["load"]["resident_mb"], result["load"]["health"]
    wide, narrow = result["hover_width_512"], result["hover_width_64"]
    height, width = wide["grid"]
    statuses = ", ".join(f"{count} answered {status}" for status, count in load["statuses"].items())

    def times(entry: Mapping[str, float]) -> str:
        return f"median {entry['p50_ms']:.1f} ms, p95 {entry['p95_ms']:.1f} ms"

    rows = [
        (f"attention of the pixel under the pointer, {height} x {width} features, 512 channels", times(wide)),
        ("the same, 64 channels", times(narrow)),
        (
            f"{load['uploads']} simultaneous uploads",
            f"{statuses}; {load['images_a_second']:.1f} images/s, {load['images_a_batch']:.1f} images/batch",
        ),
        ("resident memory, idle and peak", f"{memory['idle']:,.0f} and {memory['most']:,.0f} MB"),
        (
            "/health during the uploads",
            f"median {health['p50_ms']:.0f} ms, p95 {health['p95_ms']:.0f} ms, p99 {health['p99_ms']:.0f} ms",
        ),
    ]
    return markdown(("", ""), rows)


def scale() -> str:
    """Return the time of batches by engine, and the error of the model of their cost."""
    result = read("scale")
    _, some, twice = result["images"]
    rows = [
        (
            way,
            f"{found['seconds_of_one']:.1f}",
            f"{found['seconds']:.1f}",
            f"{found['seconds_of_twice']:.1f}",
            f"{round(100 * found['error_of_the_model']):+d}%",
        )
        for way, found in result["ways"].items()
    ]
    head = ("", "s for 1 image", f"s for {some}", f"s for {twice}", "error of the prediction")
    about = f"{result['pixels'] / 1e6:.1f} megapixels, {result['cores']} cores, one thread per process"
    return f"\n{about}:\n{markdown(head, rows)}"


def batch_costs() -> str:
    """Return what large batches need, and the speeds at which the connection and PUTs limit them."""
    result = read("scale")
    rows = [
        (
            f"{row['images']:,}",
            f"{row['process_hours']:,.0f}",
            f"{row['head_and_get_requests'] / 1e6:,.0f}",
            f"{row['put_requests'] / 1e6:,.0f}",
            f"{row['read_tb']:,.1f}",
            f"{row['written_tb']:,.2f}",
        )
        for row in result["cost"]
    ]
    head = ("images", "process-hours", "million HEADs and GETs", "million PUTs", "TB read", "TB written")
    seconds = result["ways"]["local engine"]["seconds_per_image"]
    network = 1e4 / (result["cost"][0]["mbit_per_second_of_a_process"] * seconds)
    about = f"{result['pixels'] / 1e6:.1f} megapixels, {seconds:.2f} s for each in a process of one core:"
    limits = (
        f"10 Gbit/s carry {network:,.0f} such images per second, the work of {network * seconds:,.0f} such processes.\n"
        f"S3 accepts 3,500 PUTs per second in a folder: that many images, or {3500 * seconds:,.0f} processes.\n"
        f"Reading an image and encoding its label map takes {result['file_seconds']:.3f} s of a core, so a GPU that "
        f"segments\nmore than {1 / result['file_seconds']:.0f} of these images per second needs several cores."
    )
    return f"\n{about}\n{markdown(head, rows)}{limits}\n\n"


def small_images() -> str:
    """Return the time of a batch of many small images, and what its checks found."""
    result = read("small_images")
    rows = [
        (
            name,
            f"{found['seconds']:.0f}",
            f"{found['images_per_second']:.1f}",
            f"{found['list_seconds']:.1f}",
            str(found["errors"]),
            str(found["wrong"]),
        )
        for name, found in result["engines"].items()
    ]
    head = ("engine", "s", "images/s", "s to start and list", "rows with an error", "wrong or missing results")
    about = f"{result['images']:,} images of {result['width']} x {result['height']}, {result['bad']} of them damaged"
    differing = sum(found.get("files_that_differ", 0) for found in result["engines"].values())
    compared = f"{differing} label maps differ between the engines"
    return f"\n{about}; {compared}; peak memory {result['peak_mb']:,.0f} MB:\n{markdown(head, rows)}"


def deployment() -> str:
    """Return what it takes to segment one image: disk, start, memory and time, by runtime."""
    result = read("deployment")
    rows = [
        (
            name,
            f"{sum(way['packages'].values()) / 1e6:,.0f}",
            f"{way['process']['seconds']:.2f}",
            "" if way["load"] is None else f"{way['load']['seconds']:.2f}",
            f"{way['process']['peak'] / 1e6:,.0f}",
            f"{1000 * way['image_s']:.0f}",
        )
        for name, way in result["ways"].items()
    ]
    return markdown(("", "disk, MB", "whole process, s", "load, s", "peak, MB", "next images, ms"), rows)


def data() -> str:
    """Return the time to make a training sample."""
    ways = {
        "released": "the released code's steps",
        "ours": "ours",
        "cached": "ours, `--cache`",
        "decoding alone": "decoding the two files, part of both",
    }
    rows = []
    for name, text in ways.items():
        row = read("data")["ways"][name]
        share = row["of_released"]
        rows.append(
            (text, f"{1000 * row['median_s']:.1f}", "1" if share == 1 else f"{share:.{3 if share < 0.2 else 2}f}")
        )
    return markdown(("", "ms", "relative to the released pipeline"), rows)


def highlights() -> str:
    """Return three comparisons for the README."""
    (size,) = read("attention_32768")["sizes"]
    plain, tiled, fused = (size["ways"][name] for name in ("plain", "tiled", "fused"))
    loop, whole = read("protocols")["released_loop"]["ways"], read("protocols")["whole"]["ways"]
    speedup = whole["windows"]["seconds"] / whole["whole"]["seconds"]
    ways = read("export")["ways"]
    height, width = read("export")["image"]
    int8, float32 = ways["OpenVINO int8"], ways["OpenVINO"]
    loss = percent(float32["miou"] - int8["miou"])

    def both(row: Mapping[str, Any]) -> str:
        return f"{row['fastest_s']:.1f} s, {megabytes(row['peak_bytes'])} MB"

    rows = [
        (
            f"exact position attention, a Cityscapes image at stride 8 (N = {size['positions']:,}), fastest of 3 runs",
            both(tiled),
            f"plain: {both(plain)}; torch's fused kernel: {both(fused)}",
        ),
        (
            "testing with 8 scales and flip, same results within 2e-5",
            f"{loop['ours']['median_s']:.1f} s",
            f"the released loop: {loop['released loop']['median_s']:.1f} s; whole images, which fit into memory here, "
            f"are {speedup:.1f} times as fast as windows",
        ),
        (
            "int8 on a CPU, `danet export --int8`, bundled weights",
            f"{int8['milliseconds']:.0f} ms per image of {width} x {height}",
            f"OpenVINO float32: {float32['milliseconds']:.0f} ms, mIoU {loss} higher",
        ),
    ]
    return markdown(("", "danet", "for comparison"), rows)
