"""The paper's recipes, number by number against what the paper and the released code of 2018-2019 say, docs/paper.md's
tables against the recipes, and `danet recipes`.
"""

import re
import shlex
from dataclasses import replace
from pathlib import Path

import pytest

from danet import recipes
from danet.cli import main
from danet.data.registry import DATASETS
from danet.predict.protocols import PROTOCOLS
from danet.recipes import PUBLISHED, Data, Network, Optim, Recipe

PAGE = (Path(__file__).parents[2] / "docs/paper.md").read_text()
MULTI_GRID = (4, 8, 16)
CITYSCAPES = Data("cityscapes", None, "train", "val", batch=8, crop=(768, 768), scale=(1.0, 1.0))
SCALED = replace(CITYSCAPES, scale=(0.75, 2.0))
OTHERS = Data("", batch=16, crop=(576, 576), scale=(0.75, 2.0), short_side=608, size=608)
VOC = replace(OTHERS, dataset="voc", train_split="trainaug", val_split="val")
CONTEXT = replace(OTHERS, dataset="context", train_split="train", val_split="val")
STUFF = replace(OTHERS, dataset="coco-stuff", train_split="train", val_split="test")
SINGLE, SEVERAL = "released-single-cityscapes", "released-multi-cityscapes"

PAPER = [  # table, name, mIoU, protocol, depth, position, channel, multi-grid, epochs, learning rate, data
    ("1", "cityscapes-fcn50", 70.03, SINGLE, 50, False, False, None, 180, 0.01, CITYSCAPES),
    ("1", "cityscapes-position50", 75.74, SINGLE, 50, True, False, None, 180, 0.01, CITYSCAPES),
    ("1", "cityscapes-channel50", 74.28, SINGLE, 50, False, True, None, 180, 0.01, CITYSCAPES),
    ("1", "cityscapes-danet50", 76.34, SINGLE, 50, True, True, None, 180, 0.003, CITYSCAPES),
    ("1", "cityscapes-fcn101", 72.54, SINGLE, 101, False, False, None, 180, 0.01, CITYSCAPES),
    ("1", "cityscapes-position101", 77.03, SINGLE, 101, True, False, None, 180, 0.01, CITYSCAPES),
    ("1", "cityscapes-channel101", 76.55, SINGLE, 101, False, True, None, 180, 0.01, CITYSCAPES),
    ("1", "cityscapes-danet101", 77.57, SINGLE, 101, True, True, None, 180, 0.003, CITYSCAPES),
    ("2", "cityscapes-danet101-da", 78.83, SINGLE, 101, True, True, None, 240, 0.003, SCALED),
    ("2", "cityscapes-danet101-da-mg", 79.94, SINGLE, 101, True, True, MULTI_GRID, 240, 0.003, SCALED),
    ("2", "cityscapes-danet101-da-mg-ms", 81.50, SEVERAL, 101, True, True, MULTI_GRID, 240, 0.003, SCALED),
    ("4", "voc-fcn50", 75.7, "released-multi", 50, False, False, None, 240, 0.002, VOC),
    ("4", "voc-danet50", 79.0, "released-multi", 50, True, True, MULTI_GRID, 240, 0.002, VOC),
    ("4", "voc-danet101", 80.4, "released-multi", 101, True, True, MULTI_GRID, 240, 0.002, VOC),
    (
        *("5", "voc-danet101-trainval", 82.6, "released-multi", 101, True, True, MULTI_GRID, 50, 0.0002),
        replace(VOC, train_split="trainval"),
    ),
    ("6", "context-fcn50", 44.3, "released-multi", 50, False, False, None, 240, 0.002, CONTEXT),
    ("6", "context-danet50", 50.1, "released-multi", 50, True, True, MULTI_GRID, 240, 0.002, CONTEXT),
    ("6", "context-danet101", 52.6, "released-multi", 101, True, True, MULTI_GRID, 240, 0.002, CONTEXT),
    ("7", "coco-stuff-fcn50", 31.9, "released-multi", 50, False, False, None, 180, 0.002, STUFF),
    ("7", "coco-stuff-danet50", 37.2, "released-multi", 50, True, True, MULTI_GRID, 180, 0.002, STUFF),
    ("7", "coco-stuff-danet101", 39.7, "released-multi", 101, True, True, MULTI_GRID, 180, 0.002, STUFF),
]


@pytest.mark.parametrize("row", PAPER, ids=lambda row: row[1])
def test_every_row_of_the_paper_number_by_number(row):
    table, name, miou, protocol, depth, position, channel, multi_grid, epochs, rate, data = row
    published = PUBLISHED[name]
    assert (published.table, published.miou, published.protocol) == (table, miou, protocol)
    assert published.recipe == Recipe(
        about=published.recipe.about,
        network=Network(f"resnet{depth}", 8, multi_grid, position, channel, dropout=0.1, align_corners=True),
        data=data,
        optim=Optim(
            *(epochs, None, rate),
            head_lr_factor=10.0,
            momentum=0.9,
            weight_decay=1e-4,
            power=0.9,
            lr_floor=0.0,
            warmup=0,
            ema=0.0,
        ),
        loss=(1.0, 1.0, 1.0, 0.4),  # the last has no output to be of
        validate_every=10,
        fine_tunes="voc-danet101" if name == "voc-danet101-trainval" else "",
    )
    assert (data.flip, data.jitter, data.photometric, data.largest_share) == (0.5, 0.0, False, 1.0)


