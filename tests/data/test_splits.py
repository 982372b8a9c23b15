"""Lists divide images into train and val, and frames of one sequence stay on one side of an automatic split."""

import math
from pathlib import Path

import pytest
from miniature import build, image, save, stripes

from danet import InputError
from danet.cli import main
from danet.data.custom import dataset_yaml
from danet.data.custom.check import check_folder
from danet.data.custom.proposal import write
from danet.data.custom.propose import propose
from danet.data.custom.splits import choose_validation, find_sequences


def pairs(root: Path, *stems: str, images: str = "images", masks: str = "masks") -> Path:
    for stem in stems:
        image(root / images / f"{stem}.jpg")
        save(root / masks / f"{stem}.png", stripes(0, 1))
    return root


def names(root: Path, split: str) -> list[str]:
    return [pair.name for pair in dataset_yaml.load(root, split).pairs]


def initialize(root: Path) -> str:
    return write(root, propose(root)).read_text()


def lists(root: Path, where: str = "", **splits: str) -> None:
    (root / where).mkdir(parents=True, exist_ok=True)
    for split, lines in splits.items():
        (root / where / f"{split}.txt").write_text(lines.replace(" ", "\n") + "\n")


@pytest.mark.parametrize("where", ["ImageSets/Segmentation", "ImageSets", "splits", ""])
def test_init_finds_lists(tmp_path, where, capsys):
    pairs(tmp_path, "a", "b", "c", "d", "e", images="JPEGImages", masks="SegmentationClass")
    lists(tmp_path, where, train="a c", val="e b", trainval="a c e b")
    assert main(["init", str(tmp_path)]) == 0
    shown = capsys.readouterr().out
    assert "review: images are divided by " in shown
    assert "val.txt: train (2), val (2); images in none of them: 1\n" in shown
    assert (names(tmp_path, "train"), names(tmp_path, "val")) == (["a", "c"], ["e", "b"])
    assert main(["check", str(tmp_path)]) == 0
    assert "images that no list names: 1 (d); they are left out" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("file", "text"),
    [
        ("train.txt", "a\nb\n"),
        ("ImageSets/test.txt", "a\nb\n"),
        ("train.csv", "image\na.jpg\nb.jpg\n"),
        ("meta.csv", "image,split\na.jpg,train\nb.jpg,test\n"),
    ],
)
def test_lists_without_train_or_val_are_named(tmp_path, file, text):
    pairs(tmp_path, "a", "b", "c", "d")
    (tmp_path / "ImageSets").mkdir()
    (tmp_path / file).write_text(text)
    notes = [note for note in propose(tmp_path).notes if "images" in note]
    assert [note.partition(";")[0] for note in notes] == [
        f"not used: {file} names 2 images, but train and val must both be listed"
    ]


@pytest.mark.parametrize(("file", "text"), [("meta.csv", "image,price\na.jpg,3\n"), ("test.txt", "x\ny\n")])
def test_other_tables_and_texts_are_not_taken_for_lists(tmp_path, file, text):
    pairs(tmp_path, "a", "b", "c", "d")
    (tmp_path / file).write_text(text)
    assert not any(file in note for note in propose(tmp_path).notes)


def test_a_mistake_in_a_list_is_one_problem(tmp_path):
    pairs(tmp_path, "a", "b", "c")
    lists(tmp_path, train="a b", val="c d")
    initialize(tmp_path)
    (problem,) = check_folder(tmp_path).problems
    assert problem.what == "line 2: 'd' is not an image in images"


def test_lists_inside_a_devkit_are_found(tmp_path):
    pairs(tmp_path, "a", "b", images="VOC2012/JPEGImages", masks="VOC2012/SegmentationClass")
    lists(tmp_path, "VOC2012/ImageSets/Segmentation", train="b", val="a")
    assert "  train: VOC2012/ImageSets/Segmentation/train.txt\n" in initialize(tmp_path)
    assert (names(tmp_path, "train"), names(tmp_path, "val")) == (["b"], ["a"])


@pytest.mark.parametrize(
    "lines",
    [
        "a\nb b.c\n",
        "a.jpg\nb b.c.jpg\n",
        "images/a.jpg\nimages/b b.c.jpg\n",
        "./images/a.jpg masks/a.png\nimages/b b.c.jpg\tmasks/b b.c.png\n",
        "/data/set/images/a.jpg,/data/set/masks/a.png\n/data/set/images/b b.c.jpg,x\n",
        "\ufeffa.png\r\nb b.c.png\r\n\r\n",
        "images\\a.jpg\nimages\\b b.c.jpg\n",
    ],
)
def test_lists_name_images_in_any_usual_form(tmp_path, lines):
    pairs(tmp_path, "a", "b b.c", "d")
    (tmp_path / "train.txt").write_text(lines)
    (tmp_path / "val.txt").write_text("d\n")
    (tmp_path / "dataset.yaml").write_text("classes: [x, y]\nsplits: {train: train.txt, val: val.txt}\n")
    assert (names(tmp_path, "train"), names(tmp_path, "val")) == (["a", "b b.c"], ["d"])
    assert check_folder(tmp_path).problems == ()


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("image,split\na.jpg,train\nb.jpg,val\nc.jpg,train\nd.jpg,test\n", ("a c", "b")),
        ("set;file_name\nTraining;a\nValidation;b\nTraining;c\n", ("a c", "b")),
        ("filename,label,is_valid\na.jpg,x,False\nb.jpg,x,True\nc.jpg,x,False\n", ("a c", "b")),
    ],
)
def test_a_csv_file_with_a_split_column_divides_the_images(tmp_path, text, expected):
    pairs(tmp_path, "a", "b", "c", "d")
    (tmp_path / "Meta.csv").write_text(text)
    assert "splits: Meta.csv   # the split of each image\n" in initialize(tmp_path)
    assert (names(tmp_path, "train"), names(tmp_path, "val")) == tuple(part.split() for part in expected)


