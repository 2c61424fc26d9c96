"""What VLMEvalKit e8e78f05 and the fork give each nasty prediction: golden.json, one list of scores a benchmark.

    python -m tests.oracle.golden PROFILE FOLDER

writes a profile's part anew. FOLDER is the `vlmeval` package of a checkout; the oracle's environment runs it. A score that was
drawn at random is null.
"""

import json
import subprocess
import sys
import tempfile
from pathlib import Path

from tests.conftest import ROOT
from tests.oracle.item_by_item import JOBS, Material

FILE = Path(__file__).with_name("golden.json")


def reference(materials, folder, python, package=None):
    """benchmark -> what tests/oracle/reference.py found of it."""
    (folder / "jobs.json").write_text(json.dumps([one.job() for one in materials]))
    command = [python, str(ROOT / "tests/oracle/reference.py"), str(folder / "jobs.json"), str(folder / "results.json")]
    done = subprocess.run(
        [*command, *([package] if package else [])], cwd=folder, capture_output=True, text=True, timeout=900, check=False
    )
    if done.returncode:
        raise RuntimeError(done.stderr[-3000:])
    return json.loads((folder / "results.json").read_text())


def main(profile, package):
    python = subprocess.run(
        ["bash", "scripts/oracle.sh"], cwd=ROOT, capture_output=True, text=True, check=True
    ).stdout.split()[-1]
    with tempfile.TemporaryDirectory() as name:
        materials = [Material(benchmark, Path(name), profile) for benchmark in JOBS]
        found = reference(materials, Path(name), python, str(Path(package).absolute()))
        golden = json.loads(FILE.read_text()) if FILE.exists() else {}
        golden[profile] = {
            one.name: {"sha256": one.sha256(), "scores": [found[one.name]["items"][item.item_id] for item in one.items]}
            for one in materials
        }
    parts = [
        f'"{profile}": {{\n' + ",\n".join(f'  "{name}": {json.dumps(value)}' for name, value in benchmarks.items()) + "\n}"
        for profile, benchmarks in golden.items()
    ]
    FILE.write_text("{\n" + ",\n".join(parts) + "\n}\n")


if __name__ == "__main__":
    main(*sys.argv[1:])