def test_these_are_all_rows_of_the_paper_in_its_order():
    assert [row[1] for row in PAPER] == [name for name, row in PUBLISHED.items() if row.table != "mmseg"]


def test_the_gains_that_the_papers_text_names_lie_between_its_rows():
    miou = {name: row.miou for name, row in PUBLISHED.items()}
    for better, worse, gain in (
        ("cityscapes-position50", "cityscapes-fcn50", 5.71),
        ("cityscapes-channel50", "cityscapes-fcn50", 4.25),
        ("cityscapes-danet101", "cityscapes-fcn101", 5.03),
        ("cityscapes-danet101-da", "cityscapes-danet101", 1.26),
        ("cityscapes-danet101-da-mg", "cityscapes-danet101-da", 1.11),
        ("voc-danet50", "voc-fcn50", 3.3),
    ):
        assert miou[better] - miou[worse] == pytest.approx(gain), better


def test_several_scales_are_a_row_of_the_same_training():
    once, again = (PUBLISHED[f"cityscapes-danet101-da-mg{suffix}"].recipe for suffix in ("", "-ms"))
    assert replace(again, about=once.about) == once
    assert "do not train twice" in again.about


@pytest.mark.parametrize("name", [name for name, row in PUBLISHED.items() if row.table == "mmseg"])
def test_mmsegmentations_rows_are_shown_at_its_sizes(name):
    data, protocol = PUBLISHED[name].recipe.data, PUBLISHED[name].protocol
    assert data.scale == (0.5, 2.0)
    if data.dataset == "cityscapes":
        crop = (769, 769) if "769x769" in name else (512, 1024)
        assert (data.batch, data.crop, data.short_side, data.size) == (8, crop, None, None)
        assert protocol == ("mmseg-slide-769" if "769x769" in name else "mmseg-whole")
    else:
        assert (data.batch, data.crop, data.short_side, data.size) == (16, (512, 512), 512, 683)
        assert protocol == "mmseg-whole-512"
        assert PROTOCOLS[protocol].base(375, 500) == data.size


def cells(name_at: int) -> list[list[str]]:
    """Of each line of the page's tables whose cell number `name_at` is a recipe's name."""
    lines = [[cell.strip().strip("`") for cell in line.split("|")[1:-1]] for line in PAGE.splitlines()]
    return [line for line in lines if len(line) > name_at and line[name_at] in PUBLISHED]


def test_the_papers_tables_on_the_page_are_the_recipes():
    assert [(line[0], line[1], line[2], float(line[3]), *line[4:]) for line in cells(1)] == [
        (row.table, name, row.recipe.network.backbone, row.miou, row.ports, row.protocol)
        for name, row in PUBLISHED.items()
        if row.table != "mmseg"
    ]


def test_mmsegmentations_table_on_the_page_is_the_recipes():
    found = []
    for name, backbone, miou, several, others, protocol in cells(0):
        tested = several and f"{several} with six scales and flip (--protocol {protocol}-multi)"
        assert not several or f"{protocol}-multi" in PROTOCOLS
        found.append((name, backbone, float(miou), "; ".join(filter(None, (tested, others))), protocol))
    assert found == [
        (name, row.recipe.network.backbone, row.miou, row.ports, row.protocol)
        for name, row in PUBLISHED.items()
        if row.table == "mmseg"
    ]


def test_the_commands_above_each_table_are_those_of_its_rows():
    """Dataset and split are the recipe's, names exist, and every table has its commands."""
    seen = set()
    for section in PAGE.split("\n### ")[1:]:
        commands = [shlex.split(line) for line in section.splitlines() if line.startswith("danet ")]
        named = re.findall(r"^\| \d \| `([\w-]+)` \| resnet", section, re.MULTILINE)
        named += re.findall(r"^\| `(mmseg-[\w-]+)` \| resnet", section, re.MULTILINE)
        seen.update(named)
        assert [command[1] for command in commands] == ["train", "evaluate"] * (len(commands) // 2)
        assert bool(commands) >= bool(named)
        for train, evaluate in zip(commands[::2], commands[1::2], strict=True):
            assert evaluate[2] == f"runs/{train[2]}/best.safetensors"
            options = dict(zip(evaluate[3::2], evaluate[4::2], strict=True))
            assert options["--protocol"] in {"PROTOCOL", *PROTOCOLS}
            assert options["--dataset"] in {"NAME", *DATASETS}
            for name in named if train[2] == "RECIPE" else [train[2]]:
                data = PUBLISHED[name].recipe.data
                assert options["--dataset"] in ("NAME", data.dataset)
                split = options.get("--split", "val")
                assert split == (data.val_split if "--submit" not in options else "test")
                assert split in DATASETS[data.dataset].counts
    assert seen == set(PUBLISHED)


def test_what_is_listed_is_in_words(capsys):
    assert main(["recipes"]) == 0
    said = capsys.readouterr().out
    assert "0.0 GiB" not in said
    assert "1 epochs" not in said
    assert "1 epoch, 1,250 steps, 5,000 images\n    memory of a GPU, estimated: 9 MiB and 14 MiB for each" in said
    assert "2 epochs, 1,200 steps, 2,400 images" in said
    assert "mIoU 78.88 in mmsegmentation; 80.62 with six scales and flip (--protocol mmseg-slide-769-multi); " in said
    assert len(re.findall(r"^\S", said, re.MULTILINE)) == len(recipes.RECIPES)
