"""The commands, run in this process: what they print, and one line for each user error."""

import contextlib
import csv
import json
import os
import re
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from miniature import build, stripes
from PIL import Image

from danet import recipes
from danet.cli import COMMANDS, main
from danet.data.classes import Classes
from danet.predict.protocols import PROTOCOLS
from danet.weights import file as weights_file


@pytest.fixture
def images(tmp_path):
    folder = tmp_path / "photos"
    folder.mkdir()
    for i in range(3):
        Image.fromarray(np.full((30, 40, 3), 60 * i, np.uint8)).save(folder / f"p{i}.png")
    return folder


def test_predict_segments_a_folder(images, tiny_weights, tmp_path, capsys):
    assert main(["predict", str(images), "--weights", str(tiny_weights), "--out", str(tmp_path / "out")]) == 0
    assert len(list((tmp_path / "out").iterdir())) == 9
    lines = capsys.readouterr().out.splitlines()
    assert [line.split()[0] for line in lines] == [str(tmp_path / "out" / f"p{i}_overlay.png") for i in range(3)]


def test_predict_continues_after_a_bad_image_and_reports_it(images, tiny_weights, tmp_path, capsys):
    (images / "p1.png").write_bytes((images / "p1.png").read_bytes()[:-30])
    assert main(["predict", str(images), "--weights", str(tiny_weights), "--out", str(tmp_path / "out")]) == 2
    error = capsys.readouterr().err.splitlines()
    assert error[0].startswith(f"error: {images / 'p1.png'}: truncated or damaged")
    assert error[1] == "error: 1 of 3 files could not be segmented; see the errors above"
    assert (tmp_path / "out/p2.json").exists()


@pytest.mark.parametrize("command", ["predict", "evaluate"])
def test_help_names_every_protocol_in_the_order_of_the_error(command, capsys):
    with pytest.raises(SystemExit):
        main([command, "--help"])
    words = capsys.readouterr().out.partition("test-time protocol")[2].replace("│", " ").split()
    assert list(dict.fromkeys(word.strip(",.") for word in words if word.strip(",.") in PROTOCOLS)) == list(PROTOCOLS)


def test_recipes_has_a_help_and_reports_a_full_disk(capsys):
    with pytest.raises(SystemExit):
        main(["recipes", "--help"])
    assert capsys.readouterr().out.startswith("usage: danet recipes")
    with Path("/dev/full").open("w") as full:
        ended = subprocess.run(
            [sys.executable, "-m", "danet", "recipes"], stdout=full, stderr=subprocess.PIPE, text=True, check=False
        )
    assert ended.returncode == 2
    assert ended.stderr.startswith("error: standard output: No space left on device; free some space")
    assert ended.stderr.count("\n") == 1


def test_an_existing_manifest_is_read_from_a_read_only_disk(tmp_path, monkeypatch, capsys):
    (tmp_path / "m.json").write_text("{}")
    monkeypatch.setattr("danet.files.os.access", lambda *_: False)
    assert main(["check", str(tmp_path), "--manifest", str(tmp_path / "m.json")]) == 2
    assert "cannot be written" not in capsys.readouterr().err


def test_check_prints_only_json_on_standard_output(tmp_path, capsys):
    (tmp_path / "dataset.yaml").write_text("classes: [a, b]")
    assert main(["check", str(tmp_path), "--json", "-", "--manifest", str(tmp_path / "m.json")]) == 2
    printed = capsys.readouterr()
    assert json.loads(printed.out)["problems"][0]["what"] == "no such folder"
    assert "no such folder" in printed.err
    assert "hashes of 0 files" in printed.err


def test_bfloat16_changes_the_confidence_a_little(images, tiny_weights, tmp_path):
    confidence = []
    for dtype in ("float32", "bfloat16"):
        out = tmp_path / dtype
        args = ["--weights", str(tiny_weights), "--out", str(out), "--dtype", dtype]
        assert main(["predict", str(images / "p1.png"), *args]) == 0
        (summary,) = out.glob("*.json")
        confidence.append(json.loads(summary.read_text())["classes"][0]["mean_confidence"])
    assert confidence[0] != confidence[1]
    assert confidence[0] == pytest.approx(confidence[1], abs=0.02)


