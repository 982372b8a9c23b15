"""danet init understands the folders and file names that other tools and datasets use."""

import unicodedata
from pathlib import Path

import pytest
from miniature import image, labels, save, stripes

from danet import InputError
from danet.data.custom import dataset_yaml
from danet.data.custom.check import check_folder
from danet.data.custom.proposal import write
from danet.data.custom.propose import propose
from danet.data.naming import Naming, match_masks
from danet.data.samples import pair_files


def folders(root: Path, images: str, masks: str, stems: str = "ant bee cow dog eel", end: str = "{}.png") -> None:
    for stem in stems.split():
        image(root / images / f"{stem}.jpg")
        save(root / masks / end.format(stem), stripes(0, 1))


def initialize(root: Path) -> str:
    text = write(root, propose(root)).read_text()
    assert check_folder(root).problems == ()
    assert labels(root) == {0, 1}
    return text


def names(root: Path, split: str) -> set[str]:
    return {pair.name for pair in dataset_yaml.load(root, split).pairs}


@pytest.mark.parametrize(
    ("places", "images", "masks"),
    [
        ("images/{} masks/{}", "images/*", "masks/*"),
        ("{}/images {}/masks", "*/images", "*/masks"),
        ("{}/img {}/masks_machine", "*/img", "*/masks_machine"),
        ("data/ds{}/imgs data/ds{}/labels", "data/*/imgs", "data/*/labels"),
        ("frames/{}/rgb frames/{}/semantic", "frames/*/rgb", "frames/*/semantic"),
    ],
)
def test_several_folders_of_images(tmp_path, places, images, masks):
    for part in ("1", "2", "3"):
        folders(tmp_path, *places.format(part, part).split())
    text = initialize(tmp_path)
    assert f"images: {images}" in text.replace("'", "")
    assert f"masks: {masks}" in text.replace("'", "")
    assert "images are in 3 folders" in text
    assert len(names(tmp_path, "train") | names(tmp_path, "val")) == 15
    assert all("/" in name for name in names(tmp_path, "train"))


@pytest.mark.parametrize(
    ("places", "images", "masks"),
    [
        ("leftImg8bit/{split}/{part} gtFine/{split}/{part}", "leftImg8bit/{split}/*", "gtFine/{split}/*"),
        ("{split}/{part}/images_png {split}/{part}/masks_png", "{split}/*/images_png", "{split}/*/masks_png"),
        ("{part}/images/{split} {part}/masks/{split}", "*/images/{split}", "*/masks/{split}"),
        ("{part}/{split}/images {part}/{split}/masks", "*/{split}/images", "*/{split}/masks"),
        ("images/{split}/{part} masks/{split}/{part}", "images/{split}/*", "masks/{split}/*"),
    ],
)
def test_splits_around_and_inside_several_folders(tmp_path, places, images, masks):
    for part in ("Urban", "Rural"):
        for split, stems in (("train", "ant bee cow"), ("val", "dog")):
            folders(tmp_path, *places.format(part=part, split=split).split(), stems)
    initialize(tmp_path)
    layout = dataset_yaml.read_settings(tmp_path).layout
    assert (layout.images, layout.masks) == (images, masks)
    assert names(tmp_path, "train") == {f"{part}/{s}" for part in ("Urban", "Rural") for s in ("ant", "bee", "cow")}
    assert names(tmp_path, "val") == {"Urban/dog", "Rural/dog"}


def test_sequences_are_kept_within_their_folder(tmp_path):
    for part in "abcdef":
        folders(tmp_path, f"images/{part}", f"masks/{part}", "f01 f02 f03 f04")
    assert "24 images are read as frames of 6 sequences" in initialize(tmp_path)
    assert len({name.split("/")[0] for name in names(tmp_path, "val")}) == 1
    assert len(names(tmp_path, "val")) == 4


def test_several_folders_may_share_one_of_masks(tmp_path):
    folders(tmp_path, "images/a", "masks", "ant bee cow")
    folders(tmp_path, "images/b", "masks", "dog eel")
    (tmp_path / "dataset.yaml").write_text("classes: [x, y]\nimages: images/*\nmasks: masks\n")
    assert check_folder(tmp_path).problems == ()
    assert len(names(tmp_path, "train") | names(tmp_path, "val")) == 5


def test_check_reports_the_files_of_every_folder(tmp_path):
    folders(tmp_path, "images/a", "masks/a", "ant bee")
    folders(tmp_path, "images/b", "masks/b", "cow dog")
    (tmp_path / "masks/a/ant.png").unlink()
    image(tmp_path / "masks/b/fox.png")
    (tmp_path / "dataset.yaml").write_text("classes: [x, y]\nimages: images/*\nmasks: masks/*\n")
    found = {str(problem.file.relative_to(tmp_path)): problem.what for problem in check_folder(tmp_path).problems}
    assert found == {"masks/a/ant.png": "missing mask", "masks/b/fox.png": "mask without an image"}


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (
            "images: city*/images\nmasks: masks/*",
            "no folder that matches images: city*/images contains images; correct",
        ),
        ("images: '*/*/img'\nmasks: '*/masks'", "masks: has 1 *, but images has 2; use the same number, or none"),
        ("mask_replace: {a: b, c: d}", "mask_replace: must map one text in the images' names to that in the masks' "),
        ("mask_replace: {1: b}", "mask_replace: must map a text to a text, got {1: 'b'}; put quotes around numbers"),
        ("mask_replace: {a: b}\nmask_prefix: m_", "mask_prefix and mask_replace exclude each other"),
    ],
)
def test_invalid_patterns_are_errors(tmp_path, text, message):
    folders(tmp_path, "images/a", "masks/a")
    (tmp_path / "dataset.yaml").write_text(f"classes: [x, y]\n{text}\n")
    with pytest.raises(InputError) as error:
        dataset_yaml.load(tmp_path, "train")
    assert message in str(error.value)


