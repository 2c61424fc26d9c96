#!/usr/bin/env bash
# GRPO for Qwen2.5-VL-7B on the full data mix. Run on the head node of a Ray cluster (reinforcement_learning/scripts).
#   DRY_RUN=1 bash <this file>     check recipe, model, nodes, disk, servers, every row of the data and verl's values; start nothing.
#                                  --show-recipe prints the resolved recipe
#   RECIPE=qwen2_5_vl_7b_script    the released script's values instead of the paper's
#   OVERLAY=_no_flash_attn         a part put over the recipe; several with spaces between them
# Arguments are passed on as overrides, such as verl.trainer.total_training_steps=60.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/../../.."

if [ -z "${DRY_RUN:-}" ]; then
    : "${LLM_AS_A_JUDGE_BASE:?set it to the endpoint of the judge, such as http://10.0.0.5:18901/v1}"
fi
# A relaunch keeps everything: checkpoints, metrics and rollouts are in the run's folder, and a run there is resumed.
if [ -z "${VIRTUAL_ENV:-}" ] && [ -x .venv/bin/python ]; then
    PATH="$PWD/.venv/bin:$PATH"
fi
python=$(command -v python || command -v python3) || {
    echo "no Python here; \`bash scripts/setup.sh gpu\` makes .venv, or activate the environment that has verl" >&2
    exit 1
}
overlays=()
for overlay in ${OVERLAY:-}; do overlays+=(--overlay "$overlay"); done
# An empty array is "unbound" to Bash before 4.4.
exec "$python" -m reinforcement_learning.train --recipe "${RECIPE:-qwen2_5_vl_7b}" ${overlays[@]+"${overlays[@]}"} ${DRY_RUN:+--dry-run} "$@"