@pytest.mark.parametrize(
    ("train", "message"),
    [
        ("a zebra", "train.txt: line 2: 'zebra' is not an image in images; add the image, or remove the line"),
        ("a a", "train.txt: line 2: 'a' is listed already, in train.txt line 1; list each image once"),
        ("a c", "val.txt: line 1: 'c' is listed already, in train.txt line 2; list each image once"),
        ("", "train.txt: lists no images"),
        (None, "train.txt: no such file; create it, or correct splits in dataset.yaml"),
    ],
)
def test_a_mistake_in_a_list_names_list_and_line(tmp_path, train, message, capsys):
    pairs(tmp_path, "a", "b", "c")
    lists(tmp_path, val="c", **({} if train is None else {"train": train}))
    (tmp_path / "dataset.yaml").write_text("classes: [x, y]\nsplits: {train: train.txt, val: val.txt}\n")
    for split in ("train", "val"):
        with pytest.raises(InputError) as error:
            dataset_yaml.load(tmp_path, split)
        assert str(error.value).startswith(f"{tmp_path}/{message}")
    assert main(["check", str(tmp_path)]) == 2
    assert message in capsys.readouterr().out


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (
            "splits: {train: train.txt}",
            "splits: must give a list for train and one for val, got {'train': 'train.txt'}",
        ),
        ("splits: {train: train.txt, val: validation}", "splits: must give a list for train and one for val"),
        ("splits: meta.csv", "meta.csv: no row has the split val, but train; use train, val and test"),
        ("splits: other.csv", "other.csv: line 1: 'a.jpg' is listed already, in other.csv line 1"),
        ("split_by: video", "split_by: must be sequence or image, got 'video'"),
    ],
)
def test_invalid_splits_are_errors(tmp_path, text, message):
    pairs(tmp_path, "a", "b")
    lists(tmp_path, train="a", val="b")
    (tmp_path / "meta.csv").write_text("image,split\na.jpg,train\nb.jpg,train\n")
    (tmp_path / "other.csv").write_text("a.jpg,1\nb.jpg,2\n")
    (tmp_path / "dataset.yaml").write_text(f"classes: [x, y]\n{text}\n")
    with pytest.raises(InputError) as error:
        dataset_yaml.load(tmp_path, "train")
    assert message in str(error.value)


def test_lists_of_something_else_are_named_and_not_used(tmp_path):
    pairs(tmp_path, "a1", "b2", "c3")
    lists(tmp_path, train="dog cat", val="a1")
    (tmp_path / "scores.csv").write_text("image,score\na1.jpg,1\n")
    proposal = propose(tmp_path)
    assert proposal.layout.lists == {}
    assert "not used: train.txt and val.txt: 2 of 3 lines name no image" in proposal.notes


def test_lists_may_contain_further_splits(tmp_path):
    pairs(tmp_path, "a", "b", "c")
    lists(tmp_path, train="a", val="b", test="c")
    initialize(tmp_path)
    assert names(tmp_path, "test") == ["c"]
    assert check_folder(tmp_path).warnings[:1] == ()
    with pytest.raises(InputError, match="splits: lists no dev; use train or val or test"):
        dataset_yaml.load(tmp_path, "dev")


def test_images_without_a_mask_can_be_left_out_of_lists(tmp_path):
    pairs(tmp_path, "a", "b", "c")
    (tmp_path / "masks/a.png").unlink()
    lists(tmp_path, train="a b", val="c")
    (tmp_path / "dataset.yaml").write_text("classes: [x, y]\nsplits: {train: train.txt, val: val.txt}\n")
    with pytest.raises(InputError, match="1 of 3 masks are missing: a"):
        dataset_yaml.load(tmp_path, "train")
    with (tmp_path / "dataset.yaml").open("a") as file:
        file.write("missing_masks: skip\n")
    assert names(tmp_path, "train") == ["b"]
    assert check_folder(tmp_path).problems == ()


def test_sequences_are_names_that_differ_in_the_last_number():
    found = find_sequences(["A_07_2", "A_07_10", "A_08_1", "x", "s/f1", "t/f1", "cat_3_jpg.rf.0123456789abcdef012345"])
    assert found == {
        "A_07_#": ["A_07_2", "A_07_10"],
        "A_08_#": ["A_08_1"],
        "x": ["x"],
        "s/f#": ["s/f1"],
        "t/f#": ["t/f1"],
        "cat_#": ["cat_3_jpg.rf.0123456789abcdef012345"],
    }


