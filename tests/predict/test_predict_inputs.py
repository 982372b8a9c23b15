"""danet predict on folders of thousands of files: nothing is skipped in silence, and interrupted runs continue."""

import csv
import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from danet import InputError
from danet.cli import main
from danet.data.classes import Classes
from danet.data.images.formats import HAS_HEIF
from danet.data.images.read import read_mask
from danet.predict.inputs import find_jobs, is_camera, result_name, stream_address
from danet.predict.live import open_live
from danet.predict.predictor import load
from danet.predict.table import write_table

PIXELS = np.random.default_rng(0).integers(0, 256, (24, 32, 3), np.uint8)


def save(path: Path, pixels: np.ndarray = PIXELS, **options) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels).save(path, **options)
    return path


@pytest.fixture
def predict(tiny_weights, tmp_path, capsys):
    """Run the command on some paths; return its exit status, standard output and standard error."""

    def run(*args: object) -> tuple[int, str, str]:
        words = [str(arg) for arg in args]
        status = main(["predict", *words, "--weights", str(tiny_weights), "--out", str(tmp_path / "out")])
        captured = capsys.readouterr()
        return status, captured.out, captured.err

    return run


def results(tmp_path: Path) -> set[str]:
    out = tmp_path / "out"
    return {path.relative_to(out).as_posix() for path in out.rglob("*.json")}


def test_every_file_of_a_folder_is_segmented_or_named(predict, tmp_path):
    for name in ("a.jpg", "b.JFIF", "c.ppm", "d.jp2", "e.avif"):
        save(tmp_path / "in" / name)
    for name in ("clip.mp4", "drone.MTS", "x.npy", "notes.txt", "README", ".hidden"):
        (tmp_path / "in" / name).write_bytes(b"x")
    save(tmp_path / "in/sub/f.png")
    status, _, err = predict(tmp_path / "in")
    assert status == 0
    assert results(tmp_path) == {"a.json", "b.json", "c.json", "d.json", "e.json"}
    lines = [line for line in err.splitlines() if not line.startswith("hint:")]  # of low confidence
    assert lines[-2] == (
        "6 skipped: 1 without suffix, 1 .txt (not images), 1 .mp4, 1 .mts (videos: specify them one by one), "
        "1 subfolders (add --recursive), 1 .npy (arrays: the network takes RGB)"
    )
    assert lines[-1].startswith("done 5, existing 0, skipped 6, failed 0; ")
    assert " files/s in " in lines[-1]


@pytest.mark.skipif(not HAS_HEIF, reason="pillow-heif is not installed")
def test_heic_images_are_segmented(predict, tmp_path):
    save(tmp_path / "in/a.png")
    save(tmp_path / "in/b.heic")
    assert predict(tmp_path / "in")[0] == 0
    assert results(tmp_path) == {"a.json", "b.json"}


def test_heic_images_without_the_extra_are_named(predict, tmp_path, monkeypatch):
    monkeypatch.setattr("danet.predict.inputs.SUFFIXES", (".jpg", ".png"))
    monkeypatch.setattr("danet.predict.inputs.HAS_HEIF", False)
    save(tmp_path / "in/a.png")
    for name in ("b.heic", "c.HEIC", "d.heif"):
        (tmp_path / "in" / name).write_bytes(b"x")
    assert "3 skipped: 2 .heic, 1 .heif (uv sync --extra heif)" in predict(tmp_path / "in")[2]


def test_recursive_keeps_the_subfolders(predict, tmp_path, tiny_weights):
    for name in ("a.png", "x/a.png", "x/y/a.png", "z/b.png"):
        save(tmp_path / "in" / name)
    (tmp_path / "in/loop").symlink_to(tmp_path / "in", target_is_directory=True)
    status, _, err = predict(tmp_path / "in", "--recursive")
    assert status == 0
    assert results(tmp_path) == {"a.json", "x/a.json", "x/y/a.json", "z/b.json"}
    assert "1 skipped: 1 subfolders (a link)" in err


def test_the_folder_of_results_is_not_segmented(predict, tmp_path):
    save(tmp_path / "a.png")
    assert predict(tmp_path, "--recursive")[0] == 0
    assert predict(tmp_path, "--recursive", "--overwrite")[0] == 0
    assert results(tmp_path) == {"a.json"}


