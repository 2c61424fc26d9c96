"""Every benchmark's loader on a file of its true format, and on wrong ones."""

import json

import pyarrow
import pyarrow.parquet
import pytest
import yaml

from data.fetch import sources
from data.prepare.command import main as prepare
from evaluation.benchmarks import Item, benchmarks, load_benchmark
from evaluation.errors import BenchmarkError
from evaluation.reports.published import published, warnings_for
from evaluation.smoke.lookalikes import lookalike_names, write_lookalike
from evaluation.tables.rows import read_rows
from tests.conftest import png


@pytest.mark.parametrize("name", lookalike_names())
def test_a_file_of_the_true_format_is_read_with_images_and_gold(name, tmp_path):
    path = write_lookalike(name, tmp_path, count=12)
    items = list(load_benchmark(name).load(path))
    assert len(items) >= 7
    assert len({item.item_id for item in items}) == len(items)
    for item in items:
        assert item.gold
        assert item.question
        assert item.read_images()
        assert Item.from_json(item.to_json()).to_json() == item.to_json()


@pytest.mark.parametrize("name", lookalike_names())
def test_equal_seeds_write_equal_files(name, tmp_path):
    first, second = (list(load_benchmark(name).load(write_lookalike(name, tmp_path / part))) for part in "ab")
    assert [item.to_json() for item in first] == [item.to_json() for item in second]


@pytest.mark.parametrize("name", lookalike_names())
def test_another_benchmarks_file_is_refused_with_what_it_has(name, tmp_path):
    if load_benchmark(name).suite == "search":
        path = tmp_path / "x.json"
        path.write_text('[{"a": 1}]')
    else:
        other = "chartqa" if name != "chartqa" else "ocrbench"
        path = write_lookalike(other, tmp_path)
        if name in ("mme_realworld", "tir_bench"):
            path = tmp_path / "y.json"
            path.write_text('[{"a": 1}]')
    with pytest.raises(BenchmarkError, match=r"lacks|has no|no row of|it has"):
        list(load_benchmark(name).load(path))


def test_every_benchmark_of_the_paper_is_there_with_facts_and_warnings():
    found = benchmarks()
    assert {name for name, one in found.items() if one.suite} == {
        "vstar", "hrbench4k", "hrbench8k", "treebench", "mme_realworld", "mme_realworld_lite", "ocrbench", "seedbench2_plus",
        "charxiv_descriptive", "charxiv_reasoning", "chartqa", "mathvista", "mathverse", "mathvision", "wemath", "dynamath",
        "logicvista", "fvqa", "infoseek", "mmsearch", "simplevqa", "realx",
    }  # fmt: skip
    for name, one in found.items():
        assert one.title
        assert one.num_items > 0
        if one.suite:
            assert published(name) or name == "mme_realworld_lite"
            assert warnings_for(name)
    assert "194" in found["realx"].title


def test_checksums_of_downloads_are_those_that_loaders_expect():
    known = sources()
    for name, source in known.items():
        assert benchmarks()[name].files.get(source.file) == source.md5, name


def test_published_numbers_are_numbers_of_known_benchmarks():
    from evaluation.reports import published as module

    content = yaml.safe_load((__import__("pathlib").Path(module.__file__).with_suffix(".yaml")).read_text())
    for model in content["models"]:
        assert set(model["scores"]) <= set(benchmarks())
    assert set(content["warnings"]) <= set(benchmarks())


def test_an_unknown_benchmark_lists_those_that_are():
    with pytest.raises(LookupError, match="tiles, tir_bench, treebench, vstar"):
        load_benchmark("nope")


@pytest.mark.parametrize(
    ("content", "message"), [("{}", "no list of objects"), ("[1]", "no list of objects"), ("nope", "no readable JSON")]
)
def test_json_that_is_no_table_is_refused(tmp_path, content, message):
    path = tmp_path / "x.json"
    path.write_text(content)
    with pytest.raises(BenchmarkError, match=message):
        list(read_rows(path, required=()))


def test_parquet_that_is_cut_off_is_refused(tmp_path):
    path = write_lookalike("fvqa", tmp_path)
    path.write_bytes(path.read_bytes()[:-50])
    with pytest.raises(BenchmarkError, match="no readable parquet file"):
        list(load_benchmark("fvqa").load(path))


def test_an_image_that_is_not_there_is_named(tmp_path):
    path = write_lookalike("realx", tmp_path)
    (tmp_path / "realx_0.png").unlink()
    with pytest.raises(BenchmarkError, match=r"row 1: no image file 'realx_0\.png'"):
        next(iter(load_benchmark("realx").load(path))).read_images()


def test_a_gold_answer_that_is_missing_is_named(tmp_path):
    path = tmp_path / "r.json"
    (tmp_path / "a.png").write_bytes(png())
    path.write_text(json.dumps([{"query": "q", "answer": " ", "image": "a.png"}]))
    with pytest.raises(BenchmarkError, match="row 1: no gold answer"):
        list(load_benchmark("realx").load(path))


def test_the_set_of_a_store_is_evaluated_with_its_images_by_name(tmp_path):
    rows = [{
        "data_source": "search", "prompt": [{"role": "user", "content": "<image>Who built it?"}],
        "images": [{"bytes": png(), "path": None}], "reward_model": {"style": "rule", "ground_truth": "Ada"},
        "extra_info": {"index": "fvqa_7", "question": "Who built it?"},
    }]  # fmt: skip
    pyarrow.parquet.write_table(pyarrow.Table.from_pylist(rows), tmp_path / "rows.parquet")
    prepare(["rl", str(tmp_path / "rows.parquet"), "--out", str(tmp_path / "store")])
    path = tmp_path / "store/sets/rl/rl.parquet"
    (item,) = load_benchmark("fvqa").load(path)
    assert (item.item_id, item.gold, [image.data for image in item.read_images()]) == ("fvqa_7", "Ada", [png()])
    next((tmp_path / "store/images").glob("*/*")).unlink()
    (item,) = load_benchmark("fvqa").load(path)
    with pytest.raises(BenchmarkError, match="has no image .* prepare the set again"):
        item.read_images()
