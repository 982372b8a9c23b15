"""Annotation readers: the images that names mean, and what the tools write that is no class, shape or run length."""

import json
from pathlib import Path

import numpy as np
import pytest
from exports import (
    CAR,
    EXPORTS,
    TREE,
    coco,
    cvat_polygon,
    label_studio_result,
    label_studio_task,
    labelme,
    labelme_file,
    labelme_shape,
    percent,
    scene,
    write,
)
from miniature import HEIGHT, WIDTH, image, save

from danet import InputError
from danet.data.annotations import coco as coco_reader
from danet.data.annotations import cvat, label_studio, rle_csv
from danet.data.annotations import labelme as labelme_reader
from danet.data.annotations.rasterize import draw_shapes
from danet.data.annotations.recognize import choose_format, recognize
from danet.data.annotations.shapes import AnnotatedImage, Export
from danet.data.annotations.source import Source
from danet.data.custom.import_annotations import import_annotations
from danet.data.custom.propose import propose

FOUND = "images found by file name, in other folders than the export says"


def find(root: Path, name: str, near: Path | None = None, images: Path | None = None) -> tuple[Path | None, Source]:
    source = Source(root, images)
    return source.find_image(name, near or root, "place"), source


def drawn(found: AnnotatedImage, *names: str) -> np.ndarray:
    ids = {name: i for i, name in enumerate(names, 1)}
    return draw_shapes(found.shapes, (HEIGHT, WIDTH), ids).labels


# the images that names mean


@pytest.mark.parametrize(
    ("name", "file", "said"),
    [
        ("cam1/0.png", "cam2/0.png", True),
        ("cam1\\0.png", "cam2/0.png", True),
        ("cam1/0", "cam2/0.png", True),
        ("cam1/0.png", "0.png", True),
        ("cam1/images/0.png", "cam2/images/0.png", True),
        ("cam2/0.png", "cam2/0.png", False),
        ("0.png", "cam2/0.png", False),
        ("../0.png", "cam2/0.png", False),
        ("/home/me/photos/cam2/0.png", "cam2/0.png", False),
        ("images/0.png", "train/images/0.png", False),
    ],
)
def test_images_in_other_folders_than_named_are_said(name, file, said, tmp_path):
    image(tmp_path / file)
    found, source = find(tmp_path, name)
    assert found == tmp_path / file
    assert source.notes == ((f"{FOUND}: 1 ({name} is {file})",) if said else ())


def test_the_folder_in_which_danet_runs_counts(tmp_path, monkeypatch):
    image(tmp_path / "cam1/0.png")
    monkeypatch.chdir(tmp_path / "cam1")
    found, source = find(Path(), "cam1/0.png")
    assert (found, source.notes) == (Path("0.png"), ())


def test_all_images_in_other_folders_are_counted_once(tmp_path):
    source = Source(tmp_path)
    for i in range(7):
        image(tmp_path / f"b/{i}.png")
    for i in [*range(7), 0]:
        source.find_image(f"a/{i}.png", tmp_path, "place")
    names = ", ".join(f"a/{i}.png is b/{i}.png" for i in range(5))
    assert source.notes == (f"{FOUND}: 7 ({names} ...)",)


@pytest.mark.parametrize("name", ["coco", "labelme", "cvat", "label-studio", "rle-csv"])
def test_an_import_says_which_images_are_in_other_folders(name, tmp_path):
    root = EXPORTS[name](tmp_path / "export")
    (found,) = root.rglob("a.png")
    named = "/data/local-files/?d=cam1/a.png" if name == "label-studio" else "cam1/a.png"
    for file in (file for suffix in ("json", "xml", "csv") for file in root.glob(f"*.{suffix}")):
        text = file.read_text().replace("/data/upload/1/0a1b2c3d-a.png", "a.png")
        file.write_text(text.replace("a.png", named))
    result = import_annotations(root, tmp_path / "new")
    assert f"{FOUND}: 1 (cam1/a.png is {found.relative_to(root)})" in result.notes


def test_the_image_beside_the_annotations_is_found_before_copies(tmp_path):
    root = labelme(tmp_path)
    image(root / "backup/a.png")
    assert labelme_reader.read(Source(root)).images[0].file == root / "a.png"
    image(root / "north/a.png")
    image(root / "backup/north/a.png")
    assert find(root, "north/a.png")[0] == root / "north/a.png"
    assert find(root, "a.png", root / "north")[0] == root / "north/a.png"


