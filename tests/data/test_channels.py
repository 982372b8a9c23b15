"""Images with any number of bands and 8 or 16 bits, from a user's folder to a prediction; and binary masks."""

import io
import json
import re
import sys
import zlib
from pathlib import Path

import numpy as np
import pytest
import timm
import torch
from PIL import Image

import danet
from danet import DANet, InputError
from danet.cli import main
from danet.data import registry
from danet.data.augment import Augmentation
from danet.data.classes import Classes
from danet.data.custom.check import check_folder
from danet.data.custom.proposal import write as write_proposal
from danet.data.custom.propose import propose
from danet.data.images.channels import Bands, as_pixels, as_rgb, resize, resize_long_side
from danet.data.images.read import list_images, read_header, read_image
from danet.model.backbone import build_backbone, load_backbone, normalization
from danet.model.preprocess import normalize
from danet.weights import file as weights_file

RANDOM = np.random.default_rng(0)


def random_image(channels: int, dtype: type = np.uint16, size: tuple[int, int] = (20, 24)) -> np.ndarray:
    return RANDOM.integers(0, np.iinfo(dtype).max, (*size, channels), dtype, endpoint=True)


def write(file: Path, image: np.ndarray, **options) -> Path:
    """Write an H,W,N image in the format of the suffix: TIFF and 16-bit colors with rasterio, others with Pillow."""
    file.parent.mkdir(parents=True, exist_ok=True)
    height, width, channels = image.shape
    if file.suffix == ".npy":
        np.save(file, image)
    elif file.suffix == ".tif" or (image.dtype == np.uint16 and channels > 1):
        rasterio = pytest.importorskip("rasterio")
        shape = {"height": height, "width": width, "count": channels, "dtype": image.dtype}
        driver = "GTiff" if file.suffix == ".tif" else "PNG"
        with rasterio.open(file, "w", driver=driver, **shape, **options) as made:
            made.write(image.transpose(2, 0, 1))
    else:
        Image.fromarray(image[..., 0] if channels == 1 else image).save(file)
    return file


pytestmark = pytest.mark.filterwarnings("ignore::rasterio.errors.NotGeoreferencedWarning")

# files


@pytest.mark.parametrize("suffix", [".png", ".tif", ".npy"])
@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
@pytest.mark.parametrize("channels", [1, 2, 3, 4, 5, 64])
def test_every_band_and_bit_of_a_file_is_read(tmp_path, channels, dtype, suffix):
    if suffix == ".png" and channels > 4:
        pytest.skip("PNG does not support this")
    stored = random_image(channels, dtype)
    file = write(tmp_path / f"a{suffix}", stored)
    image = read_image(file, bands=Bands(channels))
    assert image.shape == stored.shape
    if dtype == np.uint8:
        assert image.dtype == np.uint8
        assert np.array_equal(image, stored)
    else:
        assert image.dtype == np.float32
        assert np.array_equal((image * 257).round(), stored)
        assert len(np.unique(image)) == len(np.unique(stored))
    assert read_header(file)[:4] == (*stored.shape, 8 * stored.itemsize)


def test_gray_of_16_bits_with_alpha_keeps_all_bits(tmp_path):
    stored = random_image(2)
    file = write(tmp_path / "a.png", stored)
    black = stored[..., :1] * (stored[..., 1:] / 65535)
    assert np.abs(read_image(file) * 257 - black).max() < 0.51  # composited over black, as 8 bits are
    assert read_header(file) == (20, 24, 2, 16, True, 1, 1)


