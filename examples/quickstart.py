"""Segment an image, and show where one of its pixels attends. Runs offline in seconds.

python examples/quickstart.py [IMAGE]        writes to the folder quickstart
"""

import sys
from pathlib import Path

from PIL import Image

import danet
from danet.predict import overlay as draw

image = Path(sys.argv[1]) if len(sys.argv) > 1 else Path(__file__).with_name("china.jpg")
predictor = danet.load()  # the bundled weights; your own: danet.load("runs/camvid/best.safetensors")

seg = predictor(image)  # a path, a PIL image, an array or a tensor
overlay, *others = seg.save("quickstart", overwrite=True)
print(f"{overlay}: {', '.join(entry['name'] for entry in seg.summary()['classes'])}")

height, width = seg.labels.shape
x, y = 2 * width // 3, height // 3
attention = predictor.attention(image, x, y)  # H,W float32, sums to 1: this pixel's row of Eq. 1
print(f"pixel x={x}, y={y} is {seg.classes.names[seg.labels[y, x]]} and attends to")
for i, name in enumerate(seg.classes.names):
    if (share := attention[seg.labels == i].sum()) >= 0.01:
        print(f"  {name:12} {share:.0%}")

heat = Image.fromarray(draw.heat_over(seg.image, attention / attention.max()))
heat.save("quickstart/attention.png")
