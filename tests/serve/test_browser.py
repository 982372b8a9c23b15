"""The web page of `danet serve` in a browser (Debian's chromium, driven by Playwright)."""

import base64
import contextlib
import io
import json
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import danet
from danet.visualize.attention_answers import default_points

pytestmark = pytest.mark.browser
sync_api = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")

CHROMIUM = Path("/usr/bin/chromium")
ARGUMENTS = [
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
]
ROOT = Path(__file__).parents[2]
EXAMPLE = ROOT / "danet/serve/page/example.jpg"


@contextlib.contextmanager
def server(*args: str, **environment: str) -> Iterator[str]:
    command = [sys.executable, "-m", "danet", "serve", "--port", "0", *args]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=os.environ | environment) as running:
        try:
            yield running.stdout.readline().strip()
        finally:
            running.terminate()


@pytest.fixture(scope="module")
def address() -> Iterator[str]:
    with server() as url:
        yield url


@pytest.fixture(scope="module")
def browser():
    if not CHROMIUM.exists():
        pytest.skip(f"{CHROMIUM} is not installed")
    with sync_api.sync_playwright() as playwright:
        running = playwright.chromium.launch(executable_path=str(CHROMIUM), args=ARGUMENTS)
        yield running
        running.close()


@pytest.fixture
def open_page(browser):
    """Return a function that opens the page in a new context. Finally, check for errors and external requests."""
    contexts, wrong = [], []

    def opened(address: str, expected: str = "", **options):
        context = browser.new_context(**{"viewport": {"width": 1280, "height": 900}, **options})
        contexts.append(context)
        page = context.new_page()
        page.set_default_timeout(15_000)
        page.on("pageerror", lambda error: wrong.append(str(error)))
        page.on(
            "console",
            lambda message: (
                wrong.append(message.text)
                if message.type in ("error", "warning") and not (expected and re.search(expected, message.text))
                else None
            ),
        )
        page.on("request", lambda r: None if r.url.startswith((address, "blob:", "data:")) else wrong.append(r.url))
        page.goto(address)
        return page

    yield opened
    for context in contexts:
        context.close()
    assert wrong == []


@pytest.fixture(scope="module")
def places() -> dict[str, tuple[float, float]]:
    """Return a point well inside each of the two largest classes of the example, in fractions of its size."""
    inspection = danet.load().inspect(EXAMPLE)
    height, width = inspection.image.shape[:2]
    points, segmentation = default_points(inspection), inspection.segmentation
    names = [segmentation.classes.names[segmentation.labels[y, x]] for x, y in points]
    return {name: (x / width, y / height) for name, (x, y) in zip(names, points, strict=True)}


def example(page):
    page.wait_for_selector("[data-model=ready]")
    page.click("#example")
    page.wait_for_selector("[data-state=ready]")
    until(page, "document.querySelectorAll('#shares li').length > 1")
    return page


def until(page, condition: str) -> None:
    """Wait for a condition. Playwright's own way evaluates text in the page, which the page's policy forbids."""
    for _ in range(300):
        if page.evaluate(condition):
            return
        page.wait_for_timeout(50)
    raise AssertionError(condition)


def at(page, x: float, y: float) -> tuple[float, float]:
    box = page.locator("#stage").bounding_box()
    return box["x"] + x * box["width"], box["y"] + y * box["height"]


def pixels(page, canvas: str) -> np.ndarray:
    """Return the pixels of a canvas, H,W,4 uint8."""
    url = page.evaluate("(id) => document.getElementById(id).toDataURL()", canvas)
    return np.asarray(Image.open(io.BytesIO(base64.b64decode(url.partition(",")[2]))).convert("RGBA"))


