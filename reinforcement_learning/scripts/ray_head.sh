#!/usr/bin/env bash
# Start the head of a Ray cluster on this node. PORT=6379 is Ray's default and Redis's as well: this one is 6380.
# Further settings: ray_env.sh. Further arguments go to `ray start`; nodes without GPUs pretend one for recipes of a CPU:
#   bash reinforcement_learning/scripts/ray_head.sh --num-gpus 1 --num-cpus 16
set -euo pipefail
source "$(dirname "${BASH_SOURCE[0]}")/ray_env.sh"
port=${PORT:-6380}
find_address
if (exec 3<>"/dev/tcp/$node_ip/$port") 2>/dev/null; then
    echo "port $port is in use; is a Ray head running already (ray_status.sh)? Stop it with \`ray stop\`, or set PORT" >&2
    exit 1
fi
if [ "$RAY_AUTH_MODE" = token ] && ! has_token; then
    mkdir -p "$(dirname "$token_file")"
    (umask 077 && "$ray_python" -c 'import uuid; print(uuid.uuid4().hex, end="")' >"$token_file")
    echo "made a token: $token_file"
fi
say_secrets
ray start --head --node-ip-address "$node_ip" --port "$port" --disable-usage-stats "$@"
echo
if [ "$RAY_AUTH_MODE" = token ] && [ -z "${RAY_AUTH_TOKEN:-}" ]; then
    echo "the token of this cluster is in $token_file; copy it to the same place on every other node (mode 600), unless homes are shared"
fi
echo "on every other node: RAY_HEAD=$node_ip:$port bash reinforcement_learning/scripts/ray_worker.sh"
echo "then here:           export RAY_ADDRESS=$node_ip:$port"
echo "and look:            bash reinforcement_learning/scripts/ray_status.sh"
