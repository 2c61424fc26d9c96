#!/usr/bin/env bash
# Join this node to a Ray cluster. RAY_HEAD=10.0.0.1:6380 (printed by ray_head.sh).
# Every node needs this repository at the same path, its environment, the data, and a sandbox of its own.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/../.."
: "${RAY_HEAD:?set it to the address of the head, such as 10.0.0.1:6380}"
if ! command -v ray >/dev/null && [ -x .venv/bin/ray ]; then PATH="$PWD/.venv/bin:$PATH"; fi
export PYTHONPATH="$PWD${PYTHONPATH:+:$PYTHONPATH}"
exec ray start --address "$RAY_HEAD" --disable-usage-stats "$@"
