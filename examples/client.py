"""Segment an image with a running `danet serve`, and query the attention of a pixel. Needs only Python itself.

danet serve
python examples/client.py examples/china.jpg --at 300 200
"""

import argparse
import json
import os
import urllib.request
from pathlib import Path


def post(url: str, content: bytes) -> dict:
    """Send an image to the server and return its JSON response."""
    headers = {"Content-Type": "application/octet-stream"}
    if token := os.environ.get("DANET_TOKEN"):
        headers["Authorization"] = f"Bearer {token}"
    with urllib.request.urlopen(urllib.request.Request(url, content, headers)) as response:  # noqa: S310
        return json.load(response)


def main() -> None:
    """Print the classes in an image, and what one of its pixels looks at."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("image", type=Path)
    parser.add_argument("--at", type=int, nargs=2, metavar=("X", "Y"), help="the pixel whose attention to print")
    parser.add_argument("--server", default="http://127.0.0.1:8000")
    options = parser.parse_args()
    content = options.image.read_bytes()
    for entry in post(f"{options.server}/v1/segment", content)["classes"]:
        print(f"{entry['share']:6.1%}  {entry['name']}")
    if options.at:
        x, y = options.at
        result = post(f"{options.server}/v1/attention?x={x}&y={y}", content)
        shares = ", ".join(f"{entry['name']} {entry['share']:.0%}" for entry in result["classes"])
        print(f"({x}, {y}), {result['class']['name']}, looks at {shares}")


if __name__ == "__main__":
    main()
