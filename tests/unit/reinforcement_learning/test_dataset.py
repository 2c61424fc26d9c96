"""EpisodeDataset as verl makes and loads it, on files as people write them."""

import pickle

import datasets
import pyarrow
import pyarrow.parquet
import pytest
import torch
from omegaconf import OmegaConf
from torchdata.stateful_dataloader import StatefulDataLoader

from agent.recipes import RecipeError
from reinforcement_learning.dropped import write_dropped
from reinforcement_learning.row_errors import RowError
from reinforcement_learning.verl_adapter.image_store import run_store
from tests.conftest import png

PNG = png()


@pytest.fixture(autouse=True)
def own_cache(tmp_path, monkeypatch):
    monkeypatch.setenv("DEEPEYES_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("DEEPEYES_IMAGE_STORE", str(tmp_path / "images"))
    run_store.cache_clear()
    yield
    run_store.cache_clear()


def row(number, gold="a", images="struct", **extra):
    given = {"struct": [{"bytes": PNG, "path": None}], "path": ["a.png"], "null": None}[images]
    content = "q" if given is None else "<image>q"
    return {
        "data_source": "perception",
        "prompt": [{"role": "user", "content": content}],
        "images": given,
        "reward_model": {"ground_truth": gold, "style": "rule"},
        "extra_info": {"index": number, "question": "q", **extra},
    }


def write(tmp_path, name, rows):
    (tmp_path / "a.png").write_bytes(PNG)
    pyarrow.parquet.write_table(pyarrow.Table.from_pylist(rows), tmp_path / name)
    return str(tmp_path / name)


def dataset(files, max_samples=-1, **config):
    from reinforcement_learning.verl_adapter.dataset import EpisodeDataset

    values = {"filter_overlong_prompts": False, "image_key": "images", "max_prompt_length": 8192, **config}
    return EpisodeDataset(files, tokenizer=None, config=OmegaConf.create(values), max_samples=max_samples)


def test_files_of_different_schemas_are_one_data_set(tmp_path):
    features = datasets.Features(
        {
            "data_source": datasets.Value("string"),
            "prompt": [{"role": datasets.Value("string"), "content": datasets.Value("string")}],
            "images": [datasets.Image()],
            "reward_model": {"ground_truth": datasets.Value("int64"), "style": datasets.Value("string")},
            "extra_info": {"index": datasets.Value("int64"), "question": datasets.Value("string")},
        }
    )
    datasets.Dataset.from_list([row(0, gold=1)], features=features).to_parquet(tmp_path / "hf.parquet")
    files = [
        write(tmp_path, "text.parquet", [row("t")]),
        write(tmp_path, "list.parquet", [row(1, gold=["red", "crimson"], split="x")]),
        write(tmp_path, "paths.parquet", [row(2, images="path")]),
        write(tmp_path, "none.parquet", [row(3, images="null")]),
        str(tmp_path / "hf.parquet"),
    ]
    with pytest.raises(ValueError, match="features"):
        datasets.concatenate_datasets([datasets.load_dataset("parquet", data_files=file)["train"] for file in files])
    data = dataset(files)
    assert [data[number]["index"] for number in range(5)] == ["t", "1", "2", "3", "0"]
    assert [data[number]["reward_model"]["ground_truth"] for number in range(5)] == [
        ["a"],
        ["red", "crimson"],
        ["a"],
        ["a"],
        ["1"],
    ]
    named = [[run_store().get(name) for name in data[number]["image_names"]] for number in range(5)]
    assert named == [[PNG], [PNG], [PNG], [], [PNG]]


@pytest.mark.parametrize("workers", [0, 2])
def test_verls_loader_batches_them_and_goes_on_where_it_stopped(tmp_path, workers):
    from verl.trainer.ppo.utils import create_rl_sampler
    from verl.utils.dataset.rl_dataset import collate_fn
    from verl.utils.tensordict_utils import get_tensordict

    data = dataset([write(tmp_path, "a.parquet", [row(n, images="null" if n % 3 else "struct") for n in range(20)])])

    def loader():
        sampler = create_rl_sampler(OmegaConf.create({"shuffle": True, "seed": 1}), data)
        return StatefulDataLoader(
            data, batch_size=4, num_workers=workers, drop_last=True, collate_fn=collate_fn, sampler=sampler
        )

    first = loader()
    batches = iter(first)
    begun = [list(next(batches)["index"]) for _ in range(2)]
    state = first.state_dict()
    rest = [list(batch["index"]) for batch in batches]
    second = loader()
    second.load_state_dict(state)
    assert [list(batch["index"]) for batch in second] == rest
    assert sorted(int(index) for batch in begun + rest for index in batch) == list(range(20))
    batch = next(iter(loader()))
    assert get_tensordict(batch).batch_size == torch.Size([4])


def test_rows_that_the_check_refused_are_left_out(tmp_path):
    file = write(tmp_path, "a.parquet", [row(n) for n in range(5)])
    write_dropped(tmp_path / "dropped.jsonl", [RowError("k", "d", file=file, row=n) for n in (1, 4)])
    data = dataset([file], deepeyes={"dropped_path": str(tmp_path / "dropped.jsonl")})
    assert [data[n]["index"] for n in range(len(data))] == ["0", "2", "3"]
    write_dropped(tmp_path / "dropped.jsonl", [RowError("k", "d", file=file, row=n) for n in range(5)])
    with pytest.raises(RecipeError, match="no row"):
        dataset([file], deepeyes={"dropped_path": str(tmp_path / "dropped.jsonl")})


def test_samples_splits_copies_and_resumes_are_those_of_verls_data_set(tmp_path):
    file = write(tmp_path, "a.parquet", [row(n) for n in range(10)])
    data = dataset([file], max_samples=6, shuffle=True, seed=3)
    indices = [data[n]["index"] for n in range(len(data))]
    assert len(set(indices)) == 6
    assert indices == [dataset([file], max_samples=6, shuffle=True, seed=3)[n]["index"] for n in range(6)]
    assert [[part[n]["index"] for n in range(len(part))] for part in data.split(2)] == [indices[:3], indices[3:]]
    copied = pickle.loads(pickle.dumps(data))
    assert [copied[n]["index"] for n in range(6)] == indices
    data.resume_dataset_state()
    assert [data[n]["index"] for n in range(6)] == indices
