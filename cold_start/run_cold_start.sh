#!/usr/bin/env bash
# Cold-start SFT of Qwen2.5-VL with LLaMA-Factory.
#   bash cold_start/run_cold_start.sh [RECIPE] [key=value …]     RECIPE: a name in cold_start/recipes, or a path
#   DRY_RUN=1 bash cold_start/run_cold_start.sh …                check everything, print the resolved recipe
# Several GPUs of one node: FORCE_TORCHRUN=1 (all of them; NPROC_PER_NODE for fewer). Several nodes, on each:
#   FORCE_TORCHRUN=1 NNODES=4 NODE_RANK=0 MASTER_ADDR=10.0.0.1 MASTER_PORT=29500 bash cold_start/run_cold_start.sh
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
recipe=${1:-qwen2_5_vl_7b}
shift || true
# Paths in recipes are relative to the repository; a virtual environment of ours is used when none is active.
if [ -z "${VIRTUAL_ENV:-}" ] && [ -x .venv/bin/python ]; then
    PATH="$PWD/.venv/bin:$PATH"
fi
exec python -m cold_start.train "$recipe" ${DRY_RUN:+--dry-run} "$@"
