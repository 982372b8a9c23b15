"""Label Studio's brush masks: the run-length encoding of https://github.com/thi-ng/umbrella (rle-pack).

A mask is a list of bytes, read as bits, the highest first. The header is the number of values (32 bits), their size in
bits minus 1 (5 bits), and the sizes of four kinds of lengths, each minus 1 (4 bits each). Blocks follow: one bit, 1 for
a value that is repeated and 0 for a list of values; the kind of the length (2 bits); the length minus 1; and the value,
or the values. The values are the channels of the image, red, green, blue, alpha, row by row. Pixels with alpha above 0
are inside.
"""

import numpy as np
from jaxtyping import Bool

from danet.data.annotations.rasterize import runs_of
from danet.data.annotations.records import Record
from danet.data.annotations.shapes import Runs
from danet.data.images.pillow import MAX_PIXELS

_LENGTH_BITS = (3, 4, 8, 16)  # of the four kinds, as Label Studio writes them
_VALUE_BITS = 8
_HEADER_BYTES = 7


def decode_brush(record: Record, height: int, width: int) -> Runs:
    """Decode a brush mask.

    Args:
        record: the list of bytes.
        height: of the image.
        width: of the image.

    Raises:
        InputError: the bytes do not encode a mask of this size.
    """
    values = record.numbers()
    if len(values) < _HEADER_BYTES or not ((values >= 0) & (values <= 255)).all() or (np.mod(values, 1) != 0).any():
        raise record.error(f"must be a list of at least {_HEADER_BYTES} bytes, from 0 to 255")
    bits = np.unpackbits(values.astype(np.uint8))
    text = (bits + ord("0")).tobytes().decode("ascii")
    if height * width > MAX_PIXELS or (count := int(text[:32], 2)) != 4 * height * width:
        raise record.error(f"{int(text[:32], 2)} values are not 4 channels of {width} x {height} pixels")
    value_bits = int(text[32:37], 2) + 1
    length_bits = [int(text[37 + 4 * i : 41 + 4 * i], 2) + 1 for i in range(4)]
    alpha = np.zeros(height * width, bool)
    at, i = 53, 0
    while i < count:
        body = at + 3 + length_bits[int(text[at + 1 : at + 3] or "0", 2)]
        repeated = text[at : at + 1] == "1"
        length = int(text[at + 3 : body] or "0", 2) + 1
        at = body + value_bits * (1 if repeated else length)
        if at > len(text) or i + length > count:
            raise record.error(f"is damaged: it ends after {i} of {count} values")
        first, stop = i // 4, (i + length) // 4  # the pixels whose alpha is in this block
        inside = bits[body:at].reshape(-1, value_bits).max(axis=1) > 0
        alpha[first:stop] = inside[0] if repeated else inside[4 * first + 3 - i :: 4][: stop - first]
        i += length
    return runs_of(alpha.reshape(height, width), by_columns=False)


def encode_brush(pixels: Bool[np.ndarray, "H W"]) -> list[int]:
    """Encode a mask as Label Studio does: all channels are 255 inside and 0 outside."""
    parts = [f"{4 * pixels.size:032b}{_VALUE_BITS - 1:05b}", *(f"{bits - 1:04b}" for bits in _LENGTH_BITS)]
    for i, count in enumerate(runs_of(pixels, by_columns=False).counts.tolist()):
        rest = 4 * count
        while rest:
            length = min(rest, 1 << _LENGTH_BITS[-1])
            kind = next(k for k, bits in enumerate(_LENGTH_BITS) if length <= 1 << bits)
            parts.append(f"1{kind:02b}{length - 1:0{_LENGTH_BITS[kind]}b}{255 * (i % 2):08b}")
            rest -= length
    text = "".join(parts)
    bits = np.frombuffer(text.encode(), np.uint8) - ord("0")
    return np.packbits(bits).tolist()