def test_evaluate_prints_a_table_and_writes_the_numbers(tiny_weights, tmp_path, capsys, monkeypatch):
    monkeypatch.setattr("danet.data.datasets.synthetic.COUNTS", {"train": 4, "val": 3})
    file = tmp_path / "scores.json"
    assert main(["evaluate", str(tiny_weights), "--dataset", "toy", "--json", str(file)]) == 0
    printed, scores = capsys.readouterr().out, json.loads(file.read_text())
    assert f"mIoU {100 * scores['miou']:.2f}% over {scores['classes_counted']} classes" in printed
    assert "building" in printed
    assert np.array(scores["confusion"]).sum() == 3 * 144 * 192
    assert main(["evaluate", str(tiny_weights), "--dataset", "toy", "--json", str(file)]) == 2
    assert f"error: {file}: already exists" in capsys.readouterr().err
    assert json.loads(file.read_text()) == scores
    assert main(["evaluate", str(tiny_weights), "--dataset", "toy", "--json", "-"]) == 0
    assert json.loads(capsys.readouterr().out) == scores


def test_recipes_lists_all(capsys):
    assert main(["recipes"]) == 0
    printed = capsys.readouterr().out
    assert all(name in printed for name in recipes.RECIPES)


@pytest.mark.parametrize(
    ("command", "line"),
    [
        ("predikt x.jpg", "error: predikt: unknown command; did you mean predict?"),
        ("predict", "error: danet predict: no images given; specify images, videos or folders"),
        ("predict absent.jpg --weights {w}", "error: absent.jpg: no such file; check the path"),
        ("predict . --weights {w}", "error: .: contains no images"),
        ("predict text.jpg --weights {w}", "error: text.jpg: not an image; use JPEG, PNG, WebP, BMP, TIFF or GIF"),
        (
            "predict text.jpg --weights text.jpg",
            "error: text.jpg: not a valid .safetensors file, or truncated",
        ),
        ("predict text.jpg --weights run", "error: run: not a file; use run/best.safetensors"),
        (
            "predict text.jpg --weights run/last.ckpt",
            "error: run/last.ckpt: a checkpoint to resume a run from; use run/best.safetensors",
        ),
        ("evaluate absent/best.safetensors", "error: absent/best.safetensors: no such file; specify a .safetensors"),
        ("evaluate run", "error: run: not a file; use run/best.safetensors"),
        ("predict text.jpg --weihgts x", "error: --weihgts: unknown option; did you mean --weights?"),
        ("predict text.jpg --device tpu --weights {w}", "error: --device: 'tpu' is not available; use 'cpu' or 'cuda'"),
        ("train", "error: danet train: RECIPE is missing; specify a recipe"),
        ("train toy --workers -1 --out new", "error: --workers: must be 0 or more, got -1; use 0 to load images in"),
        (
            "train toy --no-network.pretrained",
            "error: --no-network.pretrained: unknown option; did you mean",
        ),
        ("train toy extra", "error: extra: unexpected argument; see danet train toy --help"),
        ("train toy --data.crop 512", "error: --data.crop: needs 2 values, got 1; see danet train toy --help"),
        ("train toy --data.crop 512 x", "error: --data.crop: must be two whole numbers, got '512' 'x'; see"),
        (
            "train toy --data.batch 4 --optim.accumulate 3",
            "error: --data.batch: 4 cannot be divided by --optim",
        ),
        ("train toy --optim.accumulate 0", "error: --optim.accumulate: must be at least 1, got 0; for example, use 1"),
        (
            "train toy --network.decoder-stride 3",
            "error: --network.decoder-stride: must be 4 or 2, got 3; for example, use 4",
        ),
        (
            "train toy --network.decoder-width 7",
            "error: --network.decoder-width: must be from 8 to 1024, got 7; for example, use 64",
        ),
        ("train --resume r", "error: r: not a run folder (no recipe.yaml); specify a folder written by danet train"),
        (
            "predict http://a.org/x.jpg --weights {w}",
            "error: http://a.org/x.jpg: danet does not download files",
        ),
        ("predict text.jpg text.jpg --weights {w}", "error: text.jpg: given twice; list it once"),
        (
            "predict text.jpg r/text.jpg --weights {w}",
            "error: r/text.jpg: would overwrite the results of text",
        ),
        ("predict --size big", "error: --size: must be a whole number, got 'big'; see danet predict --help"),
        ("predict text.jpg --overwrite yes", "error: yes: unexpected argument; see danet predict --help"),
        ("predict text.jpg --weights a.pth", "error: a.pth: not a .safetensors file; convert it with danet convert"),
        ("look text.jpg --point a b", "error: --point: must be two whole numbers, got 'a' 'b'; see"),
        (
            "look text.jpg --channels 1 x",
            "error: --channels: must be whole numbers, got '1' 'x'; see",
        ),
        ("look", "error: danet look: no images given; specify one or more images"),
        ("report", "error: danet report: no run folders given; specify one or more"),
        ("serve --port http", "error: --port: must be a whole number, got 'http'; see danet serve --help"),
        ("serve --max-mb 0", "error: --max-mb: must be above 0 and at most 1024, got 0; for example, use 20"),
        ("init", "error: danet init: FOLDER is missing; specify the folder that contains the images and masks"),
        ("init text.jpg", "error: text.jpg: not a folder; specify the folder that contains the images and masks"),
        ("init good/masks", "error: good/masks: contains no images with masks; use good"),
        ("check text.jpg", "error: text.jpg: not a folder; use the folder that contains dataset.yaml"),
        (
            "check good/images",
            "error: good/images/dataset.yaml: no such file, but good/dataset.yaml exists",
        ),
        ("check bad", "error: bad/dataset.yaml: invalid YAML at line 2: expected ',' or ']'; correct it"),
        ("check --dataset vocc", "error: --dataset: 'vocc' is unknown; did you mean voc?"),
        ("export", "error: danet export: --to is missing; use --to onnx or --to openvino"),
        (
            "export --to onnx --calibration-count -3",
            "error: --calibration-count: must be at least 1, got -3",
        ),
        ("export --to onnx --out x.xml", "error: x.xml: ONNX files must end in .onnx; change --out"),
        ("convert", "error: danet convert: SOURCE and DESTINATION are missing; see danet convert --help"),
        ("convert a.pth", "error: danet convert: DESTINATION is missing; specify the .safetensors file to write"),
        ("recipes camvid nope", "error: nope: unknown recipe; run danet recipes to list all recipes"),
        ("evaluate {w} --device", "error: --device: needs a value; see danet evaluate --help"),
        ("train tyo", "error: tyo: unknown recipe; did you mean toy?"),
        ("train toy --optim.epoch 3", "error: --optim.epoch: unknown option; did you mean --optim.epochs?"),
        ("train toy --lr 0.1", "error: --lr: unknown option; did you mean --optim.lr?"),
        ("train toy --epoch 3", "error: --epoch: unknown option; did you mean --optim.epochs?"),
        ("train toy --position 0", "error: --position: unknown option; did you mean --network.position or --loss.pos"),
        ("train toy --no-pretrained", "error: --no-pretrained: unknown option; did you mean --network.no-pretrained?"),
        ("train toy --fold 0/5", "error: --data.fold: must be I/K, with K at least 2 and I from 1 to K, got '0/5'"),
        ("train toy --fold 1/5", "error: --data.fold: is for images in files, and these are generated; leave it out"),
        ("evaluate {w} --dataset toy --fold 1/1", "error: --fold: must be I/K, with K at least 2 and I from 1 to K"),
        ("train toy --optim.lr fast", "error: --optim.lr: must be a number, got 'fast'; see danet train toy --help"),
        ("train toy --optim.lr nan", "error: --optim.lr: must be a number above 0, got nan; for example, use 0.01"),
        ("train toy --network.backbone resnt18 --out r", "error: --network.backbone: timm has no model 'resnt18'; did"),
        ("train toy --device cuda --out r", "error: --device: 'cuda' is not available (no GPU was found); use 'cpu'"),
        ("train folder --data.root absent", "error: absent: no such folder; use the folder that contains dataset.yaml"),
        ("train camvid", "error: --data.root: missing; specify the folder of the camvid dataset"),
        (
            "train cityscapes-fcn50 --data.root r --out s",
            "error: r/leftImg8bit/train: contains no CITY/*_leftImg8bit.png; set --data.root to the folder",
        ),
        (
            "evaluate {w} --dataset toy --confusion c.jpg",
            "error: --confusion: must be a .png file, got c.jpg; change the suffix",
        ),
        ("train --resume absent", "error: absent: no such folder; specify a folder written by danet train"),
        ("evaluate {w} --dataset camvidd", "error: --dataset: 'camvidd' is unknown; did you mean camvid?"),
        (
            "evaluate {w} --dataset toy-context",
            "error: {w}: its classes differ from the dataset's (class 3 is",
        ),
        (
            "evaluate",
            "error: danet evaluate: WEIGHTS is missing; specify a .safetensors file",
        ),
        (
            "evaluate default --dataset toy-context",
            "error: default: its classes differ from the dataset's (11 here, 6 there; ",
        ),
        ("evaluate {w} --dtype float16", "error: --dtype: 'float16' is unknown; use one of float32, bfloat16"),
        ("train toy --class-weights a", "error: --class-weights: 'a' is unknown; use one of none, auto, enet, median"),
        ("evaluate {w} --root", "error: --root: needs a value; see danet evaluate --help"),
        ("convert absent.pth w.safetensors", "error: absent.pth: no such file"),
        ("recipes all", "error: all: unknown recipe; run danet recipes to list all recipes"),
        ("evaluate {w} --dataset toy --json a --images a", "error: a: two results would be written to this file"),
        (
            "evaluate {w} --dataset toy --report absent/r.html",
            "error: absent/r.html: its folder absent does not exist; create",
        ),
        ("check r --json a --manifest a", "error: a: two results would be written to this file"),
        (
            "train toy --data.train-split trian --dry-run",
            "error: --data.train-split: 'trian' is unknown; use",
        ),
    ],
)
def test_user_errors_are_one_line_and_exit_status_2(command, line, tiny_weights, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "text.jpg").write_text("hello")
    for folder in ("r", "run", "good/images", "good/masks", "bad"):
        (tmp_path / folder).mkdir(parents=True)
    for folder in ("good/images", "good/masks"):
        Image.new("L", (4, 4)).save(tmp_path / folder / "a.png")
    (tmp_path / "good/dataset.yaml").write_text("classes: [a]")
    (tmp_path / "bad/dataset.yaml").write_text("classes: [a\nval: 0.2\n")
    (tmp_path / "a.pth").write_bytes(b"PK")
    for name in ("best.safetensors", "last.ckpt"):
        (tmp_path / "run" / name).write_bytes(b"")
    args = [arg.format(w=tiny_weights) for arg in command.split()]
    if "toy" in args and "train" in args and "--out" not in args:
        args += ["--out", "r"]
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    if args[:2] == ["predict", "."]:
        (tmp_path / "text.jpg").unlink()
    assert main(args) == 2
    printed = capsys.readouterr()
    assert printed.err.startswith(line.format(w=tiny_weights))
    assert printed.err.count("\n") == 1
    assert "; " in printed.err
    assert printed.out == ""
    assert not (tmp_path / "new").exists()


