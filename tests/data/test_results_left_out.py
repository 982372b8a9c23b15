"""Results of danet predict in a dataset's folder are not its images, and its masks only if there are no others."""

from pathlib import Path

import pytest
from miniature import build, image, labels, save, stripes
from PIL import Image

from danet import InputError
from danet.data.custom.check import check_folder
from danet.data.custom.discover import find_layout
from danet.data.custom.proposal import write
from danet.data.custom.propose import propose
from danet.data.images.read import list_images
from danet.predict.outputs import OUTPUTS
from danet.predict.overlay import to_png


def add_results(folder: Path, count: int = 5) -> None:
    """Write what danet predict writes for the images of `miniature.build`."""
    folder.mkdir(parents=True, exist_ok=True)
    for i in range(count):
        for suffix in OUTPUTS["image"][:2]:
            (folder / f"p{i}{suffix}").write_bytes(to_png(Image.fromarray(stripes(0, 3, 7)), OUTPUTS["image"]))
        (folder / f"p{i}.json").write_text("{}")


@pytest.mark.parametrize("place", ["images", "masks", "out", "labels", "images/out"])
def test_results_are_no_images_and_no_masks(tmp_path, place):
    build(tmp_path, [stripes(0, 1)] * 5)
    add_results(tmp_path / place)
    proposal = propose(tmp_path)
    assert (proposal.layout.images, proposal.layout.masks, proposal.pairs) == ("images", "masks", 5)
    assert set(proposal.values) == {0, 1}
    named = [note for note in proposal.notes if "results of danet are left out: 10 (p0_labels.png" in note]
    assert len(named) == (place in ("images", "masks"))
    write(tmp_path, proposal)
    assert labels(tmp_path) == {0, 1}
    report = check_folder(tmp_path)
    assert report.problems == ()
    assert sum("results of danet: 10 (p0_labels.png" in warning.what for warning in report.warnings) == len(named)


def test_results_beside_images_and_masks_of_one_folder_are_left_out(tmp_path):
    build(tmp_path, [stripes(0, 1)] * 5, "", "", "_mask.png")
    add_results(tmp_path)
    proposal = propose(tmp_path)
    assert (proposal.layout.naming.mask_suffix, proposal.pairs, set(proposal.values)) == ("_mask.png", 5, {0, 1})


@pytest.mark.parametrize("place", ["images", "masks", "out"])
def test_predicted_labels_are_masks_if_there_are_no_others(tmp_path, place):
    for i in range(5):
        image(tmp_path / "images" / f"p{i}.jpg")
    add_results(tmp_path / place)
    proposal = propose(tmp_path)
    assert (proposal.pairs, set(proposal.values)) == (5, {0, 3, 7})
    assert "the masks are label maps of danet, which it predicted" in proposal.notes
    write(tmp_path, proposal)
    assert len(labels(tmp_path)) == 3
    assert check_folder(tmp_path).problems == ()


def test_masks_of_the_user_may_be_named_as_results_are(tmp_path):
    build(tmp_path, [stripes(0, 1)] * 5, "images", "masks", "_labels.png")
    layout, notes = find_layout(tmp_path)
    assert (layout.naming.mask_suffix, notes) == ("_labels.png", [])


def test_a_folder_of_results_contains_no_images(tmp_path):
    add_results(tmp_path)
    with pytest.raises(InputError, match=r"contains no images .*, but results of danet"):
        list_images(tmp_path)
    save(tmp_path / "a_overlay.png", stripes(0, 1))
    assert [file.name for file in list_images(tmp_path)] == ["a_overlay.png"]