def test_a_dropped_image_is_segmented(open_page, address):
    page = open_page(address)
    page.wait_for_selector("[data-model=ready]")
    content = EXAMPLE.read_bytes()
    page.evaluate(
        """(bytes) => {
          const files = new DataTransfer();
          files.items.add(new File([new Uint8Array(bytes)], "street.jpg", { type: "image/jpeg" }));
          document.dispatchEvent(new DragEvent("drop", { dataTransfer: files, bubbles: true, cancelable: true }));
        }""",
        list(content),
    )
    page.wait_for_selector("[data-state=ready]")
    legend = page.locator("#legend li").all_inner_texts()
    assert re.match(r"sky\s+\d+%", legend[0])
    assert (pixels(page, "overlay")[..., 3] == 255).all()
    assert "sky" in page.locator("#status").inner_text()


def test_attention_follows_the_pointer_one_request_at_a_time(open_page, address, places):
    page = example(open_page(address))
    (one, start), (other, end) = places.items()
    page.locator("label", has_text="Attention").first.click()
    running, counts, sent = [], [], []

    def count(request):
        if "/v1/attention" in request.url:
            running.append(request)
            sent.append(request.url)
            counts.append(len(running))

    page.on("request", count)
    page.on("requestfinished", lambda r: running.remove(r) if r in running else None)
    page.mouse.move(*at(page, *start))
    until(page, f"document.getElementById('pixel-class').textContent === '{one}'")
    first = pixels(page, "heat")
    assert first.any()
    for step in range(60):
        page.mouse.move(*at(page, 0.2 + step / 100, 0.2 + step / 100))
    page.mouse.move(*at(page, *end))
    until(page, f"document.getElementById('pixel-class').textContent === '{other}'")
    page.wait_for_timeout(300)
    assert max(counts) == 1
    assert len(sent) <= 61
    place = page.locator("#pixel-place").inner_text()
    x, y = (int(n) for n in re.findall(r"\d+", place))
    assert f"x={x}&y={y}" in sent[-1], "the last request must be for the pointer's final position"
    assert (pixels(page, "heat") != first).any()
    until(page, f"document.getElementById('own-share').textContent.includes('{other} covers')")
    sentence = page.locator("#own-share").inner_text()
    share, covered = re.fullmatch(
        rf"(.+)% of this pixel's attention is on {other}; {other} covers (.+)% of .*", sentence
    ).groups()
    assert re.search(rf"{other}\s+{covered}%", page.locator("#legend").inner_text())
    assert re.search(rf"{other}\s+{share}%", page.locator("#shares").inner_text())
    assert re.search(rf"{other} [>\d]+%", page.locator("#tip").inner_text())


def test_points_are_pinned_compared_and_removed(open_page, address, places):
    page = example(open_page(address))
    for i, place in enumerate(places.values(), 1):
        page.mouse.click(*at(page, *place))
        until(page, f"document.querySelectorAll('#pins > li').length === {i}")
    assert [t.strip() for t in page.locator("#pins .head b").all_inner_texts()] == list(places)
    for bars in page.locator("#pins .bars").all():
        shares = [int(n) for n in re.findall(r"(\d+)[.\d]*%", bars.inner_text())]
        assert len(shares) == 3
        assert shares == sorted(shares, reverse=True)
    page.get_by_label("Remove point 2").click()
    assert page.locator("#pins > li").count() == 1


def test_classes_can_be_hidden_and_the_opacity_changed(open_page, address):
    page = example(open_page(address))
    sky = page.locator("#legend li", has_text="sky")
    before = pixels(page, "overlay")[..., 3] > 0
    sky.locator("input").uncheck()
    after = pixels(page, "overlay")[..., 3] > 0
    share = int(re.search(r"(\d+)%", sky.inner_text())[1]) / 100
    assert before.mean() - after.mean() == pytest.approx(share, abs=0.006)
    page.locator("#opacity").fill("20")
    assert page.evaluate("getComputedStyle(document.getElementById('overlay')).opacity") == "0.2"


