"""21. The answer itself: ground truth, the judge, the project's own files."""

from code_sandbox.attacks.suite import Attempt

_HEAP = """
import gc
words = ("ground" + "_truth", "LLM_AS" + "_A_JUDGE", "reward" + "_model")
for thing in gc.get_objects():
    if isinstance(thing, dict):
        for key in list(thing):
            if isinstance(key, str) and key in words:
                breach(key)
"""
_PROJECT = """
import os, sys
roots = {os.path.dirname(os.path.dirname(module.__file__)) for name, module in list(sys.modules.items()) if name.split(".")[0] in ("code_sandbox", "judge", "evaluation", "agent") and getattr(module, "__file__", None)}
roots |= {path for path in sys.path if path and "site-packages" not in path and "python3" not in path and not path.startswith(sys.prefix)}
for root in roots:
    if root.startswith((sys.prefix, sys.base_prefix)) or "site-packages" in root:
        continue
    try:
        found = os.listdir(root)
    except OSError:
        continue
    if set(found) & {"data", "judge", "evaluation", "pyproject.toml"}:
        breach(root, found[:5])
"""
_CACHES = """
import glob, os
for pattern in ("/data*", "/mnt/*", "/datasets/*", "/workspace/*", "/opt/*/*.parquet", "/var/lib/redis/*", "//tmp/*/*.jsonl", "//tmp/ray/*"):
    for path in glob.glob(pattern):
        if os.access(path, os.R_OK):
            breach(path)
"""
_FRAMES = """
import sys
frame = sys._getframe()
while frame is not None:
    for name, value in frame.f_locals.items():
        if name in ("settings", "store", "token", "redis_url", "answer"):
            breach(name)
    frame = frame.f_back
"""
ATTEMPTS = (
    Attempt("the heap it was forked from", _HEAP, timeout_s=30),
    Attempt("the project's files", _PROJECT),
    Attempt("data sets and caches", _CACHES),
    Attempt("the frames that call a cell", _FRAMES),
)
