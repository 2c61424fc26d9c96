#!/usr/bin/env bash
# The whole pipeline on a CPU: toy data -> cold start -> GRPO with code execution -> evaluation -> report.
#   bash scripts/quickstart.sh                 everything; finished stages are kept, an interrupted one is resumed
#   bash scripts/quickstart.sh --stage rl      one stage: data, sft, rl, eval or report
#   bash scripts/quickstart.sh --clean         start over
#   bash scripts/quickstart.sh --base qwen3_vl --run runs/qwen3_vl    from a tiny Qwen3-VL
# More: --help. The report is runs/quickstart/report.html.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
bash scripts/setup.sh
exec "${VENV:-.venv}/bin/python" -m deepeyes.quickstart.pipeline "$@"
