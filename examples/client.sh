#!/usr/bin/env bash
# Ask `danet serve` by curl: bash examples/client.sh IMAGE. With a token, add -H "Authorization: Bearer $DANET_TOKEN".
set -euo pipefail
server=http://127.0.0.1:8000

curl -sSf --data-binary "@$1" "$server/v1/segment" # the classes and their shares
echo
curl -sSf -F "file=@$1" -H "Accept: image/png" -o overlay.png "$server/v1/segment"
curl -sSf -F "file=@$1" -o labels.png "$server/v1/segment?output=labels"
curl -sSf -F "file=@$1" "$server/v1/attention?x=10&y=20" # where the pixel (10, 20) looks
