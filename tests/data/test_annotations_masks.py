"""Exports with mask files: which image a mask belongs to, its size, its format, and several tasks in one export."""

import json
from pathlib import Path

import numpy as np
import pytest
from exports import COLORS, EXPORTS, cvat_masks, label_studio_png, scene, write
from miniature import HEIGHT, WIDTH, image, save
from PIL import Image

from danet import InputError
from danet.data.annotations import cvat_masks as cvat_reader
from danet.data.annotations import mask_files as mask_reader
from danet.data.annotations.recognize import recognize
from danet.data.annotations.shapes import AnnotatedImage
from danet.data.annotations.source import Source
from danet.data.custom.import_annotations import Imported, ImportOptions, import_annotations
from danet.data.custom.propose import propose
from danet.data.images.read import read_image, read_mask

READERS = ["masks", "cvat-masks", "label-studio-png"]
SCENE_MASKS = {
    "masks": ("masks/a_car.png", "masks/a_tree.png"),
    "cvat-masks": ("SegmentationClass/a.png",),
    "label-studio-png": ("task-1-annotation-7-by-1-label-car-0.png", "task-1-annotation-7-by-1-label-tree-0.png"),
}


def imported(root: Path, **options) -> tuple[Imported, Path]:
    destination = root.with_name(f"{root.name}_imported")
    return import_annotations(root, destination, ImportOptions(**options)), destination


def put(file: Path, index: int = 1, **options) -> Path:
    return save(file, np.where(scene() == index, 255, 0).astype(np.uint8), **options)


def sources(found: AnnotatedImage) -> list[str]:
    """Return the files of an image's masks."""
    return [shape.place for shape in found.shapes]


def resave(file: Path, size: tuple[int, int]) -> None:
    """Scale a mask to a width and a height."""
    with Image.open(file) as mask:
        scaled = mask.resize(size, Image.Resampling.NEAREST)
    scaled.save(file)


def test_augmented_copies_with_masks_of_their_own_are_not_several_masks_of_one_image(tmp_path):
    for name in ("a", "a_flip", "a_rot", "b"):
        image(tmp_path / f"images/{name}.jpg")
        put(tmp_path / f"masks/{name}.png")
    assert recognize(Source(tmp_path)) == []
    assert propose(tmp_path).pairs == 4


def test_a_folder_names_a_class_even_if_one_image_has_it(tmp_path):
    for folder, name in (("car", "a"), ("tree", "b")):
        image(tmp_path / f"images/{name}.jpg")
        put(tmp_path / f"masks/{folder}/{name}.png")
    found = mask_reader.read(Source(tmp_path))
    assert list(found.classes) == ["car", "tree"]
    assert found.notes == ("classes are named after the masks' files or folders, in alphabetical order: car, tree",)


