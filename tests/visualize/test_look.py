"""Attention: rows of Eq. 1, maps of Eq. 4, predictions without a module, and the figures that show them."""

import json
import re
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from danet import DANet, InputError
from danet.cli import main
from danet.data.images.channels import resize_long_side
from danet.data.images.read import read_image, read_mask
from danet.model.preprocess import normalize
from danet.predict import overlay
from danet.predict.predictor import Predictor, load
from danet.visualize import (
    attention_answers,
    attention_figure,
    attention_page,
    attention_panels,
    ground_truth,
    network_comparison,
    panels,
)
from danet.weights import file as weights


def made(classes, size=None, **arguments) -> Predictor:
    """Return a predictor with a small untrained network whose modules are switched on."""
    torch.manual_seed(1)
    arguments = {"num_classes": len(classes), "backbone": "test_resnet", "width": 16} | arguments
    network = DANet(**arguments)
    for name, value in network.named_parameters():
        if name.endswith("attention.scale"):
            torch.nn.init.constant_(value, 0.7)
        elif name.startswith(("position", "channel", "classifier")) and value.ndim > 1:
            torch.nn.init.normal_(value, std=0.3)  # so that every module has an effect
    card = weights.Card(arguments, classes, (0.5,) * 3, (0.5,) * 3, size=size)
    return Predictor(network, card, "cpu")


@pytest.fixture
def classes(tiny_weights):
    return load(tiny_weights).classes


@pytest.fixture
def image() -> np.ndarray:
    """An image with different regions, whose size is not a multiple of the stride."""
    image = np.random.default_rng(0).integers(0, 60, (70, 93, 3), np.uint8)
    image[:, 40:, 0] += 180
    image[50:, :, 2] += 150
    return image


def features(predictor, image) -> torch.Tensor:
    inputs = torch.tensor(resize_long_side(image, predictor.card.size))[None]
    network = predictor.folded
    return network.split(network.backbone(normalize(inputs, predictor.card.mean, predictor.card.std)))[0]


