"""danet init gives each mask value and color the name that its list means, or asks."""

import io
import json
import sys

import numpy as np
import pytest
from miniature import ROAD, TREE, VOID, build, colored, labels, save, save_palette, stripes

from danet import InputError
from danet.cli import main
from danet.data.custom import dataset_yaml
from danet.data.custom.check import check_folder
from danet.data.custom.proposal import write
from danet.data.custom.propose import propose

SHIFTED = stripes(*[0] * 5, 1, 1, 2)  # 0 is background: 62.5%, 1 road: 25%, 2 car: 12.5%


def named(root, listed: str = "", file: str = "classes.txt", **options) -> dict[str, list[int]]:
    """The mask values of each class in the file that danet init writes; the ignored ones are under "ignored"."""
    if listed:
        (root / file).write_text(listed)
    (root / "dataset.yaml").unlink(missing_ok=True)
    write(root, propose(root, **options))
    settings = dataset_yaml.read_settings(root)
    found = {name: [] for name in (*settings.classes.names, "ignored")}
    for value, train_id in settings.label_map.mapping.items():
        found[[*settings.classes.names, *["ignored"] * 256][train_id]].append(value)
    return found


def test_one_value_more_than_names_is_asked_about(tmp_path, capsys):
    build(tmp_path, [SHIFTED] * 5)
    (tmp_path / "classes.txt").write_text("road\ncar\n")
    assert main(["init", str(tmp_path)]) == 2
    assert capsys.readouterr().err == (
        "error: --first-class: classes.txt has 2 names for the values 0 to 2, so the first name may be that of 0 or 1 "
        "(--first-class 0: 0 road 62.5%, 1 car 25.0%, 2 unlabeled 12.5%; "
        "--first-class 1: 0 background 62.5%, 1 road 25.0%, 2 car 12.5%); choose --first-class 0 or 1\n"
    )
    assert not (tmp_path / "dataset.yaml").exists()


def test_first_class_1_names_the_background(tmp_path, capsys):
    build(tmp_path, [SHIFTED] * 5)
    (tmp_path / "classes.txt").write_text("road\ncar\n")
    assert main(["init", str(tmp_path), "--first-class", "1"]) == 0
    settings = dataset_yaml.read_settings(tmp_path)
    assert settings.classes.names == ("background", "road", "car")
    assert settings.label_map.mapping == {0: 0, 1: 1, 2: 2, 255: 255}
    assert "0 background 62.5%, 1 road 25.0%, 2 car 12.5%" in (tmp_path / "dataset.yaml").read_text()
    assert labels(tmp_path) == {0, 1, 2}
    capsys.readouterr()
    assert main(["check", str(tmp_path)]) == 0
    assert "no errors, no warnings" in capsys.readouterr().out


def test_first_class_0_is_not_praised_by_check(tmp_path, capsys):
    build(tmp_path, [SHIFTED] * 5)
    assert named(tmp_path, "road\ncar\n", first_class=0) == {"road": [0], "car": [1], "ignored": [2]}
    assert main(["check", str(tmp_path)]) == 0
    shown = capsys.readouterr().out
    assert "12.5% of the pixels are ignored (mask values 2: 12.5%); if a value is a class, correct classes" in shown
    assert "no errors, 1 warning" in shown


def test_a_question_on_a_terminal_chooses_the_reading(tmp_path, monkeypatch, capsys):
    class Terminal(io.StringIO):
        def isatty(self) -> bool:
            return True

    build(tmp_path, [SHIFTED] * 5)
    (tmp_path / "classes.txt").write_text("road\ncar\n")
    asked = Terminal()
    monkeypatch.setattr(sys, "stdin", Terminal("maybe\n1\n"))
    monkeypatch.setattr(sys, "stderr", asked)
    assert main(["init", str(tmp_path)]) == 0
    assert "  0: 0 road 62.5%, 1 car 25.0%, 2 unlabeled 12.5%\n  1: 0 background 62.5%, 1 road" in asked.getvalue()
    assert asked.getvalue().count("which is right, 0 or 1? ") == 2
    assert dataset_yaml.read_settings(tmp_path).classes.names == ("background", "road", "car")
    (tmp_path / "dataset.yaml").unlink()
    monkeypatch.setattr(sys, "stdin", Terminal(""))
    assert main(["init", str(tmp_path)]) == 130
    assert not (tmp_path / "dataset.yaml").exists()


