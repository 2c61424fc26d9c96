#!/usr/bin/env bash
# `ray status` with the token and mode of the other scripts. RAY_ADDRESS, else the head on this node (PORT=6380).
set -euo pipefail
source "$(dirname "${BASH_SOURCE[0]}")/ray_env.sh"
exec ray status --address "${RAY_ADDRESS:-${NODE_IP:-127.0.0.1}:${PORT:-6380}}" "$@"
