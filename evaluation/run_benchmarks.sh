#!/usr/bin/env bash
# The published benchmarks with one command; the same command resumes.
#   bash evaluation/run_benchmarks.sh --suite smoke --out runs/smoke                 nothing needed: a scripted model, 2 minutes
#   bash evaluation/run_benchmarks.sh --suite perception --data datasets/eval --model CHECKPOINT --out runs/eval
#   bash evaluation/run_benchmarks.sh --suite all --dry-run --out runs/eval --model x      what it would ask and cost
# Suites: perception, math, search, all, smoke. More: --help. A sandbox must run (`deepeyes sandbox serve`), except for smoke.
set -euo pipefail
here=$PWD
cd "$(dirname "${BASH_SOURCE[0]}")/.."
python=${VENV:-.venv}/bin/python
[ -x "$python" ] || { echo "run_benchmarks: no $python; run \`bash scripts/setup.sh\` first" >&2; exit 1; }
python=$(cd "$(dirname "$python")" && pwd)/python
root=$PWD
# Paths in the arguments are meant from where the caller is.
cd "$here"
PYTHONPATH="$root${PYTHONPATH:+:$PYTHONPATH}" exec "$python" -m evaluation.smoke.suite "$@"