@pytest.mark.parametrize(
    ("values", "listed", "options", "expected"),
    [
        ((0, 1, 2), "a b c", {}, {"a": [0], "b": [1], "c": [2], "ignored": [255]}),
        ((1, 2, 3), "a b c", {}, {"a": [1], "b": [2], "c": [3], "ignored": [255]}),
        ((1, 3), "a b c", {}, {"a": [1], "b": [2], "c": [3], "ignored": [255]}),
        ((0, 1), "crack", {}, {"background": [0], "crack": [1], "ignored": [255]}),
        ((0, 255), "crack", {}, {"background": [0], "crack": [255], "ignored": []}),
        ((0, 255), "sound crack", {}, {"sound": [0], "crack": [255], "ignored": []}),
        ((0, 127, 255), "a b c", {}, {"a": [0], "b": [127], "c": [255], "ignored": []}),
        ((0, 1, 2, 3), "a b c", {"ignore": 0}, {"a": [1], "b": [2], "c": [3], "ignored": [0]}),
        ((0, 1, 2, 3), "a b c", {"ignore": 3}, {"a": [0], "b": [1], "c": [2], "ignored": [3]}),
        ((0, 2), "bg a b", {}, {"bg": [0], "a": [1], "b": [2], "ignored": [255]}),
        ((0, 2), "a b c", {"first_class": 0}, {"a": [0], "b": [1], "c": [2], "ignored": [255]}),
        ((0, 2), "a b", {"first_class": 1}, {"background": [0], "a": [1], "b": [2], "ignored": [255]}),
        ((0, 1, 2), "bg a", {"first_class": 1}, {"bg": [1], "a": [2], "ignored": [0]}),
        ((0, 1, 2), "bg a", {"first_class": 0}, {"bg": [0], "a": [1], "ignored": [2]}),
        ((0, 9, 31, 32), "a b c d", {}, {"a": [0], "b": [9], "c": [31], "d": [32], "ignored": [255]}),
    ],
)
def test_names_without_values_are_matched_by_position(tmp_path, values, listed, options, expected):
    build(tmp_path, [stripes(*values)] * 5)
    assert named(tmp_path, listed.replace(" ", "\n"), **options) == expected
    assert check_folder(tmp_path).problems == ()


@pytest.mark.parametrize(
    ("mask", "file", "listed", "note"),
    [
        (stripes(0, 1), "classes.txt", "a\nb\n", "is read by position, from value 0 on: 0 a 50.0%, 1 b 50.0%"),
        (stripes(1, 2), "classes.txt", "bg\na\n", "is read by position, from value 1 on: 1 bg 50.0%, 2 a 50.0%"),
        (stripes(0, 1), "_classes.csv", "Pixel Value, Class\n1, a\n0, b\n", "is read by value"),
        (colored(ROAD, TREE), "class_dict.csv", "name,r,g,b\na,128,64,128\nb,0,128,0\n", "is read by color"),
    ],
)
def test_init_says_which_list_the_names_are_from(tmp_path, mask, file, listed, note):
    build(tmp_path, [mask] * 5)
    (tmp_path / file).write_text(listed)
    assert f"{file} {note}" in propose(tmp_path).notes


