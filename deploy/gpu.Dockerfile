# The environment for GPUs with this repository in it; training, cold start, evaluation and judge run from one image.
#   docker build -f deploy/gpu.Dockerfile -t deepeyes-gpu .
#   docker run --gpus all --network host --ipc host --ulimit nofile=1048576 --ulimit memlock=-1 -v /shared:/shared -it deepeyes-gpu bash
# --ipc host (or --shm-size 128g): Ray's object store and NCCL live in /dev/shm. /shared: what all nodes see, runs among it.
# The host needs NVIDIA's driver 580 or newer and its container toolkit.
ARG PYTHON_IMAGE=python:3.11-bookworm
ARG CUDA_IMAGE=nvidia/cuda:13.0.2-devel-ubuntu24.04

FROM ${CUDA_IMAGE} AS cuda

FROM ${PYTHON_IMAGE}
# nvcc and headers, for what compiles at its first use (DeepSpeed's host optimizer) and for flash-attn; torch brings its own libraries.
COPY --from=cuda /usr/local/cuda-13.0 /usr/local/cuda-13.0
ENV CUDA_HOME=/usr/local/cuda-13.0 \
    NVIDIA_VISIBLE_DEVICES=all \
    NVIDIA_DRIVER_CAPABILITIES=compute,utility \
    VENV=/opt/deepeyes \
    VIRTUAL_ENV=/opt/deepeyes \
    PATH=/opt/deepeyes/bin:/usr/local/cuda-13.0/bin:/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin
RUN apt-get update -q \
    && apt-get install -y -q --no-install-recommends redis-server iproute2 procps \
    && rm -rf /var/lib/apt/lists/*

WORKDIR /opt/deepeyes-src
# 2.8.3 builds flash-attn (up to an hour); empty: train with OVERLAY=_no_flash_attn.
ARG FLASH_ATTN=
ARG MAX_JOBS=8
# The packages first: editing the code then rebuilds nothing of them.
COPY requirements/gpu.lock requirements/gpu.lock
RUN python -m venv "$VENV" \
    && DS_BUILD_OPS=0 pip install --no-cache-dir --no-deps -r requirements/gpu.lock
COPY . .
RUN NO_DRIVER=1 PYTHON=/usr/local/bin/python FLASH_ATTN=${FLASH_ATTN} MAX_JOBS=${MAX_JOBS} bash scripts/setup.sh gpu
