#!/usr/bin/env bash
# One node of a job of train.sbatch: Redis on loopback, a sandbox, and Ray, until one of them ends or the job does.
set -euo pipefail
: "${DEEPEYES_JOB_DIR:?it is set by train.sbatch}" "${CODE_SANDBOX_TOKEN:?likewise}"
cd "$(dirname "${BASH_SOURCE[0]}")/../.."
if [ -z "${VIRTUAL_ENV:-}" ] && [ -x .venv/bin/python ]; then PATH="$PWD/.venv/bin:$PATH"; fi
number=${SLURM_NODEID:?}
port=${SANDBOX_PORT:-8000}
ray=reinforcement_learning/scripts

pids=()
stop() {
    trap - EXIT INT TERM
    ray stop >/dev/null 2>&1 || true
    for pid in "${pids[@]}"; do kill -TERM "$pid" 2>/dev/null || true; done
    wait
}
trap stop EXIT
trap 'exit 143' INT TERM

redis-server --port 6379 --bind 127.0.0.1 --save '' --appendonly no --loglevel warning &
pids+=($!)
deepeyes sandbox serve --host 0.0.0.0 --port "$port" --redis-url redis://127.0.0.1:6379/0 \
    --max-sessions "${SANDBOX_SESSIONS:-1024}" --require-level "${SANDBOX_LEVEL:-2}" &
pids+=($!)

if [ "$number" = 0 ]; then
    said=$(bash "$ray/ray_head.sh")
    echo "$said"
    sed -n 's/^then here: *export RAY_ADDRESS=//p' <<<"$said" >"$DEEPEYES_JOB_DIR/head.ray.new"
    mv "$DEEPEYES_JOB_DIR/head.ray.new" "$DEEPEYES_JOB_DIR/head.ray"
else
    until [ -s "$DEEPEYES_JOB_DIR/head.ray" ]; do sleep 1; done
    RAY_HEAD=$(cat "$DEEPEYES_JOB_DIR/head.ray") bash "$ray/ray_worker.sh"
fi
while :; do
    for pid in "${pids[@]}"; do
        kill -0 "$pid" 2>/dev/null || { echo "node $number: Redis or the sandbox did not start" >&2; exit 1; }
    done
    if (exec 3<>"/dev/tcp/127.0.0.1/$port") 2>/dev/null; then break; fi
    sleep 1
done
address=${NODE_IP:-$(python -c 'import ray.util; print(ray.util.get_node_ip_address())')}
echo "$address" >"$DEEPEYES_JOB_DIR/$number.address.new"
mv "$DEEPEYES_JOB_DIR/$number.address.new" "$DEEPEYES_JOB_DIR/$number.address"
wait -n "${pids[@]}" || true
echo "node $number: Redis or the sandbox has ended" >&2
exit 1
