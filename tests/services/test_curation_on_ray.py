"""Decoding and hashing over a Ray cluster gives the rows that one process gives."""

import io
import logging
import shutil
from pathlib import Path

import matplotlib
import pytest
from PIL import Image

from agent.image_library import open_library
from curation.errors import CurationError
from curation.images import fault, of_each
from tests.unit.curation.conftest import Bench, photo, png, row

pytestmark = pytest.mark.services

PHOTOGRAPH = Path(matplotlib.get_data_path()) / "sample_data/grace_hopper.jpg"
STEPS = [{"check": {}}, {"dedupe": {}}]


@pytest.fixture(scope="module")
def cluster():
    """One node, started once."""
    ray = pytest.importorskip("ray", reason="needs ray: bash scripts/setup.sh")
    ray.init(address="local", num_cpus=2, include_dashboard=False, log_to_driver=False, logging_level=logging.ERROR)
    yield
    ray.shutdown()


def again(data, *, size, fmt, **more):
    buffer = io.BytesIO()
    Image.open(io.BytesIO(data)).convert("RGB").resize(size).save(buffer, fmt, **more)
    return buffer.getvalue()


def pictures():
    """A photograph in several sizes and formats, others, and broken ones."""
    whole = PHOTOGRAPH.read_bytes()
    return [
        whole,
        again(whole, size=(256, 300), fmt="JPEG", quality=70),
        again(whole, size=(512, 600), fmt="PNG"),
        again(whole, size=(300, 300), fmt="WEBP"),
        whole[: len(whole) // 2],
        png(64, 64),
        png(20, 20),
        *(photo(number) for number in range(20)),
        photo(3, size=(200, 200), quality=60),
    ]


def test_check_and_dedupe_keep_and_drop_the_same_rows_on_ray_as_in_one_process(tmp_path, cluster):
    rows = [row(n, image=data, question="Who is to be seen in the picture?") for n, data in enumerate(pictures())]
    found = {}
    for name, workers in (("here", 1), ("ray", "ray")):
        (tmp_path / name).mkdir()
        bench = Bench(tmp_path / name)
        bench.run([bench.source("mine", rows)], STEPS, workers=workers)
        found[name] = [
            (step, [one.record() for one in bench.step(step).kept()], bench.reasons(step), bench.step(step).summary()["notes"])
            for step in ("01_check", "02_dedupe")
        ]
    assert found["ray"] == found["here"]
    _, kept, dropped, _ = found["ray"][0]
    assert set(dropped) == {"i4", "i6"}
    assert len(kept) == len(rows) - 2
    assert {"i1", "i2", "i27"} <= set(found["ray"][1][2])


def test_a_node_that_does_not_see_the_store_is_told_and_its_images_are_not_called_broken(tmp_path, cluster):
    library = open_library(tmp_path / "store")
    names = [library.put(photo(number)) for number in range(3)]
    shutil.move(tmp_path / "store/store.json", tmp_path / "away.json")
    with pytest.raises(CurationError, match=r": no store at .*/store; put it where every node sees it"):
        of_each(names, library, fault, workers="ray")


def test_what_breaks_on_a_node_is_told(tmp_path, cluster):
    library = open_library(tmp_path / "store")
    names = [library.put(photo(0))]
    with pytest.raises(CurationError, match=r"Ray could not do the work \(.*\); look at its nodes"):
        of_each(names, library, _broken, workers="ray")


def _broken(path):
    raise ZeroDivisionError(path)