def test_the_folder_of_the_images_is_before_the_image_beside(tmp_path):
    for file in ("export/a.png", "export/backup/a.png", "photos/new/a.png"):
        image(tmp_path / file)
    export = tmp_path / "export"
    assert find(export, "a.png", images=tmp_path / "photos")[0] == tmp_path / "photos/new/a.png"
    image(tmp_path / "photos/a.png")
    assert find(export, "a.png", images=tmp_path / "photos")[0] == tmp_path / "photos/a.png"


def test_names_without_a_suffix_are_found_by_their_folders(tmp_path):
    for folder in ("cam1", "cam2"):
        image(tmp_path / f"{folder}/0.png")
    assert find(tmp_path, "cam2/0")[0] == tmp_path / "cam2/0.png"
    with pytest.raises(InputError, match="'0' names several images"):
        find(tmp_path, "0")


# Label Studio


def region(label: str, points: list, to_name: str | None) -> dict:
    result = label_studio_result("polygonlabels", label, {"points": percent(points)})
    return {**result, "id": f"{label}-{to_name}", "to_name": to_name}


def tasks(root: Path, *found: tuple[dict, list[dict]]) -> Export:
    """Read a project of tasks, each its data and its results."""
    content = [label_studio_task(i, "", *results, data=data) for i, (data, results) in enumerate(found, 1)]
    write(root / "project.json", content)
    return label_studio.read(Source(root))


@pytest.mark.parametrize("path", ["/data/local-files/?d={}", "/data/local-files/?d=photos/{}", "s3://bucket/{}", "{}"])
def test_images_of_one_name_are_told_apart_by_their_folders(path, tmp_path):
    names = "cam1/0.png", "cam2/0.png"
    for name in names:
        image(tmp_path / name)
    found = tasks(tmp_path, *(({"image": path.format(name)}, [region("car", CAR, "image")]) for name in names))
    assert [each.file for each in found.images] == [tmp_path / name for name in names]
    assert [each.name.endswith(name) for each, name in zip(found.images, names, strict=True)] == [True, True]


def test_the_prefix_of_uploads_is_removed_from_the_file_name_only(tmp_path):
    image(tmp_path / "0a1b2c3d-x/a.png")
    image(tmp_path / "x/a.png")
    results = [region("car", CAR, "image")]
    for path in ("0a1b2c3d-x/a.png", "0a1b2c3d-x/00112233-a.png"):
        found = tasks(tmp_path, ({"image": f"/data/local-files/?d={path}"}, results))
        assert found.images[0].file == tmp_path / "0a1b2c3d-x/a.png"


def test_uploads_are_in_no_folder_of_the_user(tmp_path):
    image(tmp_path / "photos/a.png")
    source = Source(tmp_path)
    for path in ("/data/upload/3/0a1b2c3d-a.png", "https://example.org/ls/data/upload/a.png", "data/upload/3/a.png"):
        write(tmp_path / "project.json", [label_studio_task(1, "", data={"image": path})])
        assert label_studio.read(source).images[0].file == tmp_path / "photos/a.png"
    assert source.notes == ()
    write(tmp_path / "project.json", [label_studio_task(1, "", data={"image": "/data/local-files/?d=cam1/a.png"})])
    label_studio.read(source)
    assert source.notes == (f"{FOUND}: 1 (cam1/a.png is photos/a.png)",)


def test_each_image_of_a_task_has_its_own_regions(tmp_path):
    names = [f"{side}{i}.png" for i in (1, 2) for side in ("left", "right")]
    for name in names:
        image(tmp_path / name)
    data = [{"text": "x", "right": f"/data/upload/1/right{i}.png", "left": f"left{i}.png"} for i in (1, 2)]
    both = [region("car", CAR, "left"), region("tree", TREE, "right")]
    found = tasks(tmp_path, (data[0], both), (data[1], []))
    images = {each.file.name: each for each in found.images if each.file}
    assert sorted(images) == sorted(names)
    assert (drawn(images["left1.png"], "car") == np.where(scene() == 1, 1, -1)).all()
    assert (drawn(images["right1.png"], "tree") == np.where(scene() == 2, 1, -1)).all()
    assert [list(images[name].shapes) for name in names[2:]] == [[], []]
    assert [images[name].size for name in names] == [(HEIGHT, WIDTH)] * 2 + [None] * 2
    assert len(import_annotations(tmp_path, tmp_path.with_name("imported")).classes.names) == 3


