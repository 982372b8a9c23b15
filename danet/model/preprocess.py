"""Image normalization, the same in training, prediction and export."""

from jaxtyping import Float, Float32, UInt8

from danet.arrays import Array, namespace


def normalize(
    images: UInt8[Array, "B H W N"] | Float32[Array, "B H W N"], mean: tuple[float, ...], std: tuple[float, ...]
) -> Float[Array, "B N H W"]:
    """Return (x / 255 - mean) / std as float32, in channels_last memory format. NumPy and torch give equal values.

    Args:
        images: pixels, 255 = white.
        mean: per channel, for pixels in [0, 1].
        std: per channel, for pixels in [0, 1].
    """
    assert images.shape[-1] == len(mean) == len(std)
    library = namespace(images)
    kind = {"dtype": library.float32, "device": images.device}
    means, deviations = library.asarray(mean, **kind), library.asarray(std, **kind)
    return library.moveaxis(library.asarray(images, **kind) / (255 * deviations) - means / deviations, -1, 1)