@pytest.mark.parametrize("size", [(WIDTH // 2, HEIGHT // 2), (2 * WIDTH, 2 * HEIGHT), (HEIGHT, WIDTH)])
@pytest.mark.parametrize("name", READERS)
def test_masks_of_another_size_than_the_image_are_refused(name, size, tmp_path):
    root = EXPORTS[name](tmp_path / "export")
    for mask in SCENE_MASKS[name]:
        resave(root / mask, size)
    with pytest.raises(InputError) as raised:
        imported(root)
    place = root / SCENE_MASKS[name][0]
    assert raised.value.where == next(root.rglob("a.png" if name != "cvat-masks" else "JPEGImages/a.png"))
    assert raised.value.what == f"is 16 x 12, but its annotations are for {size[0]} x {size[1]} ({place})"
    assert not (tmp_path / "export_imported").exists()


@pytest.mark.parametrize("name", ["masks", "label-studio-png"])
def test_masks_of_one_image_must_have_one_size(name, tmp_path):
    root = EXPORTS[name](tmp_path / "export")
    first, second = (root / mask for mask in SCENE_MASKS[name])
    resave(second, (8, 6))
    with pytest.raises(InputError) as raised:
        imported(root)
    assert raised.value.where == second
    assert raised.value.what == f"is 8 x 6, but {first}, a mask of the same image, is 16 x 12"


@pytest.mark.parametrize("stored", [True, False])
@pytest.mark.parametrize("orientation", [5, 6, 7, 8])
@pytest.mark.parametrize("name", READERS)
def test_the_size_of_masks_tells_whether_they_are_turned(name, orientation, stored, tmp_path):
    """The car is red in the image: its pixels and its labels agree, whether the masks are stored or upright."""
    root = EXPORTS[name](tmp_path / "export")
    pixels = np.zeros((HEIGHT, WIDTH, 3), np.uint8)
    pixels[scene() == 1] = 255, 0, 0
    exif = Image.Exif()
    exif[0x0112] = orientation
    file = next(root.rglob("a.png" if name != "cvat-masks" else "JPEGImages/a.png"))
    save(file, pixels, exif=exif)
    for mask in SCENE_MASKS[name]:
        if not stored:
            with Image.open(root / mask) as opened:
                array = np.asarray(opened)
            turned = save(tmp_path / "turned.png", array, exif=exif)
            save(root / mask, upright(turned, array))
    result, destination = imported(root)
    assert ((read_image(file)[..., 0] == 255) == (read_mask(destination / "masks/a.png") == 1)).all()
    (note,) = [note for note in result.notes if "EXIF" in note]
    assert ("as stored" if stored else "as displayed (by their size in the export)") in note


def upright(file: Path, array: np.ndarray) -> np.ndarray:
    return read_image(file) if array.ndim == 3 else read_image(file)[..., 0]


# Which image a mask belongs to


@pytest.mark.parametrize("folders", [("cam1", "cam2"), ("train1", "train2")])
@pytest.mark.parametrize(
    ("images", "masks"), [("images/{}", "masks/{}/{}"), ("{}/images", "{}/masks/{}"), ("{}/images", "masks/{}/{}")]
)
def test_images_with_the_same_name_have_the_masks_of_their_folders(images, masks, folders, tmp_path):
    for folder in folders:
        image(tmp_path / images.format(folder) / "0001.jpg")
        for name in ("car", "tree"):
            put(tmp_path / masks.format(folder, name) / "0001.png")
    assert recognize(Source(tmp_path)) == ["masks"]
    found = mask_reader.read(Source(tmp_path))
    assert list(found.classes) == ["car", "tree"]
    for each, folder in zip(found.images, folders, strict=True):
        assert each.file == tmp_path / images.format(folder) / "0001.jpg"
        assert sources(each) == [str(tmp_path / masks.format(folder, name) / "0001.png") for name in ("car", "tree")]


def test_every_layout_of_masks_tells_folders_apart(tmp_path):
    for camera in ("cam1", "cam2"):
        for name in ("a", "b"):
            image(tmp_path / camera / f"images/{name}.png")
        put(tmp_path / camera / "masks/a_car.png")  # named after the image
        put(tmp_path / camera / "masks/b/car.png")  # in a folder of the image
    found = mask_reader.read(Source(tmp_path)).images
    assert [(str(each.file), sources(each)) for each in found] == [
        (str(tmp_path / camera / f"images/{name}.png"), [str(tmp_path / camera / f"masks/{mask}")])
        for camera in ("cam1", "cam2")
        for name, mask in (("a", "a_car.png"), ("b", "b/car.png"))
    ]


def test_a_mask_of_a_missing_image_is_not_that_of_another_folder(tmp_path):
    image(tmp_path / "images/cam1/0002.jpg")
    image(tmp_path / "images/cam2/0001.jpg")
    for name in ("car", "tree"):
        put(tmp_path / f"masks/cam1/{name}/0001.png")
        put(tmp_path / f"masks/cam2/{name}/0001.png")
    with pytest.raises(InputError, match=r"cam1.car.0001\.png: belongs to no image \(and 1 other masks\)"):
        mask_reader.read(Source(tmp_path))


@pytest.mark.parametrize("second", ["images/a.png", "other/a.jpg"])
def test_masks_that_may_belong_to_two_images_are_refused(second, tmp_path):
    root = tmp_path / "export"
    for name in ("images/a.jpg", second):
        image(root / name)
    for name in ("car", "tree"):
        put(root / f"masks/{name}/a.png")
    assert recognize(Source(root)) == ["masks"]
    with pytest.raises(InputError) as raised:
        imported(root)
    assert raised.value.where == root / "masks/car/a.png"
    assert raised.value.what == f"may be a mask of {root / 'images/a.jpg'} or of {root / second}"
    assert raised.value.remedy == "rename or remove one of these images"


def test_of_images_with_the_same_name_the_nearest_or_given_one_is_used(tmp_path):
    root = tmp_path / "export"
    image(root / "images/a.png")
    image(root / "images/previews/a.png")
    for name in ("car", "tree"):
        put(root / f"masks/{name}/a.png")
    found = [each for each in mask_reader.read(Source(root)).images if sources(each)]
    assert [each.file for each in found] == [root / "images/a.png"]
    given = image(tmp_path / "given/deep/a.png")
    found = [each for each in mask_reader.read(Source(root, tmp_path / "given")).images if sources(each)]
    assert [each.file for each in found] == [given]


# Lossy masks


def test_masks_in_a_lossy_format_are_refused_if_others_are_not(tmp_path):
    root = tmp_path / "export"
    for name in ("a", "b"):
        image(root / f"images/{name}.jpg")
        put(root / f"masks/car/{name}.png")
        put(root / f"masks/tree/{name}.png", 2)
        put(root / f"masks/sky/{name}.jpg", 0)
    assert recognize(Source(root)) == ["masks"]
    with pytest.raises(InputError) as raised:
        imported(root)
    assert raised.value.where == root / "masks/sky/a.jpg"
    assert raised.value.what == "a mask in a lossy format (JPEG), which changes values"


def test_a_lossy_copy_of_a_mask_is_left_out_and_named(tmp_path):
    root = EXPORTS["masks"](tmp_path / "export")
    put(root / "masks/a_car.jpg")
    result, destination = imported(root)
    assert (read_mask(destination / "masks/a.png") == scene()).all()
    what = "masks in a lossy format beside a lossless one with the same name, left out: 1 (masks/a_car.jpg)"
    assert what in result.notes


def test_a_lossy_file_among_masks_that_belongs_to_no_image_is_refused(tmp_path):
    root = EXPORTS["masks"](tmp_path / "export")
    put(root / "masks/c_car.webp")
    with pytest.raises(InputError, match=r"c_car\.webp: belongs to no image"):
        imported(root)


# Several tasks of CVAT


def task(root: Path, name: str, colors: dict, ids: np.ndarray) -> None:
    """A task with an image NAME.png and its mask."""
    image(root / f"JPEGImages/{name}.png")
    write(root / "labelmap.txt", "".join(f"{n}:{','.join(map(str, color))}::\n" for n, color in colors.items()))
    write(root / "ImageSets/Segmentation/default.txt", f"{name}\n")
    save(root / f"SegmentationClass/{name}.png", np.array(list(colors.values()), np.uint8)[ids])


def test_all_tasks_of_cvat_masks_are_read_with_their_own_colors(tmp_path):
    root = tmp_path / "export"
    car, tree = (scene() == 1).astype(int), (scene() == 2).astype(int)
    task(root / "one", "a", {"background": (0, 0, 0), "car": (255, 0, 0)}, car)
    task(root / "two", "a", {"background": (0, 0, 0), "tree": (255, 0, 0), "car": (0, 0, 255)}, tree)
    result, destination = imported(root)
    assert result.images == {"all": 2}
    assert result.classes.names == ("background", "car", "tree")
    assert (read_mask(destination / "masks/a.png") == car).all()
    assert (read_mask(destination / "masks/two_JPEGImages_a.png") == 2 * tree).all()
    assert "tasks, whose classes are joined by name: 2 (one, two)" in result.notes
    assert "classes with several colors, each has that of its first task: car" in result.notes


def test_folders_of_cvat_tasks_are_splits_and_lists_are_per_task(tmp_path):
    for name in ("train", "val"):
        cvat_masks(tmp_path / name)
    write(tmp_path / "val/ImageSets/Segmentation/default.txt", "a\n")
    found = cvat_reader.read(Source(tmp_path))
    assert [(each.name, each.split, each.file) for each in found.images] == [
        (name, split, tmp_path / split / f"JPEGImages/{name}.png")
        for split, name in (("train", "a"), ("train", "b"), ("val", "a"))
    ]
    assert found.classes == COLORS
    joined = "tasks, whose classes are joined by name: 2 (train, val)"
    assert found.notes == (joined, "masks that no list names, left out: val/b")


def test_a_cvat_task_without_labels_or_without_masks_is_named(tmp_path):
    for name in ("one", "two"):
        cvat_masks(tmp_path / name)
    write(tmp_path / "boxes/labelmap.txt", "bus:1,2,3::\n")
    found = cvat_reader.read(Source(tmp_path))
    assert found.classes == COLORS
    assert found.notes[0] == "labelmap.txt without masks, left out: boxes/labelmap.txt"
    (tmp_path / "two/labelmap.txt").unlink()
    with pytest.raises(InputError, match=r"SegmentationClass.a\.png: .*two contains no labelmap\.txt"):
        cvat_reader.read(Source(tmp_path))


# Label Studio's masks beside their images


def test_masks_beside_the_images_are_not_listed_as_images(tmp_path):
    root = label_studio_png(tmp_path / "export")
    for name in ("a.png", "b.png"):
        (root / "images" / name).rename(root / name)
    put(root / "task-1-annotation-3-by-1-label-car-0.png")  # an earlier annotation
    image(root / "c.png")
    result, destination = imported(root)
    assert (read_mask(destination / "masks/a.png") == scene()).all()
    others = [note for note in result.notes if "the annotations do not name" in note]
    assert others == ["images that the annotations do not name, left out: 1 (c.png)"]


@pytest.mark.parametrize("parent", ["masks", "mask/labels"])
@pytest.mark.parametrize("name", READERS)
def test_exports_below_a_folder_called_masks_are_read(name, parent, tmp_path):
    found, _ = imported(EXPORTS[name](tmp_path / parent / "export"))
    expected, _ = imported(EXPORTS[name](tmp_path / "plain" / "export"))
    assert (found.images, found.notes) == (expected.images, expected.notes)


def test_masks_of_a_task_with_several_images_are_said_to_be_of_the_first(tmp_path):
    root = label_studio_png(tmp_path / "export")
    (file,) = root.glob("*.json")
    tasks = json.loads(file.read_text())
    tasks[0]["data"]["other"] = "b.png"
    file.write_text(json.dumps(tasks))
    notes = imported(root)[0].notes
    assert any(note.startswith("tasks with several images, of which the first is assumed to be an") for note in notes)
