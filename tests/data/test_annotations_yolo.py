"""YOLO: which images data.yaml puts into a split, and which text files are labels."""

from pathlib import Path

import pytest
from exports import images, write, yolo

from danet import InputError
from danet.data.annotations import yolo as reader
from danet.data.annotations.recognize import recognize
from danet.data.annotations.source import Source
from danet.data.custom.import_annotations import import_annotations

TRIANGLE = "0 0.1 0.1 0.5 0.1 0.5 0.5\n"
NAMES = "names: [car]\n"


def dataset(root: Path, settings: str, *names: str, **lists: str) -> Path:
    """An export with these images, paths below `root`, data.yaml, and lists of images."""
    images(root, *names)
    for name in names:
        write((root / name.replace("images/", "labels/")).with_suffix(".txt"), TRIANGLE)
    for name, text in lists.items():
        write(root / f"{name}.txt", text)
    write(root / "data.yaml", settings + NAMES)
    return root


def splits(source: Source) -> dict[str, str | None]:
    """Path of each image below the source -> its split."""
    found = {}
    for image in reader.read(source).images:
        assert image.file
        root = source.folder if image.file.is_relative_to(source.folder) else source.images
        found[image.file.relative_to(root or "").as_posix()] = image.split
    return found


def notes(root: Path) -> tuple[str, ...]:
    return reader.read(Source(root)).notes


LISTS = "train: train.txt\nval: val.txt\n"
CAMERAS = tuple(f"images/cam{c}/{i}.png" for c in (1, 2) for i in range(3))


# lists of images


@pytest.mark.parametrize("start", ["", "./", "../", "/mnt/set/", "data/", "C:\\d\\", "\\\\server\\d\\"])
def test_a_line_of_a_list_names_an_image_by_its_path(start, tmp_path):
    train, val = ("".join(f"{start}{name}\n" for name in CAMERAS if cam in name) for cam in ("cam1", "cam2"))
    if "\\" in start:
        train, val = (text.replace("/", "\\").replace("\n", "\r\n") for text in (train, val))
    root = dataset(tmp_path, LISTS, *CAMERAS, train=train, val=val)
    assert splits(Source(root)) == {name: "train" if "cam1" in name else "val" for name in CAMERAS}
    assert notes(root) == ()


def test_images_of_train_and_val_with_one_name_stay_apart(tmp_path):
    root = dataset(tmp_path / "a", LISTS, *CAMERAS, train="\n".join(CAMERAS[:3]), val="\n".join(CAMERAS[3:]))
    found = import_annotations(root, tmp_path / "b")
    assert found.images == {"train": 3, "val": 3}
    for name in CAMERAS:
        split = "train" if "cam1" in name else "val"
        assert (tmp_path / "b/images" / split / Path(name).name).read_bytes() == (root / name).read_bytes()


def test_lines_of_a_list_that_name_no_image_are_noted(tmp_path):
    val = "images/cam2/0.png\nimages/cam3/x.png\n\nimages/gone.png\n"
    root = dataset(tmp_path, LISTS, "images/cam1/x.png", *CAMERAS, train="images/cam1/x.png\n", val=val)
    found = splits(Source(root))
    assert (found["images/cam1/x.png"], found["images/cam2/0.png"], found["images/cam2/1.png"]) == (
        "train",
        "val",
        None,
    )
    assert notes(root) == ("lines of val.txt that name no image: 2 of 3 (images/cam3/x.png, images/gone.png)",)


def test_images_of_a_missing_camera_are_not_those_of_another(tmp_path):
    root = dataset(tmp_path, LISTS, *CAMERAS[:3], train="\n".join(CAMERAS[:2]), val="\n".join(CAMERAS[3:]))
    assert list(splits(Source(root)).values()) == ["train", "train", None]
    assert notes(root)[0].startswith("lines of val.txt that name no image: 3 of 3 (images/cam2/0.png,")


def test_renamed_folders_leave_the_file_name_which_is_noted(tmp_path):
    root = dataset(tmp_path, LISTS, "images/x/a.png", "images/y/b.png", train="d/one/a.png\n", val="d/two/b.png\n")
    assert list(splits(Source(root)).values()) == ["train", "val"]
    what = "that name an image in another folder by its file name: 1 of 1"
    assert notes(root) == (f"lines of train.txt {what} (d/one/a.png)", f"lines of val.txt {what} (d/two/b.png)")


@pytest.mark.parametrize("line", ["0.png", "old/0.png", "images/0.png"])
def test_a_line_that_may_name_several_images_is_an_error(line, tmp_path):
    names = ("cam1/images/0.png", "cam2/images/0.png")
    root = dataset(tmp_path, "train: train.txt\n", *names, train=f"\n{line}\n")
    with pytest.raises(InputError) as raised:
        reader.read(Source(root))
    what = f"line 2: {line!r} may be cam1/images/0.png, cam2/images/0.png"
    remedy = "write the path of the image"
    assert (raised.value.where, raised.value.what, raised.value.remedy) == (root / "train.txt", what, remedy)


