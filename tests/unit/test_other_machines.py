"""The light rooms load where there is no Linux, and what needs it says so in a line."""

import subprocess
import sys

from tests.conftest import ROOT

# Packages of others are loaded before the platform changes its name: they would take the extension modules of macOS.
ON_A_MAC = """
import importlib, os, sys
from pathlib import Path

rooms = ("agent", "judge", "code_sandbox", "serving", "viewer", "evaluation", "data", "deepeyes")
elsewhere = ("code_sandbox/server", "code_sandbox/attacks", "deepeyes/quickstart")
paths = [path for room in rooms for path in sorted(Path(room).rglob("*.py")) if path.name != "__main__.py" and not str(path).startswith(elsewhere)]
names = [".".join(path.with_suffix("").parts).removesuffix(".__init__") for path in paths]

def load():
    for name in names:
        importlib.import_module(name)

load()
for name in list(sys.modules):
    if name.partition(".")[0] in (*rooms, "curation", "reinforcement_learning", "cold_start"):
        del sys.modules[name]
for missing in ("sched_getaffinity", "memfd_create", "pidfd_open", "copy_file_range", "posix_fadvise", "setresuid", "getrandom", "eventfd", "splice"):
    if hasattr(os, missing):
        delattr(os, missing)
sys.platform = "darwin"
load()
print(len(names), "loaded", flush=True)

from deepeyes.cli import main
sys.argv = ["deepeyes", "sandbox", "serve"]
main()
"""


def test_rooms_without_a_gpu_load_on_macos_and_the_sandbox_server_names_linux():
    done = subprocess.run([sys.executable, "-c", ON_A_MAC], cwd=ROOT, capture_output=True, text=True, timeout=100)
    assert " loaded" in done.stdout, done.stderr
    assert done.returncode == 1
    assert len(done.stderr.strip().splitlines()) == 1
    assert "needs Linux" in done.stderr
    assert "CODE_SANDBOX_URL" in done.stderr
