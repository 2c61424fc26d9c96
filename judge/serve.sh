#!/usr/bin/env bash
# Start the LLM judge behind vLLM's OpenAI API in the foreground, and say when it is ready.
#   bash judge/serve.sh [MODEL] [more vllm arguments]
# MODEL is a folder or a hub name; default Qwen/Qwen2.5-72B-Instruct on 8 GPUs, the published set-up.
#   PORT=18901   TENSOR_PARALLEL=8   MAX_MODEL_LEN=32768   DEVICE=gpu|cpu
set -euo pipefail
model=${1:-Qwen/Qwen2.5-72B-Instruct}
shift || true
port=${PORT:-18901}

if (exec 3<>"/dev/tcp/127.0.0.1/$port") 2>/dev/null; then
    echo "port $port is in use: something answers there already. Stop it, or choose another with PORT=18902." >&2
    exit 1
fi
if ! command -v vllm >/dev/null; then
    echo "vllm is not installed here; run \`bash scripts/setup.sh\` and activate .venv first." >&2
    exit 1
fi

arguments=(--port "$port" --served-model-name judge --max-model-len "${MAX_MODEL_LEN:-32768}")
if [ "${DEVICE:-gpu}" = cpu ]; then
    export TORCH_COMPILE_DISABLE=1 VLLM_CPU_KVCACHE_SPACE=${VLLM_CPU_KVCACHE_SPACE:-1} VLLM_CPU_OMP_THREADS_BIND=nobind
    export VLLM_ENABLE_V1_MULTIPROCESSING=0 OMP_NUM_THREADS=${OMP_NUM_THREADS:-1}
    arguments+=(--host 127.0.0.1 --dtype float32 --enforce-eager --distributed-executor-backend uni)
else
    arguments+=(--tensor-parallel-size "${TENSOR_PARALLEL:-8}" --gpu-memory-utilization 0.8)
fi
# Loading 72B takes minutes: a watcher beside the server says when it answers, or ends with it. $$ stays its pid through exec.
healthy() {
    exec 3<>"/dev/tcp/127.0.0.1/$port" && printf 'GET /health HTTP/1.0\r\n\r\n' >&3 && read -r -t 5 line <&3 && [[ $line == *" 200"* ]]
}
(
    {
        until (healthy) 2>/dev/null; do
            kill -0 $$ 2>/dev/null || exit 0
            sleep 0.5
        done
        echo "the judge is ready: export LLM_AS_A_JUDGE_BASE=http://$(hostname):$port/v1, then python -m judge.doctor" >&2
    } &
)
exec vllm serve "$model" "${arguments[@]}" "$@"
