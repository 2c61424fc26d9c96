#!/usr/bin/env bash
# Start the LLM judge behind vLLM's OpenAI API in the foreground, and say when it is ready.
#   bash judge/serve.sh [MODEL] [more vllm arguments]
# MODEL is a folder or a hub name; default Qwen/Qwen2.5-72B-Instruct on 8 GPUs, the published set-up.
#   PORT=18901   BIND=127.0.0.1   TENSOR_PARALLEL=8   MAX_MODEL_LEN=32768   DEVICE=gpu|cpu
#   BIND=0.0.0.0      lets other machines ask; with JUDGE_API_KEY set, only those that have the key
#   THINKING=1        lets a model think that can do without: many times slower. It is told not to (Qwen3, GLM, DeepSeek-V3.1 …);
#                     models that always think get their reasoning parser. Your own arguments come last and win.
set -euo pipefail
model=${1:-Qwen/Qwen2.5-72B-Instruct}
shift || true
port=${PORT:-18901}
host=${BIND:-127.0.0.1}

here=$host
if [ "$host" = 0.0.0.0 ]; then here=127.0.0.1; fi
if (exec 3<>"/dev/tcp/$here/$port") 2>/dev/null; then
    echo "port $port is in use: something answers there already. Stop it, or choose another with PORT=18902." >&2
    exit 1
fi
if ! command -v vllm >/dev/null; then
    echo "vllm is not installed here; run \`bash scripts/setup.sh\` and activate .venv first." >&2
    exit 1
fi

# Names of parsers: vllm/reasoning/__init__.py of vLLM 0.28.
case "$(basename "$model" | tr '[:upper:]' '[:lower:]')" in
    *qwen3*think*) thinks=(--reasoning-parser qwen3) ;;
    *qwq* | *deepseek-r1* | *r1-distill*) thinks=(--reasoning-parser deepseek_r1) ;;
    *gpt-oss*) thinks=(--reasoning-parser openai_gptoss) ;;
    *magistral*) thinks=(--reasoning-parser mistral) ;;
    *seed-oss*) thinks=(--reasoning-parser seed_oss) ;;
    *minimax-m2*) thinks=(--reasoning-parser minimax_m2) ;;
    *olmo-3*think*) thinks=(--reasoning-parser olmo3) ;;
    *kimi-k2*think*) thinks=(--reasoning-parser kimi_k2) ;;
    *mistral* | *ministral* | *pixtral*) thinks=() ;; # their templates take no variables
    *) thinks=(--default-chat-template-kwargs '{"enable_thinking": false, "thinking": false}') ;;
esac
if [ "${THINKING:-}" = 1 ] && [ "${thinks[0]:-}" = --default-chat-template-kwargs ]; then thinks=(); fi

arguments=(--port "$port" --served-model-name judge --max-model-len "${MAX_MODEL_LEN:-32768}")
if [ "${DEVICE:-gpu}" = cpu ]; then
    export TORCH_COMPILE_DISABLE=1 VLLM_CPU_KVCACHE_SPACE=${VLLM_CPU_KVCACHE_SPACE:-1} VLLM_CPU_OMP_THREADS_BIND=nobind
    export VLLM_ENABLE_V1_MULTIPROCESSING=0 OMP_NUM_THREADS=${OMP_NUM_THREADS:-1}
    arguments+=(--host "$host" "${thinks[@]}" --dtype float32 --enforce-eager --distributed-executor-backend uni)
else
    arguments+=(--tensor-parallel-size "${TENSOR_PARALLEL:-8}" --gpu-memory-utilization 0.8 --host "$host" "${thinks[@]}")
fi
key=$(printf %s "${JUDGE_API_KEY:-}" | tr -d '[:space:]')
if [ -n "$key" ]; then
    export VLLM_API_KEY=$key # not as an argument: `ps` would show it
elif [ "$here" != "$host" ]; then
    echo "whoever reaches port $port of this machine may use the judge: set JUDGE_API_KEY, here and where it is asked." >&2
fi
address=$host more="; other machines reach it if it is started with BIND=0.0.0.0"
if [ "$host" != 127.0.0.1 ]; then more=""; fi
if [ "$here" != "$host" ]; then address=$(hostname); fi
# Loading 72B takes minutes: a watcher beside the server says when it answers, or ends with it. $$ stays its pid through exec.
healthy() {
    exec 3<>"/dev/tcp/$here/$port" && printf 'GET /health HTTP/1.0\r\n\r\n' >&3 && read -r -t 5 line <&3 && [[ $line == *" 200"* ]]
}
halves=0
(
    {
        until (healthy) 2>/dev/null; do
            kill -0 $$ 2>/dev/null || exit 0
            sleep 0.5
            ((++halves % 50)) || echo "the judge is starting · $((halves / 2)) s" >&2
        done
        echo "the judge is ready: export LLM_AS_A_JUDGE_BASE=http://$address:$port/v1, then deepeyes judge doctor$more" >&2
    } &
)
exec vllm serve "$model" "${arguments[@]}" "$@"
