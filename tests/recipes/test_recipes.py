"""The recipes against the numbers of the paper and the released code, and against the tables of docs/paper.md.

Also `danet recipes`, and recipe files of danet 0.1.0.
"""

import re
import shlex
import subprocess
import sys
from dataclasses import asdict, fields, replace
from pathlib import Path

import pytest
import torch

from danet import DANet, InputError, recipes
from danet.cli import main
from danet.data.registry import DATASETS
from danet.files import format_bytes
from danet.model.baselines import build_network
from danet.model.loss import FACTORS
from danet.predict.protocols import PROTOCOLS
from danet.recipes import PUBLISHED, Data, Loss, Network, Optim, Recipe, from_dict
from danet.train.estimate import estimate
from danet.yaml_files import read_yaml

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
    ("4", "voc-position50", None, "released-multi", 50, True, False, MULTI_GRID, 240, 0.002, VOC),
    ("4", "voc-channel50", None, "released-multi", 50, False, True, MULTI_GRID, 240, 0.002, VOC),
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
def test_every_row_of_the_paper_has_its_numbers(row):
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
        loss=Loss(1.0, 1.0, 1.0, 0.4, 0.0),  # the fourth has no effect without an auxiliary head
        validate_every=10,
        fine_tunes="voc-danet101" if name == "voc-danet101-trainval" else "",
    )
    assert (data.flip, data.jitter, data.photometric, data.largest_share) == (0.5, 0.0, False, 1.0)


def test_recipes_are_all_rows_of_the_paper_in_order():
    assert [row[1] for row in PAPER] == [
        name for name, row in PUBLISHED.items() if row.table not in ("dranet", "mmseg")
    ]


def test_gains_in_the_text_of_the_paper_match_its_rows():
    miou = {name: row.miou for name, row in PUBLISHED.items() if row.miou is not None}
    for better, worse, gain in (
        ("cityscapes-position50", "cityscapes-fcn50", 5.71),
        ("cityscapes-channel50", "cityscapes-fcn50", 4.25),
        ("cityscapes-danet101", "cityscapes-fcn101", 5.03),
        ("cityscapes-danet101-da", "cityscapes-danet101", 1.26),
        ("cityscapes-danet101-da-mg", "cityscapes-danet101-da", 1.11),
        ("voc-danet50", "voc-fcn50", 3.3),
    ):
        assert miou[better] - miou[worse] == pytest.approx(gain), better


def test_multi_scale_row_has_the_same_training():
    once, again = (PUBLISHED[f"cityscapes-danet101-da-mg{suffix}"].recipe for suffix in ("", "-ms"))
    assert replace(again, about=once.about) == once
    assert "do not train twice" in again.about


@pytest.mark.parametrize("name", [name for name, row in PUBLISHED.items() if row.table == "mmseg"])
def test_mmsegmentation_recipes_use_its_image_sizes(name):
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


@pytest.mark.parametrize("name", sorted(name for name in PUBLISHED if name.startswith("mmseg")))
def test_mmsegmentation_recipes_have_its_schedule_and_network(name):
    recipe = recipes.find(name)
    assert recipe.network.auxiliary
    assert recipe.network.backbone.endswith("c")
    assert recipe.network.align_corners == ("769x769" in name)
    assert recipe.optim.steps == 1000 * int(name.rsplit("-", 1)[1].removesuffix("k"))
    assert (recipe.optim.lr, recipe.optim.lr_floor, recipe.optim.weight_decay) == (0.01, 1e-4, 5e-4)
    assert recipe.optim.head_lr_factor == 1
    assert recipe.data.photometric
    assert recipe.data.largest_share == 0.75
    assert recipe.data.train_split in DATASETS[recipe.data.dataset].counts
    assert recipe.loss == Loss(1.0, 1.0, 1.0, 0.4, 0.0)


