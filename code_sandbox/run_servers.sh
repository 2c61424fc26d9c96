#!/usr/bin/env bash
# Start one sandbox server per NUMA node, or per CORES_PER_SERVER cores, and stop them all together.
#   PORT=8000               of the first server; the others follow
#   CORES_PER_SERVER=16     on a machine with one NUMA node; each server and its sessions stay on their cores
#   REDIS_URL=redis://…     shared by all of them, so that a session can move when a server dies
# Further arguments go to every `python -m code_sandbox.server`, for example --config sandbox.yaml.
# The last line printed is what clients need: CODE_SANDBOX_URL=…
set -euo pipefail

root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
python=${VENV:-${VIRTUAL_ENV:-$root/.venv}}/bin/python
[ -x "$python" ] || python=python3
export PYTHONPATH="$root${PYTHONPATH:+:$PYTHONPATH}"
port=${PORT:-8000}
per_server=${CORES_PER_SERVER:-16}
groups=()
shopt -s nullglob
nodes=(/sys/devices/system/node/node[0-9]*)
if [ "${#nodes[@]}" -gt 1 ]; then
    for node in "${nodes[@]}"; do
        cores=$(cat "$node/cpulist")
        [ -n "$cores" ] && groups+=("$cores")
    done
else
    cores=$(nproc)
    for ((first = 0; first < cores; first += per_server)); do
        last=$((first + per_server - 1 < cores ? first + per_server - 1 : cores - 1))
        groups+=("$first-$last")
    done
fi

pids=()
urls=()
stop() {
    trap - EXIT INT TERM
    for pid in "${pids[@]}"; do kill -TERM "$pid" 2>/dev/null || true; done
    wait
}
trap stop EXIT INT TERM
for cores in "${groups[@]}"; do
    taskset -c "$cores" "$python" -m code_sandbox.server --port "$port" "$@" &
    pids+=($!)
    urls+=("http://127.0.0.1:$port")
    port=$((port + 1))
done
for index in "${!urls[@]}"; do
    for ((waited = 0; ; waited++)); do
        "$python" -c "import sys, urllib.request; urllib.request.urlopen(sys.argv[1] + '/health', timeout=2)" "${urls[$index]}" 2>/dev/null && break
        if ! kill -0 "${pids[$index]}" 2>/dev/null || [ "$waited" -ge 120 ]; then
            echo "run_servers: the server on cores ${groups[$index]} did not come up; its messages are above" >&2
            exit 1
        fi
        sleep 1
    done
done
echo "CODE_SANDBOX_URL=$(IFS=,; echo "${urls[*]}")"
wait -n
echo "run_servers: a server has ended; stopping the others" >&2
exit 1
