#!/usr/bin/env bash
# Set up and run every check: lint, types, import rules, tests. About an hour on two cores.
#   bash scripts/test.sh           everything
#   bash scripts/test.sh fast      without tests marked `slow` (a few minutes)
#   bash scripts/test.sh light     unit tests of the rooms that need no GPU package, in .venv-light: any Python from 3.11, Linux or macOS
#   bash scripts/test.sh ARGS…     pytest with these arguments
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
if [ "${1:-}" = light ]; then
    shift
    venv=${VENV:-.venv-light}
    [ -x "$venv/bin/python" ] || "${PYTHON:-python3}" -m venv "$venv"
    "$venv/bin/python" -m pip install --quiet --editable '.[search,view,judge,data,eval,mcp,otel]' pytest pytest-asyncio pytest-timeout pytest-xdist hypothesis onnx omegaconf
    export OMP_NUM_THREADS=1 HF_HUB_OFFLINE=1
    # What is held against transformers and LLaMA-Factory stays out.
    exec "$venv/bin/python" -m pytest --numprocesses 2 --dist loadfile tests/unit/{agent,judge,serving,viewer,evaluation,deepeyes} \
        tests/unit/code_sandbox/test_client.py tests/unit/data/test_fetch.py --ignore tests/unit/agent/test_adding_a_family.py \
        --ignore tests/unit/agent/test_chat_formats.py -k "not hides_no_package and not of_hugging_face and not own_processors" "$@"
fi
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
# Two files at a time where a test uses one core or mostly waits; what trains has the machine for itself.
failed=0
for folder in tests/unit tests/services; do
    python -m pytest "$folder" "${marked[@]}" --numprocesses 2 --dist loadfile || failed=$?
done
[ "${1:-all}" != all ] || python -m pytest tests/slow || failed=$?
exit "$failed"