def cells(name_at: int) -> list[list[str]]:
    """Return the cells of each table row on the page whose cell `name_at` is the name of a recipe."""
    lines = [[cell.strip().strip("`") for cell in line.split("|")[1:-1]] for line in PAGE.splitlines()]
    return [line for line in lines if len(line) > name_at and line[name_at] in PUBLISHED]


def test_tables_of_the_paper_page_equal_the_recipes():
    assert [
        (line[0], line[1], line[2], None if line[3] == "n/a" else float(line[3]), *line[4:]) for line in cells(1)
    ] == [
        (row.table, name, row.recipe.network.backbone, row.miou, row.ports, row.protocol)
        for name, row in PUBLISHED.items()
        if row.table not in ("dranet", "mmseg")
    ]


def test_mmsegmentation_table_of_the_page_equals_the_recipes():
    found = []
    for name, backbone, miou, several, others, protocol in (row for row in cells(0) if row[0].startswith("mmseg")):
        tested = several and f"{several} with six scales and flip (--protocol {protocol}-multi)"
        assert not several or f"{protocol}-multi" in PROTOCOLS
        found.append((name, backbone, float(miou), "; ".join(filter(None, (tested, others))), protocol))
    assert found == [
        (name, row.recipe.network.backbone, row.miou, row.ports, row.protocol)
        for name, row in PUBLISHED.items()
        if row.table == "mmseg"
    ]


def test_dranet_recipe_has_the_released_settings_and_its_row_on_the_page():
    row = PUBLISHED["cityscapes-dranet101"]
    assert row.recipe == Recipe(
        about=row.recipe.about,
        network=Network("resnet101s", 8, MULTI_GRID, auxiliary=True, architecture="dranet"),
        data=replace(CITYSCAPES, scale=(0.5, 2.0)),
        optim=Optim(240, None, 0.004 / 16 * 8, head_lr_factor=10.0, momentum=0.9, weight_decay=1e-4, power=0.9),
        loss=Loss(1.0, 1.0, 1.0, 0.2, 0.0),
        validate_every=10,
    )
    assert row.table == "dranet"
    on_page = [line for line in cells(0) if line[0] == "cityscapes-dranet101"]
    assert on_page == [["cityscapes-dranet101", "resnet101s", str(row.miou), row.ports, row.protocol]]


@pytest.mark.parametrize(("batch", "accumulate", "valid"), [(2, 1, True), (8, 4, True), (1, 1, False), (8, 8, False)])
def test_dranet_needs_two_images_at_once(batch, accumulate, valid):
    recipe = replace(
        recipes.TOY,
        network=replace(recipes.TOY.network, architecture="dranet"),
        data=replace(recipes.TOY.data, batch=batch),
        optim=replace(recipes.TOY.optim, accumulate=accumulate),
    )
    if valid:
        recipes.check(recipe)
    else:
        message = rf"data\.batch: dranet needs 2 images or more at once, got {batch} .*; use at least {2 * accumulate}"
        with pytest.raises(InputError, match=message):
            recipes.check(recipe)
    recipes.check(replace(recipe, network=recipes.TOY.network))


@pytest.mark.parametrize(
    "network",
    [
        Network(),
        Network(position=False),
        Network(position=False, channel=False),
        Network(auxiliary=True),
        Network(architecture="dranet", auxiliary=True),
        Network(architecture="encnet"),
        Network(architecture="ocrnet"),
        Network(architecture="bisenet"),
        Network(architecture="gcnet", auxiliary=True),
    ],
)
def test_weights_of_losses_that_the_network_lacks_do_not_suffice(network):
    network = replace(network, backbone="test_resnet", width=16, pretrained=False)
    built = build_network(**{**vars(network), "num_classes": 3}).train()
    options = {"attention": True} if network.architecture == "danet" and network.position else {}
    with torch.no_grad():
        found = built(torch.randn(2, 3, 64, 64), **options)._asdict()
    for name in FACTORS:
        recipe = Recipe(network=network, loss=Loss(**{each: float(each == name) for each in FACTORS}))
        if found.get(name) is not None:
            recipes.check(recipe)
        else:
            with pytest.raises(InputError, match=r"^loss\.fused: must be above 0 .*, got 0\.0; for example, use 1\.0"):
                recipes.check(recipe)