def test_modules_are_turned_off_and_channels_displayed(open_page, address):
    page = example(open_page(address))
    before = pixels(page, "overlay")
    page.get_by_label("Position attention").uncheck()
    until(page, "document.getElementById('change').textContent.startsWith('Without position')")
    changed = float(re.search(r"([\d.]+)%", page.locator("#change").inner_text())[1])
    after = pixels(page, "overlay")
    assert changed > 0
    assert (before != after).any()
    page.locator("label", has_text="Attention").first.click()
    assert page.get_by_label("Show only changed pixels").is_disabled()
    assert page.locator("#opacity").is_hidden()
    page.locator("label", has_text="Classes").first.click()
    page.get_by_label("Show only changed pixels").check()
    assert (pixels(page, "overlay")[..., 3] > 0).mean() == pytest.approx(changed / 100, abs=0.001)
    page.get_by_label("Position attention").check()
    until(page, "document.getElementById('change').textContent.startsWith('Turn one off')")
    assert np.array_equal(pixels(page, "overlay"), before)
    page.wait_for_selector("#maps button")
    page.locator("#channel-class").select_option(label="tree")
    page.locator("label", has_text="Channels").first.click()
    page.wait_for_selector("#maps [aria-pressed=true]")
    assert pixels(page, "heat").any()


def test_a_disabled_module_has_no_maps(open_page, address):
    page = example(open_page(address))
    page.wait_for_selector("#maps button")
    page.locator("label", has_text="Attention").first.click()
    assert pixels(page, "heat").any()
    page.get_by_label("Position attention").uncheck()
    until(page, "document.getElementById('change').textContent.startsWith('Without position')")
    assert not pixels(page, "heat").any()
    assert page.locator("#hint").inner_text() == "No map: position attention is off"
    assert page.locator("#scale").is_hidden()
    assert page.locator("#look").is_hidden()
    page.locator("label", has_text="Channels").first.click()
    assert pixels(page, "heat").any()
    page.get_by_label("Position attention").check()
    page.get_by_label("Channel attention").uncheck()
    until(page, "document.getElementById('change').textContent.startsWith('Without channel')")
    assert not pixels(page, "heat").any()
    assert page.locator("#maps").is_hidden()
    page.locator("label", has_text="Attention").first.click()
    assert pixels(page, "heat").any()
    assert page.locator("#hint").is_hidden()


def test_a_color_scale_says_what_the_colors_stand_for(open_page, address):
    page = example(open_page(address))
    inspection = danet.load().inspect(EXAMPLE)
    x, y = (int(n) for n in re.findall(r"\d+", page.locator("#pixel-place").inner_text()))
    weights = inspection.attention(x, y)
    page.locator("label", has_text="Attention").first.click()
    low, high = page.locator("#scale > span:not(.ramp)").all_inner_texts()
    assert (low, high) == ("0", f"{max(4, weights.max() * weights.size):.1f}\N{MULTIPLICATION SIGN} average")
    page.wait_for_selector("#maps button")
    page.locator("label", has_text="Channels").first.click()
    low, high = page.locator("#scale > span:not(.ramp)").all_inner_texts()
    values = inspection.channel_maps([int(page.locator("#maps span").first.inner_text().split()[1]) - 1])
    shown = [float(text.replace("\N{MINUS SIGN}", "-")) for text in (low, high)]
    assert shown == pytest.approx([values.min(), values.max()], rel=0.05, abs=1e-3)
    scale = inspection.internals.scales["position"]
    assert (
        page.locator("#alpha")
        .inner_text()
        .startswith(f"What a pixel collects is multiplied by alpha = {scale:.2f}".replace("-", "\N{MINUS SIGN}"))
    )


def test_flat_maps_stay_flat(open_page, address):
    page = open_page(address)
    for code, uniform, contrast in (
        ("attentionMap(new Float32Array(400).fill(1 / 400))", True, 0),
        ("attentionMap(Float32Array.from({ length: 400 }, (_, i) => (1 + (i % 2) / 10) / 420))", True, 0.03),
        ("attentionMap(Float32Array.from({ length: 400 }, (_, i) => (i < 40 ? 9 : 1 / 9) / 400))", False, 0.89),
        ("channelMap(Float32Array.from([5, 5.001, 5.002]))", True, 0.02),
        ("channelMap(Float32Array.from([-1, 0, 3]))", False, 1),
    ):
        script = f"import('/page/draw.js').then(({{ attentionMap, channelMap }}) => {code})"
        found = page.evaluate(f"{script}.then((map) => ({{ ...map, scaled: Array.from(map.scaled) }}))")
        values = np.array(found["scaled"])
        assert (found["uniform"], np.ptp(values)) == (uniform, pytest.approx(contrast, abs=0.01)), code
        assert values.min() >= 0
        assert values.max() <= 1


