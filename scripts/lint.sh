#!/usr/bin/env bash
# Lint, formatting of imports, types and import rules. Changes nothing.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
if [ -x "${VENV:-.venv}/bin/ruff" ]; then PATH="$PWD/${VENV:-.venv}/bin:$PATH"; fi
ruff check .
mypy
deptry .
lint-imports
for script in $(git ls-files '*.sh' .ci/run); do bash -n "$script"; done