@pytest.mark.parametrize("by_sequence", [True, False])
@pytest.mark.parametrize(("images", "fraction"), [(17, 0.2), (20, 0.2), (2, 0.9), (3, 0.01)])
def test_copies_of_an_image_stay_on_one_side(images, fraction, by_sequence):
    originals = {f"frame_{i:04}": [f"frame_{i:04}_jpg.rf.{mark * 24}" for mark in "abc"] for i in range(images)}
    names = [name for copies in originals.values() for name in copies]
    val = choose_validation(names, fraction, by_sequence)
    assert {len(val & set(copies)) for copies in originals.values()} == {0, 3}
    assert len(val) == min(3 * images - 3, 3 * math.ceil(round(fraction * len(names)) / 3) or 3)


def test_frames_of_one_sequence_stay_on_one_side(tmp_path, capsys):
    pairs(tmp_path, *(f"drive{s}_{i:03}" for s in range(8) for i in range(3 + s)))
    assert main(["init", str(tmp_path)]) == 0
    shown = "52 images are read as frames of 8 sequences (same name but the last number): each is in train or in val;"
    assert shown in capsys.readouterr().out
    train, val = names(tmp_path, "train"), names(tmp_path, "val")
    assert not {name.split("_")[0] for name in train} & {name.split("_")[0] for name in val}
    assert len(train) + len(val) == 52
    assert 5 <= len(val) <= 10
    assert not any("sequence" in warning.what for warning in check_folder(tmp_path).warnings)


def test_one_long_sequence_is_cut_once(tmp_path):
    pairs(tmp_path, *(f"frame{i}" for i in range(20)))
    text = initialize(tmp_path)
    assert "one sequence (same name but the last number): the last frames of frame# are in val; if they are" in text
    assert names(tmp_path, "val") == ["frame16", "frame17", "frame18", "frame19"]
    assert len(names(tmp_path, "train")) == 16


def test_two_long_sequences_are_not_cut(tmp_path):
    pairs(tmp_path, *(f"a_{i}" for i in range(12)), *(f"b_{i}" for i in range(8)))
    initialize(tmp_path)
    assert names(tmp_path, "val") == [f"b_{i}" for i in range(8)]


def test_a_cut_sequence_among_others_is_named(tmp_path):
    pairs(tmp_path, *(f"a_{i}" for i in range(10)), *(f"b_{i}" for i in range(11)))
    assert "the last frames of b_# are in val, every other is in train or in val;" in initialize(tmp_path)
    assert sorted(names(tmp_path, "val")) == ["b_10", "b_7", "b_8", "b_9"]


def test_a_file_of_version_0_1_0_divides_as_before_and_is_warned_of(tmp_path):
    pairs(tmp_path, *(f"drive{s}_{i}" for s in range(3) for i in range(5)))
    (tmp_path / "dataset.yaml").write_text("classes: [x, y]\nval: 0.2\n")
    assert names(tmp_path, "val") == ["drive0_3", "drive1_1", "drive1_4"]
    (warning,) = check_folder(tmp_path).warnings
    assert warning.what == "frames of 2 sequences are in both train and val (drive0_#, drive1_#)"
    assert warning.remedy.startswith("write split_by: sequence in dataset.yaml, or split_by: image if")
    (tmp_path / "dataset.yaml").write_text("classes: [x, y]\nsplit_by: image\n")
    assert names(tmp_path, "val") == ["drive0_3", "drive1_1", "drive1_4"]
    assert check_folder(tmp_path).warnings == ()


def test_unrelated_names_are_divided_one_by_one(tmp_path):
    pairs(tmp_path, "ant", "bee", "cow", "dog", "eel", "fox")
    text = initialize(tmp_path)
    assert "split_by" not in text
    assert len(names(tmp_path, "val")) == 1


def test_names_of_lists_in_several_folders_are_unique(tmp_path):
    for city in ("bonn", "ulm"):
        pairs(tmp_path, "1", "2", images=f"images/{city}", masks=f"masks/{city}")
    lists(tmp_path, train="bonn/1 ulm/1.jpg images/bonn/2.jpg", val="ulm/2")
    initialize(tmp_path)
    assert names(tmp_path, "train") == ["bonn/1", "ulm/1", "bonn/2"]
    (tmp_path / "val.txt").write_text("2\n")
    with pytest.raises(
        InputError, match=r"val\.txt: line 1: '2' may be images/bonn/2\.jpg, images/ulm/2\.jpg; write the"
    ):
        dataset_yaml.load(tmp_path, "val")
    (tmp_path / "val.txt").write_text("aachen/2.jpg\n")
    with pytest.raises(InputError, match=r"line 1: 'aachen/2\.jpg' is not an image in images/\*"):
        dataset_yaml.load(tmp_path, "val")


def test_build_names_are_one_sequence(tmp_path):
    build(tmp_path, [stripes(0, 1)] * 5)
    assert "5 images are read as frames of one sequence" in propose(tmp_path).division
