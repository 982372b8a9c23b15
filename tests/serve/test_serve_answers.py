"""danet/serve: the content of responses, and the files of the page."""

import asyncio
import base64
import io
import json
import re
from copy import copy
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from PIL import Image
from serve_client import error_of, image, send_all

from danet.serve import schemas
from danet.serve.limits import Limits
from danet.serve.service import max_pixels

ROOT = Path(__file__).parents[2]
PAGE = ROOT / "danet/serve/page"


def test_segmentation_equals_the_predictors(ask, predictor):
    content = image()
    raw, form, labels, overlay, accepted = ask(
        send_all(
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
    shares = {entry["id"]: entry["share"] for entry in raw.json()["classes"]}
    assert shares == {entry["id"]: entry["share"] for entry in expected.summary()["classes"]}
    assert np.array_equal(np.asarray(Image.open(io.BytesIO(labels.content))), expected.labels)
    assert labels.headers["content-type"] == overlay.headers["content-type"] == "image/png"
    assert np.array_equal(np.asarray(Image.open(io.BytesIO(overlay.content))), np.asarray(expected.overlay()))
    assert accepted.content == overlay.content


def test_attention_equals_for_stored_and_sent_images(ask, predictor):
    content = image()

    async def talk(client):
        stored = (await client.post("/v1/segment?keep=true", content=content)).json()
        again = (await client.post("/v1/segment?keep=true", content=content)).json()
        image_id = stored["image"]
        of_stored = await client.post("/v1/attention", params={"image": image_id, "x": 20, "y": 30})
        of_sent = await client.post("/v1/attention", params={"x": 20, "y": 30}, content=content)
        outside = await client.post("/v1/attention", params={"image": image_id, "x": 64, "y": 0})
        return stored, again, of_stored, of_sent, outside

    stored, again, of_stored, of_sent, outside = ask(talk)
    inspection = predictor.inspect(Image.open(io.BytesIO(content)))
    expected = inspection.attention(20, 30)
    assert stored["image"] == again["image"], "the same bytes must have one id"
    assert len(stored["image"]) >= 22, "an id has 128 random bits"
    size, varying = inspection.internals.contributions["position"]
    scale = inspection.internals.scales["position"]
    assert stored["modules"]["position"] == pytest.approx({"scale": scale, "size": size, "varying": varying})
    assert of_stored.json() == of_sent.json()
    result = of_stored.json()
    weights = np.frombuffer(base64.b64decode(result["weights"]), "<f2").reshape(inspection.grid)
    np.testing.assert_allclose(weights, expected, rtol=1e-3, atol=1e-7)
    assert (result["grid"]["height"], result["grid"]["width"]) == inspection.grid
    assert result["classes"][0]["share"] == pytest.approx(inspection.classes_attended(expected)[0][1])
    labels = inspection.segmentation.labels
    assert all(entry["image_share"] == pytest.approx((labels == entry["id"]).mean()) for entry in result["classes"])
    assert result["class"]["id"] == inspection.segmentation.labels[30, 20]
    assert outside.status_code == 422
    assert "outside the image" in error_of(outside)


def test_pixels_labels_and_channels_of_a_stored_image(ask, predictor):
    content = image()

    async def talk(client):
        image_id = (await client.post("/v1/segment?keep=true", content=content)).json()["image"]
        path = f"/v1/images/{image_id}"
        queries = ("pixels", "pixels?without=position", "labels?without=channel", "channels?class_id=999")
        return [await client.get(f"{path}/{query}") for query in queries], [
            await client.get(f"{path}/channels?class_id={i}&count=2") for i in range(6)
        ]

    (pixels, without, labels, wrong), channels = ask(talk)
    inspection = predictor.inspect(Image.open(io.BytesIO(content)))
    ids, confidence = np.frombuffer(pixels.content, np.uint8).reshape(2, 48, 64)
    assert np.array_equal(ids, inspection.segmentation.labels)
    np.testing.assert_allclose(confidence / 255, inspection.segmentation.confidence, atol=0.5 / 255 + 1e-6)
    assert np.array_equal(
        np.frombuffer(without.content, np.uint8).reshape(2, 48, 64)[0], inspection.without("position").labels
    )
    assert np.array_equal(np.asarray(Image.open(io.BytesIO(labels.content))), inspection.without("channel").labels)
    assert wrong.status_code == 422
    assert error_of(wrong) == "class_id: must be from 0 to 5, got 999; see /v1/model"
    for i, response in enumerate(channels):
        if response.status_code == 422:  # the image has no pixels of this class
            name = predictor.classes.names[i]
            assert error_of(response).startswith(f"class_id: '{name}' is predicted on 0% of image, so no channel")
            continue
        numbers = [entry["channel"] for entry in response.json()["channels"]]
        assert numbers == inspection.channels_of(i, 2)
        values = np.frombuffer(base64.b64decode(response.json()["channels"][0]["map"]), "<f2")
        expected = inspection.channel_maps(numbers)[0]
        np.testing.assert_allclose(values.reshape(inspection.grid), expected, rtol=1e-3, atol=1e-3)
    assert any(response.status_code == 200 for response in channels)


def test_routes_and_names_of_0_1_0_work_but_are_not_listed(ask):
    async def talk(client):
        stored = (await client.post("/v1/segment?keep=true", content=image())).json()
        old_id, new_id = stored["picture"], stored["image"]  # vocabulary: old name
        pairs = [
            [await client.get(f"/v1/{images}/{image_id}/{query}") for images, image_id in routes]
            for query in ("pixels?without=position", "labels", "channels?class_id=0")
            for routes in [(("pictures", old_id), ("images", new_id))]  # vocabulary: old name
        ]
        names = ("picture", old_id), ("image", new_id)  # vocabulary: old name
        pairs.append([await client.post("/v1/attention", params={name: own, "x": 1, "y": 2}) for name, own in names])
        return pairs, (await client.get("/openapi.json")).text

    pairs, interface = ask(talk)
    for old, new in pairs:
        assert old.status_code == new.status_code != 404
        assert old.content == new.content
    assert {new.status_code for _, new in pairs if new.headers["content-type"] != "application/json"} == {200}
    assert pairs[-1][1].status_code == 200
    assert "picture" not in interface  # vocabulary: old name


def test_unknown_ids_get_404_and_invalid_values_422(ask):
    unknown, no_x, no_number, no_output = ask(
        send_all(
            ("GET", "/v1/images/abc/pixels", {}),
            ("POST", "/v1/attention?image=abc", {}),
            ("POST", "/v1/attention?x=nan&y=1", {"content": image()}),
            ("POST", "/v1/segment?output=exe", {"content": image()}),
        ),
    )
    assert unknown.status_code == 404
    assert "send it again" in error_of(unknown)
    for response in (no_x, no_number, no_output):
        assert response.status_code == 422
        assert "see /docs" in error_of(response)
    assert error_of(no_x) == "x: missing; see /docs"
    assert error_of(no_number) == "x: must be a whole number; see /docs"
    assert error_of(no_output) == "output: must be json, labels or overlay; see /docs"
    assert "exe" not in no_output.text


def test_unknown_paths_and_wrong_methods_are_explained(ask):
    unknown, wrong = ask(send_all(("GET", "/v1/nothing", {}), ("GET", "/v1/segment", {})))
    assert (unknown.status_code, error_of(unknown)) == (404, "no such page; see /docs")
    assert (wrong.status_code, error_of(wrong)) == (405, "use POST; see /docs")


def test_a_network_without_attention_serves_the_rest(ask, predictor):
    opaque = copy(predictor)
    opaque.network = SimpleNamespace(align_corners=predictor.network.align_corners)
    opaque.logits = predictor.logits
    model, segmented, attention = ask(
        send_all(
            ("GET", "/v1/model", {}),
            ("POST", "/v1/segment?keep=true", {"content": image()}),
            ("POST", "/v1/attention?x=1&y=1", {"content": image()}),
        ),
        of=opaque,
    )
    assert model.json()["attention"] == {"position": False, "channel": False}
    assert "image" in segmented.json()
    assert "grid" not in segmented.json()
    assert attention.status_code == 409
    assert "does not support attention queries" in error_of(attention)


def test_model_card_health_metrics_and_interface(ask, predictor):
    model, health, _, metrics, interface = ask(
        send_all(
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
    paths = interface.json()["paths"]
    assert {"/v1/segment", "/v1/attention", "/v1/model", "/health/live", "/metrics"} <= set(paths)
    operations = [operation for path in paths.values() for operation in path.values()]
    assert all(operation.get("description") for operation in operations)
    parameters = [parameter for operation in operations for parameter in operation.get("parameters", [])]
    assert parameters
    assert all(parameter.get("description") for parameter in parameters)


def test_an_image_sent_twice_at_once_has_one_id(ask):
    async def talk(client):
        posts = [client.post("/v1/segment?keep=true", content=image(77)) for _ in range(2)]
        ids = [response.json()["image"] for response in await asyncio.gather(*posts)]
        return ids, [await client.get(f"/v1/images/{image_id}/pixels") for image_id in ids]

    (one, other), responses = ask(talk, Limits())
    assert one == other
    assert [response.status_code for response in responses] == [200, 200]


def test_queries_are_not_counted_as_batched_images(ask):
    async def talk(client):
        image_id = (await client.post("/v1/segment?keep=true", content=image())).json()["image"]
        for x in range(3):
            await client.post("/v1/attention", params={"image": image_id, "x": x, "y": 0})
        return (await client.get("/metrics")).text

    metrics = ask(talk, Limits())
    assert re.findall(r"^(danet_batch\w+) (\d+)$", metrics, re.M) == [("danet_batches", "1"), ("danet_batched", "1")]


def test_the_page_loads_nothing_external_and_has_no_inline_code(ask):
    names = ["/", "/docs", *(f"/page/{file.name}" for file in PAGE.iterdir() if file.suffix != ".txt")]
    names.remove("/page/index.html")
    for method in ("GET", "HEAD"):
        for name, response in zip(names, ask(send_all(*((method, name, {}) for name in names))), strict=True):
            assert response.status_code == 200, name
            assert response.headers["content-security-policy"].startswith("default-src 'none'; script-src 'self'")
            assert response.headers["x-content-type-options"] == "nosniff"
            assert "unsafe" not in response.headers["content-security-policy"]
            assert "server" not in response.headers
    for file in PAGE.iterdir():
        if file.suffix in (".html", ".css", ".js"):
            text = file.read_text()
            assert not re.search(r"https?://|//[a-z]+\.|\sstyle=|\son\w+=|<script>|<style|innerHTML", text), file.name
    assert (PAGE / "example.jpg").stat().st_size < 100_000
    assert "CC BY 2.0" in (PAGE / "example.txt").read_text()


def test_the_page_refers_only_to_existing_ids_and_aria_attributes():
    html = (PAGE / "index.html").read_text()
    ids = set(re.findall(r'\bid="([\w-]+)"', html))
    assert set(re.findall(r'\$\("([\w-]+)"\)', (PAGE / "page.js").read_text())) <= ids
    for name, values in re.findall(r'\b(aria-\w+)="([^"]*)"', html):
        assert name.removeprefix("aria-") in ("label", "labelledby", "describedby", "hidden", "roledescription"), name
        assert name not in ("aria-labelledby", "aria-describedby") or set(values.split()) <= ids, name


@pytest.mark.parametrize("path", ["..%2fapp.py", "%2e%2e/app.py", "../app.py", "a%00b", "x" * 5000, "example.txt"])
def test_no_other_file_is_served(ask, path):
    (response,) = ask(send_all(("GET", f"/page/{path}", {})))
    assert response.status_code == 404
    error_of(response)


def test_the_pixel_limit_is_lower_without_an_input_size(predictor):
    assert max_pixels(predictor) == 32 << 20
    at_own_size = copy(predictor)
    at_own_size.card = replace(predictor.card, size=None)
    assert max_pixels(at_own_size) == 4 << 20


def test_every_answer_has_a_schema_and_no_error_is_fastapis(ask):
    (response,) = ask(send_all(("GET", "/openapi.json", {})))
    for path, operations in response.json()["paths"].items():
        for operation in operations.values():
            for status, answer in operation["responses"].items():
                content = answer.get("content", {})
                assert content, f"{path} {status}"
                assert all(media["schema"] for media in content.values()), f"{path} {status}"
                if int(status) >= 400:
                    assert content == {"application/json": {"schema": {"$ref": "#/components/schemas/Error"}}}
    assert "HTTPValidationError" not in response.text


def test_answers_have_the_described_fields_and_no_others(ask):
    async def talk(client):
        segmented = await client.post("/v1/segment?keep=true", content=image())
        plain = await client.post("/v1/segment", content=image())
        image_id = segmented.json()["image"]
        channels = [await client.get(f"/v1/images/{image_id}/channels?class_id={i}") for i in range(6)]
        return [
            (schemas.Segmented, segmented.json()),
            (schemas.Segmented, plain.json()),
            (schemas.Attention, (await client.post(f"/v1/attention?image={image_id}&x=1&y=2")).json()),
            (schemas.Channels, next(answer.json() for answer in channels if answer.status_code == 200)),
            (schemas.Model, (await client.get("/v1/model")).json()),
            (schemas.Live, (await client.get("/health/live")).json()),
            (schemas.Ready, (await client.get("/health/ready")).json()),
            (schemas.Error, (await client.get("/v1/nothing")).json()),
            (schemas.Error, (await client.post("/v1/attention", content=image())).json()),
        ]

    for schema, content in ask(talk):
        content.pop("picture", None)  # vocabulary: old name
        schema.model_validate_json(json.dumps(content), strict=True, extra="forbid")
