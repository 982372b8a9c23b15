"""danet/web: what it answers, and the page's files."""

import asyncio
import base64
import io
import re
from copy import copy
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from web_client import all_of, error, image

from danet.predict.attention import see
from danet.serve.guard import Limits
from danet.serve.service import max_pixels

ROOT = Path(__file__).parents[2]


def test_an_image_is_segmented_as_the_predictor_does(ask, predictor):
    content = image()
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


def test_attention_of_a_kept_image_and_of_an_image_sent(ask, predictor):
    content = image()

    async def questions(client):
        kept = (await client.post("/v1/segment?keep=true", content=content)).json()
        again = (await client.post("/v1/segment?keep=true", content=content)).json()
        name = kept["image"]
        of_kept = await client.post("/v1/attention", params={"image": name, "x": 20, "y": 30})
        sent = await client.post("/v1/attention", params={"x": 20, "y": 30}, content=content)
        outside = await client.post("/v1/attention", params={"image": name, "x": 64, "y": 0})
        return kept, again, of_kept, sent, outside

    kept, again, of_kept, sent, outside = ask(questions)
    seen = see(predictor, Image.open(io.BytesIO(content)))
    expected = seen.attention(20, 30)
    assert kept["image"] == again["image"], "the same bytes are kept once"
    assert len(kept["image"]) >= 22, "128 random bits"
    assert of_kept.json() == sent.json()
    answer = of_kept.json()
    weights = np.frombuffer(base64.b64decode(answer["weights"]), "<f2").reshape(seen.grid)
    np.testing.assert_allclose(weights, expected, rtol=1e-3, atol=1e-7)
    assert (answer["grid"]["height"], answer["grid"]["width"]) == seen.grid
    assert answer["classes"][0]["share"] == pytest.approx(seen.classes_attended(expected)[0][1])
    assert answer["class"]["id"] == seen.segmentation.labels[30, 20]
    assert outside.status_code == 422
    assert "outside the image" in error(outside)


def test_the_rest_of_a_kept_image(ask, predictor):
    content = image()

    async def questions(client):
        name = (await client.post("/v1/segment?keep=true", content=content)).json()["image"]
        path = f"/v1/images/{name}"
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
        if answer.status_code == 422:  # this class is nowhere in the image
            assert "no channel tells it" in error(answer)
            continue
        numbers = [entry["channel"] for entry in answer.json()["channels"]]
        assert numbers == seen.channels_of(i, 2)
        found = np.frombuffer(base64.b64decode(answer.json()["channels"][0]["map"]), "<f2").reshape(seen.grid)
        np.testing.assert_allclose(found, seen.channel_maps(numbers)[0], rtol=1e-3, atol=1e-3)
    assert any(answer.status_code == 200 for answer in channels)


def test_an_unknown_image_is_404_and_wrong_values_are_422(ask):
    unknown, no_x, no_number, no_output = ask(
        all_of(
            ("GET", "/v1/images/abc/pixels", {}),
            ("POST", "/v1/attention?image=abc", {}),
            ("POST", "/v1/attention?x=nan&y=1", {"content": image()}),
            ("POST", "/v1/segment?output=exe", {"content": image()}),
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
            ("POST", "/v1/segment?keep=true", {"content": image()}),
            ("POST", "/v1/attention?x=1&y=1", {"content": image()}),
        ),
        of=closed,
    )
    assert model.json()["attention"] == {"position": False, "channel": False}
    assert "image" in segmented.json()
    assert "grid" not in segmented.json()
    assert attention.status_code == 409
    assert "cannot be looked into" in error(attention)


def test_card_health_metrics_and_interface(ask, predictor):
    model, health, _, metrics, interface = ask(
        all_of(
            ("GET", "/v1/model", {}),
            ("GET", "/health", {}),
            ("POST", "/v1/segment", {"content": image()}),
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


def test_an_image_sent_twice_at_once_has_one_id(ask):
    async def questions(client):
        posts = [client.post("/v1/segment?keep=true", content=image(77)) for _ in range(2)]
        names = [answer.json()["image"] for answer in await asyncio.gather(*posts)]
        return names, [await client.get(f"/v1/images/{name}/pixels") for name in names]

    (one, other), found = ask(questions, Limits())
    assert one == other
    assert [answer.status_code for answer in found] == [200, 200]


def test_questions_about_a_kept_image_are_not_counted_as_images(ask):
    async def questions(client):
        name = (await client.post("/v1/segment?keep=true", content=image())).json()["image"]
        for x in range(3):
            await client.post("/v1/attention", params={"image": name, "x": x, "y": 0})
        return (await client.get("/metrics")).text

    metrics = ask(questions, Limits())
    assert re.findall(r"^(danet_batch\w+) (\d+)$", metrics, re.M) == [("danet_batches", "1"), ("danet_batched", "1")]


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


def test_images_have_less_pixels_where_the_network_takes_them_as_they_are(predictor):
    assert max_pixels(predictor) == 32 << 20
    as_they_are = copy(predictor)
    as_they_are.card = replace(predictor.card, size=None)
    assert max_pixels(as_they_are) == 4 << 20
