"""danet/web: the REST interface, in process by httpx and, for signals and sockets, as a process of its own."""

import asyncio
import base64
import contextlib
import gc
import io
import json
import os
import re
import signal
import socket
import subprocess
import sys
import threading
import time
import weakref
import zlib
from collections.abc import Awaitable, Callable
from copy import copy
from dataclasses import replace
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest
import torch
from PIL import Image, PngImagePlugin

from danet import DANet, Predictor, load
from danet.cli import main
from danet.errors import InputError
from danet.look import see
from danet.web import listening
from danet.web.batching import Worker, segment_together
from danet.web.decoding import Decoder
from danet.web.kept import Kept, Pictures
from danet.web.limits import Budget, Busy, Limits
from danet.web.server import create_app
from danet.web.service import max_pixels

ROOT = Path(__file__).parents[1]
HOST = "http://127.0.0.1:8000"


def picture(seed: int = 0, size: tuple[int, int] = (48, 64), kind: str = "PNG", **options: Any) -> bytes:
    pixels = np.random.default_rng(seed).integers(0, 256, (*size, 3), np.uint8)
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, kind, **options)
    return file.getvalue()


@pytest.fixture(scope="module")
def predictor(tiny_weights):
    """An untrained little network that finds more than one class."""
    card = load(tiny_weights, "cpu").card
    torch.manual_seed(4)
    return Predictor(DANet(**card.network), card, "cpu")


Client = httpx.AsyncClient


@contextlib.asynccontextmanager
async def serving(predictor, limits: Limits | None = None, **options: Any):
    """A client of the application in this process, with its lifespan."""
    app = create_app(predictor, limits)
    async with (
        app.router.lifespan_context(app),
        Client(transport=httpx.ASGITransport(app), base_url=HOST, timeout=60, **options) as client,
    ):
        yield client


@pytest.fixture(scope="module")
def ask(predictor):
    """Runs `await questions(client)`: of one application that all tests share, or of one of their own."""
    with asyncio.Runner() as runner:
        shared = serving(predictor)
        client = runner.run(shared.__aenter__())

        def asked(
            questions: Callable[[Client], Awaitable[Any]], limits: Limits | None = None, of: Predictor | None = None
        ):
            async def alone() -> Any:
                async with serving(of or predictor, limits) as own:
                    return await questions(own)

            return runner.run(questions(client) if limits is None and of is None else alone())

        yield asked
        runner.run(shared.__aexit__(None, None, None))


def all_of(*requests: tuple[str, str, dict[str, Any]]) -> Callable[[Client], Awaitable[list[httpx.Response]]]:
    async def questions(client: Client) -> list[httpx.Response]:
        return [await client.request(method, path, **options) for method, path, options in requests]

    return questions


def error(answer: httpx.Response) -> str:
    assert set(answer.json()) == {"error"}
    assert "Traceback" not in answer.text
    return answer.json()["error"]


# ---- what it answers


def test_a_picture_is_segmented_as_the_predictor_does(ask, predictor):
    content = picture()
    raw, form, labels, overlay, accepted = ask(
        all_of(
            ("POST", "/v1/segment", {"content": content}),
            ("POST", "/v1/segment", {"files": {"file": content}}),
            ("POST", "/v1/segment?output=labels", {"content": content}),
            ("POST", "/v1/segment?output=overlay", {"content": content}),
            ("POST", "/v1/segment", {"content": content, "headers": {"Accept": "image/png"}}),
        ),
    )
    expected = predictor(Image.open(io.BytesIO(content)))
    assert raw.json() == form.json()
    assert raw.json()["width"] == 64
    found = {entry["id"]: entry["share"] for entry in raw.json()["classes"]}
    assert found == {entry["id"]: entry["share"] for entry in expected.summary()["classes"]}
    assert np.array_equal(np.asarray(Image.open(io.BytesIO(labels.content))), expected.labels)
    assert labels.headers["content-type"] == overlay.headers["content-type"] == "image/png"
    assert np.array_equal(np.asarray(Image.open(io.BytesIO(overlay.content))), np.asarray(expected.overlay()))
    assert accepted.content == overlay.content