def test_check_names_options_in_its_report(tmp_path, capsys):
    assert main(["check", "--dataset", "cityscapes", "--root", str(tmp_path)]) == 2
    printed = capsys.readouterr().out
    assert "; set --root to the folder that contains leftImg8bit and gtFine; get " in printed
    assert "`" not in printed
    assert "split" not in printed


def test_bf16_is_accepted_for_bfloat16(capsys):
    from danet.cli.evaluate import Evaluate
    from danet.cli.parsing import parse

    assert parse(Evaluate, ["w", "--dtype", "bf16"], "evaluate").dtype == "bfloat16"
    assert parse(Evaluate, ["w", "--dtype=bf16"], "evaluate").dtype == "bfloat16"
    assert recipes.from_dict({"optim": {"precision": "bf16"}}, "recipe.yaml").optim.precision == "bfloat16"


def test_a_list_may_be_given_in_several_parts():
    from danet.cli.look import Look
    from danet.cli.parsing import parse

    args = ["x.jpg", "--weights", "a", "--point", "1", "2", "--weights=b", "c", "--point", "3", "4", "--channels", "1"]
    found = parse(Look, [*args, "--channels", "2", "7"], "look")
    assert list(map(str, found.weights)) == ["a", "b", "c"]
    assert found.point == ((1, 2), (3, 4))
    assert found.channels == (1, 2, 7)
    assert list(map(str, found.images)) == ["x.jpg"]


