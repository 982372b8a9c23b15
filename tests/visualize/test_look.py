"""What the network sees: rows of Eq. 1, maps of Eq. 4, predictions without a module, and the pages that show them."""

import json
import re

import numpy as np
import pytest
import torch
from PIL import Image

from danet import DANet, InputError
from danet.cli import main
from danet.data.images.channels import resize_long_side
from danet.data.images.read import read_image
from danet.model.preprocess import normalize
from danet.predict import overlay
from danet.predict.attention import see
from danet.predict.predictor import Predictor, load
from danet.visualize import attention_answers, attention_figure, attention_page, attention_panels
from danet.weights import file as weights


def made(classes, size=None, **arguments) -> Predictor:
    """A predictor with an untrained little network whose modules are switched on."""
    torch.manual_seed(1)
    arguments = {"num_classes": len(classes), "backbone": "test_resnet", "width": 16} | arguments
    network = DANet(**arguments)
    for name, value in network.named_parameters():
        if name.endswith("attention.scale"):
            torch.nn.init.constant_(value, 0.7)
        elif name.startswith(("position", "channel", "classifier")) and value.ndim > 1:
            torch.nn.init.normal_(value, std=0.3)  # so that no module is without effect
    card = weights.Card(arguments, classes, (0.5,) * 3, (0.5,) * 3, size=size)
    return Predictor(network, card, "cpu")


@pytest.fixture
def classes(tiny_weights):
    return load(tiny_weights).classes


@pytest.fixture
def image() -> np.ndarray:
    """Of a size that is no multiple of the stride, with something to tell apart."""
    image = np.random.default_rng(0).integers(0, 60, (70, 93, 3), np.uint8)
    image[:, 40:, 0] += 180
    image[50:, :, 2] += 150
    return image


def features(predictor, image) -> torch.Tensor:
    shown = torch.tensor(resize_long_side(image, predictor.card.size))[None]
    return predictor.folded.backbone(normalize(shown, predictor.card.mean, predictor.card.std))[-1]


