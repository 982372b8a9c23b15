"""danet/serve under load: limits, batches, clients that disconnect, internal errors, and its parts."""

import asyncio
import gc
import os
import re
import signal
import threading
import time
import weakref
from copy import copy

import numpy as np
import pytest
from serve_client import error_of, image, send_all

from danet.errors import InputError
from danet.serve.decoder import Decoder
from danet.serve.guard import Budget, Busy, Limits
from danet.serve.image_store import ImageStore, StoredImage
from danet.serve.worker import Worker, segment_batch


def test_requests_beyond_the_limits_get_503_with_retry_after(ask):
    sent = {"content": image()}
    requests = [("POST", "/v1/segment", sent), ("POST", "/v1/attention?x=1&y=1", sent)]
    for limits in (Limits(waiting=0), Limits(held_bytes=100)):
        (response, other) = ask(send_all(*requests), limits)
        assert other.status_code == 503
        assert response.status_code == 503
        assert response.headers["retry-after"] == "1"
        error_of(response)


def test_many_requests_are_batched_or_get_503(ask):
    async def talk(client):
        posts = [client.post("/v1/segment", content=image(i % 5)) for i in range(60)]
        responses = await asyncio.gather(*posts)
        return responses, (await client.get("/metrics")).text, await client.post("/v1/segment", content=image(0))

    responses, metrics, alone = ask(talk, Limits(waiting=40))
    statuses = [response.status_code for response in responses]
    assert set(statuses) == {200, 503}
    assert statuses.count(200) >= 40
    batches, batched = (int(re.search(rf"^danet_{name} (\d+)", metrics, re.M)[1]) for name in ("batches", "batched"))
    assert batched == statuses.count(200)
    assert batches < batched / 2
    shares = {entry["name"]: entry["share"] for entry in responses[0].json()["classes"]}
    assert shares == pytest.approx({e["name"]: e["share"] for e in alone.json()["classes"]}, abs=1e-3)


def test_batches_equal_single_images(predictor):
    images = [np.random.default_rng(i).integers(0, 256, (50, 60, 3), np.uint8) for i in range(3)]
    for batched, single in zip(segment_batch(predictor, images), map(predictor, images), strict=True):
        assert (batched.labels == single.labels).mean() > 0.999
        np.testing.assert_allclose(batched.confidence, single.confidence, atol=1e-5)


def test_a_cancelled_job_is_removed_and_urgent_ones_run_first():
    async def run():
        worker, computed = Worker(), []

        def slow(items):
            time.sleep(0.1)
            computed.extend(items)
            return items

        work = asyncio.create_task(worker.run())
        asked = [asyncio.create_task(worker.submit(slow, i, None, 1)) for i in range(4)]
        await asyncio.sleep(0.05)
        asked[2].cancel()
        urgent = [asyncio.create_task(worker.submit_urgent(computed.append, f"urgent {i}")) for i in range(2)]
        await asyncio.gather(asked[0], asked[1], asked[3], *urgent)
        work.cancel()
        return computed, len(worker)

    assert asyncio.run(run()) == ([0, "urgent 0", "urgent 1", 1, 3], 0)


def test_an_error_in_the_thread_reaches_only_its_own_request():
    async def run():
        worker = Worker()
        work = asyncio.create_task(worker.run())
        with pytest.raises(ZeroDivisionError):
            await worker.submit_urgent(lambda: 1 / 0)
        assert await worker.submit_urgent(lambda: 7) == 7
        work.cancel()

    asyncio.run(run())


def test_an_internal_error_gets_500_without_a_traceback(ask, predictor, caplog):
    def fail(_):
        raise RuntimeError("secret path /root")

    broken = copy(predictor)
    broken.logits = fail
    (response,) = ask(send_all(("POST", "/v1/segment", {"content": image()})), of=broken)
    assert response.status_code == 500
    assert "secret" not in response.text
    error_of(response)
    assert "secret path" in caplog.text