def test_commands_on_the_page_match_their_recipes():
    """Datasets and splits are those of the recipe, all names exist, and every table has its commands."""
    named_on_page = set()
    for section in PAGE.split("\n### ")[1:]:
        commands = [shlex.split(line) for line in section.splitlines() if line.startswith("danet ")]
        named = re.findall(r"^\| \d \| `([\w-]+)` \| resnet", section, re.MULTILINE)
        named += re.findall(r"^\| `((?:mmseg-|cityscapes-dranet)[\w-]+)` \| resnet", section, re.MULTILINE)
        named_on_page.update(named)
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
    assert named_on_page == set(PUBLISHED)


def test_list_names_every_recipe_with_steps_images_and_miou(capsys):
    assert main(["recipes"]) == 0
    printed = capsys.readouterr()
    choice, listed = printed.out.split("\nall recipes:\n")
    assert choice.startswith("how to choose:\n  your own images       danet train folder --data.root my_images\n")
    assert re.findall(r"^\S+", listed, re.MULTILINE) == list(recipes.RECIPES)
    assert "1 epochs" not in printed.out
    assert "1 epoch, 1,250 steps, 5,000 images\ntoy-context\n" in printed.out
    assert "2 epochs, 1,200 steps, 2,400 images" in printed.out
    assert "mIoU 78.88% in mmsegmentation; 80.62 with six scales and flip (--protocol mmseg-slide-769-multi); " in (
        printed.out
    )
    assert "mIoU 78.74% in mmsegmentation; --protocol mmseg-whole\n" in printed.out
    entry = printed.out[printed.out.index("cityscapes-danet101-da-mg-ms\n") :]
    assert "240 epochs, 89,040 steps, 2,975 images" in entry[:300]
    assert "mIoU 81.5% in Table 2 of the paper" in entry[:500]
    assert "mIoU not known in Table 4 of the paper; --protocol released-multi\n" in printed.out
    assert "memory" not in printed.out
    assert "danet recipes NAME also estimates the GPU memory" in printed.err


def test_list_does_not_import_torch():
    code = "import sys; from danet.cli import main; main(['recipes']); sys.exit('torch' in sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True, capture_output=True)


def test_memory_of_named_recipes_is_the_estimate(capsys):
    """GPU memory is computed on request, since it needs torch and a second per recipe."""
    assert main(["recipes", "toy", "folder"]) == 0
    blocks = re.split(r"^(?=\S)", capsys.readouterr().out, flags=re.MULTILINE)[1:]
    assert [block.split("\n")[0] for block in blocks] == ["toy", "folder"]
    for block, recipe, classes in zip(blocks, (recipes.TOY, recipes.RECIPES["folder"]), (6, 2), strict=True):
        assert memory_line(recipe, classes) in block
    assert "estimated GPU memory: 9 MiB plus 14 MiB per image, 64 MiB for a batch of 4\n" in blocks[0]


@pytest.mark.slow
@pytest.mark.parametrize("name", sorted(PUBLISHED))
def test_memory_of_every_published_recipe_is_the_estimate(name, capsys):
    recipe = PUBLISHED[name].recipe
    assert main(["recipes", name]) == 0
    printed = capsys.readouterr().out
    assert memory_line(recipe, len(DATASETS[recipe.data.dataset].classes)) in printed
    assert "0.0 GiB" not in printed
    if name == "cityscapes-danet101":
        assert "761 MiB plus 4.4 GiB per image" in printed


