"""Put preprocessing and upsampling into an exported graph: uint8 images of any size -> labels and confidence.

Command: `danet export W --to onnx --preprocessing`. The graph resizes, normalizes, runs the network, interpolates its
logits to the image's size and takes the softmax, as `danet predict` does. The resizing has Pillow's results to the bit:
its antialiased bilinear weights are computed in float64, rounded to 22 bits, and multiplied as three bytes. ONNX's own
Resize rounds some values to the other side.
"""

from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Float, UInt8
from torch import Tensor

from danet.data.images.channels import resize_long_side
from danet.model.baselines import AnyNetwork
from danet.model.preprocess import normalize
from danet.weights import runtimes
from danet.weights.file import Card
from danet.weights.runtimes import USAGE

CLASSES = "danet.classes"


def with_preprocessing(graph: bytes, card: Card) -> bytes:
    """Return an ONNX file that takes `images`, uint8 B,H,W,N, and returns `labels` and `confidence`, B,H,W.

    The labels are uint8 train ids, the confidence is the probability of each pixel's class, float32.

    Args:
        graph: a result of `to_onnx`.
        card: of the network.
    """
    onnx = runtimes.import_optional("onnx", "export", "preprocessing")
    from onnx import compose, parser, utils

    network = onnx.load_model_from_string(graph)
    head = f'<ir_version: {network.ir_version}, opset_import: ["" : {network.opset_import[0].version}]>\n'
    bare = utils.Extractor(network).extract_model(["images"], ["logits"])
    before = parser.parse_model(head + _before(card))
    after = parser.parse_model(head + _after(card))
    outputs = ["network_logits", "inner", "size"]
    model = compose.merge_models(before, bare, [("normalized", "images")], prefix2="network_", outputs=outputs)
    model = compose.merge_models(
        model, after, [(name, f"{name}_of") for name in outputs], outputs=["labels", "confidence"]
    )
    model.producer_name, model.doc_string = "danet", usage(card)
    del model.metadata_props[:]
    for key, value in {USAGE: usage(card), CLASSES: ",".join(card.classes.names)}.items():
        model.metadata_props.add(key=key, value=value)
    return model.SerializeToString()


def usage(card: Card) -> str:
    """Describe the graph in one paragraph."""
    bands = "RGB" if card.bands.channels is None else f"{card.bands.count} bands"
    return (
        f"images: uint8 B,H,W,{card.bands.count}, {bands}, of any size. labels: uint8 B,H,W, indices into the classes: "
        f"{', '.join(card.classes.names)}. confidence: float32 B,H,W, the probability of each pixel's class."
    )


@torch.inference_mode()
def segment(
    network: AnyNetwork, card: Card, pixels: UInt8[np.ndarray, "H W N"]
) -> tuple[UInt8[np.ndarray, "H W"], Float[np.ndarray, "H W"]]:
    """Return labels and confidence as the graph must compute them: those of `danet predict`.

    Args:
        network: in evaluation mode, on the CPU.
        card: of the network.
        pixels: an image.
    """
    inputs = normalize(torch.tensor(resize_long_side(pixels, card.size))[None], card.mean, card.std)
    scores: Tensor = network.logits(inputs).fused
    for size in (inputs.shape[2:], pixels.shape[:2]):
        scores = F.interpolate(scores, size, mode="bilinear", align_corners=network.align_corners)
    confidence, labels = scores.softmax(1)[0].max(0)
    return labels.to(torch.uint8).numpy(), confidence.numpy()


def _before(card: Card) -> str:
    """Return the graph from the images to the network's input, in ONNX's text format."""
    bands = card.bands.count
    mean, std = np.array(card.mean, np.float32), np.array(card.std, np.float32)
    scale, shift = np.float32(255) * std, mean / std
    resized = "resized = Transpose <perm = [0, 3, 1, 2]> (images)\ninner = Identity(size)"
    if card.size is not None:
        resized = _RESIZE.format(long_side=card.size) + _axis("x", "columns") + _axis("y", "rows")
    return f"""before (uint8[batch, height, width, {bands}] images)
        => (float[batch, {bands}, inner_height, inner_width] normalized, int64[2] inner, int64[2] size) {{
        size = Shape <start = 1, end = 3> (images)
        {resized}
        values = Cast <to = 1> (resized)
        scale = Constant <value = float[1, {bands}, 1, 1] {{{_numbers(scale)}}}> ()
        shift = Constant <value = float[1, {bands}, 1, 1] {{{_numbers(shift)}}}> ()
        divided = Div(values, scale)
        normalized = Sub(divided, shift)
    }}"""


