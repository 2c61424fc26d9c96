#!/usr/bin/env bash
# The environment in which the reference scorers run, for tests alone: VLMEvalKit's package, and inspect_ai to read our logs.
# Neither can share an environment with verl. Prints the path of its Python.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
target="${VENV:-.venv}/oracle"
if ! cmp -s requirements/oracle.lock "$target/oracle.lock"; then
    "${VENV:-.venv}/bin/python" -m venv --clear "$target" >&2
    # What the package asks for would bring torch; its scorers need none of it.
    "$target/bin/pip" install -q --no-deps -r requirements/oracle.lock >&2
    cp requirements/oracle.lock "$target/oracle.lock"
fi
echo "$(cd "$target" && pwd)/bin/python"