@pytest.mark.parametrize(
    ("values", "listed", "readings"),
    [
        ((1, 2), "a b c", "0: 1 b 50.0%, 2 c 50.0%; `first_class` 1: 1 a 50.0%, 2 b 50.0%"),
        ((0, 1), "a b c", "0: 0 a 50.0%, 1 b 50.0%; `first_class` 1: 0 background 50.0%, 1 a 50.0%"),
        ((0, 2), "a b", "0: 0 a 50.0%, 2 unlabeled 50.0%; `first_class` 1: 0 background 50.0%, 2 b 50.0%"),
        ((0, 1, 2, 3), "bg a b", "0: 0 bg 25.0%, 1 a 25.0%, 2 b 25.0%, 3 unlabeled 25.0%; `first_class` 1: 0 unl"),
        ((0, 127, 255), "a b", "0: 0 a 31.2%, 127 b 31.2%, 255 unlabeled 37.5%; `first_class` 1: 0 background 31.2%"),
    ],
)
def test_every_other_doubtful_list_is_asked_about(tmp_path, values, listed, readings):
    mask = stripes(*values) if 127 not in values else stripes(*[0] * 5, *[127] * 5, *[255] * 6)
    build(tmp_path, [mask] * 2)
    (tmp_path / "classes.txt").write_text(listed.replace(" ", "\n"))
    with pytest.raises(InputError) as error:
        propose(tmp_path)
    assert readings in str(error.value)


def test_a_list_with_too_few_names_is_not_used_but_named(tmp_path):
    build(tmp_path, [stripes(0, 1, 2, 3, 4)] * 2)
    assert [*named(tmp_path, "a\nb\n")] == [*(f"class_{i}" for i in range(5)), "ignored"]
    assert "classes.txt is not used: it has 2 names, but the masks have 5 classes" in " ".join(propose(tmp_path).notes)
    assert [*named(tmp_path, first_class=1)] == ["background", "a", "b", "class_3", "class_4", "ignored"]


@pytest.mark.parametrize(
    ("file", "text"),
    [
        ("_classes.csv", "Pixel Value, Class\n0, background\n1, crack\n2, rust\n"),
        ("classes.csv", "id;name\n1;crack\n2;rust\n"),
        ("classes.txt", "2 rust\n0 background\n1 crack\n"),
        ("labels.txt", "0: background\n1: crack\n2: rust\n"),
        ("labels.txt", "background=0\ncrack=1\nrust=2\n"),
        ("obj_class_to_machine_color.json", '{"rust": [2, 2, 2], "crack": [1, 1, 1]}'),
        ("Class_Dict.csv", "name,r,g,b\ncrack,1,1,1\nrust,2,2,2\nbackground,0,0,0\n"),
    ],
)
def test_lists_with_values_are_matched_by_value(tmp_path, file, text):
    build(tmp_path, [stripes(0, 1, 2)] * 5)
    assert named(tmp_path, text, file) == {"background": [0], "crack": [1], "rust": [2], "ignored": [255]}
    assert propose(tmp_path).classes.names == ("background", "crack", "rust")


def test_a_missing_or_extra_value_drops_only_itself(tmp_path):
    build(tmp_path, [stripes(0, 1, 3)] * 5)
    text = "Pixel Value,Class\n0,background\n1,crack\n2,moss\n7,rust\n"
    expected = {"background": [0], "crack": [1], "moss": [2], "class_3": [3], "rust": [7], "ignored": [255]}
    assert named(tmp_path, text, "_classes.csv") == expected
    notes = " ".join(propose(tmp_path).notes)
    assert "_classes.csv has no name for 3 31.25%: kept as classes; to ignore one, add VALUE: 255 to label_map" in notes
    assert "_classes.csv lists classes that no pixel has: 2 (moss, rust); they are kept" in notes


def test_values_that_share_a_name_become_one_class(tmp_path):
    build(tmp_path, [stripes(0, 1, 2, 3)] * 5)
    listed = {"background": [0], "vehicle": [1, 2], "road/path": [3], "ignored": [255]}
    text = "value,name\n0,background\n1,vehicle\n2,vehicle\n3,road\n3,path\n"
    assert named(tmp_path, text, "classes.csv") == listed
    assert "road and path have the same value or color (3), so they are one class" in propose(tmp_path).notes
    assert labels(tmp_path) == {0, 1, 2}


def test_values_that_share_a_name_are_noted(tmp_path):
    build(tmp_path, [stripes(0, 1, 2)] * 5)
    assert named(tmp_path, "0 ground\n1 car\n2 car\n")["car"] == [1, 2]
    assert "car is the name of 2 values or colors (1, 2), so they are one class" in propose(tmp_path).notes