def test_a_folder_without_images_says_what_it_contains(predict, tmp_path):
    (tmp_path / "in").mkdir()
    (tmp_path / "in/a.mp4").write_bytes(b"x")
    save(tmp_path / "in/sub/a.png")
    status, _, err = predict(tmp_path / "in")
    assert status == 2
    assert "contains no images (.jpg, " in err
    assert "but 1 .mp4, 1 subfolders; specify a folder that contains images, or add --recursive" in err


@pytest.mark.parametrize("name", ["s.tif", "s.gif", "s.webp"])
def test_a_stack_is_refused_and_the_others_are_segmented(predict, tmp_path, name):
    pages = [Image.fromarray(np.full((24, 32, 3), 20 * i, np.uint8)) for i in range(12)]
    (tmp_path / "in").mkdir()
    pages[0].save(tmp_path / "in" / name, save_all=True, append_images=pages[1:])
    save(tmp_path / "in/a.png")
    status, _, err = predict(tmp_path / "in")
    assert status == 2
    assert f"{name}: a stack or animation of 12 pages; add --pages for one result per page" in err
    assert results(tmp_path) == {"a.json"}


def test_each_page_has_a_result(predict, tmp_path, tiny_weights):
    rng = np.random.default_rng(0)
    pages = [Image.fromarray(rng.integers(0, 256, (24, 32, 3), np.uint8)) for _ in range(12)]
    pages[0].save(tmp_path / "s.tif", save_all=True, append_images=pages[1:])
    status, _, err = predict(tmp_path / "s.tif", "--pages")
    assert status == 0
    assert results(tmp_path) == {f"s_page{i:02}.json" for i in range(1, 13)}
    for i in (0, 6, 11):
        labels = read_mask(tmp_path / f"out/s_page{i + 1:02}_labels.png")
        assert np.array_equal(labels, load(tiny_weights)(pages[i]).labels)
    assert "done 12, existing 0, skipped 0, failed 0" in err


def test_an_interrupted_run_continues_where_it_stopped(predict, tmp_path):
    for i in range(4):
        save(tmp_path / f"in/{i}.png")
    assert predict(tmp_path / "in")[0] == 0
    before = {i: (tmp_path / f"out/{i}.json").stat().st_mtime_ns for i in range(4)}
    (tmp_path / "out/1.json").unlink()  # the JSON is written last
    (tmp_path / "out/1_labels.png").write_bytes(b"half")
    for path in (tmp_path / "out").glob("3*"):
        path.unlink()
    assert predict(tmp_path / "in")[0] == 2  # results exist
    status, out, err = predict(tmp_path / "in", "--skip-existing")
    assert status == 0
    assert [Path(line.split()[0]).name for line in out.splitlines()] == ["1_overlay.png", "3_overlay.png"]
    assert "done 2, existing 2, skipped 0, failed 0" in err
    after = {i: (tmp_path / f"out/{i}.json").stat().st_mtime_ns for i in range(4)}
    assert [i for i in range(4) if before[i] == after[i]] == [0, 2]
    assert read_mask(tmp_path / "out/1_labels.png").shape == (24, 32)
    status, out, err = predict(tmp_path / "in", "--skip-existing")
    assert (status, out) == (0, "")
    assert err.splitlines()[-1] == "done 0, existing 4, skipped 0, failed 0"


@pytest.mark.parametrize(("name", "content"), [("a.json", b'{"shapes": []}'), ("a_labels.png", b"my own mask")])
def test_skip_existing_keeps_files_of_the_user(predict, tmp_path, name, content):
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / name).write_bytes(content)
    status, out, err = predict(save(tmp_path / "in/a.png"), "--skip-existing")
    assert (status, out) == (2, "")
    what = "is not a result of danet predict" if name == "a.json" else "exists, and nothing says that danet wrote it"
    assert err.startswith(f"error: {tmp_path}/out/{name}: {what}")
    assert err.endswith("choose another --out, or move it away\n")
    assert [path.name for path in (tmp_path / "out").iterdir()] == [name]
    assert (tmp_path / "out" / name).read_bytes() == content