@pytest.mark.parametrize("start", ["", "./", "/mnt/set/", "D:\\set\\"])
def test_a_whole_path_is_not_the_end_of_another(start, tmp_path):
    names = ("images/0.png", "more/images/0.png")
    lines = {"train": f"{start}images/0.png\n", "val": f"{start}more/images/0.png\n"}
    root = dataset(tmp_path, LISTS, *names, **lines)
    assert splits(Source(root)) == {"images/0.png": "train", "more/images/0.png": "val"}


def test_a_list_names_images_next_to_it(tmp_path):
    root = dataset(tmp_path, "train: one/list.txt\nval: two/list.txt\n", "one/images/0.png", "two/images/0.png")
    for name in ("one", "two"):
        write(root / name / "list.txt", "./images/0.png\n")
    assert splits(Source(root)) == {"one/images/0.png": "train", "two/images/0.png": "val"}


def test_lists_name_images_that_are_elsewhere(tmp_path):
    names = ("images/x/0.png", "images/y/0.png")
    lines = {"train": "data/images/x/0.png\n", "val": "data/images/y/0.png\n"}
    root = dataset(tmp_path / "export", LISTS, *names, **lines)
    (root / "images").rename(tmp_path / "photos")
    (root / "labels/y/0.txt").unlink()
    assert splits(Source(root, images=tmp_path / "photos")) == {"x/0.png": "train", "y/0.png": "val"}


# folders


@pytest.mark.parametrize(
    ("settings", "at"),
    [
        ("path: data\ntrain: images/one\nval: images/two\n", "data/"),
        ("path: ./data/\ntrain: ./images/one/\nval:\n  - images/two\n", "data/"),
        ("path: C:\\d\\data\ntrain: images\\one\nval: images\\two\n", "data/"),
        ("path: /content/set/data\ntrain: images/one\nval: images/two\n", "data/"),
        ("path: ../datasets/mine\ntrain: images/one\nval: images/two\n", ""),
        ("path: ''\ntrain: images/one\nval: images/two\n", ""),
        ("path: gone\ntrain: ../images/one\nval: ../images/two\n", ""),
        ("train: ../images/one\nval: ../images/two\n", ""),
        ("path: data\ntrain: lists/a.txt\nval: lists/b.txt\n", "data/"),
    ],
)
def test_folders_are_below_the_path_of_data_yaml(settings, at, tmp_path):
    names = [f"{at}images/{name}/{name}.png" for name in ("one", "two")]
    root = dataset(tmp_path, settings, *names)
    write(root / "data/lists/a.txt", "./images/one/one.png\n")
    write(root / "data/lists/b.txt", "./images/two/two.png\n")
    assert splits(Source(root)) == dict(zip(names, ("train", "val"), strict=True))
    assert notes(root) == ()


def test_the_path_of_data_yaml_comes_before_its_own_folder(tmp_path):
    names = ("data/images/one/0.png", "images/one/0.png")
    root = dataset(tmp_path, "path: data\ntrain: images/one\n", *names)
    assert splits(Source(root)) == {"data/images/one/0.png": "train", "images/one/0.png": None}


def test_data_yaml_in_a_folder_of_its_own_points_up(tmp_path):
    root = dataset(tmp_path, "", "images/one/0.png", "images/two/1.png")
    (root / "data.yaml").unlink()
    write(root / "settings/data.yaml", "path: ..\ntrain: images/one\nval: images/two\n" + NAMES)
    assert list(splits(Source(root)).values()) == ["train", "val"]


def test_folders_where_the_dataset_was_are_found_and_noted(tmp_path):
    settings = "train: /content/set/train/one/images\nval: /content/set/two/images\n"
    root = dataset(tmp_path, settings, "train/one/images/a.png", "two/images/b.png")
    assert list(splits(Source(root)).values()) == ["train", "val"]
    assert notes(root) == (
        "data.yaml: train: '/content/set/train/one/images' is taken for train/one/images",
        "data.yaml: val: '/content/set/two/images' is taken for two/images",
    )


def test_entries_without_images_are_noted(tmp_path):
    settings = "train: images/one\nval: [images/gone, val.txt]\ntest: ../test/images\n"
    root = dataset(tmp_path, settings, "images/one/0.png", "images/two/1.png", val="\n")
    assert list(splits(Source(root)).values()) == ["train", None]
    assert notes(root) == (
        "not used: data.yaml: val[0]: 'images/gone' matches no image",
        "not used: data.yaml: val[1]: 'val.txt' matches no image",
        "not used: data.yaml: test: '../test/images' matches no image",
    )