def test_names_may_contain_colons(tmp_path):
    build(tmp_path, [stripes(0, 1, 2)] * 5)
    text = "ground: asphalt\ntraffic: light\ntraffic: sign\n"
    listed = {"ground: asphalt": [0], "traffic: light": [1], "traffic: sign": [2], "ignored": [255]}
    assert named(tmp_path, text) == listed
    assert list(named(tmp_path, "ground:\ncar:\nbus:\n"))[:3] == ["ground", "car", "bus"]
    assert named(tmp_path, "ground:::\ncar:::\nbus:::\n") == {"ground": [0], "car": [1], "bus": [2], "ignored": [255]}


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16"])
def test_lists_of_windows_programs_are_read(tmp_path, encoding):
    build(tmp_path, [stripes(0, 1)] * 5)
    (tmp_path / "classes.txt").write_bytes("Straße\r\nGehweg\r\n".encode(encoding))
    assert propose(tmp_path).classes.names == ("Straße", "Gehweg")


def test_a_list_in_another_encoding_is_refused(tmp_path):
    build(tmp_path, [stripes(0, 1)] * 5)
    (tmp_path / "classes.txt").write_bytes("Straße\nGehweg\n".encode("latin-1"))
    with pytest.raises(InputError, match=r"classes\.txt: cannot be read \(not UTF-8 text \(byte 4\)\)"):
        propose(tmp_path)


def test_the_value_255_can_be_a_class_or_unlabeled(tmp_path):
    build(tmp_path, [stripes(0, 1, 255)] * 5)
    text = "value,name\n0,ground\n1,crack\n255,{}\n"
    assert named(tmp_path, text.format("void"), "classes.csv") == {"ground": [0], "crack": [1], "ignored": [255]}
    assert named(tmp_path, text.format("sky"), "classes.csv") == {
        "ground": [0],
        "crack": [1],
        "sky": [255],
        "ignored": [],
    }


@pytest.mark.parametrize(
    ("file", "text"),
    [
        ("class_dict.csv", "name,r,g,b\nroad,128,64,128\ntree,0,128,0\nbackground,0,0,0\n"),
        ("labelmap.txt", "# label:color_rgb:parts:actions\nbackground:0,0,0::\nroad:128,64,128::\ntree:0,128,0::\n"),
        ("label_colors.txt", "128 64 128\troad\n0 128 0\ttree\n0 0 0\tbackground\n"),
        ("obj_class_to_machine_color.json", '{"road": [128, 64, 128], "tree": [0, 128, 0]}'),
    ],
)
@pytest.mark.parametrize("kind", ["colors", "palette"])
def test_lists_with_colors_are_matched_by_color(tmp_path, file, text, kind):
    build(tmp_path, [colored(ROAD, TREE, VOID)] * 5)
    if kind == "palette":
        for i in range(5):
            save_palette(tmp_path / f"masks/p{i}.png", stripes(0, 1, 2), (VOID, TREE, ROAD))
    (tmp_path / file).write_text(text)
    classes = propose(tmp_path).classes
    assert dict(zip(classes.names, classes.palette, strict=True)) == {"background": VOID, "road": ROAD, "tree": TREE}


def test_a_missing_or_extra_color_drops_only_itself(tmp_path):
    build(tmp_path, [colored(ROAD, TREE, (9, 9, 9))] * 5)
    (tmp_path / "class_dict.csv").write_text("name,r,g,b\nroad,128,64,128\ntree,0,128,0\nsky,1,2,3\n")
    proposal = propose(tmp_path)
    assert proposal.classes.names == ("road", "tree", "sky", "rgb_9_9_9")
    assert proposal.colors == ((ROAD,), (TREE,), ((1, 2, 3),), ((9, 9, 9),))
    assert "class_dict.csv has no name for [9, 9, 9] 33.33%: kept as classes" in proposal.notes[1]
    assert proposal.notes[2] == "class_dict.csv lists classes that no pixel has: 1 (sky); they are kept"
    write(tmp_path, proposal)
    assert check_folder(tmp_path).problems == ()


