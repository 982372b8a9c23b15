"""danet/web under load: limits, batches, clients that leave, errors of its own, and the parts that bound it."""

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
from web_client import all_of, error, image

from danet.errors import InputError
from danet.serve.decoder import Decoder
from danet.serve.guard import Budget, Busy, Limits
from danet.serve.image_store import Images, Kept
from danet.serve.worker import Worker, segment_together


def test_over_the_limits_it_is_503_with_retry_after(ask):
    sent = {"content": image()}
    requests = [("POST", "/v1/segment", sent), ("POST", "/v1/attention?x=1&y=1", sent)]
    for limits in (Limits(waiting=0), Limits(held_bytes=100)):
        (answer, other) = ask(all_of(*requests), limits)
        assert other.status_code == 503
        assert answer.status_code == 503
        assert answer.headers["retry-after"] == "1"
        error(answer)


def test_many_at_once_are_answered_together_or_refused(ask):
    async def questions(client):
        posts = [client.post("/v1/segment", content=image(i % 5)) for i in range(60)]
        answers = await asyncio.gather(*posts)
        return answers, (await client.get("/metrics")).text, await client.post("/v1/segment", content=image(0))

    answers, metrics, alone = ask(questions, Limits(waiting=40))
    statuses = [answer.status_code for answer in answers]
    assert set(statuses) == {200, 503}
    assert statuses.count(200) >= 40
    batches, batched = (int(re.search(rf"^danet_{name} (\d+)", metrics, re.M)[1]) for name in ("batches", "batched"))
    assert batched == statuses.count(200)
    assert batches < batched / 2
    shares = {entry["name"]: entry["share"] for entry in answers[0].json()["classes"]}
    assert shares == pytest.approx({e["name"]: e["share"] for e in alone.json()["classes"]}, abs=1e-3)


def test_batches_give_what_single_images_give(predictor):
    images = [np.random.default_rng(i).integers(0, 256, (50, 60, 3), np.uint8) for i in range(3)]
    for together, own in zip(segment_together(predictor, images), map(predictor, images), strict=True):
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
    (answer,) = ask(all_of(("POST", "/v1/segment", {"content": image()})), of=broken)
    assert answer.status_code == 500
    assert "secret" not in answer.text
    error(answer)
    assert "secret path" in caplog.text


def test_the_log_tells_no_contents(ask, caplog):
    caplog.set_level("INFO", "danet.web")
    ask(
        all_of(
            ("POST", "/v1/segment?output=json", {"files": {"file": ("private-name.png", image())}}),
            ("GET", "/v1/images/private-id/pixels", {}),
            ("GET", "/private-path%0A", {}),
        ),
    )
    lines = [record.getMessage() for record in caplog.records if record.name == "danet.web"]
    assert [re.sub(r" \d+ ms", "", line) for line in lines] == [
        "POST /v1/segment 200",
        "GET /v1/images/{image}/pixels 404",
        "- (no such path) 404",
    ]


def test_the_last_images_are_kept_within_their_bounds(predictor):
    kept = [Kept(predictor(np.full((16, 16, 3), i, np.uint8)), None) for i in range(4)]
    images = Images(count=2, nbytes=10**9)
    names = [images.add(bytes([i]), kept[i]) for i in range(2)]
    assert images.get(names[0]) is kept[0]
    names.append(images.add(b"\2", kept[2]))
    assert images.get(names[1]) is None, "the least recently used one is dropped"
    assert images.get(names[0]) is kept[0]
    assert images.find(b"\0") == names[0]
    assert images.find(b"\1") is None
    assert images.nbytes == 2 * kept[0].nbytes == 2 * 16 * 16 * (3 + 1 + 4)
    small = Images(count=9, nbytes=kept[0].nbytes + 1)
    for i in range(3):
        small.add(bytes([i]), kept[i])
    assert len(small) == 1
    assert small.add(b"\2", kept[3]) == small.find(b"\2")
    assert len(small) == 1
    assert small.nbytes == kept[0].nbytes
    assert images.add(b"\0", kept[3]) == names[0], "the id that was given first stays good"
    assert images.get(names[0]) is kept[0]
    images.add(b"\2", kept[2])
    images.add(b"\0", kept[3])
    images.add(b"\3", kept[3])
    assert images.find(b"\2") is None, "to add anew is a use"


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
        first = asyncio.run(decoder.decode(image()))
        os.kill(decoder._process.pid, signal.SIGKILL)
        decoder._process.join()
        with pytest.raises(InputError, match="cannot be decoded"):
            asyncio.run(decoder.decode(image()))
        assert np.array_equal(asyncio.run(decoder.decode(image())), first)
        with pytest.raises(InputError, match="limit of 10,000"):
            asyncio.run(decoder.decode(image(size=(101, 100))))
        decoder._seconds = 0
        os.kill(decoder._process.pid, signal.SIGSTOP)
        with pytest.raises(InputError, match="took over 0 s"):
            asyncio.run(decoder.decode(image()))
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
        contents = [Content(b"image") for _ in range(5)]
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
