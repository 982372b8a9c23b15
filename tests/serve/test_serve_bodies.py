"""danet/web: bodies that are damaged, foreign, odd, too large or too slow."""

import asyncio
import io
import re
import time
import zlib

import numpy as np
import pytest
from PIL import Image, PngImagePlugin
from web_client import all_of, error, image

from danet.serve.guard import Limits


def damaged() -> dict[str, bytes]:
    whole = image(size=(200, 200))
    jpeg = image(size=(200, 200), kind="JPEG")
    frames = io.BytesIO()
    Image.new("RGB", (8, 8)).save(frames, "PNG", save_all=True, append_images=[Image.new("RGB", (8, 8), "red")])
    header = bytearray(image(size=(8, 8)))
    header[16:24] = (60_000).to_bytes(4, "big") * 2
    header[29:33] = zlib.crc32(header[12:29]).to_bytes(4, "big")
    gif, tiff = image(kind="GIF"), image(kind="TIFF")
    bomb = io.BytesIO()
    Image.new("1", (10_000, 10_000)).save(bomb, "PNG")
    return {
        "empty": b"",
        "text": b"hello, this is no image",
        "web page": b"<!DOCTYPE html><html>404",
        "svg": b"<svg xmlns='http://www.w3.org/2000/svg'/>",
        "cut JPEG": jpeg[: len(jpeg) // 2],
        "cut PNG": whole[: len(whole) // 2],
        "wrong byte in PNG": whole[:5000] + bytes([whole[5000] ^ 255]) + whole[5001:],
        "60k x 60k header": bytes(header),
        "100 megapixels of zeros": bomb.getvalue(),
        "animation": frames.getvalue(),
        "GIF": gif,
        "TIFF": tiff,
    }


def test_damaged_and_foreign_files_are_422_with_what_to_do(ask):
    files = damaged()
    answers = ask(all_of(*(("POST", "/v1/segment", {"content": content}) for content in files.values())))
    for name, answer in zip(files, answers, strict=True):
        assert answer.status_code == 422, name
        assert re.match(r"image: .+; .+", error(answer)), name
    again = ask(all_of(("POST", "/v1/segment", {"content": image()})))
    assert again[0].status_code == 200


def test_odd_but_good_images_are_taken(ask):
    text = PngImagePlugin.PngInfo()
    text.add_text("note", "x" * 500_000, zip=True)
    sixteen = io.BytesIO()
    Image.fromarray(np.full((40, 40), 40_000, np.uint16)).save(sixteen, "PNG")
    turned = Image.Exif()
    turned[0x0112] = 6
    good = {
        "one pixel": image(size=(1, 1)),
        "4000 x 1": image(size=(1, 4000)),
        "less than a stride": image(size=(7, 7)),
        "with text": image(pnginfo=text),
        "16 bits": sixteen.getvalue(),
        "WebP": image(kind="WEBP"),
        "turned": image(kind="JPEG", exif=turned),
    }
    wrong_type = {"content": image(), "headers": {"Content-Type": "text/html"}}
    answers = ask(
        all_of(*(("POST", "/v1/segment", {"content": c}) for c in good.values()), ("POST", "/v1/segment", wrong_type)),
    )
    for name, answer in zip([*good, "wrong type"], answers, strict=True):
        assert answer.status_code == 200, (name, answer.text)
    assert (answers[-2].json()["height"], answers[-2].json()["width"]) == (64, 48)


@pytest.mark.parametrize(
    ("options", "status", "says"),
    [
        ({"files": {"note": (None, "text")}}, 422, "no file"),
        ({"files": [("file", image()), ("file", image(1))]}, 400, "[Tt]oo many files"),
        ({"files": [(f"p{i}", (None, "v")) for i in range(10_000)]}, 400, "[Tt]oo many fields"),
        ({"files": {"note": (None, "x" * 100_000)}}, 400, "size"),
        ({"content": b"x" * 100, "headers": {"Content-Type": "multipart/form-data"}}, 400, "boundary"),
        ({"content": b"--x\r\nrubbish", "headers": {"Content-Type": "multipart/form-data; boundary=x"}}, 4, ""),
        ({"content": b"http://169.254.169.254/latest/meta-data"}, 422, "not fetched"),
        ({"content": b"file:///etc/passwd"}, 422, "not fetched"),
        ({"content": b"[" * 10_000 + b"]" * 10_000, "headers": {"Content-Type": "application/json"}}, 400, "JSON"),
        ({"content": b'{"url": "http://evil.example"}'}, 400, "JSON"),
    ],
    ids=lambda v: "" if not isinstance(v, str) else v[:12],
)
def test_bodies_that_are_no_image(ask, options, status, says):
    for path in ("/v1/segment", "/v1/attention?x=1&y=1"):
        (answer,) = ask(all_of(("POST", path, options)))
        assert answer.status_code == status or answer.status_code // 100 == status
        assert re.search(says, error(answer))


@pytest.mark.parametrize("name", ["../../x", "a\0b.png", "x" * 4096, "été 🎉.png", "-rf", "C:\\x", ""])
def test_file_names_mean_nothing(ask, name, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (answer,) = ask(all_of(("POST", "/v1/segment", {"files": {"file": (name, image())}})))
    assert answer.status_code == (200 if name else 400)
    assert not list(tmp_path.iterdir())


def test_a_large_body_is_413_whatever_its_headers_say(ask):
    async def chunks():
        for _ in range(21):
            yield bytes(1 << 20)

    async def questions(client):
        lie = {"Content-Length": "10"}
        return [
            await client.post("/v1/segment", content=chunks()),
            await client.post("/v1/segment", content=chunks(), headers=lie),
            await client.post("/v1/segment", files={"file": bytes(21 << 20)}),
            await client.get("/metrics"),
        ]

    *large, metrics = ask(questions)
    for answer in large:
        assert answer.status_code == 413
        assert "20 MB" in error(answer)
    assert "danet_held_bytes 0" in metrics.text


def test_a_slow_body_is_408(ask):
    async def slow():
        yield b"\x89PNG"
        await asyncio.sleep(5)
        yield b""

    async def questions(client):
        begun = time.monotonic()
        answer = await client.post("/v1/segment", content=slow())
        return answer, time.monotonic() - begun

    answer, seconds = ask(questions, Limits(body_seconds=0.2))
    assert answer.status_code == 408
    assert seconds < 2
