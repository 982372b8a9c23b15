"""The cache of decoded samples: each is decoded once and then always the same."""

import os
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from danet import recipes
from danet.cli import main
from danet.data import cache
from danet.data.augment import Augmentation
from danet.data.cache import CachedSamples, open_cache, space_needed
from danet.data.custom import dataset_yaml
from danet.data.datasets import synthetic
from danet.data.samples import PairedFiles
from danet.errors import InputError
from danet.train import checkpoint


@pytest.fixture
def samples(tmp_path) -> PairedFiles:
    rng = np.random.default_rng(0)
    (tmp_path / "set" / "images").mkdir(parents=True)
    (tmp_path / "set" / "masks").mkdir()
    for i in range(5):
        size = 50 + i, 70
        Image.fromarray(rng.integers(0, 256, (*size, 3), np.uint8)).save(tmp_path / "set" / "images" / f"{i}.png")
        mask = np.where(rng.random(size) < 0.5, 255, 0).astype(np.uint8)
        Image.fromarray(mask).save(tmp_path / "set" / "masks" / f"{i}.png")
    (tmp_path / "set" / "dataset.yaml").write_text("classes: [ground, crack]\nlabel_map: {0: 0, 255: 1}\n")
    return dataset_yaml.load(tmp_path / "set", "train")


def decoded(monkeypatch) -> list[int]:
    """Return a list that records the index of each sample decoded from now on."""
    read, before = [], PairedFiles.__getitem__
    monkeypatch.setattr(PairedFiles, "__getitem__", lambda self, i: read.append(i) or before(self, i))
    return read


def test_samples_are_decoded_once_and_stay_equal(samples, tmp_path, monkeypatch):
    plain = [samples[i] for i in range(len(samples))]
    for _ in range(2):
        through = open_cache(samples, tmp_path / "cache")
        for i, sample in enumerate(plain):
            again = through[i]
            assert again.name == sample.name
            assert (again.image == sample.image).all()
            assert (again.labels == sample.labels).all()
            assert (through.labels(i) == sample.labels).all()
    read = decoded(monkeypatch)
    assert isinstance(CachedSamples(samples, tmp_path / "cache")[0].image, np.memmap)
    assert read == []


def test_augmentation_is_the_same_with_and_without_a_cache(samples, tmp_path):
    through, augment = open_cache(samples, tmp_path / "cache"), Augmentation((32, 40), (0.5, 2.0), jitter=0.3)
    for seed in range(20):
        index = seed % len(samples)
        _ = through[index]
        one, other = (
            augment(sample.image, sample.labels, np.random.default_rng(seed))
            for sample in (samples[index], through[index])
        )
        assert (one[0] == other[0]).all()
        assert (one[1] == other[1]).all()


def test_changed_and_damaged_samples_are_decoded_again(samples, tmp_path, monkeypatch):
    through = open_cache(samples, tmp_path / "cache")
    first = through[0].image.copy()
    image, labels = through.files(0)
    image.write_bytes(image.read_bytes()[:-500])
    read = decoded(monkeypatch)
    assert (through[0].image == first).all()
    labels.write_bytes(b"")
    assert (through[0].image == first).all()
    assert read == [0, 0]
    Image.fromarray(255 - first).save(samples.pairs[0].image)
    assert (through[0].image == 255 - first).all()
    other_map = replace(samples, label_map=type(samples.label_map)({0: 1, 255: 0}, 2))
    assert (CachedSamples(other_map, tmp_path / "cache")[0].labels == 1 - through[0].labels).all()
    assert not list((tmp_path / "cache").glob(".danet-*"))


def put(file: Path, content: bytes) -> None:
    """Replace the content of a file that keeps its size and times, as rsync and a restored backup do."""
    status = file.stat()
    assert len(content) == status.st_size
    file.write_bytes(content)
    os.utime(file, ns=(status.st_atime_ns, status.st_mtime_ns))