_RESIZE = """
    half = Constant <value = double {{0.5}}> ()
    zero = Constant <value = double {{0.0}}> ()
    one = Constant <value = double {{1.0}}> ()
    long_side = Constant <value = double {{{long_side}.0}}> ()
    unit = Constant <value = double {{4194304.0}}> ()
    byte = Constant <value = int64 {{256}}> ()
    two_bytes = Constant <value = int64 {{65536}}> ()
    low = Constant <value = int32 {{256}}> ()
    high = Constant <value = int32 {{65536}}> ()
    round_up = Constant <value = int32 {{2097152}}> ()
    total = Constant <value = int32 {{4194304}}> ()
    first = Constant <value = int64 {{0}}> ()
    step = Constant <value = int64 {{1}}> ()
    axis = Constant <value = int64[1] {{0}}> ()
    sides = Cast <to = 11> (size)
    longest = ReduceMax <keepdims = 0> (sides)
    product = Mul(sides, long_side)
    quotient = Div(product, longest)
    rounded = Round(quotient)
    at_least = Max(rounded, one)
    inner = Cast <to = 7> (at_least)
    rows_from, columns_from = Split <num_outputs = 2> (size)
    rows_to, columns_to = Split <num_outputs = 2> (inner)
    x_input = Transpose <perm = [0, 1, 3, 2]> (images)
"""
"""Sizes as in `resize_long_side`. The images become B,H,N,W, then B,N,w,H, then B,N,h,w."""

_AXIS = """
    {a}_source = Squeeze({side}_from)
    {a}_target = Squeeze({side}_to)
    {a}_source_size = Cast <to = 11> ({a}_source)
    {a}_target_size = Cast <to = 11> ({a}_target)
    {a}_scale = Div({a}_source_size, {a}_target_size)
    {a}_support = Max({a}_scale, one)
    {a}_inverse = Div(one, {a}_support)
    {a}_targets = Range(first, {a}_target, step)
    {a}_outputs = Cast <to = 11> ({a}_targets)
    {a}_middle = Add({a}_outputs, half)
    {a}_center = Mul({a}_middle, {a}_scale)
    {a}_sources = Range(first, {a}_source, step)
    {a}_inputs = Cast <to = 11> ({a}_sources)
    {a}_column = Constant <value = int64[1] {{1}}> ()
    {a}_each = Unsqueeze({a}_inputs, {a}_column)
    {a}_away = Sub({a}_each, {a}_center)
    {a}_shifted = Add({a}_away, half)
    {a}_relative = Mul({a}_shifted, {a}_inverse)
    {a}_distance = Abs({a}_relative)
    {a}_near = Sub(one, {a}_distance)
    {a}_weight = Max({a}_near, zero)
    {a}_sum = ReduceSum({a}_weight, axis)
    {a}_share = Div({a}_weight, {a}_sum)
    {a}_scaled = Mul({a}_share, unit)
    {a}_raised = Add({a}_scaled, half)
    {a}_floor = Floor({a}_raised)
    {a}_fixed = Cast <to = 7> ({a}_floor)
    {a}_byte0 = Mod({a}_fixed, byte)
    {a}_rest = Div({a}_fixed, byte)
    {a}_byte1 = Mod({a}_rest, byte)
    {a}_byte2 = Div({a}_fixed, two_bytes)
    {a}_weight0 = Cast <to = 2> ({a}_byte0)
    {a}_weight1 = Cast <to = 2> ({a}_byte1)
    {a}_weight2 = Cast <to = 2> ({a}_byte2)
    {a}_sum0 = MatMulInteger({a}_input, {a}_weight0)
    {a}_sum1 = MatMulInteger({a}_input, {a}_weight1)
    {a}_sum2 = MatMulInteger({a}_input, {a}_weight2)
    {a}_part1 = Mul({a}_sum1, low)
    {a}_part2 = Mul({a}_sum2, high)
    {a}_lower = Add({a}_sum0, {a}_part1)
    {a}_upper = Add({a}_part2, round_up)
    {a}_all = Add({a}_lower, {a}_upper)
    {a}_pixel = Div({a}_all, total)
    {a}_output = Cast <to = 2> ({a}_pixel)
"""
"""One pass of Pillow's resampling, along the last axis: weights of source x target, in fixed point."""

_NEXT = {
    "x": "y_input = Transpose <perm = [0, 2, 3, 1]> (x_output)\n",
    "y": "resized = Transpose <perm = [0, 1, 3, 2]> (y_output)\n",
}


def _axis(name: str, side: str) -> str:
    return _AXIS.format(a=name, side=side) + _NEXT[name]


def _after(card: Card) -> str:
    """Return the graph from the logits to the results, in ONNX's text format."""
    mode = "align_corners" if card.network.get("align_corners", True) else "pytorch_half_pixel"
    resize = f'Resize <mode = "linear", coordinate_transformation_mode = "{mode}">'
    return f"""after (float[batch, {len(card.classes)}, h, w] network_logits_of, int64[2] inner_of, int64[2] size_of)
        => (uint8[batch, height, width] labels, float[batch, height, width] confidence) {{
        channels = Shape <start = 0, end = 2> (network_logits_of)
        inner_shape = Concat <axis = 0> (channels, inner_of)
        shape = Concat <axis = 0> (channels, size_of)
        nothing = Constant <value = float[0] {{}}> ()
        inner_scores = {resize} (network_logits_of, nothing, nothing, inner_shape)
        scores = {resize} (inner_scores, nothing, nothing, shape)
        probabilities = Softmax <axis = 1> (scores)
        class_axis = Constant <value = int64[1] {{1}}> ()
        confidence = ReduceMax <keepdims = 0> (probabilities, class_axis)
        best = ArgMax <axis = 1, keepdims = 0> (probabilities)
        labels = Cast <to = 2> (best)
    }}"""


def _numbers(values: Any) -> str:
    return ", ".join(f"{float(value):.9g}" if value % 1 else f"{float(value):.1f}" for value in values)