@pytest.mark.parametrize("option", ["--skip-existing", "--overwrite"])
@pytest.mark.parametrize("name", ["street_overlay.png", "street_margin.png", "street_probability_2.png"])
def test_an_input_is_never_replaced_by_a_result(predict, tmp_path, option, name):
    save(tmp_path / "out/street.jpg")
    content = save(tmp_path / "out" / name).read_bytes()
    status, out, err = predict(tmp_path / "out", option, "--margin", "--probabilities", "png")
    assert (status, out) == (2, "")
    what = f"is an input, and a result of {tmp_path}/out/street.jpg would overwrite it"
    assert err == f"error: {tmp_path}/out/{name}: {what}; choose another --out, or rename it\n"
    assert (tmp_path / "out" / name).read_bytes() == content
    assert results(tmp_path) == set()


@pytest.mark.parametrize("name", ["a_margin.png", "a_probabilities.npy"])
def test_skip_existing_replaces_only_files_that_danet_wrote(predict, tmp_path, name):
    image, out = save(tmp_path / "in/a.png"), tmp_path / "out"
    words = image, "--margin", "--probabilities", "npy", "--skip-existing"
    assert predict(image)[0] == 0
    (out / name).write_bytes(b"mine")
    status, _, err = predict(*words)
    assert status == 2
    assert err.startswith(f"error: {out}/{name}: exists, and nothing says that danet wrote it")
    assert (out / name).read_bytes() == b"mine"
    (out / name).unlink()
    assert predict(*words)[0] == 0
    (out / "a.json").unlink()  # as if the run had been killed; the overlay names the others
    (out / name).write_bytes(b"half")
    assert predict(*words)[0] == 0
    assert (out / name).read_bytes() != b"half"


def test_skip_existing_writes_all_results_that_are_asked_for(predict, tmp_path):
    image, out = save(tmp_path / "in/a.png"), tmp_path / "out"
    assert predict(image)[0] == 0
    before = (out / "a_labels.png").read_bytes()
    more = "--probabilities", "npy", "--margin", "--skip-existing"
    assert predict(image, *more)[0] == 0
    assert {path.name for path in out.iterdir()} > {"a_probabilities.npy", "a_margin.png"}
    limit = 0.5 * (1 + json.loads((out / "a.json").read_text())["classes"][0]["mean_confidence"])
    assert predict(image, *more, "--min-confidence", limit)[0] == 0
    assert json.loads((out / "a.json").read_text())["unknown"]["min_confidence"] == limit
    assert (out / "a_labels.png").read_bytes() != before
    changed = (out / "a.json").stat().st_mtime_ns
    assert predict(image, *more, "--min-confidence", limit)[0] == 0
    assert (out / "a.json").stat().st_mtime_ns == changed


@pytest.mark.parametrize(
    ("option", "difference"),
    [
        (("--size", 64), "with size 128, not 64"),
        (("--protocol", "mmseg-slide-769"), "with protocol whole, not mmseg-slide-769"),
        (("--dtype", "bfloat16"), "with dtype float32, not bfloat16"),
    ],
)
def test_skip_existing_mixes_no_results_of_other_settings(predict, tmp_path, option, difference):
    image = save(tmp_path / "in/a.png")
    assert predict(image)[0] == 0
    status, _, err = predict(image, "--skip-existing", *option)
    assert status == 2
    assert err.startswith(f"error: {tmp_path}/out/a.json: was made {difference}; choose another --out, ")


def test_skip_existing_mixes_no_results_of_other_weights(predict, tmp_path):
    image, path = save(tmp_path / "in/a.png"), tmp_path / "out/a.json"
    assert predict(image)[0] == 0
    summary = json.loads(path.read_text())
    summary["settings"]["weights"] = 64 * "0"
    path.write_text(json.dumps(summary))
    status, _, err = predict(image, "--skip-existing")
    assert status == 2
    assert f"{path}: was made with weights 000000000000..., not " in err


