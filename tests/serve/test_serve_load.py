"""danet/serve under load: limits, batches, clients that disconnect, internal errors, and its parts."""

import asyncio
import contextlib
import gc
import gzip
import multiprocessing
import os
import re
import resource
import signal
import threading
import time
import weakref
from copy import copy
from dataclasses import replace
from multiprocessing import resource_tracker, util

import numpy as np
import pytest
from serve_client import error_of, image, send_all

from danet.data.classes import Classes
from danet.data.images.channels import RGB
from danet.errors import InputError
from danet.predict.batched import segment_batch
from danet.predict.segmentation import Segmentation
from danet.serve import decoder as decoder_module
from danet.serve import responses as responses_module
from danet.serve import service
from danet.serve.decoder import Decoder
from danet.serve.guard import Body
from danet.serve.image_store import ImageStore, StoredImage
from danet.serve.limits import Budget, Busy, Limits
from danet.serve.worker import Worker


def test_requests_beyond_the_limits_get_503_with_retry_after(ask):
    sent = {"content": image()}
    requests = [("POST", "/v1/segment", sent), ("POST", "/v1/attention?x=1&y=1", sent)]
    for response in ask(send_all(*requests), Limits(waiting=0)):
        assert response.status_code == 503
        assert response.headers["retry-after"] == "1"
        assert error_of(response) == "the server is busy; try again in a second"


@pytest.mark.parametrize(
    ("held", "path", "status"),
    [
        (9_000, "/v1/segment", 413),  # the body
        (20_000, "/v1/segment", 413),  # and the image with its result
        (40_000, "/v1/segment", 200),
        (60_000, "/v1/segment?output=overlay", 413),  # and the overlay with its legend
        (4_000_000, "/v1/segment?output=overlay", 200),
        (400_000, "/v1/segment?output=labels", 200),
    ],
)
def test_a_request_that_needs_more_than_the_server_has_gets_413(ask, held, path, status):
    async def talk(client):
        return await client.post(path, content=image()), await client.get("/metrics")

    response, metrics = ask(talk, Limits(held_bytes=held))
    assert response.status_code == status
    if status == 413:
        assert re.match(
            r"the image and its result need [01] MB, more than this server's 0 MB; send a", error_of(response)
        )
    assert "danet_held_bytes 0" in metrics.text


def test_stored_images_and_their_maps_are_charged(ask):
    async def talk(client):
        image_id = (await client.post("/v1/segment?keep=true", content=image(size=(40, 50)))).json()["image"]
        paths = ["pixels", "pixels?without=position", "labels", "channels?class_id=0&count=16"]
        responses = [await client.get(f"/v1/images/{image_id}/{path}") for path in paths]
        return [*responses, await client.post(f"/v1/attention?image={image_id}&x=1&y=1")]

    statuses = [response.status_code for response in ask(talk)]
    assert statuses[:3] == [200, 200, 200]
    assert statuses[4] == 200
    charged = []
    with pytest.MonkeyPatch.context() as patch:
        hold = Body.hold
        patch.setattr(Body, "hold", lambda body, amount: charged.append(amount) or hold(body, amount))
        ask(talk)
    cells = 16 * 13  # the image is enlarged to 128 x 102 pixels, at stride 8
    for amount in (40 * 50 * 4, 40 * 50 * 5, 40 * 50 * 3, 16 * 6 * cells, 6 * cells):
        assert amount in charged


def test_pixels_are_compressed_in_parts_without_a_difference(monkeypatch):
    generator = np.random.default_rng(0)
    labels = generator.integers(0, 6, (30, 40), np.uint8)
    confidence = generator.random((30, 40), np.float32)
    segmentation = Segmentation("x", labels[..., None], labels, confidence, Classes.named(tuple("abcdef")))
    monkeypatch.setattr(responses_module, "_CHUNK", 100)
    expected = labels.tobytes() + (255 * confidence).round().astype(np.uint8).tobytes()
    assert gzip.decompress(responses_module.PIXELS.encode(segmentation)) == expected


def test_a_network_without_a_size_takes_no_image_that_is_too_long(ask, predictor):
    own_size = copy(predictor)
    own_size.card = replace(predictor.card, size=None)
    contents = [image(size=(1, 140_000)), image(size=(3, 900))]
    first, second = ask(send_all(*(("POST", "/v1/segment", {"content": c}) for c in contents)), of=own_size)
    assert first.status_code == 422
    assert "140000 x 1: this network takes a long side of at most 131,072 pixels; send a part of it" in first.text
    assert second.status_code == 200


def test_many_requests_are_batched_or_get_503(ask, monkeypatch):
    """The network is slowed down, so that images wait for it on any machine."""

    def slowly(predictor, images):
        time.sleep(0.2)
        return segment_batch(predictor, images)

    monkeypatch.setattr(service, "segment_batch", slowly)

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
        "POST /v1/segment 200 127.0.0.1",
        "GET /v1/images/{image}/pixels 404 127.0.0.1",
        "- (no such path) 404 127.0.0.1",
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


