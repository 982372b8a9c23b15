"""A file to segment, and the names of its results."""

from dataclasses import dataclass
from pathlib import Path

from danet.predict.outputs import POLYGONS, Kind, output_paths


@dataclass(frozen=True)
class Job:
    """A file to segment, and the names of its results.

    Args:
        file: the file; or the address of a stream, or a camera.
        folder: the folder of the results.
        name: what the names of the results begin with.
        kind: how it is segmented.
        page: the position of the page in a stack; None: the only one.
        pages: the number of pages in the file.
        overwrite: whether results that exist are replaced.
        polygons: whether polygons are written too.
        georeferenced: whether the image and its labels have coordinates.
        further: the ends of the names of further results, see `outputs.Maps`.
    """

    file: Path
    folder: Path
    name: str
    kind: Kind = "image"
    page: int | None = None
    pages: int = 1
    overwrite: bool = False
    polygons: bool = False
    georeferenced: bool = False
    further: tuple[str, ...] = ()

    @property
    def paths(self) -> list[Path]:
        """The results; the first is written first, and the last is written last."""
        *others, last = output_paths(self.folder, self.name, self.kind)
        suffixes = (*([POLYGONS] if self.polygons else []), *self.further)
        return [*others, *(self.folder / f"{self.name}{suffix}" for suffix in suffixes), last]

    @property
    def suffixes(self) -> list[str]:
        """The ends of the names of the results, in the order of `paths`."""
        return [path.name.removeprefix(self.name) for path in self.paths]
