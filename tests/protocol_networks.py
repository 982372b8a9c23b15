"""Small networks and images on which protocols can be compared exactly."""

import torch
from torch.nn import functional as F

from danet.predict.protocols import Protocol
from danet.predict.sliding_window import averaged

MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


BLACK = (-torch.tensor(MEAN, dtype=torch.float64) / torch.tensor(STD, dtype=torch.float64)).view(1, 3, 1, 1)


CLASSES = 4


KERNEL = torch.randn(CLASSES, 3, 3, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(1))


def sees_neighbors(images: torch.Tensor) -> torch.Tensor:
    """A network that distinguishes left from right and is affected by the borders; at the input's size."""
    return F.conv2d(images, KERNEL.to(images.dtype), padding=1)


def at_stride_4(images: torch.Tensor) -> torch.Tensor:
    """The same at a quarter of the resolution, as networks return it before upsampling."""
    return sees_neighbors(F.avg_pool2d(images, 4, ceil_mode=True))


def pixel_by_pixel(images: torch.Tensor) -> torch.Tensor:
    """A network for which windows and flips make no difference."""
    return torch.cat([torch.sin(images), images.mean(1, keepdim=True)], dim=1)


def random_image(height: int, width: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(1, 3, height, width, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


def whole_map(net, image, size, protocol: Protocol, batch: int | None = 4) -> torch.Tensor:
    parts = list(averaged(net, image, BLACK.to(image.dtype), size, protocol, batch))
    whole, covered = parts[0][2].new_empty(len(parts[0][2]), *size), torch.zeros(size, dtype=torch.int)
    for rows, columns, scores in parts:
        whole[:, rows, columns] = scores
        covered[rows, columns] += 1
    assert (covered == 1).all()
    return whole