@pytest.mark.parametrize("which", ["image", "mask"])
def test_a_source_with_other_content_of_the_same_size_and_time_is_decoded_again(samples, tmp_path, which):
    pair = samples.pairs[0]
    source, mode = (pair.image, "RGB") if which == "image" else (pair.mask, "L")
    Image.new(mode, samples[0].labels.shape[::-1], "black").save(source, compress_level=0)
    cached = open_cache(samples, tmp_path / "cache")
    black = cached[0]
    assert (black.image == 0).all() if which == "image" else (black.labels == 0).all()
    Image.new(mode, black.labels.shape[::-1], "white").save(tmp_path / "white.png", compress_level=0)
    put(source, (tmp_path / "white.png").read_bytes())
    for through in (cached, CachedSamples(samples, tmp_path / "cache")):
        white = through[0]
        assert (white.image == 255).all() if which == "image" else (white.labels == 1).all()


def test_flipped_bytes_in_the_cache_are_noticed(samples, tmp_path, monkeypatch):
    expected = [open_cache(samples, tmp_path / "cache")[0], samples[0]][1]
    for file in CachedSamples(samples, tmp_path / "cache").files(0):
        whole = file.read_bytes()
        for place in range(0, len(whole), len(whole) // 40):
            put(file, whole[:place] + bytes([whole[place] ^ 1]) + whole[place + 1 :])
            sample = CachedSamples(samples, tmp_path / "cache")[0]
            assert np.array_equal(sample.image, expected.image)
            assert np.array_equal(sample.labels, expected.labels)
            assert file.read_bytes() == whole, "it is written again"
    read = decoded(monkeypatch)
    _ = CachedSamples(samples, tmp_path / "cache")[0]
    assert read == []


def test_a_file_that_changes_during_a_run_is_checked_again(samples, tmp_path):
    through = open_cache(samples, tmp_path / "cache")
    expected = through[0].image.copy()
    file = through.files(0)[0]
    put(file, file.read_bytes()[:-100] + bytes(100))
    assert np.array_equal(through[0].image, expected)


@pytest.mark.parametrize(
    ("image", "labels"),
    [
        (np.zeros((10, 10, 3), np.uint8), np.zeros((10, 9), np.uint8)),
        (np.zeros((10, 10, 4), np.uint8), np.zeros((10, 10), np.uint8)),
        (np.zeros((10, 10, 3), np.float64), np.zeros((10, 10), np.uint8)),
        (np.zeros((10, 10, 3), np.uint8), np.full((10, 10), 200, np.uint8)),
        (np.zeros((10, 10, 3), np.uint8), np.zeros((10, 10), np.int64)),
    ],
)
def test_entries_that_cannot_be_a_sample_are_decoded_again(samples, tmp_path, image, labels):
    """A digest only protects against accidents."""
    through = open_cache(samples, tmp_path / "cache")
    for file, array in zip(through.files(0), (image, labels), strict=True):
        cache._write(file, array, cache._digest(samples.pairs[0]))
    assert np.array_equal(through[0].image, samples[0].image)
    assert np.array_equal(through[0].labels, samples[0].labels)


def test_the_space_needed_is_known_and_must_be_free(samples, tmp_path, monkeypatch):
    through = open_cache(samples, tmp_path / "cache")
    whole = sum((sample.labels.size) * 4 for sample in map(samples.__getitem__, range(len(samples))))
    assert space_needed(through) == (whole, whole)
    _ = through[0]
    assert space_needed(through) == (whole, whole - 4 * samples[0].labels.size)
    files = sum(file.stat().st_size for file in (tmp_path / "cache").iterdir())
    assert files == pytest.approx(4 * samples[0].labels.size, abs=400)

    class Usage:
        free = 1000

    monkeypatch.setattr(cache.shutil, "disk_usage", lambda _: Usage)
    with pytest.raises(InputError, match=r"needs .* GB more, but 0\.0 GB are free; set `cache` to a folder on another"):
        open_cache(samples, tmp_path / "cache")


@pytest.mark.parametrize("kind", ["npy", "tif", "deep"])
@pytest.mark.filterwarnings("ignore::UserWarning")  # rasterio's, about an image without coordinates
def test_images_that_pillow_cannot_read_are_cached_too(tmp_path, kind):
    (tmp_path / "images").mkdir()
    (tmp_path / "masks").mkdir()
    stored = np.random.default_rng(0).integers(0, 256, (20, 24, 5), np.uint16 if kind == "deep" else np.uint8)
    for stem in "ab":  # one for each split
        if kind == "tif":
            rasterio = pytest.importorskip("rasterio")
            form = {"driver": "GTiff", "dtype": "uint8", "height": 20, "width": 24, "count": 5}
            with rasterio.open(tmp_path / "images" / f"{stem}.tif", "w", **form) as made:
                made.write(stored.transpose(2, 0, 1))
        else:
            np.save(tmp_path / "images" / f"{stem}.npy", stored)
        Image.fromarray((stored[..., 0] // 128).astype(np.uint8)).save(tmp_path / "masks" / f"{stem}.png")
    (tmp_path / "dataset.yaml").write_text("classes: [ground, crack]\nchannels: 5\n")
    samples = dataset_yaml.load(tmp_path, "train")
    whole = len(samples) * 20 * 24 * (5 * (4 if kind == "deep" else 1) + 1)
    through = open_cache(samples, tmp_path / "cache")
    assert space_needed(through) == (whole, whole)
    for i in range(len(samples)):
        assert np.array_equal(through[i].image, samples[i].image)
    assert space_needed(through) == (whole, 0)


def test_an_image_removed_after_listing_is_an_input_error(samples, tmp_path):
    through = open_cache(samples, tmp_path / "cache")
    _ = through[0]
    samples.pairs[0].mask.unlink()
    with pytest.raises(
        InputError, match=r"masks/0\.png: cannot be read \(No such file or directory\); check the path$"
    ):
        _ = through[0]
    samples.pairs[0].image.unlink()
    with pytest.raises(InputError, match=r"images/0\.png: cannot be read"):
        _ = through[0]


def test_unreadable_samples_do_not_count_as_space(samples, tmp_path):
    sizes = [4 * samples[i].labels.size for i in range(len(samples))]
    for pair in samples.pairs[:2]:
        pair.image.write_bytes(b"")
    samples.pairs[3].mask.unlink()
    errors: list[InputError] = []
    through = open_cache(samples, tmp_path / "cache", errors.append)
    assert [error.where for error in errors] == [samples.pairs[0].image, samples.pairs[1].image, samples.pairs[3].mask]
    assert space_needed(through, errors.append) == (sizes[2], sizes[2])
    with pytest.raises(InputError, match=r"images/0\.png: empty file"):
        open_cache(samples, tmp_path / "cache")


def test_synthetic_scenes_have_no_cache(tmp_path):
    with pytest.raises(InputError, match="not read from files"):
        open_cache(synthetic.load(tmp_path, "train"), tmp_path / "cache")


def test_training_with_a_cache_gives_the_same_weights(samples, tmp_path, monkeypatch):
    del samples
    small = replace(recipes.RECIPES["folder"].network, backbone="test_resnet", output_stride=16, width=16)
    recipe = replace(recipes.RECIPES["folder"], network=replace(small, pretrained=False))
    recipe = replace(recipe, data=replace(recipe.data, crop=(32, 32), batch=2, size=64))
    monkeypatch.setitem(recipes.RECIPES, "folder", replace(recipe, optim=replace(recipe.optim, epochs=1)))
    for name, extra in (("plain", []), ("first", ["--cache", "c"]), ("second", ["--cache", "c", "--workers", "0"])):
        options = ["--data.root", str(tmp_path / "set"), "--out", str(tmp_path / name), "--device", "cpu"]
        extra = [str(tmp_path / "cache") if word == "c" else word for word in extra]
        assert main(["train", "folder", *options, *extra]) == 0
    plain, first, second = (checkpoint.newest(tmp_path / name)["network"] for name in ("plain", "first", "second"))
    for name, tensor in plain.items():
        assert (tensor == first[name]).all(), name
        assert (tensor == second[name]).all(), name
    assert len(list((tmp_path / "cache").iterdir())) == 2 * 4
