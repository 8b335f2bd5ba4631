#!/usr/bin/env bash
# Builds the LiveKit server that `make bench-peers` compares with, from its Go module, into .tools/bin.
# Takes some minutes, once. Needs Go 1.21 or newer, which fetches the version that the module asks for.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

version=v1.9.12
stamp=.tools/bin/livekit-server.version
[ "$(cat "$stamp" 2>/dev/null)" = $version ] && exit 0

go=$(command -v go || true)
have=$([ -z "$go" ] || "$go" env GOVERSION)
if [ -z "$go" ] || [ "$(printf '%s\n' go1.21 "$have" | sort -V | head -n 1)" != go1.21 ]; then
  echo "livekit: Go 1.21 or newer is needed to build LiveKit, found ${have:-none}" >&2
  exit 1
fi
echo "livekit: building $version" >&2
mkdir -p .tools/bin
GOBIN=$PWD/.tools/bin/livekit "$go" install "github.com/livekit/livekit-server/cmd/server@$version"
mv .tools/bin/livekit/server .tools/bin/livekit-server
rmdir .tools/bin/livekit
echo $version >"$stamp"
