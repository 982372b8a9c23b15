"""Read the metadata and the tensors of an ONNX file without the onnx package, whose import takes as long as NumPy's.

An ONNX file is a protocol buffer: a sequence of fields, each with a number and a kind. The numbers below are those of
onnx.proto. Fields of messages that occur twice are read twice, so nothing is hidden from the check for other files.
"""

import hashlib
from collections.abc import Iterator
from typing import NamedTuple

_MODEL_GRAPH, _MODEL_METADATA, _MODEL_TRAINING, _MODEL_FUNCTIONS = 7, 14, 20, 25
_GRAPH_NODE, _GRAPH_INITIALIZER, _GRAPH_SPARSE = 1, 5, 15
_NODE_ATTRIBUTE = 5
_ATTRIBUTE_TENSORS, _ATTRIBUTE_GRAPHS, _ATTRIBUTE_SPARSE = (5, 10), (6, 11), (22, 23)
_SPARSE_TENSORS = (1, 2)  # values and indices
_TENSOR_DIMS, _TENSOR_TYPE, _TENSOR_NAME, _TENSOR_RAW, _TENSOR_FILES, _TENSOR_PLACE = 1, 2, 8, 9, 13, 14
_VARINT, _FIXED_64, _BYTES, _FIXED_32 = 0, 1, 2, 5
_MOST_NESTED = 50


class OnnxFile(NamedTuple):
    """What a file says of itself.

    Args:
        metadata: its entries.
        sha256: the hash of the weights: names, types, shapes and values of the initializers, in their order.
        self_contained: whether it refers to no other files, and has no functions.
    """

    metadata: dict[str, str]
    sha256: str
    self_contained: bool


def read(content: bytes) -> OnnxFile:
    """Read an ONNX file.

    Raises:
        ValueError: the content is not a protocol buffer, or is truncated.
    """
    metadata, digest, contained = {}, hashlib.sha256(), True
    for number, value in _fields(memoryview(content)):
        if number in (_MODEL_TRAINING, _MODEL_FUNCTIONS):
            contained = False
        elif number == _MODEL_METADATA:
            entry = dict(_fields(_message(value)))
            metadata[_text(entry.get(1, b""))] = _text(entry.get(2, b""))
        elif number == _MODEL_GRAPH:
            for kind, part in _fields(_message(value)):
                if kind == _GRAPH_INITIALIZER:
                    _hash(_message(part), digest)
            contained &= not any(_has_files(tensor) for tensor in _tensors(_message(value)))
    return OnnxFile(metadata, digest.hexdigest(), contained)


def _tensors(graph: memoryview, depth: int = 0) -> Iterator[memoryview]:
    """Yield every tensor of a graph, of its nodes' attributes, and of the graphs in them."""
    if depth > _MOST_NESTED:
        raise ValueError("nested too deeply")
    for number, value in _fields(graph):
        if number == _GRAPH_INITIALIZER:
            yield _message(value)
        elif number == _GRAPH_SPARSE:
            yield from _parts(value, _SPARSE_TENSORS)
        elif number == _GRAPH_NODE:
            for attribute in _parts(value, (_NODE_ATTRIBUTE,)):
                yield from _parts(attribute, _ATTRIBUTE_TENSORS)
                for sparse in _parts(attribute, _ATTRIBUTE_SPARSE):
                    yield from _parts(sparse, _SPARSE_TENSORS)
                for inner in _parts(attribute, _ATTRIBUTE_GRAPHS):
                    yield from _tensors(inner, depth + 1)


def _has_files(tensor: memoryview) -> bool:
    return any(number == _TENSOR_FILES or (number == _TENSOR_PLACE and value) for number, value in _fields(tensor))


def _hash(tensor: memoryview, digest: "hashlib._Hash") -> None:
    name, kind, raw, dims = "", 0, memoryview(b""), []
    for number, value in _fields(tensor):
        if number == _TENSOR_NAME:
            name = _text(value)
        elif number == _TENSOR_TYPE and isinstance(value, int):
            kind = value
        elif number == _TENSOR_RAW:
            raw = _message(value)
        elif number == _TENSOR_DIMS:
            dims += [value] if isinstance(value, int) else _packed(value)
    digest.update(f"{name} {kind} {dims}\n".encode())
    digest.update(raw)


def _parts(value: "int | memoryview", numbers: tuple[int, ...]) -> Iterator[memoryview]:
    """Yield the fields of a message that have these numbers, which are messages themselves."""
    return (_message(part) for number, part in _fields(_message(value)) if number in numbers)


def _message(value: "int | bytes | memoryview") -> memoryview:
    if isinstance(value, int):
        raise ValueError("a number in place of a message")
    return memoryview(value)


def _text(value: "int | bytes | memoryview") -> str:
    return bytes(_message(value)).decode()


def _packed(values: memoryview) -> list[int]:
    numbers, at = [], 0
    while at < len(values):
        number, at = _varint(values, at)
        numbers.append(number)
    return numbers


def _fields(data: memoryview) -> Iterator[tuple[int, "int | memoryview"]]:
    """Yield number and value of each field: an integer, or the bytes of a message, a text or an array."""
    at = 0
    while at < len(data):
        tag, at = _varint(data, at)
        kind, size = tag & 7, 0
        if kind == _VARINT:
            value, at = _varint(data, at)
            yield tag >> 3, value
            continue
        if kind == _BYTES:
            size, at = _varint(data, at)
        elif kind in (_FIXED_32, _FIXED_64):
            size = 4 if kind == _FIXED_32 else 8
        else:
            raise ValueError(f"unknown kind of field {kind}")
        if at + size > len(data):
            raise ValueError("truncated")
        yield tag >> 3, data[at : at + size]
        at += size


def _varint(data: memoryview, at: int) -> tuple[int, int]:
    """Return an integer of 7 bits a byte, the last without the highest bit, and the position after it."""
    value = 0
    for shift in range(0, 70, 7):
        if at >= len(data):
            raise ValueError("truncated")
        byte = data[at]
        at += 1
        value |= (byte & 127) << shift
        if byte < 128:
            return value, at
    raise ValueError("an integer of more than 64 bits")
