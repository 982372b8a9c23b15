"""Draw the images of the documentation with the bundled weights.

    uv run --all-extras python docs/images.py

The image of the web page needs Debian's chromium.
"""

import io
import re
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw, ImageFont
from playwright.sync_api import Page, sync_playwright

from danet.evaluate.corruptions import CORRUPTIONS, corrupt

DOCS = Path(__file__).parent
EXAMPLES = DOCS.parent / "examples"
PHOTO = EXAMPLES / "china.jpg"
POINTS = ((0.36, 0.54), (0.2, 0.12), (0.75, 0.9))
"""Temple, sky and trees, as fractions of the width and height of the image."""
LAST_OF_0_1_0 = "346282d"
"""The commit whose images CHANGELOG.md shows beside today's."""


def danet(*args: str | Path) -> list[str]:
    """Return the command line of a danet command."""
    return [sys.executable, "-m", "danet", *map(str, args)]


def overlays() -> None:
    """Draw the overlays of the example images."""
    with tempfile.TemporaryDirectory() as folder:
        subprocess.run(danet("predict", EXAMPLES, "--out", folder), check=True)
        for overlay in Path(folder).glob("*_overlay.png"):
            shutil.copy(overlay, DOCS / overlay.name)


def look() -> None:
    """Draw the sheet of `danet look`, at half its size."""
    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder) / "look.png"
        points = ["--point", "455", "155", "--point", "555", "345"]
        subprocess.run(danet("look", PHOTO, *points, "--without", "--out", out), check=True)
        with Image.open(out) as sheet:
            sheet.reduce(2).save(DOCS / "look_china.png", optimize=True)


def corruptions() -> None:
    """Draw each corruption of `danet robustness` at severity 3, with its name."""
    width, height = 320, 180
    with Image.open(EXAMPLES / "street.jpg") as street:
        pixels = np.asarray(street.convert("RGB").resize((2 * width, 2 * height)))
    sheet = Image.new("RGB", (4 * width, 3 * height))
    drawing = ImageDraw.Draw(sheet)
    for i, name in enumerate(CORRUPTIONS):
        x, y = width * (i // 3), height * (i % 3)  # one column per kind
        sheet.paste(Image.fromarray(corrupt(pixels, name, 3)).resize((width, height)), (x, y))
        drawing.text((x + 8, y + 6), name, "white", ImageFont.load_default(16), stroke_width=2, stroke_fill="black")
    sheet.save(DOCS / "corruptions.jpg", quality=88)


def page() -> None:
    """Take a screenshot of the page of `danet serve`, with the attention of one point and two more points pinned."""
    with subprocess.Popen(danet("serve", "--port", "0"), stdout=subprocess.PIPE, text=True) as server:
        try:
            assert server.stdout is not None
            address = server.stdout.readline().strip()
            with sync_playwright() as playwright:
                browser = playwright.chromium.launch(executable_path="/usr/bin/chromium", args=["--no-sandbox"])
                tab = browser.new_page(viewport={"width": 1280, "height": 860})
                tab.goto(address)
                _pin_points(tab)
                tab.screenshot(path=DOCS / "page.png")
                browser.close()
        finally:
            server.terminate()


def _pin_points(tab: Page) -> None:
    tab.wait_for_selector("[data-model=ready]")
    tab.click("#example")
    tab.wait_for_selector("[data-state=ready]")
    tab.locator("label", has_text=re.compile("Attention")).first.click()
    box = tab.locator("#stage").bounding_box()
    assert box is not None
    for x, y in reversed(POINTS):
        tab.mouse.click(box["x"] + x * box["width"], box["y"] + y * box["height"])
        tab.wait_for_timeout(500)


def since_0_1_0() -> None:
    """Draw the images of the street and the page beside those of version 0.1.0."""
    width, gap, title = 800, 20, 36
    for source, target in (("street_overlay.png", "since_0_1_0_street.jpg"), ("page.png", "since_0_1_0_page.jpg")):
        stored = subprocess.run(
            ["git", "show", f"{LAST_OF_0_1_0}:docs/{source}"], cwd=DOCS, check=True, capture_output=True
        ).stdout
        images = [Image.open(io.BytesIO(stored)), Image.open(DOCS / source)]
        height = round(width * images[0].height / images[0].width)
        sheet = Image.new("RGB", (2 * width + gap, title + height), "white")
        drawing = ImageDraw.Draw(sheet)
        for i, (image, version) in enumerate(zip(images, ("0.1.0", "0.2.0"), strict=True)):
            x = i * (width + gap)
            drawing.text((x + 4, 6), version, "black", ImageFont.load_default(20))
            sheet.paste(image.convert("RGB").resize((width, height), Image.Resampling.LANCZOS), (x, title))
        sheet.save(DOCS / target, quality=88)


if __name__ == "__main__":
    overlays()
    look()
    corruptions()
    page()
    since_0_1_0()