def test_attention_of_a_kept_picture_and_of_a_picture_sent(ask, predictor):
    content = picture()

    async def questions(client):
        kept = (await client.post("/v1/segment?keep=true", content=content)).json()
        again = (await client.post("/v1/segment?keep=true", content=content)).json()
        name = kept["picture"]
        of_kept = await client.post("/v1/attention", params={"picture": name, "x": 20, "y": 30})
        sent = await client.post("/v1/attention", params={"x": 20, "y": 30}, content=content)
        outside = await client.post("/v1/attention", params={"picture": name, "x": 64, "y": 0})
        return kept, again, of_kept, sent, outside

    kept, again, of_kept, sent, outside = ask(questions)
    seen = see(predictor, Image.open(io.BytesIO(content)))
    expected = seen.attention(20, 30)
    assert kept["picture"] == again["picture"], "the same bytes are kept once"
    assert len(kept["picture"]) >= 22, "128 random bits"
    assert of_kept.json() == sent.json()
    answer = of_kept.json()
    weights = np.frombuffer(base64.b64decode(answer["weights"]), "<f2").reshape(seen.grid)
    np.testing.assert_allclose(weights, expected, rtol=1e-3, atol=1e-7)
    assert (answer["grid"]["height"], answer["grid"]["width"]) == seen.grid
    assert answer["classes"][0]["share"] == pytest.approx(seen.classes_attended(expected)[0][1])
    assert answer["class"]["id"] == seen.segmentation.labels[30, 20]
    assert outside.status_code == 422
    assert "outside the picture" in error(outside)


def test_the_rest_of_a_kept_picture(ask, predictor):
    content = picture()

    async def questions(client):
        name = (await client.post("/v1/segment?keep=true", content=content)).json()["picture"]
        path = f"/v1/pictures/{name}"
        queries = ("pixels", "pixels?without=position", "labels?without=channel", "channels?class_id=999")
        return [await client.get(f"{path}/{query}") for query in queries], [
            await client.get(f"{path}/channels?class_id={i}&count=2") for i in range(6)
        ]

    (pixels, without, labels, wrong), channels = ask(questions)
    seen = see(predictor, Image.open(io.BytesIO(content)))
    ids, confidence = np.frombuffer(pixels.content, np.uint8).reshape(2, 48, 64)
    assert np.array_equal(ids, seen.segmentation.labels)
    np.testing.assert_allclose(confidence / 255, seen.segmentation.confidence, atol=0.5 / 255 + 1e-6)
    assert np.array_equal(
        np.frombuffer(without.content, np.uint8).reshape(2, 48, 64)[0], seen.without("position").labels
    )
    assert np.array_equal(np.asarray(Image.open(io.BytesIO(labels.content))), seen.without("channel").labels)
    assert wrong.status_code == 422
    for i, answer in enumerate(channels):
        if answer.status_code == 422:  # this class is nowhere in the picture
            assert "no channel tells it" in error(answer)
            continue
        numbers = [entry["channel"] for entry in answer.json()["channels"]]
        assert numbers == seen.channels_of(i, 2)
        found = np.frombuffer(base64.b64decode(answer.json()["channels"][0]["map"]), "<f2").reshape(seen.grid)
        np.testing.assert_allclose(found, seen.channel_maps(numbers)[0], rtol=1e-3, atol=1e-3)
    assert any(answer.status_code == 200 for answer in channels)


def test_an_unknown_picture_is_404_and_wrong_values_are_422(ask):
    unknown, no_x, no_number, no_output = ask(
        all_of(
            ("GET", "/v1/pictures/abc/pixels", {}),
            ("POST", "/v1/attention?picture=abc", {}),
            ("POST", "/v1/attention?x=nan&y=1", {"content": picture()}),
            ("POST", "/v1/segment?output=exe", {"content": picture()}),
        ),
    )
    assert unknown.status_code == 404
    assert "send it again" in error(unknown)
    for answer in (no_x, no_number, no_output):
        assert answer.status_code == 422
        assert "see /docs" in error(answer)
    assert "exe" not in no_output.text


def test_a_network_that_cannot_be_looked_into_serves_all_but_attention(ask, predictor):
    closed = copy(predictor)
    closed.network = None
    closed.logits, closed.shown_by = predictor.logits, predictor.shown_by
    model, segmented, attention = ask(
        all_of(
            ("GET", "/v1/model", {}),
            ("POST", "/v1/segment?keep=true", {"content": picture()}),
            ("POST", "/v1/attention?x=1&y=1", {"content": picture()}),
        ),
        of=closed,
    )
    assert model.json()["attention"] == {"position": False, "channel": False}
    assert "picture" in segmented.json()
    assert "grid" not in segmented.json()
    assert attention.status_code == 409
    assert "cannot be looked into" in error(attention)


