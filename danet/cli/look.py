"""`danet look`."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import tyro

from danet.cli.parsing import parse, printable
from danet.errors import InputError
from danet.files import check_outputs, write_json


@dataclass(frozen=True)
class Look:
    """Draw what the network sees: for one image a page with a map for each point, channel maps and, with --without,
    what each module changes; for several a sheet with a row each, as the paper's Figure 6.

    For example: danet look street.jpg --point 120 80 --out street.html
    """

    images: tyro.conf.Positional[tuple[Path, ...]]
    """images"""
    point: tyro.conf.UseAppendAction[tuple[tuple[int, int], ...]] = ()
    """x and y in pixels of the image, for each point; if none is given, one well inside each of the two classes with
    the largest predictions"""
    channels: tuple[int, ...] = ()
    """attended channel maps, numbered from 0; if none is given, the one that answers most to each point's class in the
    first image"""
    class_: Annotated[str | None, tyro.conf.arg(name="class")] = None
    """instead: the two channels that answer most to this class in the first image"""
    without: bool = False
    """also the predictions with each module switched off"""
    truth: tuple[Path, ...] = ()
    """the images' ground truth, one each: masks of class ids"""
    ignore: int = 255
    """the value in these masks that stands for no class"""
    weights: Path | None = None
    """a .safetensors file; the weights that come with the package if not given"""
    out: Path | None = None
    """a .png or .html file; NAME_look.png for one image and look.png for several if not given"""
    json: Path | None = None
    """write the numbers to this file too; - for standard output"""
    overwrite: bool = False
    """replace files that exist"""
    device: str | None = None
    """cpu or cuda; a GPU if there is one"""


def run(args: Sequence[str]) -> int:
    options = parse(Look, args, "look")
    if not options.images:
        raise InputError("IMAGE", "none given", "name one or more images")
    one = len(options.images) == 1
    out = options.out or Path(f"{options.images[0].stem}_look.png" if one else "look.png")
    if out.suffix.lower() not in (".png", ".html"):
        raise InputError(out, f"cannot be written as {out.suffix or 'a file without suffix'}", "give .png or .html")
    if options.channels and options.class_ is not None:
        raise InputError("--class", "given with --channels", "give one of them")
    if options.truth and len(options.truth) != len(options.images):
        raise InputError("--truth", f"{len(options.truth)} for {len(options.images)} images", "give one an image")
    check_outputs(out, options.json, overwrite=options.overwrite, remedy="give another name, or --overwrite")
    from danet.files import write_atomically
    from danet.predict.predictor import load
    from danet.visualize.attention_answers import look_at
    from danet.visualize.attention_figure import to_png
    from danet.visualize.attention_page import to_html
    from danet.visualize.attention_panels import sheet

    predictor = load(options.weights, options.device)
    asked = options.point, options.channels, options.class_, options.without, options.truth, options.ignore
    answers = look_at(predictor, options.images, *asked)
    write_atomically(out, (to_html if out.suffix.lower() == ".html" else to_png)(sheet(answers)))
    if options.json is not None:
        write_json(options.json, {"images": [answer.as_dict() for answer in answers]})
    if str(options.json) != "-":
        print(printable(str(out)))
    return 0