def test_words_and_shares_say_what_numbers_mean(open_page, address):
    page = open_page(address)

    def words(code: str) -> str:
        return page.evaluate(f"import('/page/words.js').then((words) => words.{code})")

    shares = {
        0: "0%",
        1e-4: "<0.1%",
        0.004: "0.4%",
        0.4: "40%",
        0.9949: "99%",
        0.997: "99.7%",
        0.9999: ">99.9%",
        1: "100%",
    }
    assert {share: words(f"percent({share})") for share in shares} == shares
    assert [words(f"certainty({value})") for value in (0.002, 0.6, 1)] == ["<1%", "60%", ">99%"]
    negative = words("scaleSentence('position', { scale: -0.114, size: 0.041, varying: 0.011 })")
    assert negative == (
        "What a pixel collects is multiplied by alpha = \N{MINUS SIGN}0.11, which is negative: it is subtracted from "
        "its own features. This changes them a little, by 4% of their size, mostly in the same way all over the image."
    )
    positive = words("scaleSentence('channel', { scale: 1.5, size: 0.6, varying: 0.5 })")
    assert "multiplied by beta = 1.5 and added to its own values. This changes them a lot, by 60%" in positive
    assert words("scaleSentence('position', { scale: 0, size: 0, varying: 0 })").endswith(
        "this attention has no effect."
    )


def test_the_start_page_lists_classes_and_formats(open_page, address):
    page = open_page(address)
    page.wait_for_selector("[data-model=ready]")
    assert page.locator("#knows h2").inner_text() == "Recognizes 11 classes (trained on CamVid)"
    assert page.locator("#knows li").all_inner_texts() == list(danet.load().classes.names)
    assert "JPEG, PNG, WebP or GIF" in page.locator("#welcome").inner_text()
    assert page.locator("aside").is_hidden()


def test_a_gif_is_segmented_and_the_frame_follows_its_shape(open_page, address, tmp_path):
    Image.open(EXAMPLE).resize((900, 300)).save(tmp_path / "wide.gif")
    page = open_page(address, expected="422")
    page.wait_for_selector("[data-model=ready]")
    page.set_input_files("#file", tmp_path / "wide.gif")
    page.wait_for_selector("[data-state=ready]")
    frame, stage, below = (page.locator(name).bounding_box() for name in ("#frame", "#stage", "#modules"))
    assert frame["height"] - stage["height"] < 4
    assert below["x"] == frame["x"]
    frames = [Image.new("RGB", (40, 40), color) for color in ("red", "blue")]
    frames[0].save(tmp_path / "moving.gif", save_all=True, append_images=frames[1:])
    page.set_input_files("#file", tmp_path / "moving.gif")
    until(page, "document.getElementById('error').textContent.includes('is an animation; use a still image')")


def test_the_last_of_two_quick_switches_wins(open_page, address):
    held = []
    page = example(open_page(address, expected="503"))
    before = pixels(page, "overlay")
    page.route("**/pixels?without=position", lambda route: held.append(route), times=1)
    page.get_by_label("Position attention").click()
    page.get_by_label("Position attention").click()
    wait_for(page, held)
    with page.expect_response("**/pixels?without=position"):
        held[0].continue_()
    page.wait_for_timeout(300)
    assert np.array_equal(pixels(page, "overlay"), before)
    assert page.locator("#change").inner_text().startswith("Turn one off")
    busy = {"status": 503, "json": {"error": "busy"}}
    page.route("**/pixels?without=channel", lambda route: route.fulfill(**busy), times=1)
    page.get_by_label("Channel attention").click()  # a failed request leaves the module on
    until(page, "!document.getElementById('error').hidden && document.getElementById('use-channel').checked")
    assert np.array_equal(pixels(page, "overlay"), before)


