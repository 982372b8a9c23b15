"""The command `danet look`."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import tyro

from danet.cli.parsing import parse
from danet.errors import InputError, printable
from danet.files import check_outputs, write_json


@dataclass(frozen=True)
class Look:
    """Show where points of an image attend, what channels respond to, and what each module changes.

    For one image, write a page with a map for each point, channel maps and, with --without, the prediction without each
    module. For several images, write one row per image, like Figure 6 of the paper.

    Example: danet look street.jpg --point 120 80 --out street.html
    """

    images: tyro.conf.Positional[tuple[Path, ...]]
    """one or more images"""
    point: Annotated[tyro.conf.UseAppendAction[tuple[tuple[int, int], ...]], tyro.conf.arg(metavar="X Y")] = ()
    """x and y of a point in pixels of the image; repeatable; default: a point in each of the two largest classes"""
    channels: tuple[int, ...] = ()
    """channel maps to show, numbered from 0; default: those that respond most to the points' classes in the first
    image"""
    class_name: Annotated[str | None, tyro.conf.arg(name="class")] = None
    """instead of --channels: show the two channels that respond most to this class in the first image"""
    without: bool = False
    """also show the predictions with each module switched off"""
    truth: tuple[Path, ...] = ()
    """ground truth masks of class ids, one per image, to mark what each module corrects"""
    ignore: int = 255
    """mask value of unlabeled pixels"""
    weights: Path | None = None
    """a .safetensors file; default: the bundled weights"""
    out: Path | None = None
    """output file, .png or .html; default: NAME_look.png, or look.png for several images"""
    json: Path | None = None
    """also write the numbers to this file; - for standard output"""
    overwrite: bool = False
    """replace existing files"""
    device: str | None = None
    """cpu or cuda; default: the GPU if there is one, otherwise the CPU"""


def run(args: Sequence[str]) -> int:
    """Run the command and return its exit status."""
    options = parse(Look, args, "look")
    if not options.images:
        raise InputError("danet look", "no images given", "specify one or more images")
    one = len(options.images) == 1
    out = options.out or Path(f"{options.images[0].stem}_look.png" if one else "look.png")
    if out.suffix.lower() not in (".png", ".html"):
        raise InputError(out, f"unsupported format {out.suffix or '(no suffix)'}", "use .png or .html")
    if options.channels and options.class_name is not None:
        raise InputError("class_name", "conflicts with `channels`", "use only one of them")
    if options.truth and len(options.truth) != len(options.images):
        what = f"{len(options.truth)} masks for {len(options.images)} images"
        raise InputError("truth", what, "specify one mask per image")
    check_outputs(out, options.json, overwrite=options.overwrite, remedy="choose another `out`, or add `overwrite`")
    from danet.files import write_atomically
    from danet.predict.predictor import load
    from danet.visualize.attention_answers import look_at
    from danet.visualize.attention_figure import to_png
    from danet.visualize.attention_page import to_html
    from danet.visualize.attention_panels import sheet

    predictor = load(options.weights, options.device)
    questions = options.point, options.channels, options.class_name, options.without, options.truth, options.ignore
    answers = look_at(predictor, options.images, *questions)
    write_atomically(out, (to_html if out.suffix.lower() == ".html" else to_png)(sheet(answers)), options.overwrite)
    if options.json is not None:
        write_json(options.json, {"images": [answer.as_dict() for answer in answers]}, options.overwrite)
    if str(options.json) != "-":
        print(printable(str(out)))
    return 0
