"""Groups of images of one size: full ones take one forward pass, where this gives the bits of single images."""

import numpy as np
import pytest
from exported import onnx_content

from danet import InputError
from danet.predict import batched
from danet.predict.batched import Batched, group_images, segment_batch
from danet.predict.predictor import load
from danet.predict.protocols import PROTOCOLS


@pytest.fixture(scope="module")
def predictor(tiny_weights):
    return load(tiny_weights, "cpu")


@pytest.fixture(scope="module")
def images():
    rng = np.random.default_rng(0)
    return [rng.integers(0, 256, (24, 32, 3), np.uint8) for _ in range(4)]


@pytest.fixture
def passes(monkeypatch):
    """The numbers of images of all passes of several images."""
    sizes, original = [], batched.segment_batch

    def counted(predictor, group, size=None):
        sizes.append(len(group))
        return original(predictor, group, size)

    monkeypatch.setattr(batched, "segment_batch", counted)
    return sizes


def test_groups_have_consecutive_images_of_one_size():
    items = [(2, 2), (2, 2), (2, 2), (3, 3), None, None, (2, 2), (9, 9), (9, 9)]
    groups = list(group_images(enumerate(items), lambda item: item[1], lambda size: 1 if size == (9, 9) else 2))
    assert [[i for i, _ in group] for group in groups] == [[0, 1], [2], [3], [4], [5], [6], [7], [8]]
    assert list(group_images([], lambda _: None, lambda _: 5)) == []


def test_small_images_share_a_pass_and_large_ones_are_alone(predictor):
    assert predictor.card.size == 128
    together = Batched(predictor)
    assert together.most((24, 32)) == 16  # 96 x 128 pixels each: limited by the number
    assert Batched(predictor, size=512).most((24, 32)) == 5  # 384 x 512
    assert Batched(predictor, size=1024).most((1200, 1600)) == 1
    assert together.most((6000, 8000)) == 1  # 48 megapixels: limited by the memory of the images themselves
    assert Batched(predictor, PROTOCOLS["released-multi"]).most((24, 32)) == 1  # several views


def test_exported_networks_get_single_images(tmp_path):
    (tmp_path / "net.onnx").write_bytes(onnx_content())
    assert Batched(load(tmp_path / "net.onnx")).most((24, 32)) == 1


def test_results_are_those_of_single_images_whatever_the_pass_gives(predictor, images, monkeypatch, passes):
    single = [predictor.segment(str(i), image) for i, image in enumerate(images)]
    together = Batched(predictor)
    together._most[24, 32] = 4
    for _ in range(5):
        group = images[: together.most((24, 32))]
        found = together.segment([str(i) for i in range(len(group))], group)
        assert [own.name for own in found] == [own.name for own in single[: len(group)]]
        for own, expected in zip(found, single, strict=False):
            assert np.array_equal(own.labels, expected.labels)
            assert own.confidence.tobytes() == expected.confidence.tobytes()


def test_a_pass_replaces_single_images_only_if_its_bits_were_the_same(predictor, images, monkeypatch, passes):
    exact = [predictor.segment("", image) for image in images]
    monkeypatch.setattr(batched, "segment_batch", lambda _network, group, _size: passes.append(len(group)) or exact)
    alone = []
    monkeypatch.setattr(Batched, "_alone", lambda _self, _name, image: alone.append(image) or exact[len(alone) % 4 - 1])
    together = Batched(predictor)
    together._most[24, 32] = 4
    for _ in range(3):
        together.segment("abcd", images)
    assert (passes, len(alone)) == ([4, 4, 4], 4)
    together.segment("abc", images[:3])  # not full: this number has not been compared
    assert (passes, len(alone)) == ([4, 4, 4], 7)


def test_too_little_memory_is_an_error_in_one_line(predictor, images, monkeypatch):
    def fail(_):
        raise RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried to allocate 9 bytes")

    monkeypatch.setattr(predictor, "logits", fail)
    with pytest.raises(
        InputError, match=r"^image: not enough memory to segment \d+ x \d+ pixels; use a smaller `size`"
    ):
        segment_batch(predictor, images[:1])


def test_half_as_many_are_tried_after_other_bits_or_too_little_memory(predictor, images, monkeypatch, passes):
    def fail(_network, group, _size):
        passes.append(len(group))
        if len(group) == 4:
            raise RuntimeError("out of memory")
        found = segment_batch(predictor, group)
        found[-1].confidence[0, 0] -= 1e-7
        return found

    monkeypatch.setattr(batched, "segment_batch", fail)
    together = Batched(predictor)
    together._most[24, 32] = 4
    for count in (4, 2, 1, 1):
        assert together.most((24, 32)) == count
        together.segment("abcd"[:count], images[:count])
    assert passes == [4, 2]


def test_an_image_that_cannot_be_segmented_does_not_stop_its_group(predictor, images, monkeypatch):
    segment = predictor.segment

    def fail(name, *args):
        if name == "b":
            raise InputError(name, "not enough memory", "free some memory")
        return segment(name, *args)

    monkeypatch.setattr(predictor, "segment", fail)
    found = Batched(predictor).segment("abc", images[:3])
    assert [isinstance(own, InputError) for own in found] == [False, True, False]
