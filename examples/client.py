"""Ask `danet serve` what is in an image, and where one of its pixels looks. Needs Python alone.

danet serve
python examples/client.py examples/china.jpg --at 300 200
"""

import argparse
import json
import os
import urllib.request
from pathlib import Path


def post(url: str, content: bytes) -> dict:
    """The server's JSON answer to an image."""
    headers = {"Content-Type": "application/octet-stream"}
    if token := os.environ.get("DANET_TOKEN"):
        headers["Authorization"] = f"Bearer {token}"
    with urllib.request.urlopen(urllib.request.Request(url, content, headers)) as answer:  # noqa: S310
        return json.load(answer)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("image", type=Path)
    parser.add_argument("--at", type=int, nargs=2, metavar=("X", "Y"), help="a pixel")
    parser.add_argument("--server", default="http://127.0.0.1:8000")
    options = parser.parse_args()
    content = options.image.read_bytes()
    for found in post(f"{options.server}/v1/segment", content)["classes"]:
        print(f"{found['share']:6.1%}  {found['name']}")
    if options.at:
        x, y = options.at
        answer = post(f"{options.server}/v1/attention?x={x}&y={y}", content)
        shares = ", ".join(f"{entry['name']} {entry['share']:.0%}" for entry in answer["classes"])
        print(f"({x}, {y}), {answer['class']['name']}, looks at {shares}")


if __name__ == "__main__":
    main()
