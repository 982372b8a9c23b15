"""Exported networks of one convolution, written without an export, which takes seconds."""

import numpy as np

from danet.data.classes import Classes
from danet.data.registry import DATASETS
from danet.weights import runtimes
from danet.weights.card import Card

TOY = DATASETS["toy"].classes


def onnx_content(stride: int = 1, classes: Classes = TOY, size: int = 128, opset: int = 18) -> bytes:
    """Return an ONNX file like those of danet export, whose feature grid has this stride."""
    from onnx import TensorProto, helper

    count = len(classes)
    values = np.random.default_rng(0).normal(0, 1 / stride, (count, 3, stride, stride)).astype("<f4")
    weight = helper.make_tensor("w", TensorProto.FLOAT, values.shape, values.tobytes(), raw=True)
    images = helper.make_tensor_value_info("images", TensorProto.FLOAT, ["B", 3, "H", "W"])
    logits = helper.make_tensor_value_info("logits", TensorProto.FLOAT, ["B", count, "h", "w"])
    labels = helper.make_tensor_value_info("labels", TensorProto.UINT8, ["B", "h", "w"])
    options = {"kernel_shape": [stride] * 2, "strides": [stride] * 2, "auto_pad": "SAME_UPPER"}
    nodes = [
        helper.make_node("Conv", ["images", "w"], ["logits"], **options),
        helper.make_node("ArgMax", ["logits"], ["best"], axis=1, keepdims=0),
        helper.make_node("Cast", ["best"], ["labels"], to=TensorProto.UINT8),
    ]
    graph = helper.make_graph(nodes, "net", [images], [logits, labels], [weight])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=10)
    card = Card({"num_classes": count, "backbone": "conv"}, classes, (0.5,) * 3, (0.5,) * 3, size=size)
    helper.set_model_props(model, {runtimes.CARD: card.json(), runtimes.SHA256: runtimes.onnx_sha256(model)})
    return model.SerializeToString()