def test_the_log_contains_no_names_or_ids_of_clients(ask, caplog):
    caplog.set_level("INFO", "danet.serve")
    ask(
        send_all(
            ("POST", "/v1/segment?output=json", {"files": {"file": ("private-name.png", image())}}),
            ("GET", "/v1/images/private-id/pixels", {}),
            ("GET", "/private-path%0A", {}),
        ),
    )
    lines = [record.getMessage() for record in caplog.records if record.name == "danet.serve"]
    assert [re.sub(r" \d+ ms", "", line) for line in lines] == [
        "POST /v1/segment 200",
        "GET /v1/images/{image}/pixels 404",
        "- (no such path) 404",
    ]


def test_the_image_store_drops_the_least_recently_used(predictor):
    stored = [StoredImage(predictor(np.full((16, 16, 3), i, np.uint8)), None) for i in range(4)]
    images = ImageStore(count=2, nbytes=10**9)
    names = [images.add(bytes([i]), stored[i]) for i in range(2)]
    assert images.get(names[0]) is stored[0]
    names.append(images.add(b"\2", stored[2]))
    assert images.get(names[1]) is None, "the least recently used image is dropped"
    assert images.get(names[0]) is stored[0]
    assert images.find(b"\0") == names[0]
    assert images.find(b"\1") is None
    assert images.nbytes == 2 * stored[0].nbytes == 2 * 16 * 16 * (3 + 1 + 4)
    small = ImageStore(count=9, nbytes=stored[0].nbytes + 1)
    for i in range(3):
        small.add(bytes([i]), stored[i])
    assert len(small) == 1
    assert small.add(b"\2", stored[3]) == small.find(b"\2")
    assert len(small) == 1
    assert small.nbytes == stored[0].nbytes
    assert images.add(b"\0", stored[3]) == names[0], "the first id stays valid"
    assert images.get(names[0]) is stored[0]
    images.add(b"\2", stored[2])
    images.add(b"\0", stored[3])
    images.add(b"\3", stored[3])
    assert images.find(b"\2") is None, "adding an image again counts as a use"


def test_a_released_budget_can_be_acquired_again():
    budget = Budget(10)
    budget.acquire(7)
    with pytest.raises(Busy):
        budget.acquire(4)
    budget.release(7)
    budget.acquire(10)
    assert budget.held == 10


def test_the_decoder_restarts_its_process_after_a_crash(tmp_path):
    decoder = Decoder(10_000, 20)
    try:
        decoder.start()
        first = asyncio.run(decoder.decode(image()))
        os.kill(decoder._process.pid, signal.SIGKILL)
        decoder._process.join()
        with pytest.raises(InputError, match="the decoder crashed"):
            asyncio.run(decoder.decode(image()))
        assert np.array_equal(asyncio.run(decoder.decode(image())), first)
        with pytest.raises(InputError, match="limit of 10,000"):
            asyncio.run(decoder.decode(image(size=(101, 100))))
        decoder._seconds = 0
        os.kill(decoder._process.pid, signal.SIGSTOP)
        with pytest.raises(InputError, match="decoding took over 0 s"):
            asyncio.run(decoder.decode(image()))
    finally:
        decoder.close()


def test_the_decoder_releases_the_bytes_of_cancelled_requests():
    class Content(bytearray):
        """Bytes that support weak references."""

    async def run():
        decoder, begun, go = Decoder(10_000, 20), threading.Event(), threading.Event()

        def slow(_):
            begun.set()
            go.wait(20)

        decoder._decode = slow
        contents = [Content(b"image") for _ in range(5)]
        references = [weakref.ref(content) for content in contents]
        tasks = [asyncio.create_task(decoder.decode(contents.pop(0))) for _ in references]
        try:
            await asyncio.to_thread(begun.wait, 20)
            for _ in range(4):  # the first one is being decoded
                tasks[0].cancel()
                await asyncio.wait((tasks.pop(0),))
            gc.collect()
            held = [content() is not None for content in references]
            go.set()
            await tasks.pop()
            return held
        finally:
            go.set()
            decoder.close()

    assert asyncio.run(run()) == [True, False, False, False, True]