def test_colors_that_share_a_name_or_a_class_are_merged(tmp_path):
    build(tmp_path, [colored(ROAD, TREE, VOID)] * 5)
    text = "name,r,g,b\nplant,128,64,128\nplant,0,128,0\nvoid,0,0,0\nhole,0,0,0\n"
    (tmp_path / "class_dict.csv").write_text(text)
    proposal = propose(tmp_path)
    assert proposal.colors == ((ROAD, TREE), (VOID,))
    assert proposal.classes.names == ("plant", "void/hole")
    write(tmp_path, proposal)
    assert labels(tmp_path) == {0, 1}
    assert dataset_yaml.load(tmp_path, "train")[0].labels[0, :3].tolist() == [0, 0, 1]


def test_a_class_named_unlabeled_is_kept_with_a_note(tmp_path):
    build(tmp_path / "colors", [colored(ROAD, TREE, VOID)] * 5)
    text = "name,r,g,b\nroad,128,64,128\ntree,0,128,0\nunlabeled,0,0,0\n"
    (tmp_path / "colors/class_dict.csv").write_text(text)
    notes = propose(tmp_path / "colors").notes
    assert any(note.startswith("unlabeled is kept as a class; if a color means unlabeled, remove it") for note in notes)
    build(tmp_path / "values", [stripes(0, 1, 2)] * 5)
    (tmp_path / "values/classes.csv").write_text("name,value\nvoid,0\nroad,1\ncar,2\n")
    notes = propose(tmp_path / "values").notes
    assert any(note.startswith("void is kept as a class; if it means unlabeled, delete dataset.yaml") for note in notes)


@pytest.mark.parametrize(
    ("file", "text", "message"),
    [
        ("class_dict.csv", "name,r,g,b\nroad,300,0,0\n", "line 2: color '300' is not a whole number from 0 to 255"),
        ("_classes.csv", "value,name\n0,a\nx,b\n", "line 3: value 'x' is not a whole number from 0 to 65535"),
        ("classes.csv", "value,name\n0,\n", "line 2: has no name; correct it, or remove the line"),
        ("obj_class_to_machine_color.json", '{"road": 3}', "'road': must be a color [r, g, b], got 3"),
        ("obj_class_to_machine_color.json", "{", "cannot be read as JSON"),
    ],
)
def test_a_mistake_in_a_list_names_its_line(tmp_path, file, text, message):
    build(tmp_path, [stripes(0, 1)] * 2)
    (tmp_path / file).write_text(text)
    with pytest.raises(InputError) as error:
        propose(tmp_path)
    assert str(error.value).startswith(str(tmp_path / file))
    assert message in str(error.value)
    assert "\n" not in str(error.value)


def test_first_class_without_names_is_an_error(tmp_path):
    build(tmp_path, [stripes(0, 1)] * 2)
    with pytest.raises(InputError, match="first_class: there is no list of class names; leave it out"):
        propose(tmp_path, first_class=1)
    with pytest.raises(InputError, match="first_class: must be 0 or 1, got 2"):
        propose(tmp_path, first_class=2)
    (tmp_path / "classes.txt").write_text("0 a\n1 b\n")
    with pytest.raises(InputError, match=r"first_class: classes\.txt gives the value of each class; leave it out"):
        propose(tmp_path, first_class=1)


def test_a_table_that_lists_no_classes_is_left_alone(tmp_path):
    build(tmp_path, [stripes(0, 1)] * 2)
    (tmp_path / "classes.csv").write_text("id,label\np0.jpg,cat\np1.jpg,dog\n")
    assert propose(tmp_path).classes.names == ("background", "foreground")


def test_supervisely_masks_are_named_by_their_value(tmp_path):
    build(tmp_path, [np.repeat(stripes(0, 1, 2)[..., None], 3, 2)] * 5, "ds/img", "ds/masks_machine")
    (tmp_path / "obj_class_to_machine_color.json").write_text(json.dumps({"car": [2] * 3, "road": [1] * 3}))
    assert named(tmp_path) == {"background": [0], "road": [1], "car": [2], "ignored": [255]}