def test_errors_of_the_network_name_its_options(capsys):
    """Of those that the losses have too."""
    command = ["train", "toy", "--network.architecture", "dranet", "--network.no-position", "--dry-run"]
    assert main(command) == 2
    assert capsys.readouterr().err.startswith("error: --network.position: False is not supported by dranet")


def test_recipes_with_a_decoder_train_dranet_too(capsys):
    command = ["train", "camvid", "--network.architecture", "dranet", "--network.backbone", "test_resnet"]
    assert main([*command, "--network.no-pretrained", "--data.crop", "64", "64", "--dry-run"]) == 0


def test_flags_that_are_off_can_be_negated_but_help_hides_it(capsys):
    from danet.cli.parsing import parse
    from danet.cli.predict import Predict

    assert not parse(Predict, ["a", "--no-overwrite"], "predict").overwrite
    with pytest.raises(SystemExit):
        main(["predict", "--help"])
    assert "--no-overwrite" not in capsys.readouterr().out


@pytest.mark.parametrize(
    ("command", "usage"),
    [
        ("predict", "[OPTIONS] IMAGE [IMAGE ...]"),
        ("convert", "[OPTIONS] SOURCE DESTINATION"),
        ("report", "RUN [RUN ...]"),
        ("evaluate", "[OPTIONS] [WEIGHTS]"),
        ("recipes", "[NAME ...]"),
    ],
)
def test_usage_names_the_arguments(command, usage, capsys):
    with pytest.raises(SystemExit):
        main([command, "--help"])
    printed = capsys.readouterr().out
    assert usage in printed.split("\n\n")[0]
    assert not re.search(r"\{None\}|PATH|STR|INT\b|FLOAT|For example:|--no-(?!align|verify|images)", printed)


