"""The examples of docs/deploy.md in C++ and in the browser, built and run by the page's commands on one image."""

import base64
import functools
import io
import json
import os
import re
import shutil
import subprocess
import sys
import threading
from collections.abc import Iterator
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import danet
from danet.weights.export import Graph, export

onnxruntime = pytest.importorskip("onnxruntime", reason="onnxruntime is not installed")
sync_api = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")

ROOT = Path(__file__).parents[1]
IMAGE = ROOT / "examples/street.jpg"
CHROMIUM = Path("/usr/bin/chromium")
ARGUMENTS = ["--no-sandbox", "--disable-gpu", "--no-first-run", "--disable-background-networking", "--disable-sync"]
HEADERS = Path(os.environ.get("ONNXRUNTIME_INCLUDE", "/usr/include/onnxruntime"))


def commands(heading: str) -> list[str]:
    """Return the indented commands of a section of the page."""
    section = (ROOT / "docs/deploy.md").read_text().split(f"\n## {heading}\n")[1].split("\n## ")[0]
    return re.findall(r"^    (\w.*)$", section, re.MULTILINE)


def run(command: str, folder: Path, **replaced: str) -> str:
    """Run a command of the page, with this interpreter as python, and return what it prints."""
    for old, new in {**replaced, "python ": f"{sys.executable} "}.items():
        command = command.replace(old, new)
    done = subprocess.run(["bash", "-ec", command], cwd=folder, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, f"{command}\n{done.stdout}\n{done.stderr}"
    return done.stdout


def needs(*programs: str) -> pytest.MarkDecorator:
    missing = [program for program in programs if shutil.which(program) is None]
    return pytest.mark.skipif(bool(missing), reason=f"not installed: {', '.join(missing)}")


@pytest.fixture(scope="module")
def clone(tmp_path_factory) -> Path:
    """A folder with the examples and whole.onnx, so that nothing is written to the repository."""
    folder = tmp_path_factory.mktemp("clone")
    shutil.copytree(ROOT / "examples", folder / "examples")
    export(None, folder / "whole.onnx", "onnx", verify=False, graph=Graph(preprocessing=True))
    return folder


@pytest.fixture(scope="module")
def expected() -> danet.Segmentation:
    return danet.load()(IMAGE)


def shares(segmentation: danet.Segmentation) -> dict[str, float]:
    """The classes of the image with their percentages, as the examples print them."""
    return {segmentation.classes.names[i]: 100 * share for i, share in segmentation.shares() if share > 0.0005}


def check_shares(pairs: list[tuple[str, str]], expected: danet.Segmentation) -> None:
    printed = {name: float(share) for name, share in pairs if float(share) > 0.05}
    assert printed == pytest.approx(shares(expected), abs=0.06)


def onnxruntime_root(folder: Path) -> Path:
    """Return a folder like ONNX Runtime's release archive: headers of the system, and the library of the package."""
    library = next(Path(onnxruntime.__file__).parent.glob("capi/libonnxruntime.so.*"))
    (folder / "lib").mkdir(parents=True)
    (folder / "include").symlink_to(HEADERS)
    for name in ("libonnxruntime.so", "libonnxruntime.so.1"):
        (folder / "lib" / name).symlink_to(library)
    return folder


@pytest.mark.slow
@needs("cmake", "g++")
@pytest.mark.skipif(
    not (HEADERS / "onnxruntime_cxx_api.h").exists(),
    reason="ONNX Runtime's C++ headers are not installed; set ONNXRUNTIME_INCLUDE to their folder",
)
def test_the_cpp_example_gives_the_labels_of_danet(clone, expected, tmp_path):
    root = onnxruntime_root(tmp_path / "onnxruntime")
    to_ppm, configure, build, segment = commands("Use the graph in C++")
    run(to_ppm, clone)
    run(configure, clone, DIR=str(root))
    run(build, clone)
    printed = run(segment, clone)
    labels = np.asarray(Image.open(clone / "labels.pgm"))
    assert labels.shape == expected.labels.shape
    assert (labels == expected.labels).mean() >= 0.99999  # the last bits of sums depend on the threads
    check_shares([(name, share) for share, name in re.findall(r"([\d.]+)%  (\w+)", printed)], expected)
    (mean,) = re.findall(r"mean confidence ([\d.]+)", printed)
    assert float(mean) == pytest.approx(expected.confidence.mean(), abs=1e-3)

    program = clone / segment.split()[0]
    (clone / "short.ppm").write_bytes((clone / "street.ppm").read_bytes()[:1000])
    for image, reason in (("short.ppm", "shorter than its size"), ("whole.onnx", "not a binary PPM"), ("no", "not a")):
        failed = subprocess.run([program, "whole.onnx", image, "out.pgm"], cwd=clone, capture_output=True, text=True)
        assert (failed.returncode, failed.stdout) == (1, "")
        assert failed.stderr.startswith(f"error: {image}: ")
        assert reason in failed.stderr
    assert not (clone / "out.pgm").exists()


@pytest.fixture
def site(clone) -> Iterator[str]:
    """The address of the folder with the page, prepared by the commands of the docs."""
    _, *prepare, _, _ = commands("Use the graph in a browser")
    for command in prepare:
        run(command, clone)
    handler = functools.partial(SimpleHTTPRequestHandler, directory=str(clone / "examples/browser"))
    handler.log_message = lambda *_: None  # type: ignore[attr-defined]
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}/"
        server.shutdown()


