"""Files whose images exceed what Arrow reads at once."""

import json
import subprocess
import sys

import pyarrow
import pyarrow.parquet
import pytest

from reinforcement_learning.row_files import RowStore, read_groups
from reinforcement_learning.rows import RowOptions
from tests.conftest import ROOT, png

pytestmark = [pytest.mark.slow, pytest.mark.timeout(600)]

COLUMNS = ("data_source", "images", "reward_model")
IMAGES = pyarrow.list_(pyarrow.struct([("bytes", pyarrow.binary()), ("path", pyarrow.string())]))


def write(path, blob: bytes, num_rows: int, **options) -> None:
    images = pyarrow.array([[{"bytes": blob, "path": None}]], type=IMAGES)
    asked = [[{"role": "user", "content": "<image>What?"}]]
    facts = {"data_source": ["perception"], "prompt": asked, "reward_model": [{"ground_truth": "a"}]}
    one = pyarrow.table({**facts, "images": images})
    pyarrow.parquet.write_table(pyarrow.concat_tables([one] * num_rows), path, row_group_size=10_000, **options)


@pytest.mark.parametrize(("mib", "num_rows", "dictionary"), [(50, 44, False), (3, 800, True)])
def test_one_row_group_of_more_than_2_gib_is_read(tmp_path, monkeypatch, mib, num_rows, dictionary):
    """With a dictionary, equal images are stored once, and the size of the group says nothing about that of its rows."""
    monkeypatch.setenv("DEEPEYES_CACHE", str(tmp_path / "cache"))
    path = tmp_path / "big.parquet"
    write(path, bytes(mib << 20), num_rows, use_dictionary=dictionary)
    with pytest.raises(pyarrow.ArrowNotImplementedError):
        next(pyarrow.parquet.ParquetFile(path).iter_batches(batch_size=1024))
    numbers = []
    for number, values in read_groups(path, None, COLUMNS):
        numbers.append(number)
        assert len(values["images"][0]["bytes"]) == mib << 20
    assert numbers == list(range(num_rows))
    assert len(RowStore(path, RowOptions())) == num_rows


@pytest.mark.parametrize("action", ["stats", "validate"])
def test_a_row_group_of_more_than_2_gib_of_images_is_looked_at_within_600_mib(tmp_path, action):
    path = tmp_path / "big.parquet"
    image = png()
    write(path, image + bytes((1 << 20) - len(image)), 2200, use_dictionary=False)
    program = (
        "import contextlib, re, pathlib, sys\n"
        "from deepeyes.cli import main\n"
        "with contextlib.suppress(SystemExit):\n"
        f"    main(['data', {action!r}, {str(path)!r}])\n"
        "print(re.search(r'VmHWM:\\s+(\\d+)', pathlib.Path('/proc/self/status').read_text())[1])\n"
    )
    done = subprocess.run([sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True, timeout=300, check=True)
    *lines, peak_kib = done.stdout.splitlines()
    assert any("2,200 rows" in line for line in lines), lines
    assert "0 rows" in "".join(line for line in lines if "broken" in line)
    assert json.loads(peak_kib) < 600 << 10
