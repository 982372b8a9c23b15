"""Counts kept in a folder: shards, interruptions and workers give the scores of one process, to the bit."""

import json

import numpy as np
import pytest
from exported import onnx_content
from miniature import build, stripes
from PIL import Image

from danet import InputError
from danet.cli import main
from danet.data.custom import dataset_yaml
from danet.evaluate import shards
from danet.evaluate.counts import Counts, robustness_record
from danet.evaluate.robustness import CLEAN, Condition, evaluate_corrupted
from danet.predict.predictor import load


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    folder = build(tmp_path_factory.mktemp("data"), [stripes(0, 1, 2, height=40, width=48)] * 7)
    (folder / "dataset.yaml").write_text("classes: [sky, building, road, car, sign, person]\nval: 0.8\n")
    for i, file in enumerate(sorted((folder / "images").iterdir())):
        Image.fromarray(np.random.default_rng(i).integers(0, 256, (40, 48, 3), np.uint8)).save(file)
    return folder


@pytest.fixture
def evaluate(root, tiny_weights):
    """Run `danet evaluate` and return its exit status."""
    return lambda *words: main(
        ["evaluate", str(tiny_weights), "--root", str(root), "--device", "cpu", *map(str, words)]
    )


@pytest.fixture
def whole(evaluate, tmp_path):
    assert evaluate("--json", tmp_path / "whole.json", "--images", tmp_path / "whole.csv") == 0
    return tmp_path / "whole.json"


def test_counts_of_another_export_of_a_network_are_refused(root, tmp_path, capsys):
    """An int8 export has the card of the float32 network."""
    files = [tmp_path / f"{stride}.onnx" for stride in (1, 2)]
    for stride, file in enumerate(files, 1):
        file.write_bytes(onnx_content(stride))
    one, other = map(load, files)
    assert one.card == other.card
    assert one.fingerprint != other.fingerprint
    words = "--root", str(root), "--counts", str(tmp_path / "counts"), "--shard"
    assert main(["evaluate", str(files[0]), *words, "1/2"]) == 0
    assert main(["evaluate", str(files[1]), *words, "2/2"]) == 2
    assert "has the counts of another evaluation (weights " in capsys.readouterr().err


def test_shards_that_start_together_share_a_new_folder(tmp_path, monkeypatch):
    folder, begin = tmp_path / "counts", Counts._begin

    def other_first(self, about):
        (folder / ".danet-0123456789abcdef.json").write_bytes(b"half")  # another shard is writing about.json
        monkeypatch.setattr(Counts, "_begin", begin)
        Counts(folder, about)
        begin(self, about)

    monkeypatch.setattr(Counts, "_begin", other_first)
    assert Counts(folder, {"weights": "a"}).read() == {}
    with pytest.raises(InputError, match="has the counts of another evaluation"):
        Counts(folder, {"weights": "b"})


def test_other_files_beside_a_counts_file_that_is_being_written_are_refused(tmp_path):
    (tmp_path / "mine.txt").write_text("mine")
    with pytest.raises(InputError, match="is not empty, and has no about"):
        Counts(tmp_path, {})


def test_shards_add_up_to_the_scores_of_one_process(evaluate, whole, tmp_path, capsys):
    counts = "--counts", tmp_path / "counts"
    results = "--json", tmp_path / "all.json", "--images", tmp_path / "all.csv"
    capsys.readouterr()
    assert evaluate(*counts, "--shard", "3/3") == 0
    captured = capsys.readouterr()
    assert captured.out == ""
    total = json.loads(whole.read_text())["images"]
    assert f" of {total} images are counted" in captured.err
    assert evaluate(*counts, "--shard", "1/3") == 0
    assert evaluate(*counts, "--shard", "2/3", *results) == 0
    assert (tmp_path / "all.json").read_bytes() == whole.read_bytes()
    assert (tmp_path / "all.csv").read_bytes() == whole.with_suffix(".csv").read_bytes()


def test_an_interrupted_evaluation_continues(evaluate, whole, tmp_path, monkeypatch):
    alone, counted = shards._Counter.alone, []

    def interrupted(self, item):
        if len(counted) == 2:
            raise KeyboardInterrupt
        counted.append(item)
        return alone(self, item)

    args = "--counts", tmp_path / "counts", "--json", tmp_path / "all.json"
    with monkeypatch.context() as patched:
        patched.setattr(shards._Counter, "alone", interrupted)
        assert evaluate(*args) == 130
    (file,) = (tmp_path / "counts").glob("*.jsonl")
    with file.open("ab") as stream:
        stream.write(b'[3, {"name": "torn')  # by a kill
    monkeypatch.setattr(shards._Counter, "alone", lambda self, item: counted.append(item) or alone(self, item))
    assert evaluate(*args) == 0
    assert sorted(counted) == list(range(json.loads(whole.read_text())["images"]))
    assert (tmp_path / "all.json").read_bytes() == whole.read_bytes()