@pytest.mark.parametrize(("stride", "decoder"), [(8, False), (16, False), (16, True)])
@torch.inference_mode()
def test_attention_of_a_point_is_its_row_of_the_full_matrix(classes, image, stride, decoder):
    predictor = made(classes, output_stride=stride, decoder=decoder)
    inspection = predictor.inspect(image)
    assert inspection.grid == (-(-70 // stride), -(-93 // stride))
    branch = predictor.folded.position
    whole = branch.attention.weights(branch.reduce(features(predictor, image)))[0]  # N,N
    assert whole.std(0).max() > 1e-4  # rows differ, so that a wrong one would be found
    for x, y in ((0, 0), (92, 69), (stride, 0), (stride - 1, stride), (45, 33)):
        at = (y // stride) * inspection.grid[1] + x // stride
        attention = inspection.attention(x, y)
        assert attention.shape == inspection.grid
        assert attention.sum() == pytest.approx(1, abs=1e-5)
        np.testing.assert_allclose(attention.ravel(), whole[at], atol=1e-6)
    assert (
        max(tensor.numel() for tensor in inspection.internals[1:5] if tensor is not None) < whole.numel()
    )  # the matrix is not kept


@pytest.mark.parametrize(("size", "long_side"), [((70, 93), None), ((70, 93), 130), ((300, 200), 90), ((1, 50), None)])
def test_positions_and_their_pixels_correspond(classes, size, long_side):
    inspection = made(classes, long_side).inspect(np.zeros((*size, 3), np.uint8))
    (height, width), (rows, columns) = size, inspection.grid
    assert inspection.position_of(0, 0) == (0, 0)
    assert inspection.position_of(width - 1, height - 1) == (rows - 1, columns - 1)
    for row in range(rows):
        for column in range(columns):
            assert inspection.position_of(*inspection.pixel_of(row, column)) == (row, column)
    for x, y in ((-1, 0), (width, 0), (0, height), (0, -1)):
        with pytest.raises(InputError, match=rf"\({x}, {y}\) is outside the image of {width} x {height} pixels; use"):
            inspection.attention(x, y)


def test_spreading_attention_over_the_image_keeps_the_sums(classes, image):
    predictor = made(classes)
    spread, inspection = predictor.attention(image, x=45, y=33), predictor.inspect(image)
    assert spread.shape == (70, 93)
    assert spread.sum() == pytest.approx(1, abs=1e-5)
    attention = inspection.attention(45, 33)
    for row, column in ((0, 0), (8, 11), (4, 5)):  # the last row and column cover 6 and 5 pixels
        part = spread[8 * row : 8 * row + 8, 8 * column : 8 * column + 8]
        assert part.sum() == pytest.approx(attention[row, column], rel=1e-4)
        assert np.ptp(part) < 1e-9
    for size in ((7, 9), (31, 17), (500, 333)):  # smaller and larger than the grid
        small = made(classes, 96).attention(np.resize(image, (*size, 3)), 3, 5)
        assert small.shape == size
        assert small.sum() == pytest.approx(1, abs=1e-5)


def test_interpolated_values_are_aligned_with_positions(classes, image):
    inspection = made(classes).inspect(image)
    values = np.arange(108, dtype=np.float32).reshape(9, 12)
    over = inspection.interpolate(values)
    assert over.shape == (70, 93)
    assert over[3:5, 3:5].mean() == pytest.approx(0, abs=1.6)  # a position's middle is between its 4th and 5th pixel
    assert over[35:37, 43:45].mean() == pytest.approx(values[4, 5], abs=1e-3)
    assert inspection.interpolate(values, (35, 46)).shape == (35, 46)


def test_the_inspected_prediction_equals_the_predictors(classes, image):
    for arguments in ({}, {"position": False}, {"channel": False}, {"position": False, "channel": False}):
        predictor = made(classes, 80, **arguments)
        inspection, expected = predictor.inspect(image), predictor(image)
        assert np.array_equal(inspection.segmentation.labels, expected.labels)
        assert np.array_equal(inspection.segmentation.confidence, expected.confidence)
        assert (inspection.has_position, inspection.has_channel) == (
            arguments.get("position", True),
            arguments.get("channel", True),
        )


@pytest.mark.parametrize("module", ["position", "channel"])
@pytest.mark.parametrize("both", [True, False])
def test_without_a_module_equals_the_network_with_scale_0(classes, image, module, both):
    other = {"position": "channel", "channel": "position"}[module]
    predictor = made(classes, **({} if both else {other: False}))
    without = predictor.inspect(image).without(module)
    assert not np.array_equal(without.confidence, predictor(image).confidence)
    torch.nn.init.zeros_(getattr(predictor.network, module).attention.scale)
    assert np.array_equal(without.labels, predictor(image).labels)
    np.testing.assert_allclose(without.confidence, predictor(image).confidence, atol=1e-6)


@torch.inference_mode()
def test_channel_maps_and_weights_are_equations_4_and_3(classes, image):
    predictor = made(classes)
    inspection, branch = predictor.inspect(image), predictor.folded.channel
    x = branch.reduce(features(predictor, image))
    a = x[0].flatten(1).double()
    energy = a @ a.T
    expected = torch.softmax(energy.amax(1, keepdim=True) - energy, 1)
    np.testing.assert_allclose(inspection.channel_attention(), expected, atol=1e-4)
    maps = 0.7 * expected @ a + a
    np.testing.assert_allclose(inspection.channel_maps([11, 4]).reshape(2, -1), maps[[11, 4]], rtol=1e-3, atol=1e-3)
    for channel in (-1, 16):
        with pytest.raises(
            InputError,
            match=f"channels: there is no channel {channel}: the network has 16 channels; use numbers from 0 to 15",
        ):
            inspection.channel_maps([channel])


def test_attention_is_summed_by_class_and_ranked(classes, image):
    inspection = made(classes).inspect(image)
    labels = np.zeros(inspection.grid, np.uint8)
    labels[:, 6:] = 3
    inspection = replace(inspection, internals=inspection.internals._replace(labels=labels))
    attention = np.zeros(inspection.grid, np.float32)
    attention[1, 2], attention[8, 11], attention[0, 0] = 0.25, 0.6, 0.15
    assert inspection.classes_attended(attention) == [(3, pytest.approx(0.6)), (0, pytest.approx(0.4))]
    assert inspection.strongest(attention, 2) == [(90, 67, pytest.approx(0.6)), (20, 12, pytest.approx(0.25))]


def test_channels_of_a_class_are_those_that_distinguish_it(classes, image):
    inspection = made(classes).inspect(image)
    labels, maps = np.zeros(inspection.grid, np.uint8), torch.rand(16, *inspection.grid)
    labels[2:5, 3:9] = 4
    maps[7, 2:5, 3:9] += 5
    maps[9, 2:5, 3:9] += 1
    maps[10, 2:5, 3:9] -= 5
    maps[12] = 100
    inspection = replace(inspection, internals=inspection.internals._replace(labels=labels, channel_maps=maps))
    assert inspection.channels_of(4) == [7, 9]
    assert inspection.channels_of(0, 1) == [10]
    responses = inspection.responses()
    assert responses[12, 4] == 0
    assert np.isnan(responses[:, 1]).all()
    within = maps[7].numpy()
    expected = (within[labels == 4].mean() - within[labels == 0].mean()) / within.std()
    assert responses[7, 4] == pytest.approx(expected, rel=1e-4)
    with pytest.raises(InputError, match=r"class_name: .* is predicted on 0% of image, so no channel distinguishes it"):
        inspection.channels_of(1)


def test_queries_of_a_missing_module_are_rejected(classes, image):
    inspection = made(classes, position=False).inspect(image)
    for ask in (lambda: inspection.attention(0, 0), lambda: inspection.without("position")):
        with pytest.raises(InputError, match="the network has no position attention; use weights of a network"):
            ask()
    inspection = made(classes, channel=False).inspect(image)
    for ask in (
        lambda: inspection.channel_maps([0]),
        lambda: inspection.channels_of(0),
        inspection.channel_attention,
        lambda: inspection.without("channel"),
    ):
        with pytest.raises(InputError, match="the network has no channel attention; use weights of a network"):
            ask()


def test_exported_models_cannot_be_inspected(classes, image):
    predictor = made(classes)
    predictor.folded = torch.nn.Identity()
    with pytest.raises(InputError, match=r"weights: .* no attention to inspect; use the \.safetensors weights"):
        predictor.inspect(image)


def test_default_points_are_well_inside_the_largest_classes(classes, image):
    inspection = made(classes).inspect(image)
    labels = np.zeros(inspection.grid, np.uint8)
    labels[:3] = 2
    labels[8, 0] = 5
    inspection = replace(inspection, internals=inspection.internals._replace(labels=labels))
    (x0, y0), (x1, y1) = attention_answers.default_points(inspection)
    assert labels[inspection.position_of(x0, y0)] == 0
    assert inspection.position_of(x0, y0)[0] == 5  # of rows 3 to 8: two steps from either end
    assert inspection.position_of(x1, y1)[0] == 1


def test_pixels_that_a_module_corrects_and_breaks_add_up(classes, image):
    inspection = made(classes).inspect(image)
    truth = inspection.segmentation.labels.copy()
    truth[:20] = 255
    truth[40:] = inspection.without("position").labels[40:]
    ablation = attention_answers.ask(inspection, [], [], ["position"], truth).ablations["position"]
    effect = ablation.effect
    full, without, valid = inspection.segmentation.labels, ablation.segmentation.labels, truth != 255
    gain = (full == truth)[valid].mean() - (without == truth)[valid].mean()
    assert effect.changed > 0
    assert effect.corrected - effect.broken == pytest.approx(gain)
    assert effect.corrected + effect.broken == pytest.approx(effect.changed)  # one of the two is always right
    assert attention_answers.ask(inspection, [], [], ["position"]).ablations["position"].effect.corrected is None


def test_heat_colors_are_perceptually_uniform():
    colors = overlay.heat(np.linspace(0, 1, 256))
    assert colors.shape == (256, 3)
    luminance = colors @ np.array([0.2126, 0.7152, 0.0722])
    assert (np.diff(luminance) > -0.3).all()
    assert luminance[-1] - luminance[0] > 180
    assert colors[0, 2] > colors[0, 0]  # blue
    assert colors[-1, 0] > colors[-1, 2]  # yellow
    linear = np.where(colors <= 10.31, colors / 255 / 12.92, ((colors / 255 + 0.055) / 1.055) ** 2.4)
    y = linear @ np.array([0.2126, 0.7152, 0.0722])
    lightness = 116 * np.cbrt(y) - 16  # CIE L*, another measure than Oklab
    steps = np.diff(lightness[8::16])
    assert steps.min() > 0.6 * steps.max()
    assert np.array_equal(overlay.heat(np.array([-1.0, 2.0])), colors[[0, -1]])


@pytest.fixture
def street(tmp_path, image, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for name in ("street", "lane"):
        Image.fromarray(image).save(f"{name}.png")
    Image.fromarray((image[..., 0] > 100).astype(np.uint8)).save("truth.png")
    return tmp_path


@pytest.fixture
def weights_file(classes, tmp_path):
    predictor = made(classes, size=96)
    weights.save(tmp_path / "w.safetensors", predictor.network, predictor.card)
    return str(tmp_path / "w.safetensors")


def test_look_writes_a_figure_and_prints_the_numbers(street, weights_file, capsys):
    call = ["look", "street.png", "--weights", weights_file, "--point", "3", "4", "--point", "80", "60"]
    assert main([*call, "--channels", "4", "11", "--without", "--truth", "truth.png", "--json", "-"]) == 0
    (numbers,) = json.loads(capsys.readouterr().out)["images"]
    assert [(point["x"], point["y"]) for point in numbers["points"]] == [(3, 4), (80, 60)]
    assert sum(entry["share"] for entry in numbers["points"][0]["classes"]) == pytest.approx(1, abs=1e-5)
    assert len(numbers["points"][0]["strongest"]) == 5
    assert [channel["number"] for channel in numbers["channels"]] == [4, 11]
    assert [channel["channel"] for channel in numbers["channels"]] == [3, 10]
    assert set(numbers["without"]) == {"position", "channel"}
    assert numbers["without"]["position"]["changed"] > 0
    assert {"corrected", "broken"} < set(numbers["without"]["position"])
    with Image.open("street_look.png") as image:
        assert image.width == 1654
        assert image.getpixel((0, 0)) == (255, 255, 255)
        assert round(image.info["dpi"][0]) == 200
    assert main(call) == 2
    assert "street_look.png: already exists; choose another --out, or add --overwrite" in capsys.readouterr().err
    assert main([*call, "--overwrite"]) == 0
    assert capsys.readouterr().out == "street_look.png\n"


def test_several_images_become_rows_with_the_same_columns(street, weights_file, capsys):
    call = ["look", "street.png", "lane.png", "--weights", weights_file, "--channels", "4", "11", "--truth"]
    assert main([*call, "truth.png", "truth.png", "--json", "numbers.json"]) == 0
    assert capsys.readouterr().out == "look.png\n"
    assert len(json.loads((street / "numbers.json").read_text())["images"]) == 2
    predictor = load(weights_file)
    images, truths = [street / "street.png", street / "lane.png"], ground_truth.from_masks([street / "truth.png"] * 2)
    sheet = attention_panels.sheet(attention_answers.look_at(predictor, images, channels=[4, 11], truths=truths))
    titles = [panel.title.split(",")[0] for panel in sheet.groups[0].panels]
    assert titles[0] == "image"
    assert titles[-4:] == ["channel map #4", "channel map #11", "prediction", "ground truth"]
    assert [group.title for group in sheet.groups] == ["street", "lane", "Classes"]
    assert "numbered from 1 as in the paper" in sheet.groups[-1].text
    assert read_image("look.png").shape[1] == sheet.width + 94


def test_the_legend_names_ignored_pixels_of_the_ground_truth(street, weights_file):
    segmentation = load(weights_file)(street / "street.png")
    truth = np.full_like(segmentation.labels, 1)
    assert [name for name, _ in panels.legend(segmentation, [truth, None])] == [segmentation.classes.names[1]]
    truth[0] = 255
    assert panels.legend(segmentation, [truth])[-1] == ("ignored", (0, 0, 0))


def test_figure_4_and_5_follow_the_rows_of_several_images(street, weights_file, capsys):
    """In 0.1.0, --without was ignored for several images."""
    predictor, images = load(weights_file), [street / "street.png", street / "lane.png"]
    truths = ground_truth.from_masks([street / "truth.png"] * 2)
    sheet = attention_panels.sheet(attention_answers.look_at(predictor, images, without=True, truths=truths))
    modules = [
        f"{name}: without and with {m} attention" for m in ("position", "channel") for name in ("street", "lane")
    ]
    assert [group.title for group in sheet.groups] == ["street", "lane", *modules, "Classes"]
    for group, module in zip(sheet.groups[2:6:2], ("position", "channel"), strict=True):
        titles = ["image", f"without {module} attention", f"with {module} attention", "ground truth"]
        assert [panel.title for panel in group.panels] == titles
        photo, without, full, truth = (np.asarray(panel.image) for panel in group.panels)
        inspection = predictor.inspect(images[0])
        expected = panels.labeled(inspection.segmentation, inspection.without(module).labels, 420)
        assert np.array_equal(without, expected)
        assert not np.array_equal(without, full)
        assert photo.shape == full.shape == truth.shape
        assert re.fullmatch(r"[\d.]+% of the pixels change; [\d.]+% become right, [\d.]+% wrong", group.panels[2].note)
    call = ["look", "street.png", "lane.png", "--weights", weights_file]
    assert main([*call, "--out", "plain.png"]) == main([*call, "--without", "--out", "without.png"]) == 0
    heights = [read_image(name).shape[0] for name in ("plain.png", "without.png")]
    assert heights[1] > 1.5 * heights[0]


def test_ground_truth_of_a_dataset_is_that_of_its_image_files(tmp_path, weights_file, classes, image, capsys):
    root = tmp_path / "data"
    for folder, array in (("images", image), ("masks", (image[..., 0] > 100).astype(np.uint8))):
        (root / folder / "val").mkdir(parents=True)
        for i in range(2):
            Image.fromarray(array).save(root / folder / "val" / f"{i}.png")
    names = ", ".join(classes.names)
    (root / "images/train").mkdir()
    (root / "masks/train").mkdir()
    (root / "dataset.yaml").write_text(f"classes: [{names}]\n")
    files = [str(root / f"images/val/{i}.png") for i in range(2)]
    call = ["look", *files, "--weights", weights_file, "--root", str(root), "--without", "--json", "-", "--out"]
    assert main([*call, str(tmp_path / "a.png")]) == 0
    from_dataset = json.loads(capsys.readouterr().out)
    truths = ["--truth", *(str(root / f"masks/val/{i}.png") for i in range(2))]
    call = ["look", *files, "--weights", weights_file, *truths, "--without", "--json", "-", "--out"]
    assert main([*call, str(tmp_path / "b.png")]) == 0
    assert json.loads(capsys.readouterr().out) == from_dataset
    assert "corrected" in from_dataset["images"][1]["without"]["channel"]
    assert read_image(tmp_path / "a.png").tobytes() == read_image(tmp_path / "b.png").tobytes()
    Image.fromarray(image).save(tmp_path / "other.png")
    assert main(["look", str(tmp_path / "other.png"), "--weights", weights_file, "--root", str(root)]) == 2
    assert "other.png: is not among the 2 images of this split of the dataset; use its files" in capsys.readouterr().err
    assert main(["look", str(tmp_path / "other.png"), "--weights", weights_file, "--dataset", "toy"]) == 2
    assert "--dataset: has no image files; use a dataset on disk, or mask files as --truth" in capsys.readouterr().err


@pytest.fixture
def fcn_file(classes, tmp_path):
    """Weights of a network without attention, in a file of the same name as another folder's."""
    predictor = made(classes, size=80, position=False, channel=False)
    (tmp_path / "fcn").mkdir()
    weights.save(tmp_path / "fcn/w.safetensors", predictor.network, predictor.card)
    return str(tmp_path / "fcn/w.safetensors")


def test_networks_are_compared_side_by_side(street, weights_file, fcn_file, image, capsys):
    call = ["look", "street.png", "lane.png", "--weights", fcn_file, weights_file, "--truth", "truth.png", "truth.png"]
    assert main([*call, "--json", "-"]) == 0
    numbers = json.loads(capsys.readouterr().out)["images"]
    assert [entry["name"] for entry in numbers] == ["street", "lane"]
    fcn, both = load(fcn_file)(image).labels, load(weights_file)(image).labels
    truth = read_mask(street / "truth.png")
    first, second = numbers[0]["networks"]
    assert first == {"network": "fcn/w", "accuracy": pytest.approx((fcn == truth).mean())}
    assert second["network"] == f"{street.name}/w"
    assert second["changed"] == pytest.approx((fcn != both).mean())
    assert second["corrected"] - second["broken"] == pytest.approx(second["accuracy"] - first["accuracy"])
    names = network_comparison.distinct_names([Path(fcn_file), Path(weights_file)], "weights")
    predictors = dict(zip(names, (load(fcn_file), load(weights_file)), strict=True))
    truths = ground_truth.from_masks([street / "truth.png"])
    sheet = network_comparison.sheet(network_comparison.compare(predictors, [street / "street.png"], truths))
    assert [panel.title for panel in sheet.groups[0].panels] == ["image", *names, "ground truth"]
    assert read_image("look.png").shape[1] == sheet.width + 94


@pytest.mark.parametrize("weights", [[0.6, 0.2, 0.1, 0.1], [0.45, 0.45, 0.06, 0.04], [0.25] * 4, [1, 0, 0, 0]])
def test_the_line_is_between_half_of_the_attention_and_the_rest(weights):
    """Bilinear enlargement reaches a position's own weight only in its middle."""
    attention = np.array(weights, np.float32).reshape(2, 2)
    inside = attention > attention_panels._between(attention)
    assert attention[inside].sum() >= 0.5
    assert attention[inside].sum() - attention[inside].min() < 0.5 or len(set(attention[inside])) == 1
    assert attention_panels._between(attention) < 0.95 * attention[inside].min()


@pytest.mark.parametrize(
    ("names", "expected"),
    [
        (["a.safetensors", "b.safetensors"], ["a", "b"]),
        (["runs/fcn/best.safetensors", "runs/both/best.safetensors"], ["fcn/best", "both/best"]),
        (["best.safetensors", "runs/best.safetensors", "default"], ["best", "runs/best", "default"]),
        (["runs/best.safetensors", "runs/best.onnx"], ["best.safetensors", "best.onnx"]),
    ],
)
def test_names_of_networks_are_as_short_as_tells_them_apart(names, expected):
    assert network_comparison.distinct_names([Path(name) for name in names], "weights") == expected


@pytest.mark.parametrize(
    ("options", "line"),
    [
        ("--point 3 4", "--point: needs a single network, but 2 are given; specify one file of weights, or leave out"),
        ("--class road", "--class: needs a single network, but 2 are given; "),
        ("--without", "--without: needs a single network, but 2 are given; "),
        ("--split test", "--split: is that of a dataset; add --dataset or --root, or leave it out"),
        ("--ignore 7", "--ignore: is for the masks of --truth; add --truth, or leave it out"),
        ("--truth truth.png --root .", "--truth: conflicts with a dataset; leave out --truth, or --dataset and --root"),
    ],
)
def test_comparisons_reject_questions_about_one_network(street, weights_file, fcn_file, capsys, options, line):
    assert main(["look", "street.png", "--weights", fcn_file, weights_file, *options.split()]) == 2
    assert capsys.readouterr().err.startswith(f"error: {line}")


def test_networks_with_other_classes_or_twice_the_same_are_rejected(street, weights_file, capsys):
    assert main(["look", "street.png", "--weights", weights_file, "default"]) == 2
    assert "--weights: default does not have the classes of w; compare networks that" in capsys.readouterr().err
    assert main(["look", "street.png", "--weights", weights_file, weights_file]) == 2
    assert "is given twice; leave it out once" in capsys.readouterr().err


def test_ground_truth_of_colors_needs_its_dataset(street, weights_file, capsys):
    call = ["look", "street.png", "--weights", weights_file, "--without", "--truth", "street.png"]
    assert main(call) == 2
    err = capsys.readouterr().err
    assert "a mask of mode RGB: colors, not class ids; save the class id in one byte per pixel, " in err
    assert "or set --dataset and --root instead of --truth" in err


def test_images_may_follow_the_weights_as_before(street, weights_file, capsys):
    assert main(["look", "--weights", weights_file, "street.png"]) == 0
    assert capsys.readouterr().out == "street_look.png\n"
    assert main(["look", "--weights", weights_file, "street.png", "lane.png"]) == 0
    assert capsys.readouterr().out == "look.png\n"


def test_default_channels_follow_the_class_or_the_points(street, weights_file):
    predictor, images = load(weights_file), [street / "street.png"]
    inspection = predictor.inspect(images[0])
    (first, second), names = attention_answers.default_points(inspection), inspection.segmentation.classes.names
    ids = [int(inspection.internals.labels[inspection.position_of(*point)]) for point in (first, second)]
    (named,) = attention_answers.look_at(predictor, images, class_name=names[ids[1]])
    assert [channel.index for channel in named.channels] == inspection.channels_of(ids[1])
    assert [(point.x, point.y) for point in named.points] == [first, second]
    (given,) = attention_answers.look_at(predictor, images, points=[second])
    assert [channel.index for channel in given.channels] == inspection.channels_of(ids[1], 1)
    assert given.channels[0].response == np.nanmax(inspection.responses()[given.channels[0].index])


def test_the_html_page_is_self_contained(street, weights_file):
    (street / "street.png").rename("a <b> & 'c' \udcff.png")
    call = ["look", "a <b> & 'c' \udcff.png", "--weights", weights_file, "--without", "--out"]
    assert main([*call, "page.html"]) == 0
    assert main([*call, "page.png"]) == 0
    text = (street / "page.html").read_text()
    assert not re.search(r"https?://|//[a-z]|<script|<link|@import|url\(", re.sub(r"base64,[\w+/=]*", "", text))
    assert "a &lt;b&gt; &amp; &#x27;c&#x27; \\udcff" in text
    assert "<b>" not in text
    sources = re.findall(r'<img alt="[^"]+" src="([^"]*)"', text)
    assert len(sources) == text.count("<img") > 10
    assert all(source.startswith(("data:image/png;base64,", "data:image/jpeg;base64,")) for source in sources)
    assert "color-scheme:light dark" in text
    assert 'name="viewport"' in text


@pytest.mark.parametrize("size", [(1, 1), (400, 1), (1, 400)])
def test_images_of_extreme_shapes_can_be_drawn(classes, size):
    predictor = made(classes)
    inspection = predictor.inspect(np.zeros((*size, 3), np.uint8))
    answers = attention_answers.ask(inspection, [(0, 0)], [4], ["position"], inspection.segmentation.labels)
    sheet = attention_panels.sheet([answers])
    assert attention_figure.to_png(sheet)[:4] == b"\x89PNG"
    assert attention_page.to_html(sheet).startswith(b"<!doctype html>")


def test_names_wider_than_the_page_are_truncated(classes):
    names = [("a class whose name is wider than any page", (9, 9, 9), share) for share in (0.0, 1.0)]
    for width in (40, 240, 768):
        assert attention_figure._bars(names, width).size == (width, 62)


@pytest.mark.parametrize(
    ("options", "line"),
    [
        (
            "--out l.png --json l.png --overwrite",
            "l.png: two results would be written to this file; choose",
        ),
        ("--out absent/l.png", "absent/l.png: its folder absent does not exist; create the folder, or choose another"),
        ("--point 93 5", "--point: (93, 5) is outside the image of 93 x 70 pixels; use x from 0 to 92"),
        (
            "--channels 17",
            "--channels: there is no channel 17: the network has 16, numbered from 1 as in the paper; use",
        ),
        ("--channels 0", "--channels: there is no channel 0: the network has 16, numbered from 1 as in the paper; use"),
        ("--class cat", "--class: 'cat' is not a class; use one of "),
        ("--class road --channels 4", "--class: conflicts with --channels; use only one of them"),
        ("--out a.gif", "a.gif: unsupported format .gif; use .png or .html"),
        ("--truth a b", "--truth: 2 masks for 1 images; specify one mask per image"),
        (
            "--truth small.png",
            "small.png: mask has 9 x 7 pixels, but the image has 93 x 70; use a mask",
        ),
        ("--truth truth.png --ignore 3 --json w.safetensors", "w.safetensors: already exists; choose another --out"),
    ],
)
def test_look_reports_errors_in_one_line(street, weights_file, capsys, options, line):
    Image.new("L", (9, 7)).save("small.png")
    assert main(["look", "street.png", "--weights", weights_file, *options.split()]) == 2
    printed = capsys.readouterr()
    assert printed.err.startswith(f"error: {line}")
    assert printed.err.count("\n") == 1
    assert printed.out == ""
    assert not (street / "street_look.png").exists()


def test_look_rejects_a_network_without_attention(street, classes, capsys):
    predictor = made(classes, position=False, channel=False)
    weights.save(street / "fcn.safetensors", predictor.network, predictor.card)
    assert main(["look", "street.png", "--weights", "fcn.safetensors"]) == 2
    assert "--weights: the network has no attention modules; use" in capsys.readouterr().err
    assert main(["look"]) == 2
    assert "danet look: no images given" in capsys.readouterr().err
