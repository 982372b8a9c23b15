"""danet/serve: bodies that are damaged, not images, unusual, too large or too slow."""

import asyncio
import io
import re
import time
import zlib

import numpy as np
import pytest
from PIL import Image, PngImagePlugin
from serve_client import error_of, image, send_all

from danet.serve.limits import Limits


def damaged() -> dict[str, bytes]:
    whole = image(size=(200, 200))
    jpeg = image(size=(200, 200), kind="JPEG")
    frames = io.BytesIO()
    Image.new("RGB", (8, 8)).save(frames, "PNG", save_all=True, append_images=[Image.new("RGB", (8, 8), "red")])
    header = bytearray(image(size=(8, 8)))
    header[16:24] = (60_000).to_bytes(4, "big") * 2
    header[29:33] = zlib.crc32(header[12:29]).to_bytes(4, "big")
    gif, tiff, moving = image(kind="GIF"), image(kind="TIFF"), io.BytesIO()
    Image.new("RGB", (8, 8)).save(moving, "GIF", save_all=True, append_images=[Image.new("RGB", (8, 8), "red")])
    bomb = io.BytesIO()
    Image.new("1", (10_000, 10_000)).save(bomb, "PNG")
    return {
        "empty": b"",
        "text": b"hello, this is not an image",
        "web page": b"<!DOCTYPE html><html>404",
        "svg": b"<svg xmlns='http://www.w3.org/2000/svg'/>",
        "cut JPEG": jpeg[: len(jpeg) // 2],
        "cut PNG": whole[: len(whole) // 2],
        "wrong byte in PNG": whole[:5000] + bytes([whole[5000] ^ 255]) + whole[5001:],
        "60k x 60k header": bytes(header),
        "100 megapixels of zeros": bomb.getvalue(),
        "animation": frames.getvalue(),
        "cut GIF": gif[: len(gif) // 2],
        "animated GIF": moving.getvalue(),
        "TIFF": tiff,
    }


def test_damaged_and_unsupported_files_get_422_with_a_remedy(ask):
    files = damaged()
    responses = ask(send_all(*(("POST", "/v1/segment", {"content": content}) for content in files.values())))
    for name, response in zip(files, responses, strict=True):
        assert response.status_code == 422, name
        assert re.match(r"image: .+; .+", error_of(response)), name
    again = ask(send_all(("POST", "/v1/segment", {"content": image()})))
    assert again[0].status_code == 200


def test_unusual_but_valid_images_are_accepted(ask):
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
        "GIF": image(kind="GIF"),
        "turned": image(kind="JPEG", exif=turned),
    }
    bodies = [{"content": content} for content in good.values()]
    bodies.append({"content": image(), "headers": {"Content-Type": "text/html"}})
    responses = ask(send_all(*(("POST", "/v1/segment", body) for body in bodies)))
    for name, response in zip([*good, "wrong type"], responses, strict=True):
        assert response.status_code == 200, (name, response.text)
    assert (responses[-2].json()["height"], responses[-2].json()["width"]) == (64, 48)


@pytest.mark.parametrize(
    ("options", "status", "message"),
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
def test_bodies_that_are_not_images_are_rejected(ask, options, status, message):
    for path in ("/v1/segment", "/v1/attention?x=1&y=1"):
        (response,) = ask(send_all(("POST", path, options)))
        assert response.status_code == status or response.status_code // 100 == status
        assert re.search(message, error_of(response))


@pytest.mark.parametrize("name", ["../../x", "a\0b.png", "x" * 4096, "été 🎉.png", "-rf", "C:\\x", ""])
def test_file_names_are_ignored(ask, name, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (response,) = ask(send_all(("POST", "/v1/segment", {"files": {"file": (name, image())}})))
    assert response.status_code == (200 if name else 400)
    assert not list(tmp_path.iterdir())


def test_a_large_body_gets_413_even_if_its_headers_lie(ask):
    async def chunks():
        for _ in range(21):
            yield bytes(1 << 20)

    async def talk(client):
        lie = {"Content-Length": "10"}
        return [
            await client.post("/v1/segment", content=chunks()),
            await client.post("/v1/segment", content=chunks(), headers=lie),
            await client.post("/v1/segment", files={"file": bytes(21 << 20)}),
            await client.get("/metrics"),
        ]

    *large, metrics = ask(talk)
    for response in large:
        assert response.status_code == 413
        assert "20 MB" in error_of(response)
    assert "danet_held_bytes 0" in metrics.text


def test_a_slow_body_gets_408(ask):
    async def slow():
        yield b"\x89PNG"
        await asyncio.sleep(5)
        yield b""

    async def talk(client):
        start = time.monotonic()
        response = await client.post("/v1/segment", content=slow())
        return response, time.monotonic() - start

    response, seconds = ask(talk, Limits(body_seconds=0.2))
    assert response.status_code == 408
    assert seconds < 2
