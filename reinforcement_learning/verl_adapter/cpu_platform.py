"""verl's platform plug-in for a CPU. Selected by VERL_PLATFORM=cpu; uses only `verl.plugin.platform`."""

from __future__ import annotations

import os
import resource
import types
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import psutil
import torch
from verl.plugin.platform import PlatformBase, PlatformRegistry


class _CpuDevice(types.ModuleType):
    """`torch.cpu` plus what verl calls on the namespace of an accelerator."""

    def __init__(self) -> None:
        super().__init__("deepeyes_cpu_device")

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__") or not hasattr(torch.cpu, name):
            raise AttributeError(f"torch.cpu has no {name!r}, which verl asked of the CPU platform")
        return getattr(torch.cpu, name)

    def empty_cache(self) -> None: ...

    def ipc_collect(self) -> None: ...

    def reset_peak_memory_stats(self, *_: Any) -> None: ...

    def reset_max_memory_allocated(self, *_: Any) -> None: ...

    def memory_allocated(self, *_: Any) -> int:
        return int(psutil.Process().memory_info().rss)

    memory_reserved = memory_allocated

    def max_memory_allocated(self, *_: Any) -> int:
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024

    max_memory_reserved = max_memory_allocated

    def mem_get_info(self, *_: Any) -> tuple[int, int]:
        memory = psutil.virtual_memory()
        return int(memory.available), int(memory.total)

    def manual_seed(self, seed: int) -> None:
        torch.manual_seed(seed)

    manual_seed_all = manual_seed

    def get_rng_state(self, *_: Any) -> torch.Tensor:
        return torch.get_rng_state()

    def set_rng_state(self, state: torch.Tensor, *_: Any) -> None:
        torch.set_rng_state(state)

    # False: verl then skips what only an accelerator has.
    def is_available(self) -> bool:
        return False

    def device_count(self) -> int:
        return 1

    def current_device(self) -> torch.device:
        return torch.device("cpu")

    def set_device(self, *_: Any) -> None: ...

    def synchronize(self, *_: Any) -> None: ...

    def get_device_name(self, *_: Any) -> str:
        return "CPU"

    def get_device_capability(self, *_: Any) -> tuple[None, None]:
        return None, None


_DEVICE = _CpuDevice()


@PlatformRegistry.register(platform="cpu")
class CpuPlatform(PlatformBase):
    """One pretended device per node, gloo between them."""

    @property
    def device_name(self) -> str:
        return "cpu"

    @property
    def vendor_name(self) -> str:
        return "cpu"

    @property
    def device_module(self) -> types.ModuleType:
        return _DEVICE

    def is_available(self) -> bool:
        return True

    def is_platform_available(self, use_smi_check: bool = False) -> bool:
        return not torch.cuda.is_available()

    # verl hands this to `.to()` and `device=`, where a number would mean an accelerator.
    def current_device(self) -> torch.device:
        return torch.device("cpu")

    def device_count(self) -> int:
        return 1

    def set_device(self, device_index: int) -> None: ...

    def synchronize(self, device_index: int | None = None) -> None: ...

    def manual_seed(self, seed: int) -> None:
        torch.manual_seed(seed)

    def manual_seed_all(self, seed: int) -> None:
        torch.manual_seed(seed)

    def set_allocator_settings(self, settings: str) -> None: ...

    def empty_cache(self) -> None: ...

    def get_device_capability(self, device_index: int = 0) -> tuple[None, None]:
        return None, None

    def communication_backend_name(self) -> str:
        return "gloo"

    def visible_devices_envvar(self) -> str:
        return "CUDA_VISIBLE_DEVICES"

    @contextmanager
    def nvtx_range(self, msg: str) -> Iterator[None]:
        yield

    def profiler_start(self) -> None: ...

    def profiler_stop(self) -> None: ...

    # verl's resource pools know "GPU" and "NPU" only; Ray is told of a pretended GPU (cpu overlay, ray_init.num_gpus).
    def ray_resource_name(self) -> str:
        return "GPU"

    def ray_noset_envvars(self) -> list[str]:
        return ["RAY_EXPERIMENTAL_NOSET_CUDA_VISIBLE_DEVICES"]

    # Weights then travel through shared memory.
    def is_ipc_supported(self) -> bool:
        return False

    def rollout_env_vars(self) -> dict[str, str]:
        return {
            "VLLM_CPU_KVCACHE_SPACE": os.environ.get("VLLM_CPU_KVCACHE_SPACE", "1"),
            "VLLM_CPU_OMP_THREADS_BIND": "nobind",
            # Lets the executor "uni" through: one process less.
            "VLLM_ENABLE_V1_MULTIPROCESSING": "0",
            # Compiling takes 47 s and gains nothing at this size.
            "TORCH_COMPILE_DISABLE": "1",
        }

    def cudart(self) -> None:
        return None
