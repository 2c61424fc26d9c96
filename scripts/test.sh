#!/usr/bin/env bash
# Set up and run every check: lint, types, import rules, tests. About an hour on two cores.
#   bash scripts/test.sh           everything
#   bash scripts/test.sh fast      without tests marked `slow` (a few minutes)
#   bash scripts/test.sh ARGS…     pytest with these arguments
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
bash scripts/setup.sh
PATH="$PWD/${VENV:-.venv}/bin:$PATH"
# The page of `deepeyes view` is tested in a real browser. Without one, and without the means to install it, those tests say so and are skipped.
if ! command -v chromium chromium-browser google-chrome >/dev/null && [ "$(id -u)" = 0 ] && command -v apt-get >/dev/null; then
    echo "test: installing chromium with apt"
    install=(apt-get install -y -q --no-install-recommends chromium)
    { "${install[@]}" || { apt-get update -q && "${install[@]}"; }; } >"${VENV:-.venv}/chromium.log" 2>&1 ||
        echo "test: that failed; see ${VENV:-.venv}/chromium.log" >&2
fi
export OMP_NUM_THREADS=1 HF_HUB_OFFLINE=1 TOKENIZERS_PARALLELISM=false WANDB_MODE=disabled
bash scripts/lint.sh
if [ $# -gt 0 ] && [ "$1" != all ] && [ "$1" != fast ]; then exec python -m pytest "$@"; fi
marked=()
[ "${1:-all}" = all ] || marked=(-m "not slow")
# Unit tests use one core each; what starts servers or trains has the machine for itself.
failed=0
python -m pytest tests/unit "${marked[@]}" --numprocesses 2 --dist loadfile || failed=$?
python -m pytest tests/services tests/slow "${marked[@]}" || failed=$?
exit "$failed"
