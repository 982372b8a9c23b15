"""`danet predict`."""

import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import tyro

from danet.cli.parsing import error_line, parse, printable
from danet.errors import InputError


@dataclass(frozen=True)
class Predict:
    """Segment pictures: for each an overlay with legend, its labels as a palette PNG, and JSON with each class's share.

    For example: danet predict street.jpg photos/ --out results
    """

    images: tyro.conf.Positional[tuple[Path, ...]]
    """pictures, and folders of pictures"""
    weights: Path | None = None
    """a .safetensors file; the weights that come with the package if not given"""
    out: Path = Path("segmented")
    """folder for the results"""
    overwrite: bool = False
    """replace results that exist"""
    device: str | None = None
    """cpu or cuda; a GPU if there is one"""


def run(args: Sequence[str]) -> int:
    options = parse(Predict, args, "predict")
    from danet.predict import find_images, load

    if not options.images:
        raise InputError("IMAGE", "none given", "name pictures or folders of pictures")
    files = find_images(options.images, options.out, options.overwrite)
    predictor = load(options.weights, options.device)
    failed = 0
    for file in files:
        try:
            segmentation = predictor(file)
            written = segmentation.save(options.out, options.overwrite)
        except InputError as error:
            if len(files) == 1:
                raise
            failed += 1
            print(error_line(error), file=sys.stderr)
            continue
        shares = ", ".join(f"{found['name']} {found['share']:.0%}" for found in segmentation.summary()["classes"][:4])
        print(printable(f"{written[0]}  {shares}"))
    if failed:
        raise InputError(f"{failed} of {len(files)} pictures", "could not be segmented", "see the lines above")
    return 0
