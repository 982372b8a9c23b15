#!/usr/bin/env bash
# Query a running `danet serve` with curl: bash examples/client.sh IMAGE [PORT or URL]
# If the server requires a token, set DANET_TOKEN.
set -euo pipefail
server=${2:-8000}
[[ $server == *://* ]] || server=http://127.0.0.1:$server
query=(curl -sSf ${DANET_TOKEN:+-H "Authorization: Bearer $DANET_TOKEN"})

"${query[@]}" --data-binary "@$1" "$server/v1/segment" # classes and their shares of the pixels
echo
"${query[@]}" -F "file=@$1" -H "Accept: image/png" -o overlay.png "$server/v1/segment"
"${query[@]}" -F "file=@$1" -o labels.png "$server/v1/segment?output=labels"
"${query[@]}" -F "file=@$1" "$server/v1/attention?x=10&y=20" # what the pixel at x=10, y=20 looks at