def test_controls_are_disabled_until_there_is_an_image(open_page, address):
    held = []
    page = open_page(address)
    page.wait_for_selector("[data-model=ready]")
    disabled = "document.querySelectorAll('aside[inert], .tools[inert], #compare[inert], .below[inert]').length"
    assert page.evaluate(disabled) == 4
    page.route("**/v1/segment*", lambda route: held.append(route), times=1)
    page.click("#example")
    wait_for(page, held)
    assert page.evaluate(disabled) == 4
    held[0].continue_()
    page.wait_for_selector("[data-state=ready]")
    assert page.evaluate(disabled) == 0


def wait_for(page, held: list) -> None:
    for _ in range(300):
        if held:
            return
        page.wait_for_timeout(50)
    raise AssertionError("no request was held")


def test_an_image_opened_during_an_upload_replaces_it(open_page, address, tmp_path):
    held = []
    Image.new("RGB", (600, 400), "gray").save(tmp_path / "first.png")
    page = open_page(address)
    page.wait_for_selector("[data-model=ready]")
    page.route("**/v1/segment*", lambda route: route.continue_() if held else held.append(route))
    page.set_input_files("#file", tmp_path / "first.png")
    wait_for(page, held)
    page.set_input_files("#file", EXAMPLE)
    page.wait_for_selector("[data-state=ready]")
    before = pixels(page, "overlay"), page.locator("#legend").inner_text()
    held[0].continue_()
    responses = "performance.getEntriesByType('resource').filter((entry) => entry.name.includes('/v1/segment'))"
    until(page, f"{responses}.length === 2")
    page.wait_for_timeout(1000)  # so that a request for the first image's class map would be noticed
    assert np.array_equal(pixels(page, "overlay"), before[0])
    assert page.locator("#legend").inner_text() == before[1]
    assert page.locator("body").get_attribute("data-state") == "ready"
    files = {}
    for name in ("labels", "json"):
        with page.expect_download() as download:
            page.click(f"#save-{name}")
        files[download.value.suggested_filename] = Path(download.value.path()).read_bytes()
    assert set(files) == {"example_labels.png", "example.json"}
    labels = np.asarray(Image.open(io.BytesIO(files["example_labels.png"])))
    sky = json.loads(files["example.json"])["classes"][0]
    assert sky["name"] == "sky"
    assert sky["share"] == pytest.approx((labels == 0).mean())


def test_an_image_sent_again_is_segmented_with_both_modules(open_page, address, tmp_path):
    Image.open(EXAMPLE).save(tmp_path / "a.street.png")
    page = open_page(address, expected="404")
    page.wait_for_selector("[data-model=ready]")
    page.set_input_files("#file", tmp_path / "a.street.png")
    page.wait_for_selector("[data-state=ready]")
    before = pixels(page, "overlay")
    sent = []
    page.on("request", lambda request: sent.append(request.url) if "/v1/segment" in request.url else None)
    dropped = {"status": 404, "json": {"error": "image not found"}}
    page.route("**/pixels?without=position", lambda route: route.fulfill(**dropped), times=1)
    page.get_by_label("Position attention").click()
    until(page, "document.getElementById('use-position').checked")
    assert len(sent) == 1
    assert np.array_equal(pixels(page, "overlay"), before)
    with page.expect_download() as download:
        page.click("#save-labels")
    assert download.value.suggested_filename == "a.street_labels.png"


