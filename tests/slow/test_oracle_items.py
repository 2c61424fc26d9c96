"""Every nasty prediction scored by us and by the reference: no difference but for the quirks that the docs list."""

import json
import subprocess

import pytest

from tests.conftest import ROOT
from tests.oracle.golden import FILE, reference
from tests.oracle.item_by_item import JOBS, QUIRKS, Material

pytestmark = [pytest.mark.slow, pytest.mark.timeout(900)]
GOLDEN = json.loads(FILE.read_text())


async def differences(material, theirs):
    """(item, prediction, our score, who decided, theirs, its quirks); what either side drew at random is left out."""
    found, compared = [], 0
    ours = await material.ours()
    for item, expected in zip(material.items, theirs, strict=True):
        score, decided_by = ours[item.item_id]
        if expected is None or decided_by == "random":
            continue
        compared += 1
        if score != expected:
            found.append(
                (item.item_id, material.predictions[item.item_id], score, decided_by, expected, material.quirks(item))
            )
    assert compared >= 300
    return found


@pytest.fixture(scope="module")
def package(tmp_path_factory):
    """benchmark -> (material, the package's score of each item)."""
    done = subprocess.run(["bash", "scripts/oracle.sh"], cwd=ROOT, capture_output=True, text=True, timeout=600, check=False)
    assert done.returncode == 0, done.stderr[-2000:]
    folder = tmp_path_factory.mktemp("items")
    materials = {name: Material(name, folder, "ms-vlmeval") for name in JOBS}
    found = reference(materials.values(), folder, done.stdout.split()[-1])
    return {name: (one, found[name]) for name, one in materials.items()}


@pytest.mark.parametrize("name", JOBS)
async def test_the_package_scores_each_item_as_we_do(package, name):
    material, found = package[name]
    assert "error" not in found, found
    theirs = [found["items"][item.item_id] for item in material.items]
    assert [one for one in await differences(material, theirs) if not one[-1]] == []


@pytest.mark.parametrize("name", JOBS)
@pytest.mark.parametrize("profile", GOLDEN)
async def test_the_golden_scores_of_head_and_fork_are_ours(tmp_path, profile, name):
    material, golden = Material(name, tmp_path, profile), GOLDEN[profile][name]
    assert material.sha256() == golden["sha256"], (
        "the predictions changed: python -m tests.oracle.golden writes the scores anew"
    )
    assert [one for one in await differences(material, golden["scores"]) if not one[-1]] == []


async def test_each_quirk_is_met_and_listed_in_the_docs(tmp_path):
    met = set()
    for name in ("ocrbench", "mathvision", "dynamath", "mathvista"):
        material = Material(name, tmp_path, "vlmevalkit")
        for one in await differences(material, GOLDEN["vlmevalkit"][name]["scores"]):
            met |= one[-1]
    assert met == set(QUIRKS)
    docs = (ROOT / "docs/evaluation.md").read_text()
    assert [name for name in QUIRKS if f"| {name} |" not in docs] == []
