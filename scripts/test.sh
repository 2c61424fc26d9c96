#!/usr/bin/env bash
# Set up and run every check: lint, types, import rules, tests. About 20 minutes on two cores, most of it one whole quickstart.
#   bash scripts/test.sh           everything
#   bash scripts/test.sh fast      without tests marked `slow` (a few minutes)
#   bash scripts/test.sh ARGS…     pytest with these arguments
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
bash scripts/setup.sh
PATH="$PWD/${VENV:-.venv}/bin:$PATH"
export OMP_NUM_THREADS=1 HF_HUB_OFFLINE=1 TOKENIZERS_PARALLELISM=false WANDB_MODE=disabled
bash scripts/lint.sh
case "${1:-all}" in
all) exec python -m pytest ;;
fast) exec python -m pytest -m "not slow" ;;
*) exec python -m pytest "$@" ;;
esac
