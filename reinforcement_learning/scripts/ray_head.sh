#!/usr/bin/env bash
# Start the head of a Ray cluster on this node. PORT=6379 is Ray's default and Redis's as well: this one is 6380.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/../.."
port=${PORT:-6380}
if ! command -v ray >/dev/null && [ -x .venv/bin/ray ]; then PATH="$PWD/.venv/bin:$PATH"; fi
# Workers import this repository and load the plug-in; what is exported here reaches the head's own workers.
export PYTHONPATH="$PWD${PYTHONPATH:+:$PYTHONPATH}"
if (exec 3<>"/dev/tcp/127.0.0.1/$port") 2>/dev/null; then
    echo "port $port is in use; is a Ray head running already (ray status)? Stop it with \`ray stop\`, or set PORT" >&2
    exit 1
fi
ray start --head --port "$port" --disable-usage-stats "$@"
address=$(hostname -I | awk '{print $1}')
echo "on every other node: RAY_HEAD=$address:$port bash reinforcement_learning/scripts/ray_worker.sh"
echo "then here:           export RAY_ADDRESS=$address:$port"
