"""Let the index's CUDA builds of torchvision and torchaudio be imported beside a CPU build of torch.

Their compiled parts link to CUDA libraries that are not there, so the operators they would register are missing:
torchvision then stops at "operator torchvision::nms does not exist", torchaudio at "Could not load this library". Nothing
in training or serving Qwen2.5-VL calls those operators. Beside a CUDA build of torch the hook does nothing.
"""

import sys
from importlib.abc import Loader, MetaPathFinder
from importlib.machinery import PathFinder

_libraries = []


def _is_cpu_build():
    import torch

    return torch.version.cuda is None and getattr(torch.version, "hip", None) is None


def _declare_operators():
    """torchvision registers fake kernels for two operators at import; their schemas must exist."""
    import torch

    if not _is_cpu_build() or hasattr(torch.ops.torchvision, "nms"):
        return
    library = torch.library.Library("torchvision", "FRAGMENT")
    for name in ("nms", "qnms"):
        library.define(f"{name}(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")
    # A Library takes its definitions back when it is collected.
    _libraries.append(library)


def _skip_extension(module):
    """torchaudio raises when its extension does not load; False means "not available" to it."""
    if _is_cpu_build():
        module._load_lib = lambda name: False


_BEFORE = {"torchvision": _declare_operators}
_AFTER = {"torchaudio._extension.utils": _skip_extension}


class _HookedLoader(Loader):
    def __init__(self, loader, name):
        self._loader, self._name = loader, name

    def create_module(self, spec):
        return self._loader.create_module(spec)

    def exec_module(self, module):
        if self._name in _BEFORE:
            _BEFORE[self._name]()
        module.__loader__ = module.__spec__.loader = self._loader
        self._loader.exec_module(module)
        if self._name in _AFTER:
            _AFTER[self._name](module)


class _HookedFinder(MetaPathFinder):
    def find_spec(self, name, path=None, target=None):
        if name not in _BEFORE and name not in _AFTER:
            return None
        spec = PathFinder.find_spec(name, path)
        if spec is not None and spec.loader is not None:
            spec.loader = _HookedLoader(spec.loader, name)
        return spec


sys.meta_path.insert(0, _HookedFinder())