def test_help_and_version_of_the_program(capsys):
    assert main(["help"]) == main(["--help"]) == 0
    usage = capsys.readouterr().out
    assert "--version" in usage
    with pytest.raises(SystemExit):
        main(["train", "--resume", "--help"])
    assert capsys.readouterr().out.startswith("usage: danet train")


def test_debug_shows_the_traceback():
    with pytest.raises(Exception, match="unknown command"):
        main(["predikt", "--debug"])


def test_a_file_name_cannot_write_to_the_terminal(tmp_path, capsys, tiny_weights):
    assert main(["predict", str(tmp_path / "a\x1b[31m\nb.jpg"), "--weights", str(tiny_weights)]) == 2
    error = capsys.readouterr().err
    assert "\\x1b[31m\\nb.jpg" in error
    assert error.count("\n") == 1


@pytest.mark.parametrize("command", [[], *([name] for name in COMMANDS if name != "recipes"), ["train", "toy"]])
def test_help_is_quick_and_shows_the_defaults(command):
    start = time.monotonic()
    call, wide = [sys.executable, "-m", "danet", *command, "--help"], {**os.environ, "COLUMNS": "160"}
    done = subprocess.run(call, capture_output=True, text=True, check=True, env=wide)
    elapsed = time.monotonic() - start
    assert "usage:" in done.stdout or "danet COMMAND --help" in done.stdout
    if command == ["train", "toy"]:
        assert re.search(r"--optim\.momentum X +momentum of SGD \(default: 0\.9\)", done.stdout)
    assert elapsed < (0.7 if os.environ.get("DANET_QUIET_MACHINE") else 3.0)  # 0.7 s on an idle machine