def memory_line(recipe: Recipe, classes: int) -> str:
    cost, batch = estimate(recipe, classes), recipe.data.batch
    sizes = [format_bytes(size) for size in (cost.fixed, cost.per_image, cost.fixed + batch * cost.per_image)]
    return f"estimated GPU memory: {sizes[0]} plus {sizes[1]} per image, {sizes[2]} for a batch of {batch}\n"


def test_reduction_1_gives_query_and_key_all_channels_as_in_the_paper(tmp_path, capsys):
    """From a recipe, the command line and DANet itself."""
    recipe = replace(recipes.TOY, network=replace(recipes.TOY.network, width=16, reduction=1))
    for network in (
        build_network(**{**asdict(recipe.network), "num_classes": 6}),
        DANet(6, "test_resnet", width=16, reduction=1),
    ):
        assert network.position.attention.query.weight.shape == (16, 16, 1, 1)
        assert network.position.attention.key.weight.shape == (16, 16, 1, 1)
    options = ["train", "voc-position50", "--data.root", str(tmp_path), "--dry-run", "--network.reduction"]
    assert main([*options, "0"]) == 2
    assert "--network.reduction: must be at least 1, got 0; for example, use 8" in capsys.readouterr().err
    assert DANet(2, "test_resnet", width=16).position.attention.query.out_channels == 2


def test_recipe_yaml_of_version_0_1_0_loads():
    file = Path(__file__).parents[1] / "version_0_1_0/run/recipe.yaml"
    entries = read_yaml(file)
    recipe = from_dict(entries, str(file))
    assert entries["loss"] == [1.0, 1.0, 1.0, 0.4]  # a mapping since 0.2.0
    assert recipe == replace(
        recipes.TOY,
        loss=Loss(1.0, 1.0, 1.0, 0.4, 0.0),
        about=entries["about"],
        network=replace(recipes.TOY.network, width=16),
        data=replace(recipes.TOY.data, batch=64, crop=(32, 32)),
        optim=replace(recipes.TOY.optim, steps=120, momentum=0.0, ema=0.0),
    )


FIELDS_0_1_0 = {
    Recipe: "about network data optim loss class_weights seed validate_every skip_bad fine_tunes",
    Network: "backbone output_stride layer4_dilations position channel channel_form width dropout align_corners "
    "auxiliary pretrained architecture",
    Data: "dataset root train_split val_split batch crop scale short_side flip largest_share jitter photometric size",
    Optim: "epochs steps lr head_lr_factor momentum weight_decay power lr_floor warmup accumulate ema precision",
}


@pytest.mark.parametrize("kind", FIELDS_0_1_0)
def test_fields_of_version_0_1_0_keep_their_names(kind):
    """Files of users have these keys."""
    assert {field.name for field in fields(kind)} >= set(FIELDS_0_1_0[kind].split())


def test_the_attention_loss_can_be_detached(capsys):
    folder = recipes.find("folder")
    assert folder.forward_options == {"attention": True, "detach": False}
    detached = recipes.with_settings(folder, {"loss.detach_attention": True})
    assert detached.forward_options == {"attention": True, "detach": True}
    recipes.check(detached)
    assert main(["train", "toy", "--loss.detach-attention", "--dry-run"]) == 2
    expected = "error: --loss.detach-attention: must be off without an attention loss, got True"
    assert capsys.readouterr().err.startswith(expected)


@pytest.mark.parametrize(
    "network",
    [{"position": False}, {"architecture": "dranet"}, {"architecture": "smp:Unet"}, {"architecture": "ccnet"}],
)
def test_networks_without_position_attention_have_no_attention_loss(network):
    folder = recipes.find("folder")
    assert folder.supervises_attention
    other = replace(folder, network=replace(folder.network, **network))
    recipes.check(other)
    assert not other.supervises_attention
    cost = estimate(replace(other, network=replace(other.network, backbone="resnet18", pretrained=False)), 3, 3)
    assert cost.parameters > 0
