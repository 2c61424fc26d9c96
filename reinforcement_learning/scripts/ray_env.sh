# Sourced by the scripts beside it: what all nodes of a cluster, `ray status` and the launcher must agree on.
#   RAY_AUTH_MODE=token       the default here, and the launcher's; `disabled` on every node and in the launcher goes without
#   RAY_AUTH_TOKEN_PATH=FILE  the token, where homes are not shared; else ~/.ray/auth_token, which the head makes
#   NODE_IP=10.0.0.1          of this node, when it has several; else the one of its default route
# Secrets (CODE_SANDBOX_TOKEN, keys of search providers) reach the workers of a node from the environment of these scripts only.
repository=$(cd "$(dirname "${BASH_SOURCE[0]}")/../.." && pwd)
cd "$repository"
# An activated environment wins; else ours.
if [ -z "${VIRTUAL_ENV:-}" ] && [ -x .venv/bin/ray ]; then PATH="$repository/.venv/bin:$PATH"; fi
if ! command -v ray >/dev/null; then
    echo "no ray here; \`bash scripts/setup.sh gpu\` (or \`cpu\`) makes .venv, or activate the environment that has it" >&2
    exit 1
fi
ray_python="$(dirname "$(command -v ray)")/python"
[ -x "$ray_python" ] || ray_python=$(command -v python3)

# Workers import this repository and load the plug-in.
export PYTHONPATH="$repository${PYTHONPATH:+:$PYTHONPATH}"
export RAY_AUTH_MODE=${RAY_AUTH_MODE:-token}
token_file=${RAY_AUTH_TOKEN_PATH:-$HOME/.ray/auth_token}
# Ray, NCCL and the store of rollouts hold thousands of sockets; the usual soft limit is 1,024.
ulimit -n "$(ulimit -Hn)" 2>/dev/null || true
if [ "$(ulimit -n)" != unlimited ] && [ "$(ulimit -n)" -lt 4096 ]; then
    echo "only $(ulimit -n) open files are allowed here; raise the hard limit (limits.conf, or docker run --ulimit nofile=1048576)" >&2
    exit 1
fi

has_token() { [ -n "${RAY_AUTH_TOKEN:-}" ] || [ -s "$token_file" ]; }

# Sets node_ip and the interface that Gloo and NCCL shall use: left alone, Gloo binds to what the host name resolves to, which on
# many machines is loopback.
find_address() {
    node_ip=${NODE_IP:-$("$ray_python" -c 'import ray.util; print(ray.util.get_node_ip_address())')}
    local interface
    interface=$("$ray_python" - "$node_ip" <<'PYTHON'
import sys
import psutil

addresses = {name: [a.address.split("%")[0] for a in found] for name, found in psutil.net_if_addrs().items()}
print(next((name for name, found in addresses.items() if sys.argv[1] in found), ""))
PYTHON
    )
    if [ -z "$interface" ]; then
        echo "no interface of this node has the address $node_ip; set NODE_IP to one that \`ip addr\` shows" >&2
        exit 1
    fi
    export GLOO_SOCKET_IFNAME=${GLOO_SOCKET_IFNAME:-$interface} NCCL_SOCKET_IFNAME=${NCCL_SOCKET_IFNAME:-$interface}
    echo "this node: $node_ip on $interface (another: NODE_IP=…; GLOO_SOCKET_IFNAME=$GLOO_SOCKET_IFNAME NCCL_SOCKET_IFNAME=$NCCL_SOCKET_IFNAME)"
}

say_secrets() {
    local name found=""
    for name in CODE_SANDBOX_TOKEN JUDGE_API_KEY SERPER_API_KEY TAVILY_API_KEY BRAVE_API_KEY HF_TOKEN; do
        [ -z "${!name:-}" ] || found="$found $name"
    done
    echo "secrets that workers of this node will have:${found:- none (export them before this script)}"
}