@pytest.mark.parametrize(
    ("image_name", "mask_name", "key"),
    [
        ("image_{}.jpg", "mask_{}.png", "mask_replace: {image: mask}"),
        ("{}.jpg", "mask_{}.png", "mask_prefix: mask_"),
        ("img{}.jpg", "{}.png", "mask_replace: {img: ''}"),
        ("2018_camera_left_{}.png", "2018_label_left_{}.png", "mask_replace: {camera: label}"),
        ("{}_rgb.png", "{}_seg.tif", "image_suffix: _rgb"),
    ],
)
@pytest.mark.parametrize("together", [False, True])
def test_prefixes_and_infixes(tmp_path, image_name, mask_name, key, together):
    if together and key == "mask_replace: {img: ''}":
        pytest.skip("nothing tells masks from images")
    for i in range(12):
        image(tmp_path / "images" / image_name.format(f"{i:03}"))
        save(tmp_path / ("images" if together else "masks") / mask_name.format(f"{i:03}"), stripes(0, 1))
    assert key in initialize(tmp_path)
    assert len(names(tmp_path, "train") | names(tmp_path, "val")) == 12
    (tmp_path / "images" / image_name.format("003")).unlink()
    (problem,) = check_folder(tmp_path).problems
    assert problem.file.name == mask_name.format("003")
    assert problem.what == "mask without an image"


def test_masks_with_several_endings_are_paired(tmp_path):
    for i, end in enumerate((".png", ".png", ".png", ".tif", ".PNG", ".bmp")):
        image(tmp_path / f"images/{'abcdef'[i]}.jpg")
        save(tmp_path / f"masks/{'abcdef'[i]}{end}", stripes(0, 1))
    initialize(tmp_path)
    assert len(names(tmp_path, "train") | names(tmp_path, "val")) == 6
    save(tmp_path / "masks/a.tif", stripes(0, 1))
    assert [problem.file.name for problem in check_folder(tmp_path).problems] == ["a.tif"]


@pytest.mark.parametrize(("images", "masks", "end"), [("Bilder", "Masken", ""), ("", "", "_mask")])
def test_composed_and_decomposed_names_are_found_anywhere(tmp_path, images, masks, end):
    """In folders with unusual names, and in one folder; with several lossless endings, as in the usual folders."""
    for i, name in enumerate(("caf\u00e9", "z\u00fcrich", "k\u00f6ln", "g\u00f6rlitz")):
        image(tmp_path / images / f"{unicodedata.normalize('NFD', name)}.jpg")
        ending = ".tif" if i == 3 and images else ".png"
        save(tmp_path / masks / f"{unicodedata.normalize('NFC', name)}{end}{ending}", stripes(0, 1))
    write(tmp_path, propose(tmp_path))
    assert check_folder(tmp_path).problems == ()
    assert sum(len(dataset_yaml.load(tmp_path, split)) for split in ("train", "val")) == 4


def test_composed_and_decomposed_names_are_paired(tmp_path):
    for i, name in enumerate(("café", "zürich", "añejo", "plain")):
        forms = ("NFC", "NFD") if i % 2 else ("NFD", "NFC")
        image(tmp_path / "images" / f"{unicodedata.normalize(forms[0], name)}.jpg")
        save(tmp_path / "masks" / f"{unicodedata.normalize(forms[1], name)}.png", stripes(0, 1))
    initialize(tmp_path)
    (tmp_path / "train.txt").write_text("cafe\u0301\nz\u00fcrich\n")
    (tmp_path / "val.txt").write_text("plain\n")
    (tmp_path / "dataset.yaml").write_text("classes: [x, y]\nsplits: {train: train.txt, val: val.txt}\n")
    assert len(names(tmp_path, "train")) == 2


def test_images_whose_names_differ_only_in_their_normalization_have_their_own_masks(tmp_path):
    forms = ("caf\u00e9", "cafe\u0301")
    for form in forms:
        image(tmp_path / "images" / f"{form}.jpg")
        save(tmp_path / "masks" / f"{form}.png", stripes(0, 1))
    pairs = pair_files(sorted((tmp_path / "images").iterdir()), tmp_path / "masks", tmp_path)
    assert {pair.mask.name for pair in pairs} == {f"{form}.png" for form in forms}
    (tmp_path / "masks" / f"{forms[0]}.png").unlink()
    with pytest.raises(InputError, match="has the same mask as"):
        pair_files(sorted((tmp_path / "images").iterdir()), tmp_path / "masks", tmp_path)


def test_an_exact_name_is_preferred_to_a_similar_one(tmp_path):
    for name in ("a.png", "a.tif", "b.TIF"):
        save(tmp_path / name, stripes(0))
    matched = match_masks([Path("x/a.jpg"), Path("x/b.jpg"), Path("x/c.jpg")], tmp_path)
    assert [mask.name for mask in matched.values()] == ["a.png", "b.TIF", "c.png"]


def test_a_naming_describes_its_masks():
    naming = Naming("_m.png", "_x", "camera", "label")
    assert naming.mask_of(Path("1_camera_camera_x.jpg")) == "1_label_camera_m.png"
    assert (naming.masks, Naming("_mask.png").masks, Naming(".png", "", "", "m_").masks) == (
        "*label*_m.png",
        "*_mask.png",
        "m_*.png",
    )