def test_existing_results_without_settings_are_counted(predict, tmp_path):
    save(tmp_path / "in/a.png")
    save(tmp_path / "in/b.png")
    assert predict(tmp_path / "in")[0] == 0
    path = tmp_path / "out/a.json"
    old = {name: value for name, value in json.loads(path.read_text()).items() if name not in ("settings", "files")}
    path.write_text(json.dumps(old))
    status, out, err = predict(tmp_path / "in", "--skip-existing")
    assert (status, out) == (0, "")
    assert "note: 1 existing results do not say with which weights and options they were made" in err
    assert "done 0, existing 2, skipped 0, failed 0" in err


def test_results_in_the_folder_of_the_images_are_not_segmented(predict, tmp_path):
    save(tmp_path / "out/china.jpg")
    assert predict(tmp_path / "out", "--margin")[0] == 0
    status, _, err = predict(tmp_path / "out", "--margin", "--skip-existing")
    assert status == 0
    assert "4 skipped: 1 .json (not images), 3 .png (results of danet)" in err
    assert "done 0, existing 1, skipped 4, failed 0" in err
    assert results(tmp_path) == {"china.json"}
    Image.fromarray(PIXELS).save(tmp_path / "out/mine_overlay.png")  # a user's image of such a name
    assert predict(tmp_path / "out", "--margin", "--skip-existing")[0] == 0
    assert results(tmp_path) == {"china.json", "mine_overlay.json"}


def test_a_table_has_a_file_of_its_own(predict, tmp_path):
    image = save(tmp_path / "in/a.png")
    for path, what in (
        (tmp_path / "out/a.json", f"{tmp_path}/out/a.json is a result of {image}; choose another file"),
        (image, f"would overwrite the input {image}; choose another file"),
    ):
        (tmp_path / "out").mkdir(exist_ok=True)
        status, _, err = predict(image, "--csv", path, "--overwrite")
        assert (status, err) == (2, f"error: --csv: {what}\n")
    assert results(tmp_path) == set()
    with Image.open(image) as kept:
        assert kept.size == (32, 24)


def test_skip_existing_excludes_overwrite(predict, tmp_path):
    status, _, err = predict(save(tmp_path / "a.png"), "--skip-existing", "--overwrite")
    assert (status, err) == (2, "error: --skip-existing: excludes --overwrite; leave out one of them\n")


def test_what_a_killed_run_left_is_removed_from_subfolders_too(predict, tmp_path):
    save(tmp_path / "in/sub/a.png")
    (tmp_path / "out/sub").mkdir(parents=True)
    (tmp_path / "out/sub/.danet-0123456789abcdef.png").write_bytes(b"half")
    assert predict(tmp_path / "in", "--recursive")[0] == 0
    assert {path.name for path in (tmp_path / "out/sub").iterdir()} == {"a_overlay.png", "a_labels.png", "a.json"}


def test_a_table_has_a_row_per_image(predict, tmp_path):
    for name in ("a.png", "b.png", "d.png"):
        save(tmp_path / "in" / name)
    assert predict(tmp_path / "in/a.png")[0] == 0
    (tmp_path / "in/c.png").write_bytes(b"no image")
    args = (tmp_path / "in", "--csv", tmp_path / "t.csv")
    assert predict(*args, "--skip-existing")[0] == 2
    with (tmp_path / "t.csv").open(newline="") as file:
        rows = {Path(row["file"]).name: row for row in csv.DictReader(file)}
    assert rows.keys() == {"a.png", "b.png", "c.png", "d.png"}
    assert rows["c.png"]["error"].startswith("not an image")
    for name in ("a", "b", "d"):
        summary = json.loads((tmp_path / f"out/{name}.json").read_text())
        shares = {entry["name"]: entry["share"] for entry in summary["classes"]}
        row = rows[f"{name}.png"]
        assert (row["width"], row["height"], row["page"], row["error"]) == ("32", "24", "", "")
        for class_ in list(row)[5:]:
            assert float(row[class_]) == pytest.approx(shares.get(class_, 0), abs=1e-6)
    assert predict(tmp_path / "in/b.png", "--csv", tmp_path / "t.csv", "--overwrite")[0] == 0