@pytest.fixture
def spawned_decoders(monkeypatch) -> None:
    """Start decoders as the server does."""
    monkeypatch.setattr(decoder_module, "multiprocessing", multiprocessing)


@pytest.fixture
def decoder(spawned_decoders):
    decoder = Decoder(10_000, 20)
    yield decoder
    decoder.close()


def test_the_decoder_starts_another_process_if_its_own_was_killed(decoder):
    first = asyncio.run(decoder.decode(image()))
    os.kill(decoder._child.process.pid, signal.SIGKILL)
    assert np.array_equal(asyncio.run(decoder.decode(image())), first)
    os.kill(decoder._child.process.pid, signal.SIGSTOP)
    killer = threading.Timer(0.3, os.kill, (decoder._child.process.pid, signal.SIGKILL))
    killer.start()
    assert np.array_equal(asyncio.run(decoder.decode(image())), first), "killed while it decodes"
    os.kill(decoder._child.process.pid, signal.SIGTERM)
    os.kill(decoder._child.process.pid, signal.SIGINT)
    pid = decoder._child.process.pid
    assert np.array_equal(asyncio.run(decoder.decode(image())), first)
    assert decoder._child.process.pid == pid, "signals to the process group do not end it"


def test_signals_are_blocked_when_the_first_process_starts(spawned_decoders, monkeypatch):
    """The first start of a process starts the resource tracker of multiprocessing, which unblocks them."""
    tracker = resource_tracker.ResourceTracker()  # one that does not run yet
    monkeypatch.setattr(resource_tracker, "ensure_running", tracker.ensure_running)
    monkeypatch.setattr(resource_tracker, "getfd", tracker.getfd)
    blocked, spawn = [], util.spawnv_passfds

    def noting(*args):
        blocked.append(signal.pthread_sigmask(signal.SIG_BLOCK, ()))
        return spawn(*args)

    monkeypatch.setattr(util, "spawnv_passfds", noting)
    decoder_module._start(10_000, RGB).stop()
    tracker._stop()
    assert len(blocked) == 2, "the tracker, and the decoder"
    assert blocked[-1] >= {signal.SIGINT, signal.SIGTERM}


def test_the_decoder_gives_up_on_an_image_that_kills_two_processes(decoder, monkeypatch):
    start, started = decoder_module._start, []

    def killed(*args):
        child = start(*args)
        started.append(child)
        os.kill(child.process.pid, signal.SIGKILL)
        return child

    monkeypatch.setattr(decoder_module, "_start", killed)
    with pytest.raises(InputError, match="image: the decoder crashed on this file"):
        asyncio.run(decoder.decode(image()))
    assert len(started) == 2


def test_the_decoder_limits_pixels_and_time(decoder):
    with pytest.raises(InputError, match="limit of 10,000"):
        asyncio.run(decoder.decode(image(size=(101, 100))))
    decoder._seconds = 0
    os.kill(decoder._child.process.pid, signal.SIGSTOP)
    with pytest.raises(InputError, match="decoding took over 0 s"):
        asyncio.run(decoder.decode(image()))


@contextlib.contextmanager
def few_descriptors(spare: int):
    """Leave this process only some more file descriptors."""
    limits, held = resource.getrlimit(resource.RLIMIT_NOFILE), [os.dup(0)]
    highest = max(int(name) for name in os.listdir("/dev/fd"))  # noqa: PTH208
    while held[-1] < highest:
        held.append(os.dup(0))  # in the gaps
    resource.setrlimit(resource.RLIMIT_NOFILE, (held[-1] + 1 + spare, limits[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, limits)
        for descriptor in held:
            os.close(descriptor)


@pytest.mark.parametrize(
    ("spare", "times"), [*((spare, 1) for spare in (0, 1, 2, 3, 4, 6)), pytest.param(3, 25, marks=pytest.mark.stress)]
)
@pytest.mark.usefixtures("spawned_decoders")
def test_without_descriptors_uploads_get_503_and_later_ones_are_decoded(ask, spare, times):
    async def talk(client):
        failed, good, seconds = [], [], 0.0
        for _ in range(times):
            with few_descriptors(spare):
                start = time.monotonic()
                failed += [await client.get("/ready"), await client.post("/v1/segment", content=image())]
                seconds = max(seconds, time.monotonic() - start)
            good += [await client.post("/v1/segment", content=image()), await client.get("/ready")]
            for process in multiprocessing.active_children() if times > 1 else ():  # which is then started again
                process.kill()
                process.join()
        return failed, good, seconds

    failed, good, seconds = ask(talk, Limits())
    assert {response.status_code for response in good} == {200}
    assert seconds < 4
    for response in failed:
        assert response.status_code == 503
        assert error_of(response) == "the image decoder cannot be started; try again in a second"


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
