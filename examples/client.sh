#!/usr/bin/env bash
# Query a running `danet serve` with curl: bash examples/client.sh IMAGE
# If the server requires a token, add -H "Authorization: Bearer $DANET_TOKEN" to each command.
set -euo pipefail
server=http://127.0.0.1:8000

curl -sSf --data-binary "@$1" "$server/v1/segment" # classes and their shares of the pixels
echo
curl -sSf -F "file=@$1" -H "Accept: image/png" -o overlay.png "$server/v1/segment"
curl -sSf -F "file=@$1" -o labels.png "$server/v1/segment?output=labels"
curl -sSf -F "file=@$1" "$server/v1/attention?x=10&y=20" # what the pixel at x=10, y=20 looks at
