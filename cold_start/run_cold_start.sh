#!/usr/bin/env bash
# Cold-start SFT of Qwen2.5-VL with LLaMA-Factory.
#   bash cold_start/run_cold_start.sh [RECIPE] [key=value …]     RECIPE: a name in cold_start/recipes, or a path
#   DRY_RUN=1 bash cold_start/run_cold_start.sh …                check everything, start and write nothing
#   ACCEPT_CHANGES=1 bash cold_start/run_cold_start.sh …         go on with a run that had another recipe or other data
# All GPUs of the machine are used; NPROC_PER_NODE takes fewer. Several nodes, on each:
#   NNODES=4 NODE_RANK=0 MASTER_ADDR=10.0.0.1 MASTER_PORT=29500 bash cold_start/run_cold_start.sh
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
# Paths in recipes are relative to the repository; a virtual environment of ours is used when none is active.
if [ -z "${VIRTUAL_ENV:-}" ] && [ -x .venv/bin/python ]; then
    PATH="$PWD/.venv/bin:$PATH"
fi
flags=()
case "${DRY_RUN:-0}" in 0 | "" | false) ;; *) flags+=(--dry-run) ;; esac
case "${ACCEPT_CHANGES:-0}" in 0 | "" | false) ;; *) flags+=(--accept-changes) ;; esac
exec python -m cold_start.train "${flags[@]}" "$@"