def test_the_smaller_split_gets_the_images_of_two(tmp_path):
    root = dataset(tmp_path, "train: images\nval: images/b\n", "images/a/0.png", "images/a/1.png", "images/b/2.png")
    assert list(splits(Source(root)).values()) == ["train", "train", "val"]
    what = "images in several splits of data.yaml, kept in the one with the fewest images"
    assert notes(root) == (f"{what}: 1 (images/b/2.png)",)
    write(root / "data.yaml", "train: images\nval: images\n" + NAMES)
    assert set(splits(Source(root)).values()) == {"train"}


def test_a_split_guessed_from_a_folder_is_noted(tmp_path):
    root = dataset(tmp_path, "train: images/one\n", "images/one/0.png", "images/test/1.png", "images/x/2.png")
    assert list(splits(Source(root)).values()) == ["train", "test", None]
    what = "images in no split of data.yaml, in the one that their folder is named after"
    assert notes(root) == (f"{what}: 1 (images/test/1.png)",)


# labels


@pytest.mark.parametrize("place", ["c.txt", "more/c.txt", "images/c.txt", "labels/c.txt"])
@pytest.mark.parametrize("text", [TRIANGLE, "\n" + TRIANGLE + "0 0.5 0.5 0.2 0.2\r\n"])
def test_labels_without_an_image_are_an_error_anywhere(place, text, tmp_path):
    root = yolo(tmp_path)
    write(root / place, text)
    with pytest.raises(InputError, match=r"c\.txt: has labels, but there is no image c \(and 0 other such files\)"):
        reader.read(Source(root))


def test_labels_beside_images_without_an_image_are_an_error(tmp_path):
    root = dataset(tmp_path, "", "a.png", "b.png")
    (root / "b.png").unlink()
    with pytest.raises(InputError, match=r"b\.txt: has labels, but there is no image b "):
        reader.read(Source(root))


@pytest.mark.parametrize("place", ["README.txt", "images/README.txt", "labels/README.txt"])
@pytest.mark.parametrize(
    "text",
    [
        b"Exported by a tool\n\n2 classes, such as\n" + TRIANGLE.encode(),
        b"car\ntree\n",
        b"caf\xe9\n",
        b"images/a.png\nimages/b.png\n",
    ],
)
def test_other_text_files_are_no_labels(place, text, tmp_path):
    root = yolo(tmp_path)
    (root / place).write_bytes(text)
    assert [len(list(image.shapes)) for image in reader.read(Source(root)).images] == [2, 0]


def test_empty_labels_without_an_image_are_an_error(tmp_path):
    root = yolo(tmp_path)
    write(root / "empty.txt", "")
    assert len(reader.read(Source(root)).images) == 2
    write(root / "labels/c.txt", "")
    with pytest.raises(InputError, match="there is no image c "):
        reader.read(Source(root))


def test_images_beside_their_labels_are_read_besides_images(tmp_path):
    root = yolo(tmp_path)
    images(root / "more", "c.png", "preview.png")
    write(root / "more/c.txt", TRIANGLE)
    assert [image.name for image in reader.read(Source(root)).images] == ["a.png", "b.png", "c.png"]


# where the export is


def test_data_yaml_itself_is_imported(tmp_path):
    root = yolo(tmp_path / "a")
    assert recognize(Source(root / "data.yaml")) == ["yolo"]
    by_folder = import_annotations(root, tmp_path / "b")
    by_file = import_annotations(root / "data.yaml", tmp_path / "c")
    assert by_file == by_folder
    assert (tmp_path / "b/masks/a.png").read_bytes() == (tmp_path / "c/masks/a.png").read_bytes()


@pytest.mark.parametrize("above", ["labels", "images", "labels/images", "train"])
def test_folders_above_an_export_do_not_matter(above, tmp_path):
    root = dataset(tmp_path / above / "x", "", "a.png", "b.png")
    write(root / "README.roboflow.txt", "hello world\n")
    write(root / "unused.txt", "")
    assert splits(Source(root)) == {"a.png": None, "b.png": None}
    images(root, "images/c.png")
    (root / "b.txt").unlink()
    assert splits(Source(root)) == {"a.png": None, "images/c.png": None}


def test_images_elsewhere_count_whatever_their_folder(tmp_path):
    root = dataset(tmp_path / "export", "", "images/a.png", "images/b.png")
    images(tmp_path / "photos", "b.png")
    (root / "images/b.png").unlink()
    assert splits(Source(root, images=tmp_path / "photos")) == {"images/a.png": None, "b.png": None}
