"""k-fold cross-validation: each image is validated once, and what belongs together stays together."""

from dataclasses import replace
from itertools import pairwise
from pathlib import Path

import pytest

from danet import InputError
from danet.data import registry
from danet.data.classes import Classes, LabelMap
from danet.data.folds import choose_fold
from danet.data.samples import Pair, PairedFiles
from danet.recipes import parse_fold


def samples(names: list[str], by_sequence: bool = False) -> PairedFiles:
    pairs = [Pair(name, Path(f"{name}.jpg"), Path(f"{name}.png")) for name in names]
    return PairedFiles(Classes.named(("a",)), pairs, LabelMap({0: 0}, 1), by_sequence=by_sequence)


def names_of(data: PairedFiles) -> list[str]:
    return [pair.name for pair in data.pairs]


def folds(data: PairedFiles, count: int) -> list[list[str]]:
    return [names_of(choose_fold(data, index, count, validation=True)) for index in range(1, count + 1)]


@pytest.mark.parametrize(("images", "count"), [(40, 5), (41, 5), (7, 7), (3, 2), (100, 10)])
def test_each_image_is_validated_in_exactly_one_fold(images, count):
    data = samples([f"x{i * 7}" for i in range(images)])
    found = folds(data, count)
    assert sorted(name for fold in found for name in fold) == sorted(names_of(data))
    assert {len(fold) for fold in found} <= {images // count, -(-images // count)}
    for index, own in enumerate(found, 1):
        others = names_of(choose_fold(data, index, count, validation=False))
        assert others == [name for name in names_of(data) if name not in own]  # in the same order


def test_folds_depend_only_on_names():
    names = [f"x{i}" for i in range(20)]
    forwards, backwards = folds(samples(names), 4), folds(samples(names[::-1]), 4)
    assert [set(fold) for fold in forwards] == [set(fold) for fold in backwards]
    assert forwards[0] != sorted(names)[:5]  # neighbors are spread over the folds


def test_sequences_stay_on_one_side():
    lengths = {"a": 9, "b": 7, "c": 3, "d": 2, "e": 2, "f": 1}
    data = samples([f"{key}_{i}" for key, length in lengths.items() for i in range(length)], by_sequence=True)
    found = folds(data, 3)
    assert sorted(name for fold in found for name in fold) == sorted(names_of(data))
    for key, length in lengths.items():
        assert [sum(name.startswith(key) for name in fold) for fold in found].count(length) == 1
    assert sorted(map(len, found)) == [7, 8, 9]


@pytest.mark.parametrize(("lengths", "count"), [([40], 5), ([10], 3), ([20, 15, 5], 5), ([6], 5), ([3, 3], 6)])
def test_fewer_sequences_than_folds_are_cut_into_consecutive_frames(lengths, count):
    names = [f"{key}_{i:03}" for key, length in enumerate(lengths) for i in range(length)]
    found = folds(samples(names, by_sequence=True), count)
    assert sorted(name for fold in found for name in fold) == names
    assert min(map(len, found)) >= 1
    neighbors = sum(a[:-4] == b[:-4] for a, b in pairwise(names))
    together = sum(a[:-4] == b[:-4] and any({a, b} <= set(fold) for fold in found) for a, b in pairwise(names))
    assert neighbors - together <= 2 * count  # the number of cuts
    with pytest.raises(
        InputError, match=rf"^data\.fold: {len(names)} images cannot be divided into 99 folds; use fewer"
    ):
        choose_fold(samples(names, by_sequence=True), 1, 99, validation=True)


@pytest.mark.parametrize("count", [2, 5, 7, 20])
def test_a_sequence_is_not_cut_between_copies_of_an_image(count):
    copies = [f"frame_{i:04}_jpg.rf.{mark * 24}" for i in range(20) for mark in "abc"]
    found = folds(samples(copies, by_sequence=True), count)
    assert sorted(name for fold in found for name in fold) == sorted(copies)
    assert all(len({name for name in fold if name[:10] == own[:10]}) == 3 for fold in found for own in fold)


def test_copies_of_an_image_stay_on_one_side():
    copies = [f"{name}_jpg.rf.{mark * 24}" for name in ("a1", "b2", "c3", "d4") for mark in "xyz"]
    for fold in folds(samples(copies), 2):
        assert sorted(name[:2] for name in fold) == sorted([name[:2] for name in fold[::3]] * 3)
        assert len(fold) == 6


def test_settings_say_whether_images_are_frames(tmp_path):
    for i in range(6):
        for folder in ("images", "masks"):
            (tmp_path / folder).mkdir(exist_ok=True)
            (tmp_path / folder / f"clip_{i}.png").write_bytes(b"x")
    for split_by, expected in (("sequence", True), ("image", False)):
        (tmp_path / "dataset.yaml").write_text(f"classes: [a, b]\nsplit_by: {split_by}\n")
        data = registry.load("folder", tmp_path, "train")
        assert isinstance(data, PairedFiles)
        assert data.by_sequence == expected


def test_generated_images_have_no_folds():
    with pytest.raises(InputError, match=r"^data\.fold: is for images in files, and these are generated"):
        choose_fold(registry.load("toy", None, "train"), 1, 5, validation=True)
    with pytest.raises(InputError, match="2 images cannot be divided into 3 folds"):
        choose_fold(replace(samples(["a", "b"])), 1, 3, validation=True)


@pytest.mark.parametrize("text", ["", "1", "0/5", "6/5", "1/1", "1/5/2", "-1/5", "a/b", "1/5 ", "٣/5"])
def test_other_texts_are_no_folds(text):
    with pytest.raises(InputError, match=r"^data\.fold: must be I/K, with K at least 2 and I from 1 to K"):
        parse_fold(text)
    assert parse_fold("3/10") == (3, 10)
