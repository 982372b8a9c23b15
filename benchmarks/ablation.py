"""Tables 1 and 2 of the paper on CamVid, with a small backbone.

The dilated FCN, each attention module, both, then random scaling, multi-grid and multi-scale testing added one by one;
both forms of channel attention (released and Eq. 3); and both modules with attention switched off at test time.

    python -m benchmarks.ablation --root CAMVID --seeds 3 --json benchmarks/results/ablation.json
"""

import sys
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import torch

from benchmarks import campaign, command
from benchmarks.campaign import SHRINK
from benchmarks.summary import Row, table
from danet.errors import InputError
from danet.model.backbone import build_backbone
from danet.recipes import PUBLISHED, Network, Recipe


def run(options: campaign.Options) -> dict[str, Any]:
    """Train and compare all rows."""
    return campaign.run(rows(campaign.base(options)), options)


def rows(base: Recipe) -> Sequence[Row]:
    """Return the rows in the paper's order, starting without random scaling."""

    def using(**changes: object) -> Recipe:
        return replace(base, network=replace(base.network, **changes))

    def published(name: str) -> dict[str, float]:
        rows = {f"ResNet-{depth}": PUBLISHED.get(f"cityscapes-{name.format(depth)}") for depth in (50, 101)}
        return {backbone: row.miou for backbone, row in rows.items() if row and row.miou is not None}

    scale = (0.75 * SHRINK, 2.0 * SHRINK)  # the released code's range
    scaled = replace(base, data=replace(base.data, scale=scale))
    dilations = tuple(8 * rate // base.network.output_stride for rate in (4, 8, 16))
    gridded = replace(scaled, network=replace(scaled.network, layer4_dilations=dilations))
    without_grid = _without_multi_grid(gridded.network)
    best = "scaling" if without_grid else "multi-grid"
    fcn = ("fcn",)
    return [
        Row("fcn", "dilated FCN", using(position=False, channel=False), published=published("fcn{}")),
        Row("position", "position attention", using(channel=False), fcn, published=published("position{}")),
        Row("channel", "channel attention, released", using(position=False), fcn, published=published("channel{}")),
        Row("channel-eq3", "channel attention, Eq. 3", using(position=False, channel_form="paper"), (*fcn, "channel")),
        Row("both", "both, released", base, fcn, published=published("danet{}")),
        Row(
            "both-off",
            "both, attention off at test time",
            base,
            (*fcn, "both"),
            run="both",
            off=("position", "channel"),
        ),
        Row("both-eq3", "both, Eq. 3", using(channel_form="paper"), (*fcn, "both")),
        Row("scaling", "both + random scaling", scaled, (*fcn, "both"), published=published("danet{}-da")),
        Row(
            "multi-grid",
            "  + multi-grid",
            gridded,
            (*fcn, "scaling"),
            published=published("danet{}-da-mg"),
            left_out=without_grid,
        ),
        Row(
            "multi-scale",
            "  + multi-scale testing",
            scaled if without_grid else gridded,
            (*fcn, best),
            run=best,
            protocol="paper-multi",
            published=published("danet{}-da-mg-ms"),
        ),
    ]


def _without_multi_grid(network: Network) -> str:
    """Return why a backbone does not support multi-grid; "" if it does."""
    try:
        with torch.device("meta"):
            build_backbone(network.backbone, network.output_stride, network.layer4_dilations)
    except InputError as error:
        return f"{error.where}: {error.what}"
    return ""


if __name__ == "__main__":
    sys.exit(command.main("ablation", campaign.Options, run, table, overwrite=True))