def test_card_health_metrics_and_interface(ask, predictor):
    model, health, _, metrics, interface = ask(
        all_of(
            ("GET", "/v1/model", {}),
            ("GET", "/health", {}),
            ("POST", "/v1/segment", {"content": picture()}),
            ("GET", "/metrics", {}),
            ("GET", "/openapi.json", {}),
        ),
        Limits(),
    )
    assert model.json()["classes"]["names"] == list(predictor.classes.names)
    assert model.json()["limits"]["bytes"] == 20 << 20
    assert health.json() == {"status": "ok"}
    assert 'danet_requests_total{route="/v1/segment",status="200"} 1' in metrics.text
    assert 'danet_request_seconds_bucket{le="+Inf"} 3' in metrics.text
    for line in metrics.text.splitlines():
        assert re.fullmatch(r"#.*|[a-z_]+(\{[^}]*\})? [-+.\de]+", line), line
    operations = interface.json()["paths"]
    assert {"/v1/segment", "/v1/attention", "/v1/model", "/health", "/metrics"} <= set(operations)
    assert all(method.get("description") for path in operations.values() for method in path.values())


def test_a_picture_sent_twice_at_once_has_one_id(ask):
    async def questions(client):
        posts = [client.post("/v1/segment?keep=true", content=picture(77)) for _ in range(2)]
        names = [answer.json()["picture"] for answer in await asyncio.gather(*posts)]
        return names, [await client.get(f"/v1/pictures/{name}/pixels") for name in names]

    (one, other), found = ask(questions, Limits())
    assert one == other
    assert [answer.status_code for answer in found] == [200, 200]


def test_questions_about_a_kept_picture_are_not_counted_as_pictures(ask):
    async def questions(client):
        name = (await client.post("/v1/segment?keep=true", content=picture())).json()["picture"]
        for x in range(3):
            await client.post("/v1/attention", params={"picture": name, "x": x, "y": 0})
        return (await client.get("/metrics")).text

    metrics = ask(questions, Limits())
    assert re.findall(r"^(danet_batch\w+) (\d+)$", metrics, re.M) == [("danet_batches", "1"), ("danet_batched", "1")]


# ---- the page's files


def test_the_page_loads_nothing_from_elsewhere_and_has_nothing_inline(ask):
    folder = ROOT / "danet/web/page"
    names = ["/", "/docs", *(f"/page/{file.name}" for file in folder.iterdir() if file.suffix != ".txt")]
    names.remove("/page/index.html")
    for method in ("GET", "HEAD"):
        for name, answer in zip(names, ask(all_of(*((method, name, {}) for name in names))), strict=True):
            assert answer.status_code == 200, name
            assert answer.headers["content-security-policy"].startswith("default-src 'none'; script-src 'self'")
            assert answer.headers["x-content-type-options"] == "nosniff"
            assert "unsafe" not in answer.headers["content-security-policy"]
            assert "server" not in answer.headers
    for file in folder.iterdir():
        if file.suffix in (".html", ".css", ".js"):
            text = file.read_text()
            assert not re.search(r"https?://|//[a-z]+\.|\sstyle=|\son\w+=|<script>|<style|innerHTML", text), file.name
    assert (folder / "example.jpg").stat().st_size < 100_000
    assert "CC BY 2.0" in (folder / "example.txt").read_text()


@pytest.mark.parametrize(
    "path", ["..%2fserver.py", "%2e%2e/server.py", "../server.py", "a%00b", "x" * 5000, "example.txt"]
)
def test_no_other_file_is_served(ask, path):
    (answer,) = ask(all_of(("GET", f"/page/{path}", {})))
    assert answer.status_code == 404
    error(answer)


# ---- bad inputs (reliability, section 6, Server)