def test_results_are_downloaded(open_page, address):
    page = example(open_page(address))
    page.mouse.click(*at(page, 0.2, 0.2))
    page.wait_for_selector("#pins > li")
    files = {}
    for name in ("overlay", "labels", "json"):
        with page.expect_download() as download:
            page.click(f"#save-{name}")
        files[download.value.suggested_filename] = Path(download.value.path()).read_bytes()
    assert set(files) == {"example_overlay.png", "example_labels.png", "example.json"}
    labels = Image.open(io.BytesIO(files["example_labels.png"]))
    assert labels.mode == "P"
    assert Image.open(io.BytesIO(files["example_overlay.png"])).size == labels.size
    saved = json.loads(files["example.json"])
    assert saved["classes"][0]["name"] == "sky"
    assert saved["classes"][0]["share"] == pytest.approx((np.asarray(labels) == 0).mean())
    assert sum(entry["share"] for entry in saved["points"][0]["looks_at"]) == pytest.approx(1, abs=1e-3)


def test_everything_works_with_the_keyboard(open_page, address):
    page = open_page(address)
    page.wait_for_selector("[data-model=ready]")
    for _ in range(20):
        page.keyboard.press("Tab")
        if page.evaluate("document.activeElement.id") == "example":
            break
    page.keyboard.press("Enter")
    page.wait_for_selector("[data-state=ready]")
    page.focus("#stage")
    width = page.evaluate("getComputedStyle(document.getElementById('stage')).outlineWidth")
    assert width == "2px", "the focus must be visible"
    before = page.locator("#pixel-place").inner_text()
    page.keyboard.press("ArrowUp")
    page.keyboard.press("ArrowLeft")
    until(page, "document.getElementById('status').textContent.includes('Looks at')")
    assert page.locator("#pixel-place").inner_text() != before
    page.keyboard.press("Enter")
    page.wait_for_selector("#pins > li")
    page.keyboard.press("Delete")
    page.wait_for_selector("#pins > li", state="detached")
    unnamed = page.evaluate(
        """[...document.querySelectorAll("button, input, select, a[href], [tabindex='0']")]
             .filter((e) => !e.getAttribute("aria-label") && !e.labels?.length && !e.textContent.trim())
             .map((e) => e.outerHTML)"""
    )
    assert unnamed == []


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_the_page_fits_a_phone(open_page, address, scheme):
    options = {"viewport": {"width": 360, "height": 740}, "has_touch": True, "is_mobile": True}
    page = open_page(address, color_scheme=scheme, **options)
    page.wait_for_selector("[data-model=ready]")
    assert page.locator("#pixel").is_hidden()
    about = "document.getElementById('about')"
    assert page.evaluate(f"{about}.scrollWidth <= {about}.clientWidth")
    example(page)
    assert page.evaluate("document.documentElement.scrollWidth") == 360
    page.touchscreen.tap(*at(page, 0.2, 0.2))
    until(page, "document.getElementById('pixel-class').textContent === 'sky'")
    page.tap("#pin")
    page.wait_for_selector("#pins > li")
    paper = page.evaluate("getComputedStyle(document.body).backgroundColor")
    lightness = sum(int(n) for n in re.findall(r"\d+", paper)[:3]) / 3
    assert (lightness > 200) == (scheme == "light")


def test_the_layout_does_not_shift(open_page, address):
    page = open_page(address)
    page.wait_for_selector("[data-model=ready]")
    page.evaluate(
        """window.shifts = 0;
        new PerformanceObserver((list) => list.getEntries().forEach((entry) => (window.shifts += entry.value)))
          .observe({ type: "layout-shift", buffered: true });"""
    )
    example(page)
    for step in range(20):
        page.mouse.move(*at(page, 0.1 + step / 25, 0.5))
        page.wait_for_timeout(20)
    assert page.evaluate("window.shifts") < 0.02


def test_errors_are_displayed_in_plain_words(open_page, address, tmp_path):
    page = open_page(address, expected="422")
    page.wait_for_selector("[data-model=ready]")
    (tmp_path / "note.jpg").write_text("no image")
    page.set_input_files("#file", tmp_path / "note.jpg")
    page.wait_for_selector("#error:not([hidden])")
    assert "Your browser cannot open this file as an image" in page.locator("#error").inner_text()
    assert page.locator("body").get_attribute("data-state") == "empty"
    frames = [Image.new("RGB", (40, 40), color) for color in ("red", "blue")]
    frames[0].save(tmp_path / "moving.png", save_all=True, append_images=frames[1:])
    page.set_input_files("#file", tmp_path / "moving.png")
    until(page, "document.getElementById('error').textContent.includes('still image')")
    page.get_by_label("Close this message").click()
    assert page.locator("#error").is_hidden()
    page.set_input_files("#file", tmp_path / "note.jpg")
    page.wait_for_selector("#error:not([hidden])")
    example(page)
    assert page.locator("#error").is_hidden()


