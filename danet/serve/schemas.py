"""Schemas of the JSON in responses, for the description of the REST API. Answers are not passed through them."""

from typing import Any, Literal

from pydantic import BaseModel, Field

_BASE64 = "base64-encoded little-endian float16 values over the feature grid, in row-major order"


class Error(BaseModel):
    """An error."""

    error: str = Field(description="What is wrong, and what to do.")


class NamedClass(BaseModel):
    """A class."""

    id: int = Field(description="Its index in the class names of `/v1/model`.")
    name: str


class SegmentedClass(BaseModel):
    """A class in an image."""

    id: int = Field(description="Its index in the class names of `/v1/model`.")
    name: str
    share: float = Field(description="Its share of the pixels, from 0 to 1.")
    mean_confidence: float = Field(description="Mean confidence of its pixels, from 0 to 1.")


class Grid(BaseModel):
    """The feature grid of an image."""

    height: int = Field(description="Number of rows.")
    width: int = Field(description="Number of columns.")
    cell_height: float = Field(description="Height of a cell in pixels of the image.")
    cell_width: float = Field(description="Width of a cell in pixels of the image.")


class Contribution(BaseModel):
    """What an attention module adds to its input in an image."""

    scale: float = Field(description="Its learned scale: alpha or beta.")
    size: float = Field(description="Size of what it adds, relative to its input, over the whole image.")
    varying: float = Field(description="Size of the part of it that varies between positions.")


class Segmented(BaseModel):
    """The classes in an image."""

    width: int = Field(description="Width of the image in pixels.")
    height: int = Field(description="Height of the image in pixels.")
    classes: list[SegmentedClass] = Field(description="The classes in the image, largest first.")
    image: str | None = Field(None, description="Id of the stored image. Only with `keep=true`.")
    grid: Grid | None = Field(None, description="Only with `keep=true`, if the network supports attention queries.")
    modules: dict[str, Contribution] | None = Field(None, description="By module's name: position, channel. As `grid`.")


class PixelClass(BaseModel):
    """The class of a pixel."""

    id: int
    name: str
    confidence: float = Field(description="From 0 to 1.")


class AttendedClass(BaseModel):
    """A class that a pixel attends to."""

    id: int
    name: str
    share: float = Field(description="Sum of the attention weights on the class.")
    image_share: float = Field(description="Share of the image's pixels that the class has.")


class Position(BaseModel):
    """A position with a large attention weight."""

    x: int
    y: int
    weight: float


class Attention(BaseModel):
    """The position attention of a pixel."""

    x: int
    y: int
    class_: PixelClass = Field(alias="class")
    grid: Grid
    weights: str = Field(description=f"Attention weights: {_BASE64}. They sum to 1.")
    classes: list[AttendedClass] = Field(description="The classes that the pixel attends to, strongest first.")
    strongest: list[Position] = Field(description="The positions with the largest weights, in pixels of the image.")


class ChannelMap(BaseModel):
    """A channel."""

    channel: int = Field(description="Its number, from 0.")
    map: str = Field(description=f"Its values: {_BASE64}.")


class Channels(BaseModel):
    """The channels that respond most to a class."""

    class_: NamedClass = Field(alias="class")
    channels: list[ChannelMap]


class ClassList(BaseModel):
    """The classes of a network, by id."""

    names: list[str]
    palette: list[tuple[int, int, int]] = Field(description="RGB colors, from 0 to 255.")


class Modules(BaseModel):
    """The attention modules that can be queried."""

    position: bool
    channel: bool


class ImageLimits(BaseModel):
    """Limits on one image."""

    bytes: int
    pixels: int


class Model(BaseModel):
    """The model card."""

    format: int = Field(description="Version of the card's format.")
    network: dict[str, Any] = Field(description="Arguments that rebuild the network.")
    classes: ClassList
    mean: list[float] = Field(description="Subtracted from each channel, for images in [0, 1].")
    std: list[float] = Field(description="Divides each channel, for images in [0, 1].")
    size: int | None = Field(description="Images are resized to this long side in pixels; null: their own size.")
    recipe: dict[str, Any] = Field(description="Settings of the training run.")
    dataset: str = Field(description="Name of the training dataset.")
    metrics: dict[str, Any] = Field(description="Validation results.")
    license: str = Field(description="License of the weights.")
    sha256: str = Field(description="SHA-256 of the tensors.")
    white: int | None = Field(description="Value in image files that means 1; null: the largest of the file's type.")
    scale_rule: Literal["native", "size"] = Field(
        description="Whether images that are too large to load are resized to size too."
    )
    attention: Modules
    limits: ImageLimits


class Live(BaseModel):
    """The server runs."""

    status: Literal["ok"]


class Ready(BaseModel):
    """The server can segment images."""

    status: Literal["ready"]


ERRORS = {
    400: "The request does not name this server, is malformed or contains no image.",
    401: "The token is missing or invalid.",
    403: "Pages of this origin may not send requests.",
    404: "The image is not stored, or not anymore.",
    408: "The body did not arrive in time.",
    409: "The network does not support this query.",
    413: "The image is too large.",
    422: "A parameter or the image is invalid.",
    503: "The server is busy or stopping; try again after the seconds in `Retry-After`.",
}
"""Status of an error -> its description."""


def errors(*statuses: int) -> dict[int | str, dict[str, Any]]:
    """Return the description of these errors for an operation."""
    return {status: {"model": Error, "description": ERRORS[status]} for status in statuses}


def content(kind: str) -> dict[int | str, dict[str, Any]]:
    """Return the description of a response of this media type, which is not JSON."""
    schema = {"type": "string"} | ({} if kind.startswith("text/") else {"format": "binary"})
    return {200: {"content": {kind: {"schema": schema}}}}