def test_the_labeling_configuration_or_the_source_names_the_image(tmp_path):
    for name in ("a.png", "b.png"):
        image(tmp_path / name)
    data = {"left": "a.png", "right": "b.png"}
    results = [region("car", CAR, "one"), region("tree", TREE, "two")]
    with pytest.raises(InputError) as raised:
        tasks(tmp_path, (data, results))
    assert str(raised.value) == (
        f"{tmp_path / 'project.json'}: [0]: has several images (left, right), and nothing says which of them 'one' is "
        "(to_name of its results); put the labeling configuration (.xml) next to this file, and specify their folder"
    )
    early = [result | {"source": f"${key}"} for result, key in zip(results, data, strict=True)]
    tags = '<Image name="one" value="$left"/><Image name="two" value="$right"/>'
    for each, configuration in ((early, None), (results, f"<View><View>{tags}</View></View>")):
        if configuration:
            write(tmp_path / "config.xml", configuration)
        found = tasks(tmp_path, (data, each))
        shapes = {image.name: [shape.name for shape in image.shapes] for image in found.images}
        assert shapes == {"a.png": ["car"], "b.png": ["tree"]}


@pytest.mark.parametrize("name", ["img", None])
def test_an_image_that_is_assumed_is_said(name, tmp_path):
    image(tmp_path / "a.png")
    data = {"filename": "original.png", "image": "a.png"}
    found = tasks(tmp_path, (data, [region("car", CAR, name)]))
    assert [each.name for each in found.images] == ["a.png"]
    what = "tasks with several images, of which the one named 'image' is assumed to be annotated: 1 (a.png)"
    assert what in found.notes
    found = tasks(tmp_path, (data, [region("car", CAR, "image")]))
    assert ([each.name for each in found.images], len(found.notes)) == (["a.png"], 1)
    with pytest.raises(InputError, match=r"\[0\]: has several images \(image, filename\)"):
        tasks(tmp_path, (data, [region("car", CAR, name), region("car", CAR, "other")]))


def test_one_image_may_be_shown_several_times(tmp_path):
    image(tmp_path / "a.png")
    results = [region("car", CAR, "left"), region("tree", TREE, "right")]
    for data in ({"photo": "a.png"}, {"left": "a.png", "right": "a.png"}):
        (found,) = tasks(tmp_path, (data, results)).images
        assert [shape.name for shape in found.shapes] == ["car", "tree"]


def test_regions_of_data_without_an_image_are_an_error(tmp_path):
    image(tmp_path / "a.png")
    with pytest.raises(InputError, match=r"project\.json: \[0\]\.data\.pages: names no image, but has shapes"):
        tasks(tmp_path, ({"pages": ["1.png", "2.png"], "cover": "a.png"}, [region("car", CAR, "pages")]))


def test_an_address_without_a_suffix_is_the_only_image_of_its_task(tmp_path):
    data = {"image": "https://drive.example/uc?id=5", "filename": "a.png"}
    found = tasks(tmp_path, (data, [region("car", CAR, "image")]))
    assert [(image.name, len(list(image.shapes))) for image in found.images] == [("a.png", 1)]


# what is no class, shape or run length


def test_x_anylabeling_shapes_are_read(tmp_path):
    image(tmp_path / "a.png")
    diamond = [[8, 2], [12, 6], [8, 10], [4, 6]]
    kinds = {"rotation": diamond, "quadrilateral": CAR, "cuboid": [*CAR, *CAR]}
    shapes = [labelme_shape("x", points, kind, direction=0.1) for kind, points in kinds.items()]
    shapes += [labelme_shape("x", CAR[:3], kind) for kind in ("rotation", "quadrilateral")]
    file = labelme_file(tmp_path / "a.json", shapes, "a.png")
    found = labelme_reader.read(Source(tmp_path))
    assert [shape.regions[0].rings[0].tolist() for shape in found.images[0].shapes] == [diamond, CAR]  # type: ignore
    assert found.left_out == {
        "cuboids": [f"{file}: shapes[2]"],
        "shapes with too few points": [f"{file}: shapes[3]", f"{file}: shapes[4]"],
    }