def test_several_ignored_values_and_colors(tmp_path):
    build(tmp_path, [stripes(0, 1, 2, 9)] * 5)
    (tmp_path / "dataset.yaml").write_text("classes: [a, b]\nignore: [2, 9]\n")
    assert labels(tmp_path) == {0, 1, 255}
    build(tmp_path, [colored(ROAD, TREE, VOID)] * 5)
    text = "classes: [a]\ncolors: [[128, 64, 128]]\nignore: [[0, 0, 0], [0, 128, 0]]\n"
    (tmp_path / "dataset.yaml").write_text(text)
    assert labels(tmp_path) == {0, 255}
    text = "classes: [a]\ncolors: [[[128, 64, 128], [0, 128, 0]]]\nignore: [0, 0, 0]\n"
    (tmp_path / "dataset.yaml").write_text(text)
    assert dataset_yaml.load(tmp_path, "train")[0].labels[0, :3].tolist() == [0, 0, 255]


@pytest.mark.parametrize(
    ("text", "names", "expected"),
    [
        ("merge: {vehicle: [car, bus]}", ("sky", "vehicle", "road"), [0, 1, 1, 2]),
        ("merge: {car: [car, bus]}", ("sky", "car", "road"), [0, 1, 1, 2]),
        ("keep: [road, car]\nothers: ignore", ("car", "road"), [255, 0, 255, 1]),
        ("keep: [road, car]\nothers: background", ("background", "car", "road"), [0, 1, 0, 2]),
        (
            "merge: {vehicle: [car, bus]}\nkeep: [vehicle]\nothers: background",
            ("background", "vehicle"),
            [0, 1, 1, 0],
        ),
    ],
)
@pytest.mark.parametrize("kind", ["values", "colors"])
def test_classes_are_merged_and_kept(tmp_path, text, names, expected, kind):
    colors = [(0, 0, 0), (0, 0, 9), (0, 9, 0), (9, 0, 0)]
    build(tmp_path, [stripes(0, 1, 2, 3) if kind == "values" else colored(*colors)] * 5)
    key = "palette" if kind == "values" else "colors"
    lines = f"classes: [sky, car, bus, road]\n{key}: {[list(color) for color in colors]}\n{text}\n"
    (tmp_path / "dataset.yaml").write_text(lines)
    sample = dataset_yaml.load(tmp_path, "train")
    assert sample.classes.names == names
    assert sample[0].labels[0, :4].tolist() == expected
    assert sample.classes.palette[-1] == ((9, 0, 0) if names[-1] == "road" else (0, 0, 9))


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("merge: {v: [cat, bus]}", "merge: 'cat' is unknown; did you mean car?"),
        ("merge: {v: [car], w: [car]}", "merge: 'car' is listed twice; list each class once"),
        ("merge: {road: [car]}", "merge: 'road' is the name of a class that is not merged; choose another name"),
        ("merge: [car]", "merge: must map new names to lists of classes, got ['car']"),
        ("keep: [car]", "others: must say what the classes that are not kept become; write others: background or"),
        ("keep: [bike]\nothers: ignore", "keep: 'bike' is unknown; use one of car, bus, road"),
        ("keep: car\nothers: ignore", "keep: must be a list of classes, got 'car'"),
        ("others: ignore", "others: has no meaning without keep"),
        ("label_map: {-9: 1}", "label_map: mask value -9 is out of range"),
        ("ignore: []", "ignore: must be a mask value up to 65535, or a list of them, got []"),
    ],
)
def test_invalid_keys_about_classes_are_errors(tmp_path, text, message):
    build(tmp_path, [stripes(0, 1, 2)] * 5)
    (tmp_path / "dataset.yaml").write_text(f"classes: [car, bus, road]\n{text}\n")
    with pytest.raises(InputError) as error:
        dataset_yaml.read_settings(tmp_path)
    assert message in str(error.value)


def test_keeping_one_class_after_another_renames_no_color(tmp_path):
    save(tmp_path / "images/a.png", colored(ROAD))
    (tmp_path / "dataset.yaml").write_text(
        "classes: [a, b]\nkeep: [b]\nothers: ignore\npalette: [[1, 1, 1], [2, 2, 2]]\n"
    )
    assert dataset_yaml.read_settings(tmp_path).classes.palette == ((2, 2, 2),)