@pytest.mark.parametrize("command", [*([name] for name in COMMANDS), ["train", "toy"], ["train", "--resume", "run"]])
def test_help_states_the_default_of_each_option_once(command, capsys):
    with pytest.raises(SystemExit) if command != ["train"] else contextlib.nullcontext():
        main([*command, "--help"])
    lines = [line.strip("│ ") for line in capsys.readouterr().out.splitlines()]
    arguments = re.split(r"\n(?=--|╭)", "\n".join(lines))
    assert command == ["train"] or len(arguments) > 2
    for text in (" ".join(argument.split()) for argument in arguments):
        assert not re.search(r"\(default: (None|''|)\)", text), text
        assert text.count("default:") <= 1, text


@pytest.mark.parametrize(
    ("command", "expected"),
    [
        ("train folder", "--data.size N|auto|None"),
        ("train folder", "default: keep their size (this recipe: auto)"),
        ("train folder", "default: --optim.weight-decay (this recipe: 0.0)"),
        ("train folder", "relative to what --data.scale-from says (default: 0.5 2.0)"),
        ("evaluate", "--counts DIR"),
        ("evaluate", "--predictions DIR score"),
        ("predict", "--shard I/N"),
        ("export", "--verify-on DIR"),
    ],
)
def test_help_states_values_of_the_recipe_and_forms_of_values(command, expected, capsys):
    with pytest.raises(SystemExit):
        main([*command.split(), "--help"])
    assert expected in " ".join(capsys.readouterr().out.replace("│", " ").split())


def test_help_imports_no_torch():
    code = "import sys; sys.argv = ['danet', 'train', 'toy', '--help']; from danet.cli import main\n"
    code += "try: main()\nexcept SystemExit: pass\nassert 'torch' not in sys.modules, 'torch was imported'"
    subprocess.run([sys.executable, "-c", code], check=True, stdout=subprocess.DEVNULL)


def test_names_of_classes_are_printed_and_written_as_they_are(tiny_weights, tmp_path, capsys):
    """Not as markup of rich, nor as formulas of a spreadsheet."""
    names = ("[/red]", "=cmd|' /C calc'!A0", "-1+2", "[bold]x[/bold]", "a:smiley:", "été 🎉")
    network, card = weights_file.load(tiny_weights)
    classes = Classes.named(names)
    weights_file.save(tmp_path / "w.safetensors", network, replace(card, classes=classes))
    build(tmp_path, [stripes(*range(6))] * 10)
    (tmp_path / "dataset.yaml").write_text(f"classes: {json.dumps(names, ensure_ascii=False)}\n")
    csv_file = tmp_path / "images.csv"
    words = ["evaluate", str(tmp_path / "w.safetensors"), "--root", str(tmp_path), "--images", str(csv_file)]
    assert main(words) == 0
    printed = capsys.readouterr().out
    for name in names:
        assert name in printed
    worst = {row["worst_class"] for row in csv.DictReader(csv_file.read_text().splitlines())}
    assert worst <= {"[/red]", "'=cmd|' /C calc'!A0", "'-1+2", "[bold]x[/bold]", "a:smiley:", "été 🎉"}