LABELS = """import("./segment.js").then(({result}) =>
    btoa(Array.from(result.labels, (label) => String.fromCharCode(label)).join("")))"""


@pytest.mark.browser
@needs("npm", str(CHROMIUM))
def test_the_browser_example_gives_the_labels_of_danet(site, expected, tmp_path):
    (tmp_path / "broken.png").write_bytes(b"no image")
    wrong: list[str] = []
    with sync_api.sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=str(CHROMIUM), args=ARGUMENTS)
        page = browser.new_page()
        page.set_default_timeout(300_000)  # one thread, without the processor's wide instructions
        page.on("pageerror", lambda error: wrong.append(str(error)))
        page.on("console", lambda message: wrong.append(message.text) if message.type == "error" else None)
        page.on("request", lambda r: None if r.url.startswith((site, "blob:", "data:")) else wrong.append(r.url))
        page.goto(site)
        page.set_input_files("input:enabled", IMAGE)
        page.wait_for_selector("tbody tr")
        rows = [row.split("\t") for row in page.inner_text("tbody").splitlines()]
        labels = np.frombuffer(base64.b64decode(page.evaluate(LABELS)), np.uint8).reshape(expected.labels.shape)
        overlay = page.evaluate("document.querySelector('canvas').toDataURL()")
        page.set_input_files("input:enabled", tmp_path / "broken.png")
        page.wait_for_function("document.querySelector('[role=status]').textContent.includes('not segmented')")
        browser.close()
    assert wrong == []
    assert (labels == expected.labels).mean() >= 0.9999  # WebAssembly adds in another order
    check_shares([(name, share.rstrip("%")) for name, share in rows], expected)
    drawn = np.asarray(Image.open(io.BytesIO(base64.b64decode(overlay.partition(",")[2]))).convert("RGB"))
    colors = np.array(expected.classes.palette)[labels]
    assert np.abs(drawn - (expected.image / 2 + colors / 2)).max() <= 0.5  # the same decoded bytes


def test_the_classes_of_the_page_are_those_of_the_bundled_weights():
    entries = json.loads((ROOT / "examples/browser/classes.json").read_text())
    classes = danet.load().classes
    assert [(entry["name"], tuple(entry["color"])) for entry in entries] == list(
        zip(classes.names, classes.palette, strict=True)
    )
