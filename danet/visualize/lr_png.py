"""Draw the loss over the learning rate as a PNG image: `danet train RECIPE --find-lr`."""

import io
import math
from collections.abc import Sequence

from PIL import Image, ImageDraw, ImageFont

from danet.visualize.svg import ticks

_WIDTH, _HEIGHT = 1200, 720
_LEFT, _RIGHT, _TOP, _BOTTOM = 110, 40, 70, 90  # margins of the plot
_GRID, _FAINT, _LINE, _MARK = (225, 225, 225), (170, 200, 230), (0, 114, 178), (213, 94, 0)
_Point = tuple[float, float]


def learning_rate_png(
    rates: Sequence[float], losses: Sequence[float], smoothed: Sequence[float], suggestion: float | None
) -> bytes:
    """Return a PNG of the losses of a learning rate range test, over a logarithmic axis.

    The losses are clipped to the range of the smoothed ones, so that a loss that diverges does not flatten the curve.

    Args:
        rates: increasing learning rates above 0, at least two.
        losses: the loss at each of them; nan and inf are left out.
        smoothed: the smoothed losses, of which one at least is finite.
        suggestion: the learning rate to mark; None: none.
    """
    low, high = _limits(smoothed)
    bottom, top = math.log10(rates[0]), math.log10(rates[-1])

    def place(rate: float, loss: float) -> _Point:
        x = _LEFT + (math.log10(rate) - bottom) / (top - bottom) * (_WIDTH - _LEFT - _RIGHT)
        share = (min(max(loss, low), high) - low) / (high - low)
        return x, _HEIGHT - _BOTTOM - share * (_HEIGHT - _TOP - _BOTTOM)

    page = Image.new("RGB", (_WIDTH, _HEIGHT), "white")
    pen, font = ImageDraw.Draw(page), ImageFont.load_default(22)
    for value in (tick for tick in ticks(low, high) if low <= tick <= high):
        (left, y), (right, _) = place(rates[0], value), place(rates[-1], value)
        pen.line((left, y, right, y), _GRID)
        pen.text((left - 12, y), f"{value:.4g}", fill="black", font=font, anchor="rm")
    for power in range(math.ceil(bottom - 1e-9), math.floor(top + 1e-9) + 1):
        x, y = place(10.0**power, low)
        pen.line((x, _TOP, x, y), _GRID)
        pen.text((x, y + 12), f"{10.0**power:g}", fill="black", font=font, anchor="mt")
    for values, color, width in ((losses, _FAINT, 2), (smoothed, _LINE, 4)):
        points = [place(rate, loss) for rate, loss in zip(rates, values, strict=True) if math.isfinite(loss)]
        pen.line(points, color, width, "curve")
    title = "loss (faint) and smoothed loss over the learning rate"
    if suggestion is not None:
        x, _ = place(suggestion, low)
        pen.line((x, _TOP, x, _HEIGHT - _BOTTOM), _MARK, 3)
        title += f"; suggested: {suggestion:g}"
    pen.text((_LEFT, 24), title, fill="black", font=font)
    pen.text((_WIDTH - _RIGHT, _HEIGHT - 20), "learning rate", fill="black", font=font, anchor="rb")
    file = io.BytesIO()
    page.save(file, "PNG")
    return file.getvalue()


def _limits(values: Sequence[float]) -> tuple[float, float]:
    """Return the range of the finite values, up to twice the first one, with a margin."""
    finite = [value for value in values if math.isfinite(value)]
    low, high = min(finite), min(max(finite), 2 * finite[0])
    margin = 0.05 * (high - low) or 0.5
    return low - margin, high + margin