@pytest.mark.parametrize("stride", [8, 16])
@torch.inference_mode()
def test_attention_of_a_point_is_its_row_of_the_full_matrix(classes, image, stride):
    predictor = made(classes, output_stride=stride)
    seen = see(predictor, image)
    assert seen.grid == (-(-70 // stride), -(-93 // stride))
    branch = predictor.folded.position
    whole = branch.attention.weights(branch.reduce(features(predictor, image)))[0]  # N,N
    assert whole.std(0).max() > 1e-4  # rows differ, so a wrong one would show
    for x, y in ((0, 0), (92, 69), (stride, 0), (stride - 1, stride), (45, 33)):
        at = (y // stride) * seen.grid[1] + x // stride
        attention = seen.attention(x, y)
        assert attention.shape == seen.grid
        assert attention.sum() == pytest.approx(1, abs=1e-5)
        np.testing.assert_allclose(attention.ravel(), whole[at], atol=1e-6)
    assert max(tensor.numel() for tensor in seen.inside[1:5]) < whole.numel()  # the matrix is not kept


@pytest.mark.parametrize(("size", "shown_size"), [((70, 93), None), ((70, 93), 130), ((300, 200), 90), ((1, 50), None)])
def test_positions_and_their_pixels_correspond(classes, size, shown_size):
    seen = see(made(classes, shown_size), np.zeros((*size, 3), np.uint8))
    (height, width), (rows, columns) = size, seen.grid
    assert seen.position(0, 0) == (0, 0)
    assert seen.position(width - 1, height - 1) == (rows - 1, columns - 1)
    for row in range(rows):
        for column in range(columns):
            assert seen.position(*seen.pixel(row, column)) == (row, column)
    for x, y in ((-1, 0), (width, 0), (0, height), (0, -1)):
        with pytest.raises(InputError, match=rf"\({x}, {y}\) is outside the image of {width} x {height} pixels; give"):
            seen.attention(x, y)


def test_spreading_attention_over_the_image_keeps_the_sums(classes, image):
    predictor = made(classes)
    found, seen = predictor.attention(image, x=45, y=33), see(predictor, image)
    assert found.shape == (70, 93)
    assert found.sum() == pytest.approx(1, abs=1e-5)
    attention = seen.attention(45, 33)
    for row, column in ((0, 0), (8, 11), (4, 5)):  # those of the last row and column are 6 and 5 pixels long
        part = found[8 * row : 8 * row + 8, 8 * column : 8 * column + 8]
        assert part.sum() == pytest.approx(attention[row, column], rel=1e-4)
        assert np.ptp(part) < 1e-9
    for size in ((7, 9), (31, 17), (500, 333)):  # smaller and larger than the grid
        small = made(classes, 96).attention(np.resize(image, (*size, 3)), 3, 5)
        assert small.shape == size
        assert small.sum() == pytest.approx(1, abs=1e-5)


def test_interpolated_values_are_aligned_with_positions(classes, image):
    seen = see(made(classes), image)
    values = np.arange(108, dtype=np.float32).reshape(9, 12)
    over = seen.over_image(values)
    assert over.shape == (70, 93)
    assert over[3:5, 3:5].mean() == pytest.approx(0, abs=1.6)  # a position's middle is between its 4th and 5th pixel
    assert over[35:37, 43:45].mean() == pytest.approx(values[4, 5], abs=1e-3)
    assert seen.over_image(values, (35, 46)).shape == (35, 46)


def test_the_inspected_prediction_equals_the_predictors(classes, image):
    for arguments in ({}, {"position": False}, {"channel": False}, {"position": False, "channel": False}):
        predictor = made(classes, 80, **arguments)
        seen, expected = see(predictor, image), predictor(image)
        assert np.array_equal(seen.segmentation.labels, expected.labels)
        assert np.array_equal(seen.segmentation.confidence, expected.confidence)
        assert (seen.has_position, seen.has_channel) == (
            arguments.get("position", True),
            arguments.get("channel", True),
        )


@pytest.mark.parametrize("module", ["position", "channel"])
@pytest.mark.parametrize("both", [True, False])
def test_without_a_module_equals_the_network_with_scale_0(classes, image, module, both):
    other = {"position": "channel", "channel": "position"}[module]
    predictor = made(classes, **({} if both else {other: False}))
    without = see(predictor, image).without(module)
    assert not np.array_equal(without.confidence, predictor(image).confidence)
    torch.nn.init.zeros_(getattr(predictor.network, module).attention.scale)
    assert np.array_equal(without.labels, predictor(image).labels)
    np.testing.assert_allclose(without.confidence, predictor(image).confidence, atol=1e-6)


@torch.inference_mode()
def test_channel_maps_and_weights_are_equations_4_and_3(classes, image):
    predictor = made(classes)
    seen, branch = see(predictor, image), predictor.folded.channel
    x = branch.reduce(features(predictor, image))
    a = x[0].flatten(1).double()
    energy = a @ a.T
    expected = torch.softmax(energy.amax(1, keepdim=True) - energy, 1)
    np.testing.assert_allclose(seen.channel_attention(), expected, atol=1e-4)
    maps = 0.7 * expected @ a + a
    np.testing.assert_allclose(seen.channel_maps([11, 4]).reshape(2, -1), maps[[11, 4]], rtol=1e-3, atol=1e-3)
    for channel in (-1, 16):
        with pytest.raises(InputError, match=f"channel {channel}: the network has 16; give numbers from 0 to 15"):
            seen.channel_maps([channel])


def test_attention_is_summed_by_class_and_ranked(classes, image):
    seen = see(made(classes), image)
    labels = np.zeros(seen.grid, np.uint8)
    labels[:, 6:] = 3
    seen = seen.__class__(
        seen.segmentation, seen.inside._replace(labels=labels), seen.shown, seen.stride, seen.predictor
    )
    attention = np.zeros(seen.grid, np.float32)
    attention[1, 2], attention[8, 11], attention[0, 0] = 0.25, 0.6, 0.15
    assert seen.classes_attended(attention) == [(3, pytest.approx(0.6)), (0, pytest.approx(0.4))]
    assert seen.strongest(attention, 2) == [(90, 67, pytest.approx(0.6)), (20, 12, pytest.approx(0.25))]


def test_channels_of_a_class_are_those_that_distinguish_it(classes, image):
    seen = see(made(classes), image)
    labels, maps = np.zeros(seen.grid, np.uint8), torch.rand(16, *seen.grid)
    labels[2:5, 3:9] = 4
    maps[7, 2:5, 3:9] += 5
    maps[9, 2:5, 3:9] += 1
    maps[10, 2:5, 3:9] -= 5
    maps[12] = 100
    inside = seen.inside._replace(labels=labels, maps=maps)
    seen = seen.__class__(seen.segmentation, inside, seen.shown, seen.stride, seen.predictor)
    assert seen.channels_of(4) == [7, 9]
    assert seen.channels_of(0, 1) == [10]
    responses = seen.responses()
    assert responses[12, 4] == 0
    assert np.isnan(responses[:, 1]).all()
    within = maps[7].numpy()
    expected = (within[labels == 4].mean() - within[labels == 0].mean()) / within.std()
    assert responses[7, 4] == pytest.approx(expected, rel=1e-4)
    with pytest.raises(InputError, match=r"class .*: is predicted on 0% of image"):
        seen.channels_of(1)


def test_queries_of_a_missing_module_are_rejected(classes, image):
    seen = see(made(classes, position=False), image)
    for ask in (lambda: seen.attention(0, 0), lambda: seen.without("position")):
        with pytest.raises(InputError, match="the network has no position attention; give weights of a network that"):
            ask()
    seen = see(made(classes, channel=False), image)
    for ask in (
        lambda: seen.channel_maps([0]),
        lambda: seen.channels_of(0),
        seen.channel_attention,
        lambda: seen.without("channel"),
    ):
        with pytest.raises(InputError, match="the network has no channel attention; give weights of a network that"):
            ask()


def test_exported_models_cannot_be_inspected(classes, image):
    predictor = made(classes)
    predictor.folded = torch.nn.Identity()
    with pytest.raises(InputError, match=r"look needs the \.safetensors weights"):
        see(predictor, image)


def test_default_points_are_well_inside_the_largest_classes(classes, image):
    seen = see(made(classes), image)
    labels = np.zeros(seen.grid, np.uint8)
    labels[:3] = 2
    labels[8, 0] = 5
    inside = seen.inside._replace(labels=labels)
    seen = seen.__class__(seen.segmentation, inside, seen.shown, seen.stride, seen.predictor)
    (x0, y0), (x1, y1) = attention_answers.default_points(seen)
    assert labels[seen.position(x0, y0)] == 0
    assert seen.position(x0, y0)[0] == 5  # of rows 3 to 8, cut by the image's border, two steps from either end
    assert seen.position(x1, y1)[0] == 1


def test_pixels_that_a_module_corrects_and_breaks_add_up(classes, image):
    seen = see(made(classes), image)
    truth = seen.segmentation.labels.copy()
    truth[:20] = 255
    truth[40:] = seen.without("position").labels[40:]
    off = attention_answers.ask(seen, [], [], ["position"], truth).off[0]
    full, without, valid = seen.segmentation.labels, off.segmentation.labels, truth != 255
    gain = (full == truth)[valid].mean() - (without == truth)[valid].mean()
    assert off.changed > 0
    assert off.mended - off.corrupted == pytest.approx(gain)
    assert off.mended + off.corrupted == pytest.approx(off.changed)  # here one of the two is always right
    assert attention_answers.ask(seen, [], [], ["position"]).off[0].mended is None


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
    lightness = 116 * np.cbrt(y) - 16  # CIE L*, another measure than the one they were made by
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
    (found,) = json.loads(capsys.readouterr().out)["images"]
    assert [(point["x"], point["y"]) for point in found["points"]] == [(3, 4), (80, 60)]
    assert sum(entry["share"] for entry in found["points"][0]["classes"]) == pytest.approx(1, abs=1e-5)
    assert len(found["points"][0]["strongest"]) == 5
    assert [channel["channel"] for channel in found["channels"]] == [4, 11]
    assert set(found["without"]) == {"position", "channel"}
    assert found["without"]["position"]["changed"] > 0
    assert {"mended", "corrupted"} < set(found["without"]["position"])
    with Image.open("street_look.png") as image:
        assert image.width == 1654
        assert image.getpixel((0, 0)) == (255, 255, 255)
        assert round(image.info["dpi"][0]) == 200
    assert main(call) == 2
    assert "street_look.png: exists already; give another name, or --overwrite" in capsys.readouterr().err
    assert main([*call, "--overwrite"]) == 0
    assert capsys.readouterr().out == "street_look.png\n"


def test_several_images_become_rows_with_the_same_columns(street, weights_file, capsys):
    call = ["look", "street.png", "lane.png", "--weights", weights_file, "--channels", "4", "11", "--truth"]
    assert main([*call, "truth.png", "truth.png", "--json", "numbers.json"]) == 0
    assert capsys.readouterr().out == "look.png\n"
    assert len(json.loads((street / "numbers.json").read_text())["images"]) == 2
    predictor = load(weights_file)
    images, truths = [street / "street.png", street / "lane.png"], [street / "truth.png"] * 2
    found = attention_panels.sheet(attention_answers.look_at(predictor, images, channels=[4, 11], truths=truths))
    titles = [panel.title.split(",")[0] for panel in found.sections[0].panels]
    assert titles[0] == "image"
    assert titles[-4:] == ["channel map #4", "channel map #11", "prediction", "ground truth"]
    assert [section.title for section in found.sections] == ["street", "lane", "Classes"]
    assert read_image("look.png").shape[1] == found.width + 94


def test_default_channels_follow_the_class_or_the_points(street, weights_file):
    predictor, images = load(weights_file), [street / "street.png"]
    seen = see(predictor, images[0])
    (first, second), names = attention_answers.default_points(seen), seen.segmentation.classes.names
    ids = [int(seen.inside.labels[seen.position(*point)]) for point in (first, second)]
    (named,) = attention_answers.look_at(predictor, images, class_name=names[ids[1]])
    assert [channel.number for channel in named.channels] == seen.channels_of(ids[1])
    assert [(point.x, point.y) for point in named.points] == [first, second]
    (given,) = attention_answers.look_at(predictor, images, points=[second])
    assert [channel.number for channel in given.channels] == seen.channels_of(ids[1], 1)
    assert given.channels[0].response == np.nanmax(seen.responses()[given.channels[0].number])


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
    assert "color-scheme: light dark" in text
    assert 'name="viewport"' in text


@pytest.mark.parametrize("size", [(1, 1), (400, 1), (1, 400)])
def test_images_of_extreme_shapes_can_be_drawn(classes, size):
    predictor = made(classes)
    seen = see(predictor, np.zeros((*size, 3), np.uint8))
    found = attention_panels.sheet([attention_answers.ask(seen, [(0, 0)], [4], ["position"], seen.segmentation.labels)])
    assert attention_figure.to_png(found)[:4] == b"\x89PNG"
    assert attention_page.to_html(found).startswith(b"<!doctype html>")


def test_names_wider_than_the_page_are_truncated(classes):
    names = [("a class whose name is wider than any page", (9, 9, 9), share) for share in (0.0, 1.0)]
    for width in (40, 240, 768):
        assert attention_figure._bars(names, width).size == (width, 62)


@pytest.mark.parametrize(
    ("options", "line"),
    [
        ("--out l.png --json l.png --overwrite", "l.png: is to hold two results; give each a file of its own"),
        ("--out absent/l.png", "absent/l.png: cannot be written (absent is no folder); make it, or give another"),
        ("--point 93 5", "point: (93, 5) is outside the image of 93 x 70 pixels; give x from 0 to 92"),
        ("--channels 16", "channel 16: the network has 16; give numbers from 0 to 15"),
        ("--class cat", "--class: 'cat' is no class; use one of "),
        ("--class road --channels 4", "--class: given with --channels; give one of them"),
        ("--out a.gif", "a.gif: cannot be written as .gif; give .png or .html"),
        ("--truth a b", "--truth: 2 for 1 images; give one an image"),
        ("--truth small.png", "small.png: mask of 9 x 7 pixels for an image of 93 x 70; make both of one size"),
        ("--truth truth.png --ignore 3 --json w.safetensors", "w.safetensors: exists already; give another name"),
    ],
)
def test_mistakes_are_told_in_one_line(street, weights_file, capsys, options, line):
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
    assert "look: the network has no attention" in capsys.readouterr().err
    assert main(["look"]) == 2
    assert "IMAGE: none given" in capsys.readouterr().err