def damaged() -> dict[str, bytes]:
    whole = picture(size=(200, 200))
    jpeg = picture(size=(200, 200), kind="JPEG")
    frames = io.BytesIO()
    Image.new("RGB", (8, 8)).save(frames, "PNG", save_all=True, append_images=[Image.new("RGB", (8, 8), "red")])
    header = bytearray(picture(size=(8, 8)))
    header[16:24] = (60_000).to_bytes(4, "big") * 2
    header[29:33] = zlib.crc32(header[12:29]).to_bytes(4, "big")
    gif, tiff = picture(kind="GIF"), picture(kind="TIFF")
    bomb = io.BytesIO()
    Image.new("1", (10_000, 10_000)).save(bomb, "PNG")
    return {
        "empty": b"",
        "text": b"hello, this is no picture",
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
        assert re.match(r"picture: .+; .+", error(answer)), name
    again = ask(all_of(("POST", "/v1/segment", {"content": picture()})))
    assert again[0].status_code == 200


def test_odd_but_good_pictures_are_taken(ask):
    text = PngImagePlugin.PngInfo()
    text.add_text("note", "x" * 500_000, zip=True)
    sixteen = io.BytesIO()
    Image.fromarray(np.full((40, 40), 40_000, np.uint16)).save(sixteen, "PNG")
    turned = Image.Exif()
    turned[0x0112] = 6
    good = {
        "one pixel": picture(size=(1, 1)),
        "4000 x 1": picture(size=(1, 4000)),
        "less than a stride": picture(size=(7, 7)),
        "with text": picture(pnginfo=text),
        "16 bits": sixteen.getvalue(),
        "WebP": picture(kind="WEBP"),
        "turned": picture(kind="JPEG", exif=turned),
    }
    wrong_type = {"content": picture(), "headers": {"Content-Type": "text/html"}}
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
        ({"files": [("file", picture()), ("file", picture(1))]}, 400, "[Tt]oo many files"),
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
def test_bodies_that_are_no_picture(ask, options, status, says):
    for path in ("/v1/segment", "/v1/attention?x=1&y=1"):
        (answer,) = ask(all_of(("POST", path, options)))
        assert answer.status_code == status or answer.status_code // 100 == status
        assert re.search(says, error(answer))


@pytest.mark.parametrize("name", ["../../x", "a\0b.png", "x" * 4096, "été 🎉.png", "-rf", "C:\\x", ""])
def test_file_names_mean_nothing(ask, name, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (answer,) = ask(all_of(("POST", "/v1/segment", {"files": {"file": (name, picture())}})))
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


@pytest.mark.parametrize("method", ["OPTIONS", "PUT", "DELETE", "PATCH", "TRACE", "GET"])
def test_other_methods_are_405_without_leave_for_other_sites(ask, method):
    (answer,) = ask(all_of((method, "/v1/segment", {"headers": {"Access-Control-Request-Method": "POST"}})))
    assert answer.status_code == 405
    assert not [name for name in answer.headers if name.startswith("access-control")]
    error(answer)


@pytest.mark.parametrize(
    ("host", "status"),
    [
        ("evil.example", 400),
        ("evil.example:8000", 400),
        ("localhost.evil.example", 400),
        ("127.0.0.1.evil.example", 400),
        ("", 400),
        ("[::1", 400),
        ("localhost:9000", 200),
        ("[::1]:8000", 200),
        ("192.168.1.7", 200),
        ("Lab.example:8000", 200),
    ],
)
def test_the_host_must_be_ours(ask, host, status):
    limits = Limits(hosts=frozenset({"lab.example"}))
    (answer,) = ask(all_of(("GET", "/v1/model", {"headers": {"Host": host}})), limits)
    assert answer.status_code == status


@pytest.mark.parametrize(
    ("origin", "status"),
    [("http://evil.example", 403), ("null", 403), ("http://127.0.0.1:9", 403), (HOST, 200), (None, 200)],
)
def test_another_sites_page_cannot_send(ask, origin, status):
    headers = {"Origin": origin} if origin else {}
    (answer,) = ask(all_of(("POST", "/v1/segment", {"content": picture(), "headers": headers})))
    assert answer.status_code == status
    assert "access-control-allow-origin" not in answer.headers


def test_a_token_is_needed_where_one_is_set(ask):
    limits = Limits(token="correct-horse-battery")

    def request(path, token=None):
        return ("GET", path, {"headers": {} if token is None else {"Authorization": token}})

    answers = ask(
        all_of(
            request("/v1/model"),
            request("/v1/model", "Bearer wrong"),
            request("/v1/model", "correct-horse-battery"),
            request("/metrics"),
            request("/openapi.json"),
            request("/nothing"),
            request("/v1/model", "Bearer correct-horse-battery"),
            request("/"),
            request("/page/page.js"),
            request("/health"),
        ),
        limits,
    )
    assert [answer.status_code for answer in answers] == [401] * 6 + [200] * 4
    assert "correct" not in "".join(answer.text for answer in answers[:6])


# ---- load


def test_over_the_limits_it_is_503_with_retry_after(ask):
    sent = {"content": picture()}
    requests = [("POST", "/v1/segment", sent), ("POST", "/v1/attention?x=1&y=1", sent)]
    for limits in (Limits(waiting=0), Limits(held_bytes=100)):
        (answer, other) = ask(all_of(*requests), limits)
        assert other.status_code == 503
        assert answer.status_code == 503
        assert answer.headers["retry-after"] == "1"
        error(answer)


def test_many_at_once_are_answered_together_or_refused(ask):
    async def questions(client):
        posts = [client.post("/v1/segment", content=picture(i % 5)) for i in range(60)]
        answers = await asyncio.gather(*posts)
        return answers, (await client.get("/metrics")).text, await client.post("/v1/segment", content=picture(0))

    answers, metrics, alone = ask(questions, Limits(waiting=40))
    statuses = [answer.status_code for answer in answers]
    assert set(statuses) == {200, 503}
    assert statuses.count(200) >= 40
    batches, batched = (int(re.search(rf"^danet_{name} (\d+)", metrics, re.M)[1]) for name in ("batches", "batched"))
    assert batched == statuses.count(200)
    assert batches < batched / 2
    shares = {entry["name"]: entry["share"] for entry in answers[0].json()["classes"]}
    assert shares == pytest.approx({e["name"]: e["share"] for e in alone.json()["classes"]}, abs=1e-3)


def test_batches_give_what_single_pictures_give(predictor):
    pictures = [np.random.default_rng(i).integers(0, 256, (50, 60, 3), np.uint8) for i in range(3)]
    for together, own in zip(segment_together(predictor, pictures), map(predictor, pictures), strict=True):
        assert (together.labels == own.labels).mean() > 0.999
        np.testing.assert_allclose(together.confidence, own.confidence, atol=1e-5)


def test_a_client_that_left_is_taken_out_of_the_line():
    async def run():
        worker, seen = Worker(), []

        def slow(items):
            time.sleep(0.1)
            seen.extend(items)
            return items

        work = asyncio.create_task(worker.run())
        asked = [asyncio.create_task(worker.together(slow, i, None, 1)) for i in range(4)]
        await asyncio.sleep(0.05)
        asked[2].cancel()
        urgent = [asyncio.create_task(worker.first(seen.append, f"urgent {i}")) for i in range(2)]
        await asyncio.gather(asked[0], asked[1], asked[3], *urgent)
        work.cancel()
        return seen, len(worker)

    assert asyncio.run(run()) == ([0, "urgent 0", "urgent 1", 1, 3], 0)


def test_an_error_in_the_thread_reaches_its_requests_and_no_others():
    async def run():
        worker = Worker()
        work = asyncio.create_task(worker.run())
        with pytest.raises(ZeroDivisionError):
            await worker.first(lambda: 1 / 0)
        assert await worker.first(lambda: 7) == 7
        work.cancel()

    asyncio.run(run())


def test_an_error_of_the_servers_own_shows_no_traceback(ask, predictor, caplog):
    def fail(_):
        raise RuntimeError("secret path /root")

    broken = copy(predictor)
    broken.logits = fail
    (answer,) = ask(all_of(("POST", "/v1/segment", {"content": picture()})), of=broken)
    assert answer.status_code == 500
    assert "secret" not in answer.text
    error(answer)
    assert "secret path" in caplog.text


def test_the_log_tells_no_contents(ask, caplog):
    caplog.set_level("INFO", "danet.web")
    ask(
        all_of(
            ("POST", "/v1/segment?output=json", {"files": {"file": ("private-name.png", picture())}}),
            ("GET", "/v1/pictures/private-id/pixels", {}),
            ("GET", "/private-path%0A", {}),
        ),
    )
    lines = [record.getMessage() for record in caplog.records if record.name == "danet.web"]
    assert [re.sub(r" \d+ ms", "", line) for line in lines] == [
        "POST /v1/segment 200",
        "GET /v1/pictures/{picture}/pixels 404",
        "- (no such path) 404",
    ]


# ---- parts


def test_the_last_pictures_are_kept_within_their_bounds(predictor):
    kept = [Kept(predictor(np.full((16, 16, 3), i, np.uint8)), None) for i in range(4)]
    pictures = Pictures(count=2, nbytes=10**9)
    names = [pictures.add(bytes([i]), kept[i]) for i in range(2)]
    assert pictures.get(names[0]) is kept[0]
    names.append(pictures.add(b"\2", kept[2]))
    assert pictures.get(names[1]) is None, "the least recently used one is dropped"
    assert pictures.get(names[0]) is kept[0]
    assert pictures.find(b"\0") == names[0]
    assert pictures.find(b"\1") is None
    assert pictures.nbytes == 2 * kept[0].nbytes == 2 * 16 * 16 * (3 + 1 + 4)
    small = Pictures(count=9, nbytes=kept[0].nbytes + 1)
    for i in range(3):
        small.add(bytes([i]), kept[i])
    assert len(small) == 1
    assert small.add(b"\2", kept[3]) == small.find(b"\2")
    assert len(small) == 1
    assert small.nbytes == kept[0].nbytes
    assert pictures.add(b"\0", kept[3]) == names[0], "the id that was given first stays good"
    assert pictures.get(names[0]) is kept[0]
    pictures.add(b"\2", kept[2])
    pictures.add(b"\0", kept[3])
    pictures.add(b"\3", kept[3])
    assert pictures.find(b"\2") is None, "to add anew is a use"


def test_a_budget_is_given_back():
    budget = Budget(10)
    budget.take(7)
    with pytest.raises(Busy):
        budget.take(4)
    budget.give_back(7)
    budget.take(10)
    assert budget.held == 10


def test_the_decoder_survives_its_process(tmp_path):
    decoder = Decoder(10_000, 20)
    try:
        decoder.start()
        first = asyncio.run(decoder.decode(picture()))
        os.kill(decoder._process.pid, signal.SIGKILL)
        decoder._process.join()
        with pytest.raises(InputError, match="cannot be decoded"):
            asyncio.run(decoder.decode(picture()))
        assert np.array_equal(asyncio.run(decoder.decode(picture())), first)
        with pytest.raises(InputError, match="limit of 10,000"):
            asyncio.run(decoder.decode(picture(size=(101, 100))))
        decoder._seconds = 0
        os.kill(decoder._process.pid, signal.SIGSTOP)
        with pytest.raises(InputError, match="took over 0 s"):
            asyncio.run(decoder.decode(picture()))
    finally:
        decoder.close()


def test_clients_that_left_leave_no_bytes_with_the_decoder():
    class Content(bytearray):
        """Can be referred to weakly."""

    async def run():
        decoder, begun, go = Decoder(10_000, 20), threading.Event(), threading.Event()

        def slow(_):
            begun.set()
            go.wait(20)

        decoder._decode = slow
        contents = [Content(b"picture") for _ in range(5)]
        left = [weakref.ref(content) for content in contents]
        tasks = [asyncio.create_task(decoder.decode(contents.pop(0))) for _ in left]
        try:
            await asyncio.to_thread(begun.wait, 20)
            for _ in range(4):  # the first of them is being decoded
                tasks[0].cancel()
                await asyncio.wait((tasks.pop(0),))
            gc.collect()
            held = [content() is not None for content in left]
            go.set()
            await tasks.pop()
            return held
        finally:
            go.set()
            decoder.close()

    assert asyncio.run(run()) == [True, False, False, False, True]


def test_addresses_and_tokens():
    for host in ("127.0.0.1", "localhost", "::1", "127.0.0.9"):
        listening.check_token(host, None)
    for host in ("0.0.0.0", "::", "192.168.0.1", "lab.example"):
        with pytest.raises(InputError, match="DANET_TOKEN"):
            listening.check_token(host, None)
        listening.check_token(host, "sixteen-letters-")
    for weak in ("short", "", "x" * 15, "sixteen letters  ", "é" * 16):
        with pytest.raises(InputError, match="token"):
            listening.check_token("127.0.0.1", weak)
    with listening.listen("127.0.0.1", 0) as taken:
        port = taken.getsockname()[1]
        assert listening.address(taken, "0.0.0.0") == f"http://127.0.0.1:{port}"
        with pytest.raises(InputError, match=f"127.0.0.1:{port}: cannot be listened at .*--port 0"):
            listening.listen("127.0.0.1", port)
        assert taken.proto == socket.IPPROTO_TCP, "asyncio sets TCP_NODELAY only then"
    for host, port in (("no such host", 0), ("127.0.0.1", 70_000)):
        with pytest.raises(InputError):
            listening.listen(host, port)


def test_mistakes_on_the_command_line_exit_with_2(capsys, monkeypatch):
    monkeypatch.delenv("DANET_TOKEN", raising=False)
    with listening.listen("127.0.0.1", 0) as taken:
        wrong = {
            "DANET_TOKEN": ["--host", "0.0.0.0"],
            "cannot be listened at": ["--port", str(taken.getsockname()[1])],
            "--max-mb 0": ["--max-mb", "0", "--port", "0"],
            "no such file": ["--weights", "nowhere.safetensors", "--port", "0"],
        }
        for says, args in wrong.items():
            assert main(["serve", *args]) == 2
            told = capsys.readouterr().err
            assert says in told
            assert told.count("\n") == 1


# ---- the process


@contextlib.contextmanager
def process(weights: Path, *args: str, environment: dict[str, str] | None = None):
    """`danet serve` on a free port; gives the process and its address."""
    command = [sys.executable, "-m", "danet", "serve", "--weights", str(weights), "--port", "0", *args]
    env = os.environ | {"OMP_NUM_THREADS": "1"} | (environment or {})
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=env) as running:
        try:
            address = running.stdout.readline().strip()
            assert address.startswith("http://127.0.0.1:"), running.stderr.read()
            yield running, address
        finally:
            running.kill()


@pytest.mark.parametrize("number", [signal.SIGTERM, pytest.param(signal.SIGINT, marks=pytest.mark.slow)])
def test_a_signal_ends_it_after_the_answers(tiny_weights, number):
    with process(tiny_weights) as (running, address):
        children = Path(f"/proc/{running.pid}/task/{running.pid}/children")

        async def run():
            async with httpx.AsyncClient(timeout=60) as client:
                url = f"{address}/v1/segment"
                await client.post(url, content=picture())
                decoders = children.read_text().split() if children.exists() else []
                posts = [asyncio.create_task(client.post(url, content=picture(i, (400, 400)))) for i in range(10)]
                begun = 0
                while begun < 11:
                    await asyncio.sleep(0.01)
                    counts = re.findall(r"^danet_(?:waiting|request\S*/v1/seg\S*) (\d+)", await told(client), re.M)
                    begun = sum(map(int, counts))
                running.send_signal(number)
                return await asyncio.gather(*posts), decoders

        async def told(client):
            return (await client.get(f"{address}/metrics")).text

        answers, decoders = asyncio.run(run())
        begun = time.monotonic()
        code = running.wait(15)
        assert time.monotonic() - begun < 10
        assert code == (130 if number == signal.SIGINT else -signal.SIGTERM)
        assert [answer.status_code for answer in answers] == [200] * 10
        assert "Traceback" not in running.stderr.read()
        for child in decoders:
            assert not Path(f"/proc/{child}").exists() or "Z" in Path(f"/proc/{child}/stat").read_text()


@pytest.fixture(scope="module")
def running(tiny_weights):
    """A server's process, of at most 1 MB a body, and its address."""
    with process(tiny_weights, "--max-mb", "1") as found:
        yield found


def send(address: str, content: bytes) -> socket.socket:
    host, port = address.removeprefix("http://").split(":")
    connection = socket.create_connection((host, int(port)), timeout=20)
    with contextlib.suppress(BrokenPipeError, ConnectionResetError):
        connection.sendall(content)
    return connection


def test_two_hundred_at_once_get_200_or_503_in_bounded_memory(running):
    child, address = running
    resident = Path(f"/proc/{child.pid}/status")
    content = picture(size=(240, 320), kind="JPEG")

    def megabytes(key: str) -> float:
        return int(re.search(rf"{key}:\s+(\d+)", resident.read_text())[1]) / 1024

    async def run():
        limits = httpx.Limits(max_connections=200)
        async with httpx.AsyncClient(timeout=60, limits=limits) as client:
            await client.post(f"{address}/v1/segment", content=content)
            before = megabytes("VmRSS")
            posts = [client.post(f"{address}/v1/segment", content=content) for _ in range(200)]
            return await asyncio.gather(*posts), before

    answers, before = asyncio.run(run())
    assert {answer.status_code for answer in answers} <= {200, 503}
    assert sum(answer.status_code == 200 for answer in answers) >= 64
    if resident.exists():
        assert megabytes("VmHWM") < 1.5 * before


def test_lies_drops_and_slow_clients_over_a_real_socket(running):
    _, address = running
    head = b"POST /v1/segment HTTP/1.1\r\nHost: localhost\r\n"
    with send(address, head + b"Content-Length: 3000000\r\n\r\n" + bytes(3_000_000)) as large:
        assert large.recv(12) == b"HTTP/1.1 413"
    with send(
        address, head + b"Transfer-Encoding: chunked\r\n\r\n" + b"100000\r\n%s\r\n" % bytes(1 << 20) * 2
    ) as chunked:
        assert chunked.recv(12) == b"HTTP/1.1 413"
    with send(address, head + b"Content-Length: 10\r\n\r\n" + picture()) as short:
        assert short.recv(12) == b"HTTP/1.1 422"
    with send(address, b"rubbish\r\n\r\n") as rubbish:
        assert rubbish.recv(12) == b"HTTP/1.1 400"
    with send(address, head.replace(b"localhost", b"evil.example") + b"Content-Length: 0\r\n\r\n") as rebound:
        answer = rebound.recv(4096)
        assert answer.startswith(b"HTTP/1.1 400")
        assert b"uvicorn" not in answer.lower()
    slow = [send(address, head + b"Content-Length: 1000\r\n\r\nx") for _ in range(50)]
    slow += [send(address, head) for _ in range(20)]
    for _ in range(20):
        send(address, head + b"Content-Length: 100000\r\n\r\n" + bytes(1000)).close()  # left in the middle
    with httpx.Client(base_url=address, timeout=20) as client:
        seconds = []
        for _ in range(30):
            begun = time.monotonic()
            assert client.get("/health").status_code == 200
            seconds.append(time.monotonic() - begun)
        assert sorted(seconds)[-2] < 0.1
        assert client.post("/v1/segment", content=picture()).status_code == 200
        held = re.search(r"^danet_held_bytes (\d+)", client.get("/metrics").text, re.M)
        assert int(held[1]) <= 50, "what the slow ones sent, and nothing of those that left"
    for connection in slow:
        connection.close()


def test_the_example_client(running, tmp_path):
    (tmp_path / "picture.png").write_bytes(picture())
    _, address = running
    command = [sys.executable, str(ROOT / "examples/client.py"), str(tmp_path / "picture.png"), "--at", "10", "20"]
    done = subprocess.run([*command, "--server", address], capture_output=True, text=True, check=True, timeout=60)
    assert "looks at" in done.stdout
    script = (ROOT / "examples/client.sh").read_text().replace("http://127.0.0.1:8000", address)
    done = subprocess.run(
        ["bash", "-c", script, "client.sh", "picture.png"], cwd=tmp_path, capture_output=True, text=True, timeout=60
    )
    assert done.returncode == 0, done.stderr
    with Image.open(tmp_path / "overlay.png") as overlay:
        assert overlay.size[0] > 64
    assert json.loads(done.stdout.splitlines()[0])["width"] == 64


def test_the_token_comes_from_the_environment(tiny_weights, monkeypatch, capsys):
    monkeypatch.setenv("DANET_TOKEN", "from-the-environment")
    served = []
    monkeypatch.setattr(listening, "serve", lambda app, _: served.append(app))
    assert main(["serve", "--weights", str(tiny_weights), "--port", "0", "--device", "cpu"]) == 0
    assert re.fullmatch(r"http://127\.0\.0\.1:\d+\n", capsys.readouterr().out)

    async def run():
        async with Client(transport=httpx.ASGITransport(served[0]), base_url=HOST) as client:
            token = {"Authorization": "Bearer from-the-environment"}
            return await client.get("/v1/model"), await client.get("/v1/model", headers=token)

    without, with_token = asyncio.run(run())
    assert (without.status_code, with_token.status_code) == (401, 200)


def test_what_serving_needs_is_named_where_it_is_missing(monkeypatch):
    monkeypatch.setattr(listening, "find_spec", lambda name: None if name == "uvicorn" else object())
    with pytest.raises(InputError, match=r"uvicorn is not installed; pip install 'danet\[serve\]'"):
        listening.require_packages()


def test_pictures_have_less_pixels_where_the_network_takes_them_as_they_are(predictor):
    assert max_pixels(predictor) == 32 << 20
    as_they_are = copy(predictor)
    as_they_are.card = replace(predictor.card, size=None)
    assert max_pixels(as_they_are) == 4 << 20