@pytest.mark.parametrize(
    ("cells", "runs"),
    [
        (["masks/a.png", "masks/b.png"], False),
        (["", "masks/b.png"], False),
        (["3", ""], False),
        (["1 3", "masks/b.png"], True),
        (["-1", ""], True),
        (["nan", ""], True),
        (["", "5 2 9  4"], True),
        (['"5 2"', ""], True),
        (["", ""], True),
    ],
)
def test_a_column_of_masks_must_hold_run_lengths(cells, runs, tmp_path):
    for name in ("a", "b"):
        image(tmp_path / f"images/{name}.png")
    rows = "".join(f"images/{name}.png,{cell}\n" for name, cell in zip("ab", cells, strict=True))
    for header in ("image,mask", '\ufeff"image","mask"'):
        write(tmp_path / "data.csv", f"{header}\n{rows}")
        assert recognize(Source(tmp_path)) == (["rle-csv"] if runs else [])


def test_a_header_with_commas_in_quotes_is_no_error(tmp_path):
    image(tmp_path / "a.png")
    write(tmp_path / "data.csv", '"x, mask",image\n1 2,a.png\n')
    assert recognize(Source(tmp_path)) in ([], ["rle-csv"])


def test_a_table_of_mask_paths_is_not_mentioned_or_chosen(tmp_path):
    for name in ("a", "b", "c"):
        image(tmp_path / f"images/{name}.png")
        save(tmp_path / f"masks/{name}.png", scene())
    write(tmp_path / "data.csv", "image,mask\n" + "".join(f"images/{n}.png,masks/{n}.png\n" for n in "abc"))
    assert not any("CSV" in note for note in propose(tmp_path).notes)
    with pytest.raises(InputError, match="line 2, mask: must be a list of numbers"):
        choose_format(Source(tmp_path), "rle-csv").read(Source(tmp_path))
    write(tmp_path / "runs.csv", "image,rle\nimages/a.png,1 3\n")
    assert len(rle_csv.read(Source(tmp_path)).images) == 1


def cvat_file(root: Path, *labels: tuple[str, str, str], shapes: str = "", name: str = "annotations") -> None:
    texts = (
        f"<label><name>{label}</name><color>#0000{i:02x}</color><type>{kind}</type><attributes></attributes>"
        + (f"<parent>{parent}</parent></label>" if parent else "</label>")
        for i, (label, kind, parent) in enumerate(labels)
    )
    opened = f'<image id="0" name="{name}.png" width="{WIDTH}" height="{HEIGHT}">'
    meta = f"<meta><task><labels>{''.join(texts)}</labels></task></meta>"
    image(root / f"{name}.png")
    write(root / f"{name}.xml", f"<annotations><version>1.1</version>{meta}{opened}{shapes}</image></annotations>")


def test_cvat_labels_of_points_and_skeletons_are_no_classes(tmp_path):
    labels = [("car", "any", ""), ("sky", "", ""), ("bus", "polygon", ""), ("man", "skeleton", "")]
    labels += [("1", "points", "man"), ("car", "points", "man"), ("mark", "points", ""), ("night", "tag", "")]
    labels += [("box", "cuboid", ""), ("tree", "points", "")]
    shapes = cvat_polygon("car", CAR) + cvat_polygon("tree", TREE) + '<points label="mark" points="1,1"/>'
    cvat_file(tmp_path, *labels, shapes=shapes)
    found = cvat.read(Source(tmp_path))
    assert found.classes == {"car": (0, 0, 0), "sky": (0, 0, 1), "bus": (0, 0, 2), "tree": (0, 0, 9)}
    what = "labels of points, cuboids, skeletons and tags, not used as classes: 5 (man, mark, night, box, 1)"
    assert found.notes == (what,)
    cvat_file(tmp_path, ("night", "any", ""), name="other")
    assert "night" in cvat.read(Source(tmp_path)).classes
    cvat_file(tmp_path, ("man", "skeleton", ""), ("1", "points", "man"), shapes=cvat_polygon("1", CAR))
    with pytest.raises(InputError, match="'1' is not one of the labels of the task"):
        cvat.read(Source(tmp_path / "annotations.xml"))


@pytest.mark.parametrize("counts", [[], ""])
def test_coco_run_lengths_without_counts_are_left_out(counts, tmp_path):
    root = coco(tmp_path)
    content = json.loads((root / "annotations.json").read_text())
    content["annotations"][0]["segmentation"] = {"size": [HEIGHT, WIDTH], "counts": counts}
    write(root / "annotations.json", content)
    found = coco_reader.read(Source(root))
    assert found.left_out == {"run lengths without counts": [f"{root / 'annotations.json'}: annotations[0]"]}
    assert [shape.name for shape in found.images[0].shapes] == ["tree"]