def test_a_large_image_is_resized_and_a_portrait_fits(open_page, address, tmp_path):
    Image.effect_noise((1500, 3000), 60).convert("RGB").save(tmp_path / "tall.jpg")
    page = open_page(address, expected="422")  # if one class is everywhere, no channel distinguishes it
    page.wait_for_selector("[data-model=ready]")
    page.set_input_files("#file", tmp_path / "tall.jpg")
    page.wait_for_selector("[data-state=ready]")
    assert pixels(page, "photo").shape[:2] == (2048, 1024)
    frame, stage = (page.locator(name).bounding_box() for name in ("#frame", "#stage"))
    assert stage["height"] <= frame["height"]
    assert stage["width"] / stage["height"] == pytest.approx(0.5, abs=0.01)


def test_the_page_asks_for_a_required_token(open_page, tiny_weights):
    token = "correct-horse-battery"
    with server("--weights", str(tiny_weights), DANET_TOKEN=token) as address:
        page = open_page(address, expected="401")
        page.wait_for_selector("#ask[open]")
        page.fill("#token", "wrong")
        page.keyboard.press("Enter")
        page.wait_for_selector("#ask[open]")
        page.fill("#token", token)
        page.keyboard.press("Enter")
        page.wait_for_selector("[data-model=ready]")
        assert "6 classes" in page.locator("#network").inner_text()


def test_class_names_are_not_parsed_as_html(open_page, tmp_path):
    from danet import DANet
    from danet.data.classes import Classes
    from danet.weights import file as weights_file

    evil = "<img src=x onerror=alert(1)>"
    arguments = {"num_classes": 2, "backbone": "test_resnet", "width": 16}
    card = weights_file.Card(arguments, Classes.named((evil, "<b>b")), (0.5,) * 3, (0.5,) * 3, size=64, dataset="<i>")
    weights_file.save(tmp_path / "evil.safetensors", DANet(**arguments), card)
    with server("--weights", str(tmp_path / "evil.safetensors")) as address:
        page = open_page(address, expected="422")
        page.wait_for_selector("[data-model=ready]")
        page.click("#example")
        page.wait_for_selector("#legend li")
        assert page.locator("#legend img, #legend b, #network i, #own-share b").count() == 0
        assert re.search(r"<img src=x|<b>b", page.locator("#legend").inner_text())


def test_the_docs_page_lists_the_operations(open_page, address):
    page = open_page(address)
    page.goto(f"{address}/docs")
    page.wait_for_selector("#operations section")
    assert "POST/v1/segment" in page.locator("#operations").inner_text().replace(" ", "").replace("\n", "")
    assert f"{address}/v1/segment" in page.locator("pre").inner_text()


def test_an_exported_network_segments_without_attention(open_page, tmp_path):
    exported = tmp_path / "default.onnx"
    command = [sys.executable, "-m", "danet", "export", "--to", "onnx", "--no-verify", "--out", str(exported)]
    subprocess.run(command, check=True, capture_output=True)
    with server("--weights", str(exported)) as address:
        page = open_page(address)
        page.wait_for_selector("[data-model=ready]")
        page.click("#example")
        page.wait_for_selector("[data-state=ready]")
        assert re.match(r"sky\s+\d+%", page.locator("#legend li").all_inner_texts()[0])
        page.mouse.move(*at(page, 0.2, 0.2))
        until(page, "document.getElementById('tip').textContent.includes('sky')")
        for module in ("Position attention", "Channel attention"):
            assert page.get_by_label(module).is_disabled() or page.get_by_label(module).is_hidden()
