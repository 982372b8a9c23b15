"""Color masks: each color must match exactly; unknown colors are reported."""

import numpy as np
import pytest
from miniature import HEIGHT, ROAD, TREE, WIDTH, colored, image, save, save_palette, stripes
from PIL import Image

from danet import InputError
from danet.data.images.color_masks import count_colors, read_colored_mask


def test_an_unknown_color_is_reported_with_count_and_position(tmp_path):
    mask = colored(ROAD, TREE)
    mask[3, 5:8] = 1, 2, 3
    mask[9, 0] = 200, 0, 0
    with pytest.raises(InputError) as error:
        read_colored_mask(save(tmp_path / "m.png", mask), {ROAD: 0, TREE: 1})
    assert (
        "m.png: color [1, 2, 3] is not one of the 2 classes' colors: 3 pixels, the first at x=5, y=3 (and 1 other"
        in (str(error.value))
    )


def test_colors_become_ids_and_one_color_is_ignored(tmp_path):
    rng = np.random.default_rng(3)
    colors = [(int(r), int(g), int(b)) for r, g, b in rng.permutation(256)[:240].reshape(80, 3)]
    ids = rng.integers(0, 81, (HEIGHT, WIDTH))
    file = save(tmp_path / "m.png", np.array([*colors, (9, 9, 9)], np.uint8)[ids])
    read = read_colored_mask(file, {**{color: i for i, color in enumerate(colors)}, (9, 9, 9): 255})
    assert read.dtype == np.uint8
    assert (read == np.where(ids == 80, 255, ids)).all()
    assert sum(count_colors(np.asarray(Image.open(file))).values()) == HEIGHT * WIDTH


def test_which_image_modes_have_colors(tmp_path):
    save_palette(tmp_path / "p.png", stripes(0, 1), (TREE, ROAD))
    assert read_colored_mask(tmp_path / "p.png", {ROAD: 0, TREE: 1})[0, :2].tolist() == [1, 0]
    gray = save(tmp_path / "g.png", stripes(0, 255))
    assert read_colored_mask(gray, {(255, 255, 255): 0, (0, 0, 0): 1})[0, :2].tolist() == [1, 0]
    opaque = np.dstack([colored(ROAD), np.full((HEIGHT, WIDTH), 255, np.uint8)])
    assert read_colored_mask(save(tmp_path / "o.png", opaque), {ROAD: 0}).max() == 0
    opaque[0, 0, 3] = 0
    with pytest.raises(InputError, match="transparent and opaque"):
        read_colored_mask(save(tmp_path / "t.png", opaque), {ROAD: 0})
    with pytest.raises(InputError, match="mode I;16 has no colors"):
        read_colored_mask(save(tmp_path / "i.png", stripes(0).astype(np.uint16)), {ROAD: 0})
    with pytest.raises(InputError, match=r"lossy format \(JPEG\)"):
        read_colored_mask(image(tmp_path / "j.jpg"), {ROAD: 0})
