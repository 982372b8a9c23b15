"""Export a network to ExecuTorch: one .pte file for one image size, which phones and other small devices run.

Command: `danet export W --to executorch --size HxW`. XNNPACK's kernels compute what they support, ExecuTorch's portable
ones the rest. The method `forward` takes an image and returns the logits and the labels, as exported ONNX files do;
`danet.card`, `danet.usage` and `danet.sha256` return texts.
"""

import torch
from torch import nn

from danet.weights import runtimes
from danet.weights.card import Card
from danet.weights.export_preprocessing import USAGE
from danet.weights.runtimes import CARD, NO_SHA256, SHA256, executorch_sha256

_PACKAGES = "executorch.exir", "executorch.backends.xnnpack.partition.xnnpack_partitioner"


def to_executorch(graph: nn.Module, card: Card, size: tuple[int, int], usage: str) -> bytes:
    """Return the content of a .pte file.

    Args:
        graph: takes normalized images and returns logits and labels.
        card: of the network.
        size: height and width of the only image that it takes.
        usage: a text for programs that do not use danet.

    Raises:
        InputError: a missing package.
    """
    with runtimes.silence():
        exir, xnnpack = (runtimes.import_optional(name, "executorch", "to") for name in _PACKAGES)
        with torch.no_grad():
            program = torch.export.export(graph.eval(), (torch.zeros(1, len(card.mean), *size),))
        texts = {CARD: card.json(), USAGE: usage, SHA256: NO_SHA256}
        partitioner = [xnnpack.XnnpackPartitioner()]
        edge = exir.to_edge_transform_and_lower(program, partitioner=partitioner, constant_methods=texts)
        content = edge.to_executorch().buffer
    return content.replace(NO_SHA256.encode(), executorch_sha256(content).encode(), 1)