def test_counts_of_another_evaluation_are_refused(evaluate, tmp_path, capsys):
    assert evaluate("--counts", tmp_path / "counts", "--shard", "1/9") == 0
    assert evaluate("--counts", tmp_path / "counts", "--split", "train") == 2
    assert "has the counts of another evaluation (samples " in capsys.readouterr().err
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine/file.txt").write_text("")
    with pytest.raises(InputError, match="is not empty, and has no about"):
        Counts(tmp_path / "mine", {})
    (tmp_path / "counts/damaged.jsonl").write_text("hello\n")
    assert evaluate("--counts", tmp_path / "counts") == 2
    assert "is not a file of counts; delete it" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("words", "line"),
    [
        (["--shard", "1/2"], "error: --shard: needs a folder that keeps the counts; add --counts"),
        (["--engine", "ray"], "error: --engine: needs a folder that keeps the counts; add --counts"),
        (
            ["--counts", "c", "--attention"],
            "error: --attention: is not kept in counts; leave it out, or leave out --counts",
        ),
        (["--workers", "2"], "error: --workers: is for the engine ray; add --engine ray, or leave it out"),
    ],
)
def test_invalid_options_of_counts_are_rejected(evaluate, capsys, words, line):
    assert evaluate(*words) == 2
    assert capsys.readouterr().err.strip() == line


def test_robustness_keeps_what_it_counted(root, tiny_weights, tmp_path, monkeypatch):
    words = ["robustness", str(tiny_weights), "--root", str(root), "--severities", "1", "4"]
    words += ["--corruptions", "fog", "jpeg"]
    whole, parts = tmp_path / "whole.json", tmp_path / "parts.json"
    assert main([*words, "--json", str(whole)]) == 0
    kept, seen = shards.evaluate_corrupted, []

    def interrupted(*args, indices):
        if len(seen) == 2:
            raise KeyboardInterrupt
        seen.extend(indices)
        return kept(*args, indices=indices)

    args = [*words, "--counts", str(tmp_path / "counts"), "--json", str(parts)]
    monkeypatch.setattr(shards, "evaluate_corrupted", interrupted)
    assert main(args) == 130
    monkeypatch.setattr(shards, "evaluate_corrupted", kept)
    assert main([*args, "--shard", "1/2"]) == 0
    assert not parts.exists()
    assert main(args) == 0
    assert parts.read_bytes() == whole.read_bytes()


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")
def test_workers_on_ray_count_what_one_process_counts(evaluate, whole, tmp_path):
    args = "--counts", tmp_path / "counts", "--json", tmp_path / "all.json", "--engine", "ray", "--workers", "2"
    assert evaluate(*args) == 0
    ours, expected = (json.loads(file.read_text()) for file in (tmp_path / "all.json", whole))
    assert ours["confusion"] == expected["confusion"]
    assert ours["boundary_f"] == expected["boundary_f"]
    assert ours["calibration"]["ece"] == pytest.approx(expected["calibration"]["ece"], abs=1e-6)


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")
def test_workers_on_ray_count_corrupted_images_as_one_process(root, tiny_weights, tmp_path):
    words = ["robustness", str(tiny_weights), "--root", str(root), "--severities", "1", "--corruptions", "fog", "jpeg"]
    assert main([*words, "--counts", str(tmp_path / "local")]) == 0
    assert main([*words, "--counts", str(tmp_path / "ray"), "--engine", "ray", "--workers", "2"]) == 0
    assert len(confusions(tmp_path / "local")) == 6
    assert confusions(tmp_path / "ray") == confusions(tmp_path / "local")


def confusions(folder) -> dict:
    """Return for each image the confusion matrices of all networks and conditions."""
    records = (json.loads(line) for file in folder.glob("*.jsonl") for line in file.read_text().splitlines())
    return {index: [[condition[:3] for condition in network] for network in record] for index, record in records}


def test_a_worker_counts_corrupted_images_as_this_process(root, tiny_weights, tmp_path):
    samples = dataset_yaml.load(root, "val")
    conditions = (CLEAN, Condition("jpeg", 3))
    evaluated = shards.Evaluated(tiny_weights, "folder", root, "val", "whole", None, "float32", "cpu")
    given = shards.Corrupted((evaluated,), conditions, 5), "cpu", shards.fingerprint.digest(samples)
    worker = shards._load_corrupted(*given)
    networks = {str(tiny_weights): load(tiny_weights, "cpu")}
    expected = robustness_record(evaluate_corrupted(networks, samples, conditions, 5, indices=[1]))
    assert worker.many([1]) == [expected]


@pytest.mark.parametrize(
    ("words", "line"),
    [
        (["--engine", "ray"], "error: --engine: needs a folder that keeps the counts; add --counts"),
        (["--workers", "2"], "error: --workers: is for the engine ray; add --engine ray, or leave it out"),
    ],
)
def test_options_of_ray_are_checked_for_robustness(root, tiny_weights, capsys, words, line):
    assert main(["robustness", str(tiny_weights), "--root", str(root), *words]) == 2
    assert capsys.readouterr().err.strip() == line


def test_workers_refuse_other_samples(root, tiny_weights):
    samples = dataset_yaml.load(root, "val")
    evaluated = shards.Evaluated(tiny_weights, "folder", root, "train", "whole", None, "float32", "cpu")
    with pytest.raises(InputError, match="root: has other samples on the machine of a worker"):
        shards._load(evaluated, "cpu", shards.fingerprint.digest(samples))
