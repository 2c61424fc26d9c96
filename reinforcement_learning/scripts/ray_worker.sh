#!/usr/bin/env bash
# Join this node to a Ray cluster. RAY_HEAD=10.0.0.1:6380 (printed by ray_head.sh). Further settings: ray_env.sh.
# Every node needs this repository at the same path, its environment, the data, the token, the secrets, and a sandbox of its own; the
# launcher's DRY_RUN=1 looks at all nodes and says what is missing where.
set -euo pipefail
: "${RAY_HEAD:?set it to the address of the head, such as 10.0.0.1:6380}"
source "$(dirname "${BASH_SOURCE[0]}")/ray_env.sh"
if [ "$RAY_AUTH_MODE" = token ] && ! has_token; then
    echo "no token in $token_file: copy the head's there (mode 600), or set RAY_AUTH_TOKEN_PATH to a file that both see" >&2
    exit 1
fi
if ! (exec 3<>"/dev/tcp/${RAY_HEAD%:*}/${RAY_HEAD##*:}") 2>/dev/null; then
    echo "nobody answers at RAY_HEAD=$RAY_HEAD; is ray_head.sh running there, and the port open?" >&2
    exit 1
fi
find_address
say_secrets
exec ray start --address "$RAY_HEAD" --node-ip-address "$node_ip" --disable-usage-stats "$@"