@pytest.mark.parametrize("bands", [1, 3])
@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
def test_the_color_that_a_png_declares_as_transparent_is_black(tmp_path, dtype, bands):
    white = np.iinfo(dtype).max
    stored = np.broadcast_to(np.array([7, white // 2, white], dtype)[:, None], (2, 3, bands)).copy()
    png = write(tmp_path / "opaque.png", stored).read_bytes()
    chunk = b"tRNS" + (white // 2).to_bytes(2, "big") * bands
    file = tmp_path / "a.png"
    file.write_bytes(
        png[:33] + (2 * bands).to_bytes(4, "big") + chunk + zlib.crc32(chunk).to_bytes(4, "big") + png[33:]
    )
    scale = 255 / white
    assert read_image(file) == pytest.approx(np.where(stored == white // 2, 0, stored) * scale + np.zeros(3), abs=1e-4)
    assert read_image(file, bands=Bands(bands)) == pytest.approx(stored * scale, abs=1e-4)  # all its bands are data


@pytest.mark.parametrize("options", [{"interleave": "band", "compress": "deflate"}, {"photometric": "MINISBLACK"}])
@pytest.mark.parametrize("channels", [1, 3, 4, 5])
def test_tiffs_that_pillow_misreads_are_read_completely(tmp_path, channels, options):
    """Pillow 13 silently returns only the first band of the first kind, and does not support the second."""
    stored = random_image(channels)
    image = read_image(write(tmp_path / "a.tif", stored, **options), bands=Bands(channels))
    assert np.array_equal((image * 257).round(), stored)


def test_differences_below_8_bits_reach_the_network(tmp_path):
    a = random_image(3)
    b = a & 0xFF00 | (a + 1) & 0xFF
    for n, suffix, bands in ((1, ".png", None), (1, ".png", 1), (3, ".png", None), (3, ".tif", 3)):
        files = [write(tmp_path / f"{i}-{n}{suffix}", array[..., :n]) for i, array in enumerate((a, b))]
        images = [torch.tensor(read_image(file, bands=Bands(bands)))[None] for file in files]
        inputs = [normalize(image, (0.5,) * image.shape[-1], (0.2,) * image.shape[-1]) for image in images]
        assert (inputs[0] != inputs[1]).all()
        assert (inputs[0] - inputs[1]).abs().max() < 1.01 * 255 / 65535 / 0.2


def test_white_becomes_1_and_larger_values_are_not_clipped():
    stored = np.array([[[0, 5000, 10000, 20000]]], np.uint16)
    image = as_pixels(stored, Bands(4, white=10000), "a")
    assert image.tolist() == [[[0, 127.5, 255, 510]]]
    assert normalize(torch.tensor(image)[None], (0.0,) * 4, (1.0,) * 4).flatten().tolist() == [0, 0.5, 1, 2]
    assert as_rgb(image).tolist() == [[[0, 128, 255]]]
    jittered = Augmentation((1, 1), flip=0, jitter=0.5)(image, np.zeros((1, 1), np.uint8), np.random.default_rng(0))[0]
    assert jittered.max() > 255
    assert as_pixels(np.full((1, 1, 1), 50, np.uint8), Bands(1, white=100), "a").item() == 127.5
    with pytest.raises(InputError, match="8 bits per value, which cannot reach white: 10000"):
        as_pixels(stored.astype(np.uint8), Bands(4, white=10000), "a")


def test_a_fourth_band_is_not_alpha_if_four_bands_are_expected(tmp_path):
    stored = random_image(4, np.uint8)
    stored[..., 3] = 0
    for suffix in (".png", ".tif"):
        file = write(tmp_path / f"a{suffix}", stored)
        assert np.array_equal(read_image(file, bands=Bands(4)), stored)
        assert not read_image(file).any()
    small = resize(stored, (7, 9))
    assert np.array_equal(small[..., :3], resize(stored[..., :3], (7, 9)))


@pytest.mark.parametrize(
    ("stored", "bands", "message"),
    [
        (
            random_image(3, np.uint8),
            Bands(4),
            "has 3 bands of 8 bits, not 4; use images of 4 bands, as the network or dataset.yaml requires",
        ),
        (random_image(1), Bands(4), "has 1 band of 16 bits, not 4"),
        (random_image(5), Bands(), "has 5 bands of 16 bits, not RGB"),
        (random_image(2, np.uint8), Bands(), "has 2 bands of 8 bits, not RGB"),
    ],
)
@pytest.mark.parametrize("suffix", [".tif", ".npy"])
def test_another_number_of_bands_is_refused(tmp_path, stored, bands, message, suffix):
    with pytest.raises(InputError, match=message):
        read_image(write(tmp_path / f"a{suffix}", stored), bands=bands)


def npy(array: np.ndarray) -> bytes:
    buffer = io.BytesIO()
    np.save(buffer, array)
    return buffer.getvalue()


HUGE = (
    npy(np.zeros((10, 10, 4), np.uint8)).replace(b"(10, 10, 4)", b"(99999, 99999, 4)").replace(b" " * 12, b" " * 6, 1)
)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (
            npy(np.zeros((4, 480, 640), np.uint8)),
            "an array of shape (4, 480, 640); save H,W or H,W,N with N from 1 to 64",
        ),
        (npy(np.zeros((4, 4, 4))), "holds float64 values"),
        (npy(np.array([[{}]])), "holds object values"),
        (npy(np.zeros((0, 4, 4), np.uint8)), "an array of shape (0, 4, 4)"),
        (npy(np.zeros((9, 9, 4), np.uint8))[:-5], "truncated or damaged"),
        (npy(np.zeros((9, 9, 4), np.uint8))[:40], "truncated or damaged"),
        (HUGE, "99999 x 99999 in 4 bands: more pixels than the limit of 64,000,000"),
        (b"II*\0" + bytes(20), "truncated or damaged"),
        (b"<VRTDataset rasterXSize='9' rasterYSize='9'></VRTDataset>", "not an image"),
    ],
)
def test_bad_arrays_and_tiffs_are_refused_by_their_header(tmp_path, content, message):
    (tmp_path / "bad.npy").write_bytes(content)
    with pytest.raises(InputError) as error:
        read_image(tmp_path / "bad.npy", bands=Bands(4))
    assert message in str(error.value)
    assert "bad.npy" in str(error.value)


def test_a_truncated_tiff_with_many_bands_is_refused(tmp_path):
    file = write(tmp_path / "a.tif", random_image(5, size=(200, 200)))
    file.write_bytes(file.read_bytes()[:2000])
    with pytest.raises(InputError, match=r"a\.tif: truncated or damaged"):
        read_image(file, bands=Bands(5))
    with pytest.raises(InputError, match="more pixels than the limit of 80"):
        read_image(write(tmp_path / "b.tif", random_image(5)), max_pixels=100, bands=Bands(5))


def test_without_rasterio_only_files_that_need_it_fail(tmp_path, monkeypatch):
    plain, many = write(tmp_path / "a.tif", random_image(4, np.uint8)), write(tmp_path / "b.tif", random_image(5))
    monkeypatch.setitem(sys.modules, "rasterio", None)
    assert read_image(plain, bands=Bands(4)).shape == (20, 24, 4)
    with pytest.raises(InputError, match=r"b\.tif: .*rasterio is not installed; .* uv sync --extra geo"):
        read_image(many, bands=Bands(5))


def test_arrays_are_images_only_if_bands_are_given(tmp_path):
    for name in ("a.npy", "b.png"):
        write(tmp_path / name, random_image(3, np.uint8))
    assert [file.name for file in list_images(tmp_path)] == ["b.png"]
    assert [file.name for file in list_images(tmp_path, Bands(3))] == ["a.npy", "b.png"]


# arrays and the network


@pytest.mark.parametrize("box", [None, (3.25, 4.5, 20.0, 15.75), (0, 0, 2.5, 2.5)])
@pytest.mark.parametrize("size", [(5, 4), (17, 40)])
def test_bands_are_resized_as_pillow_resizes_rgb(box, size):
    image = random_image(3, np.uint8)
    expected = np.asarray(Image.fromarray(image).resize(size[::-1], Image.Resampling.BILINEAR, box))
    six = np.concatenate([image, 255 - image], axis=2)
    assert np.array_equal(resize(six, size, box)[..., :3], resize(image, size, box))
    apart = np.abs(resize(image, size, box).astype(int) - expected).max()
    assert apart == 0 if box is None else apart <= 1  # Pillow orders its two passes by the input's size
    deep = resize(six.astype(np.float32), size, box)
    assert deep.dtype == np.float32
    assert np.abs(deep[..., :3] - expected).max() <= 1.01  # 8-bit values are rounded twice
    assert resize_long_side(six, 12).shape == (10, 12, 6)


@pytest.mark.parametrize("shape", [(3, 5000, 3), (5000, 3, 1)])
@pytest.mark.parametrize("margin", [None, 0.25])
def test_long_sides_are_resized_in_pieces_with_the_same_result(monkeypatch, shape, margin):
    image = random_image(shape[2], np.uint8, shape[:2])
    box = None if margin is None else (margin, margin, shape[1] - margin, shape[0] - margin)
    size = (2, 70) if shape[1] > shape[0] else (70, 2)
    expected = resize(image, size, box).astype(int)
    monkeypatch.setattr("danet.data.images.channels.LONGEST", 300)
    assert np.abs(resize(image, size, box) - expected).max() <= 1


@pytest.mark.parametrize("channels", [1, 2, 4, 6])
@pytest.mark.parametrize("dtype", [np.uint8, np.float32])
def test_augmentation_treats_all_bands_alike_and_keeps_the_type(channels, dtype):
    """Every band is a copy of the labels, and still is after scaling, cropping, flipping and jitter."""
    labels = np.zeros((40, 60), np.uint8)
    labels[10:30, 20:50] = 1
    image = np.repeat(np.where(labels, 200, 40)[..., None], channels, 2).astype(dtype)
    for seed, photometric in ((0, False), (1, True)):
        augment = Augmentation((32, 32), (0.8, 1.25), jitter=0.3, photometric=photometric)
        augmented, marked = augment(image, labels, np.random.default_rng(seed))
        assert augmented.dtype == dtype
        assert augmented.shape == (32, 32, channels)
        assert len({augmented[..., i].tobytes() for i in range(channels)}) == 1
        assert np.median(augmented[marked == 1]) > np.median(augmented[marked == 0]) + 20


def test_imagenet_weights_adapt_to_any_number_of_bands():
    """One band gives the same features as three copies of it, and RGB repeated the same as RGB."""
    torch.manual_seed(0)
    whole = timm.create_model("test_resnet").eval()
    state = {key: tensor for key, tensor in whole.state_dict().items() if not key.startswith("fc.")}
    features = {}
    for channels in (1, 3, 4, 6):
        backbone, _ = build_backbone("test_resnet", 8, in_channels=channels)
        load_backbone(backbone, "test_resnet", state, "state")
        features[channels] = backbone.eval()
    rgb, gray = torch.randn(1, 3, 40, 40), torch.randn(1, 1, 40, 40)
    torch.testing.assert_close(features[1](gray)[0], features[3](gray.repeat(1, 3, 1, 1))[0])
    torch.testing.assert_close(features[6](rgb.repeat(1, 2, 1, 1))[0], features[3](rgb)[0])
    assert features[4](torch.randn(1, 4, 40, 40))[0].shape == features[3](rgb)[0].shape
    with pytest.raises(InputError, match=r"conv1.* has shape"):
        load_backbone(
            features[4], "test_resnet", {k: v.repeat(1, 2, 1, 1) if v.ndim == 4 else v for k, v in state.items()}, "x"
        )


def test_normalization_adapts_to_the_number_of_bands():
    mean, std = normalization("resnet50")
    assert normalization("resnet50", 5) == ((*mean, *mean[:2]), (*std, *std[:2]))
    assert normalization("resnet50", 1) == ((pytest.approx(sum(mean) / 3),), (pytest.approx(sum(std) / 3),))
    with pytest.raises(InputError, match="in_channels: must be from 1 to 64, got 65"):
        DANet(2, "test_resnet", width=16, in_channels=65)


@pytest.fixture
def four_bands(tmp_path) -> Path:
    """Return weights of an untrained network for four bands, with 1000 as white."""
    torch.manual_seed(0)
    arguments = {"num_classes": 2, "backbone": "test_resnet", "width": 16, "in_channels": 4}
    card = weights_file.Card(arguments, Classes.named(("a", "b")), (0.5,) * 4, (0.2,) * 4, white=1000)
    weights_file.save(tmp_path / "four.safetensors", DANet(**arguments), card)
    return tmp_path / "four.safetensors"


def test_a_predictor_reads_the_bands_of_its_network(tmp_path, four_bands):
    predictor = danet.load(four_bands)
    assert predictor.card.bands == Bands(4, 1000)
    array = random_image(4) % 1500
    by_array, by_file = predictor(array), predictor(write(tmp_path / "a.tif", array))
    assert np.array_equal(by_array.confidence, by_file.confidence)
    assert by_array.overlay().height >= 20
    other = array.copy()
    other[..., 3] ^= 1
    assert not np.array_equal(predictor(other).confidence, by_array.confidence)
    with pytest.raises(InputError, match="use H,W,4, uint8, uint16"):
        predictor(array[..., :3])


def test_images_with_other_bands_are_one_line_errors(tmp_path, four_bands, tiny_weights, capsys):
    rgb, four = tmp_path / "rgb.jpg", write(tmp_path / "four.npy", random_image(4, np.uint8))
    Image.fromarray(random_image(3, np.uint8)).save(rgb)
    for file, network, message in (
        (
            rgb,
            four_bands,
            "has 3 bands of 8 bits, not 4; use images of 4 bands, as the network or dataset.yaml requires",
        ),
        (four, tiny_weights, "has 4 bands of 8 bits, not RGB"),
    ):
        assert main(["predict", str(file), "--weights", str(network), "--out", str(tmp_path / "out")]) == 2
        (line,) = capsys.readouterr().err.splitlines()
        assert line.startswith(f"error: {file}: {message}")
    assert main(["evaluate", str(four_bands), "--dataset", "toy"]) == 2
    assert "the network takes images with 4 bands, but the dataset has 3" in capsys.readouterr().err


# a user's folder

SCENES = {  # name: channels, dtype, suffix, lines added to dataset.yaml
    "binary": (3, np.uint8, ".png", ""),
    "rgb and infrared": (4, np.uint8, ".png", "channels: 4\n"),
    "16-bit gray": (1, np.uint16, ".png", "channels: 1\nwhite: 400\n"),
    "five bands": (5, np.uint16, ".tif", ""),
    "arrays": (6, np.uint16, ".npy", "white: 10000\n"),
}


def scenes(root: Path, name: str, count: int = 8) -> None:
    """Write scenes of noise in which only the last band distinguishes object (0/255 masks) and background.

    In 16-bit gray, all values are equal in 8 bits.
    """
    channels, dtype, suffix, _ = SCENES[name]
    low, high = {"16-bit gray": (130, 330), "arrays": (2000, 12000), "five bands": (15000, 50000)}.get(name, (60, 200))
    rng = np.random.default_rng(1)
    for i in range(count):
        mask = np.zeros((48, 48), np.uint8)
        y, x = rng.integers(0, 24, 2)
        mask[y : y + 24, x : x + 24] = 255
        image = rng.integers(0, min(2 * high, np.iinfo(dtype).max), (48, 48, channels)).astype(dtype)
        image[..., -1] = np.where(mask, high, low) + rng.integers(0, (high - low) // 5, mask.shape)
        if name == "binary":
            image[:] = image[..., -1:]
        write(root / "images" / f"p{i}{suffix}", image)
        write(root / "masks" / f"p{i}.png", mask[..., None])


@pytest.mark.parametrize("name", SCENES)
def test_a_folder_is_trained_evaluated_and_predicted(tmp_path, capsys, name):
    """Only a network that gets the last band, and all 16 bits, can distinguish the two classes."""
    root, run, out = tmp_path / "mine", tmp_path / "run", tmp_path / "out"
    channels, _, _, more = SCENES[name]
    scenes(root, name)
    if name == "16-bit gray":
        assert {
            v for file in (root / "images").iterdir() for v in np.unique((np.array(Image.open(file)) + 128) // 257)
        } == {1}
    assert main(["init", str(root)]) == 0
    text = (root / "dataset.yaml").read_text()
    assert "label_map:   # mask value: class id, or 255 for unlabeled\n  0: 0\n  255: 1" in text
    assert ("\nchannels: " in text) == (name in ("five bands", "arrays"))
    assert ("\n# channels: 4 " in text) == (name == "rgb and infrared")
    proposed = re.sub(r"^white:.*\n", "", text, flags=re.MULTILINE) if "white:" in more else text
    (root / "dataset.yaml").write_text(proposed + more)
    assert main(["check", str(root)]) == 0, capsys.readouterr().out
    options = "--network.backbone test_resnet --network.width 16 --network.no-pretrained --network.output-stride 8 "
    options += "--data.crop 48 48 --data.scale 1 1 --data.batch 2 --optim.epochs 20 --validate-every 20 --optim.ema 0 "
    options += "--optim.lr 0.05 --optim.head-lr-factor 1 --optim.warmup 0 --workers 0 --device cpu --data.size 48"
    assert main(["train", "folder", "--data.root", str(root), "--out", str(run), *options.split()]) == 0
    best = run / "best.safetensors"
    card = weights_file.load(best)[1]
    assert card.network["in_channels"] == len(card.mean) == len(card.std) == channels
    capsys.readouterr()
    assert main(["evaluate", str(best), "--root", str(root), "--split", "train", "--json", "-"]) == 0
    scores = json.loads(capsys.readouterr().out)
    assert scores["miou"] > 0.75, scores  # predicting one class for all pixels gives at most 0.4
    assert main(["predict", str(root / "images"), "--weights", str(best), "--out", str(out)]) == 0
    assert len(list(out.glob("*_overlay.png"))) == 8
    truth = np.asarray(Image.open(root / "masks/p0.png")) == 255
    found = np.asarray(Image.open(out / "p0_labels.png")) == 1
    assert (truth & found).sum() / (truth | found).sum() > 0.6


def test_check_reports_images_with_other_bands_and_depth(tmp_path):
    scenes(tmp_path, "five bands")
    write(tmp_path / "images/p1.tif", random_image(4, size=(48, 48)))
    write(tmp_path / "images/p2.tif", random_image(5, np.uint8, size=(48, 48)))
    (tmp_path / "dataset.yaml").write_text("classes: [a, b]\nlabel_map: {0: 0, 255: 1}\nchannels: 5\n")
    report = check_folder(tmp_path)
    assert [(problem.file.name, problem.what) for problem in report.problems] == [
        ("p1.tif", "has 4 bands of 16 bits, not 5")
    ]
    assert "images without 16 bits per value, unlike the others: 1 of 8 (p2.tif)" in str(report.warnings[0])
    with (tmp_path / "dataset.yaml").open("a") as file:
        file.write("white: 60000\n")
    assert [problem.file.name for problem in check_folder(tmp_path).problems] == ["p1.tif", "p2.tif"]


def test_check_warns_if_white_is_far_above_every_value(tmp_path):
    scenes(tmp_path, "arrays")
    (tmp_path / "dataset.yaml").write_text("classes: [a, b]\nlabel_map: {0: 0, 255: 1}\nchannels: 6\nsplit_by: image\n")
    report = check_folder(tmp_path)
    assert not report.problems
    (warning,) = report.warnings
    proposed = int(str(warning).rpartition("white: ")[2])
    bright = sorted(float(np.percentile(np.load(file), 99.9)) for file in (tmp_path / "images").iterdir())
    assert bright[-2] <= proposed <= 1.1 * bright[-2]


def dark_images(root: Path, saturated: int) -> None:
    """Write 16-bit images with values below 4000, with this many saturated pixels in each."""
    rng = np.random.default_rng(0)
    for i in range(8):
        image = rng.integers(0, 4000, (48, 64, 1), np.uint16)
        image.ravel()[rng.choice(image.size, saturated, replace=False)] = 65535
        write(root / f"images/p{i}.png", image)
        write(root / f"masks/p{i}.png", np.resize(np.array([0, 1], np.uint8), (48, 64, 1)))
    image[:] = 65535  # one image is damaged
    write(root / "images/p0.png", image)


@pytest.mark.parametrize("saturated", [0, 1, 3])
def test_saturated_pixels_do_not_hide_that_images_are_dark(tmp_path, saturated):
    dark_images(tmp_path, saturated)
    proposal = propose(tmp_path)
    assert proposal.white == 4000
    assert any("white: 4000 is written instead of 65535" in note for note in proposal.notes)
    (tmp_path / "dataset.yaml").write_text("classes: [a, b]\nsplit_by: image\n")
    assert any("white: 4000" in str(warning) for warning in check_folder(tmp_path).warnings)
    (tmp_path / "dataset.yaml").unlink()
    write_proposal(tmp_path, proposal)
    assert not any("white" in str(warning) for warning in check_folder(tmp_path).warnings)
    sample = registry.load("folder", tmp_path, "train")[1]
    assert 110 < np.median(sample.image) < 140


def test_init_notes_16_bits_and_unusual_images(tmp_path):
    scenes(tmp_path, "five bands")
    write(tmp_path / "images/p3.tif", random_image(4, size=(48, 48)))
    proposal = propose(tmp_path)
    assert (proposal.channels, proposal.transparent) == (5, None)
    assert "16-bit images: 8 of 8; 65535 is read as white" in " ".join(proposal.notes)
    assert "images without 5 bands: 1 of 8 (p3.tif)" in proposal.notes


@pytest.mark.parametrize("line", ["channels: 0", "channels: 65", "channels: four", "white: 70000", "white: true"])
def test_invalid_channels_and_white_are_refused(tmp_path, line):
    scenes(tmp_path, "binary", 2)
    (tmp_path / "dataset.yaml").write_text(f"classes: [a, b]\n{line}\n")
    with pytest.raises(InputError, match=f"{line.split(':')[0]}: must be a whole number from 1 to"):
        registry.load("folder", tmp_path, "train")