def test_a_row_with_unknown_pixels_sums_to_1(predict, tmp_path):
    assert predict(save(tmp_path / "a.png"), "--csv", tmp_path / "t.csv", "--min-confidence", "0.9")[0] == 0
    with (tmp_path / "t.csv").open(newline="") as file:
        (row,) = csv.DictReader(file)
    unknown = json.loads((tmp_path / "out/a.json").read_text())["unknown"]["share"]
    assert float(row["unknown"]) == pytest.approx(unknown, abs=1e-6) != 0
    assert sum(map(float, list(row.values())[5:])) == pytest.approx(1, abs=1e-5)


def test_an_existing_table_is_not_overwritten(predict, tmp_path):
    (tmp_path / "t.csv").write_text("mine")
    for option in ((), ("--skip-existing",)):  # which continues only a table of danet
        status, _, err = predict(save(tmp_path / "a.png"), "--csv", tmp_path / "t.csv", *option)
        assert status == 2
        assert "t.csv: already exists" in err
        assert results(tmp_path) == set()
    assert (tmp_path / "t.csv").read_text() == "mine"


def test_a_table_is_not_mixed_with_the_listed_label_maps(predict, tmp_path):
    status, _, err = predict(save(tmp_path / "a.png"), "--csv", "-")
    assert status == 2
    assert "error: --csv: must be a file; standard output lists the label maps; for example: --csv shares.csv" in err


def test_a_table_has_no_formulas_and_is_always_utf_8(predict, tmp_path, monkeypatch):
    """A path or a class may begin with =, and Linux has names that are no text."""
    monkeypatch.chdir(tmp_path)
    save(tmp_path / "=1+1.png")
    save(tmp_path / "a\udcff.png")
    assert predict("=1+1.png", "a\udcff.png", "--csv", "t.csv")[0] == 0
    rows = list(csv.reader((tmp_path / "t.csv").read_text("utf-8").splitlines()))
    assert [row[0] for row in rows] == ["file", "'=1+1.png", "a\\udcff.png"]
    write_table(tmp_path / "u.csv", [], Classes.named(("@road", "a=b")))
    assert (tmp_path / "u.csv").read_text() == "file,page,width,height,error,'@road,a=b\n"
    with pytest.raises(InputError, match=r"u\.csv: already exists: another process wrote it meanwhile"):
        write_table(tmp_path / "u.csv", [], Classes.named(("a", "b")))


def test_pages_and_folders_with_the_same_results_conflict(tmp_path):
    pages = [Image.fromarray(PIXELS)] * 2
    pages[0].save(tmp_path / "s.tif", save_all=True, append_images=pages[1:])
    save(tmp_path / "s_page1.png")
    with pytest.raises(InputError, match=r"would overwrite the results of .*s\.tif"):
        find_jobs([tmp_path / "s.tif", tmp_path / "s_page1.png"], tmp_path / "out", pages=True)


def test_addresses_and_cameras_are_recognized():
    assert stream_address(Path("rtsp://user@cam.example:554/live/1")) == "rtsp://user@cam.example:554/live/1"
    assert stream_address("clip.mp4") is None
    assert is_camera("camera:0")
    assert is_camera(Path("/dev/video2"))
    assert not is_camera("camera.png")
    assert result_name(Path("rtsp://cam.example:554/live")) == "rtsp_cam_example_554_live"
    assert result_name("camera:0") == "camera_0"


@pytest.mark.parametrize(
    ("source", "message"),
    [
        ("rtsp://127.0.0.1:9/live", "rtsp://127.0.0.1:9/live: the stream cannot be opened ("),
        ("camera:97", "camera:97: the camera cannot be opened ("),
        ("/dev/video97", "/dev/video97: the camera cannot be opened ("),
    ],
)
def test_an_absent_stream_or_camera_is_one_clear_line(predict, source, message):
    pytest.importorskip("av")
    status, _, err = predict(source)
    assert status == 2
    assert err.startswith(f"error: {message}")
    assert err.count("\n") == 1
    assert "check " in err


def test_other_addresses_are_not_opened(predict):
    status, _, err = predict("http://127.0.0.1:9/clip.mp4")
    assert status == 2
    assert "danet does not download files" in err
    with pytest.raises(InputError, match="the camera cannot be opened"):
        open_live("camera:98")
