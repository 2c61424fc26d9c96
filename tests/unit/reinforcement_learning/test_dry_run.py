"""The dry run, called as the command does: what it must refuse, with the reason, and what it must read."""

import io
import json
import re
import shutil

import datasets
import pyarrow
import pyarrow.parquet
import pytest
from PIL import Image

from reinforcement_learning import train
from reinforcement_learning.checks import inspect_recipe
from reinforcement_learning.dropped import read_dropped
from reinforcement_learning.recipe import load_recipe
from tests.conftest import png, told

PNG = png(64, 64)


@pytest.fixture(autouse=True)
def machine(tmp_path, monkeypatch):
    """No key, no login and no cache of whoever runs the tests; what the command sets is undone."""
    for name in ("WANDB_API_KEY", "WANDB_MODE", "WANDB_BASE_URL", "NETRC"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.setenv("HF_HOME", str(tmp_path / "home/hf"))
    monkeypatch.setenv("DEEPEYES_CACHE", str(tmp_path / "cache"))
    for name in load_recipe("tiny_cpu").run.env | {"VERL_USE_EXTERNAL_MODULES": ""}:
        monkeypatch.setenv(name, "")
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    monkeypatch.setenv("OMP_NUM_THREADS", "1")


def row(number=0, content="<image>What colour?", images=None, gold="red", **changed):
    return {
        "data_source": "tiles",
        "prompt": [{"role": "user", "content": content}],
        "images": [{"bytes": PNG, "path": None}] if images is None else images,
        "reward_model": {"ground_truth": gold, "style": "rule"},
        "extra_info": {"index": number, "question": "What colour?"},
        **changed,
    }


def write(path, rows):
    pyarrow.parquet.write_table(pyarrow.Table.from_pylist(rows), path)
    return path


def arguments(toy, tmp_path, *overrides, files=None):
    files = [str(file) for file in files] if files is not None else [str(toy / "data/rl_train.parquet")]
    base = (f"run.model={toy / 'models/base'}", f"run.train_files={json.dumps(files)}", f"run.directory={tmp_path / 'run'}")
    return [*base, "agent.tools=[]", *overrides]


def inspect(toy, tmp_path, *overrides, files=None):
    return inspect_recipe(load_recipe("tiny_cpu", arguments(toy, tmp_path, *overrides, files=files)))


def failures(found):
    return {check.name: check.message for check in found.failed}


def message(found, name):
    return next(check.message for check in found.checks if check.name == name)


@pytest.mark.parametrize(
    ("overrides", "check", "said"),
    [
        (
            ["agent.tools=[serch]"],
            "tools and prompts",
            "unknown tool 'serch' in agent.tools; there are: fetch_page, image_search, mcp, python",
        ),
        (["agent.max_calls={serch: 1}"], "tools and prompts", "unknown tool 'serch' in agent.max_calls; there are: "),
        (["agent.prompt=nope"], "tools and prompts", "no prompt 'nope'; there are: "),
        (["agent.judge.prompt=nope"], "tools and prompts", "no judge prompt 'nope'; there are: consistency, equivalence"),
        (
            ["agent.tools=[search]", "agent.search={provider: nope}"],
            "search",
            "no 'nope' in agent.search.providers; there are: ",
        ),
        (["agent.tools=[search]", "agent.search={provider: local, path: /nowhere}"], "search", "/nowhere"),
        (["agent.tools=[search]", "agent.search={provider: local, pth: x}"], "search", "pth"),
        (["verl.data.train_batch_size=1024"], "batch", "0 steps: 32 rows can be trained on"),
        (["verl.data.train_batch_size=12"], "batch", "no multiple of actor.ppo_mini_batch_size=8"),
        (["verl.data.max_prompt_length=400"], "batch", "exceed rollout.max_model_len=512"),
        (
            ["run.model=llava-hf/llava-1.5-7b-hf"],
            "model",
            "Families supported: Qwen2-VL and Qwen2.5-VL (qwen2_vl, qwen2_5_vl), ",
        ),
        (["run.model=saves/not_trained"], "model", "is no folder; train it first"),
        (
            ["verl.trainer.logger=[console, wandb]"],
            "trackers",
            "log in (wandb login, or export WANDB_API_KEY), set WANDB_MODE=offline, or leave it out",
        ),
        (["agent.judge.strict_rules=false"], "judge", "set LLM_AS_A_JUDGE_BASE"),
        (["agent.judge.base_urls=['http://127.0.0.1:9/v1']"], "judge", "127.0.0.1:9"),
        (["agent.tools=[python]"], "sandbox and Redis", "deepeyes sandbox serve"),
    ],
)
def test_what_is_wrong_in_a_recipe_is_refused_with_its_reason(toy, tmp_path, overrides, check, said):
    found = failures(inspect(toy, tmp_path, *overrides))
    assert said in found[check]
    # What follows from it: no plan of an unknown model, and a batch of a thousand is recorded on a larger disk.
    assert set(found) <= {check, "plan", "disk"}


def test_wandb_is_logged_in_by_netrc_or_offline(toy, tmp_path, monkeypatch):
    logger = "verl.trainer.logger=[console, wandb]"
    (tmp_path / "home").mkdir(exist_ok=True)
    netrc = tmp_path / "home/.netrc"
    netrc.write_text("machine api.wandb.ai\n  login user\n  password k\n")
    netrc.chmod(0o600)
    assert not inspect(toy, tmp_path, logger).failed
    netrc.unlink()
    assert not inspect(toy, tmp_path, logger, "run.env={WANDB_MODE: offline}").failed
    monkeypatch.setenv("WANDB_API_KEY", "k")
    assert not inspect(toy, tmp_path, logger).failed


def cut_jpeg():
    buffer = io.BytesIO()
    Image.effect_noise((300, 200), 90).convert("RGB").save(buffer, "JPEG")
    return buffer.getvalue()[: len(buffer.getvalue()) // 2]


def struct(data=None, path=None):
    return [{"bytes": data, "path": path}]


@pytest.mark.parametrize(
    ("bad", "said"),
    [
        (row(gold=None), "gold is null"),
        (row(gold=""), "gold is empty"),
        (row(gold=["red", ""]), "gold is empty"),
        (row(images=struct(png(4000, 3000))), "prompt is too long: 1"),
        (row(images=struct(cut_jpeg())), "image is broken: image 1 of 1"),
        (row(images=struct(PNG[:-40])), "image is broken: image 1 of 1"),
        (row(images=struct(b"GIF89a")), "image is broken"),
        (row(images=struct(path="img/a.jpg")), "run.image_roots"),
        (row(images=struct()), "image is null"),
        (row(content="<image>what does <image> mean"), "placeholders differ from images"),
        (row(content="what colour?"), "placeholders differ from images"),
        (row(data_source="gsm8k"), "no reward for data source 'gsm8k'; known are: "),
        (row(prompt=[]), "no prompt"),
        (row(content="<image>" + "word " * 5000), "prompt is too long"),
    ],
)
def test_a_row_that_cannot_be_trained_on_is_left_out_and_listed(toy, tmp_path, capsys, bad, said):
    limits = [
        "verl.data.max_prompt_length=8192",
        "verl.actor_rollout_ref.rollout.max_model_len=32768",
        "verl.actor_rollout_ref.actor.ppo_max_token_len_per_gpu=16384",
        "agent.image_max_pixels=null",
    ]
    model = tmp_path / "model"
    shutil.copytree(toy / "models/base", model)
    for name in ("preprocessor_config.json", "processor_config.json"):
        if (model / name).is_file():
            values = json.loads((model / name).read_text())
            own = values.get("image_processor", values)
            own |= {"max_pixels": 12845056, "min_pixels": 3136}
            (model / name).write_text(json.dumps(values))
    files = [write(tmp_path / "good.parquet", [row(n) for n in range(16)]), write(tmp_path / "bad.parquet", [bad])]
    found = inspect(toy, tmp_path, f"run.model={model}", *limits, files=files)
    assert not found.failed
    (problem,) = found.train.dropped
    assert (problem.file, problem.row) == (str(tmp_path / "bad.parquet"), 0)
    assert said in str(problem)
    assert f"left out 1: {problem.kind}; such as {tmp_path / 'bad.parquet'}, row 0: " in message(found, "train data")
    stopped = failures(inspect(toy, tmp_path, f"run.model={model}", *limits, "run.on_bad_rows=stop", files=files))
    assert "run.on_bad_rows is stop" in stopped["train data"]


def test_forms_that_used_to_end_a_run_are_read(toy, tmp_path):
    features = datasets.Features(
        {
            "data_source": datasets.Value("string"),
            "prompt": [{"role": datasets.Value("string"), "content": datasets.Value("string")}],
            "images": [datasets.Image()],
            "reward_model": {"ground_truth": datasets.Value("string"), "style": datasets.Value("string")},
            "extra_info": {"index": datasets.Value("int64"), "question": datasets.Value("string")},
        }
    )
    datasets.Dataset.from_list([row(n) for n in range(8)], features=features).to_parquet(tmp_path / "hf.parquet")
    (tmp_path / "img").mkdir()
    (tmp_path / "img/a.png").write_bytes(PNG)
    files = [
        tmp_path / "hf.parquet",
        write(tmp_path / "lists.parquet", [row(gold=["red", "crimson"])]),
        write(tmp_path / "numbers.parquet", [row(gold=3)]),
        write(tmp_path / "paths.parquet", [row(images=["img/a.png"])]),
        write(tmp_path / "thin.parquet", [row(images=struct(png(3000, 10))), row(images=struct(png(1, 1)))]),
        write(tmp_path / "special.parquet", [row(content="<image>what is <|image_pad|>?")]),
        write(tmp_path / "text.parquet", [row(content="no image", images=[], extra_info=json.dumps({"index": 1}))]),
        write(
            tmp_path / "parts.parquet",
            [
                row(
                    prompt=[
                        {
                            "role": "user",
                            "content": [{"type": "image", "text": None}, {"type": "text", "text": "what does <image> mean"}],
                        }
                    ]
                )
            ],
        ),
    ]
    found = inspect(toy, tmp_path, files=files)
    said = message(found, "train data")
    assert not found.failed
    assert not found.train.dropped
    assert found.train.usable == 16
    for kind in ("string in ", "list<", "numbers.parquet", "reward_model.ground_truth"):
        assert kind in said
    assert "2 with an image of extreme shape, fitted" in said
    assert "1 with special tokens in their text, escaped" in said


def test_unchanged_files_are_not_looked_at_again_but_those_that_name_images_are(toy, tmp_path):
    (tmp_path / "a.png").write_bytes(PNG)
    whole, paths = (
        write(tmp_path / "whole.parquet", [row(n) for n in range(8)]),
        write(tmp_path / "paths.parquet", [row(images=["a.png"])]),
    )
    first = inspect(toy, tmp_path, files=[whole, paths])
    assert "rows a second" in message(first, "train data")
    (tmp_path / "a.png").unlink()
    second = inspect(toy, tmp_path, files=[whole, paths])
    assert "1 files unchanged" in message(second, "train data")
    assert [problem.kind for problem in second.train.dropped] == ["image is missing"]
    other = inspect(toy, tmp_path, "verl.data.max_prompt_length=1", files=[whole])
    assert {problem.kind for problem in other.train.dropped} == {"prompt is too long"}
    assert "no row of 8 can be trained on" in failures(other)["train data"]


def test_what_images_become_is_said_within_the_limit_of_the_models_own_processor(toy, tmp_path):
    for limit in ("12544", "262144", "null"):
        said = message(inspect(toy, tmp_path, f"agent.image_max_pixels={limit}"), "image tokens")
        assert "images have 3,136 to 12,544 pixels: 1024x768 as 112x84, 12 tokens; 1920x1080 as 140x84, 15 tokens" in said


def test_tokens_of_a_row_are_those_that_a_rollout_makes_of_it(toy, tmp_path):
    """The check's number against the ids of the model's own processor and chat template."""
    from transformers import AutoProcessor

    from agent.images import ImageFile
    from reinforcement_learning.checks.file_reports import token_counter
    from reinforcement_learning.rows import read_row

    recipe = load_recipe("tiny_cpu", [*arguments(toy, tmp_path), "agent.prompt=null"])
    content = read_row(row(images=struct(png(300, 200))), file="f", row=0)
    processor = AutoProcessor.from_pretrained(toy / "models/base")
    parts = [{"type": "image"}, {"type": "text", "text": "What colour?"}]
    text = processor.apply_chat_template([{"role": "user", "content": parts}], add_generation_prompt=True, tokenize=False)
    ids = processor(text=[text], images=[Image.open(io.BytesIO(content.images[0]))])["input_ids"][0]
    assert token_counter(recipe)(content, [ImageFile(content.images[0])]) == len(ids)


def run(capsys, *given):
    """Exit code or message, and what was printed."""
    code = 0
    try:
        train.main(["--recipe", "tiny_cpu", *given])
    except SystemExit as error:
        code = told(error)
    return code, capsys.readouterr().out


def test_the_verdict_comes_last_every_failure_is_listed_and_nothing_is_written(toy, tmp_path, capsys):
    code, said = run(
        capsys,
        "--dry-run",
        *arguments(
            toy,
            tmp_path,
            "agent.prompt=nope",
            "verl.data.train_batch_size=1024",
            "run.model=/none",
            "verl.actor_rollout_ref.actor.clip_ratio_high=abc",
        ),
    )
    assert re.fullmatch(r"rl: not ready: \d of \d+ checks failed \(.*\); nothing was started", code)
    failed = [line.split(":")[0].removeprefix("FAIL  ") for line in said.splitlines() if line.startswith("FAIL")]
    assert {"tools and prompts", "model", "batch", "verl"} <= set(failed)
    assert f"({', '.join(failed)})" in code
    assert "verl.actor_rollout_ref.actor.clip_ratio_high='abc': expected a number, not a text" in said
    assert "adv_estimator" not in said
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    ("override", "said"),
    [
        ("verl.trainer.nnode=1", "verl.trainer.nnode is no key of verl 0.9.1; in that block there are: "),
        ("verl.algoritm.x=1", "the block is unknown"),
        ("verl.data.train_batch_size=many", "expected a whole number, not a text"),
        ("verl.data.shuffle=7", "expected true or false, not a whole number"),
        ("verl.actor_rollout_ref.actor.optim.lr=fast", "expected a number, not a text"),
        ("verl.actor_rollout_ref.rollout.n=2.5", "expected a whole number, not a number"),
        ("verl.actor_rollout_ref.actor.loss_agg_mode=nope", "Invalid loss_agg_mode: nope"),
        ("verl.data=3", "verl.data"),
    ],
)
def test_a_value_that_verl_refuses_is_said_in_one_line(toy, tmp_path, capsys, override, said):
    code, printed = run(capsys, "--dry-run", *arguments(toy, tmp_path, override))
    assert "nothing was started" in str(code)
    assert "Traceback" not in printed
    assert said in printed


def test_a_dry_run_that_is_ready_writes_the_dropped_rows_only(toy, tmp_path, capsys):
    files = [
        write(tmp_path / "a.parquet", [row(n) for n in range(8)] + [row(gold=None), row(gold=""), row(images=struct(b"x"))])
    ]
    code, said = run(capsys, "--dry-run", *arguments(toy, tmp_path, files=files))
    assert code == 0
    assert said.splitlines()[-1] == "rl: ready; nothing was started"
    assert f"3 rows are left out, each with its reason: {tmp_path / 'run/dropped.jsonl'}" in said
    assert [path.name for path in (tmp_path / "run").iterdir()] == ["dropped.jsonl"]
    assert read_dropped(tmp_path / "run/dropped.jsonl") == {(str(files[0]), number) for number in (8, 9, 10)}
    lines = [json.loads(line) for line in (tmp_path / "run/dropped.jsonl").read_text().splitlines()]
    assert [line["reason"] for line in lines] == ["gold is null", "gold is empty", "image is broken"]
    code, said = run(capsys, "--dry-run", "--show-recipe", *arguments(toy, tmp_path, files=files))
    assert "adv_estimator: grpo" in said


@pytest.mark.parametrize(
    ("override", "said"),
    [
        ("=4", "override '=4' is no key=value, such as agent.max_turns=4"),
        ("rollout.n=4", "Keys of verl are written with verl. before them (verl.rollout)"),
        ("+agnet.x=4", "a `+key` of Hydra as verl_extra.key"),
        ("agent.max_turns=many", "agent.max_turns: "),
        ("agent.max_turns.x=1", "agent.max_turns: "),
        ("agent.judge.vote=3", "there are: "),
        ("run.on_bad_rows=keep", "'drop' or 'stop'"),
        ("agent=[", "has no YAML value"),
    ],
)
def test_an_override_of_a_wrong_form_says_the_right_one(toy, tmp_path, capsys, override, said):
    code, _ = run(capsys, "--dry-run", *arguments(toy, tmp_path, override))
    assert str(code).startswith("python -m reinforcement_learning.train: ")
    assert said in str(code)


def test_a_judge_that_answers_is_asked_a_question_and_its_answer_is_shown(toy, tmp_path):
    from tests.fake_model_server import model_server

    with model_server(lambda messages: "CORRECT") as url:
        found = inspect(toy, tmp_path, "agent.judge.strict_rules=false", f"agent.judge.base_urls=['{url}']")
    assert "it says 'CORRECT'" in message(found, "judge")


def test_a_dry_run_shows_no_secret_of_its_recipe_and_a_recipe_takes_none(toy, tmp_path, capsys):
    places = (
        "agent.tools=[python]",
        "agent.sandbox_urls=[http://user:hunter2-and-3@127.0.0.1:9]",
        "agent.sandbox_wait_s=0",
        "agent.judge.base_urls=[http://user:hunter2-and-3@127.0.0.1:9/v1]",
        "agent.judge.cache=redis://:hunter2-and-3@127.0.0.1:9/0",
        "agent.search={provider: searxng, base_url: 'http://127.0.0.1:9/?token=hunter2-and-3', shared_cache: 'redis://:hunter2-and-3@h'}",
        "run.env={HTTPS_PROXY: 'http://user:hunter2-and-3@127.0.0.1:9'}",
    )
    code, said = run(capsys, "--dry-run", "--show-recipe", *arguments(toy, tmp_path, *places))
    assert "hunter2" not in f"{code}{said}"
    assert "http://***@127.0.0.1:9" in said
    code, said = run(capsys, "--dry-run", *arguments(toy, tmp_path, "run.env={WANDB_API_KEY: hunter2-and-3}"))
    assert "a secret does not stand in a recipe: export WANDB_API_KEY on every node instead" in code
    assert "hunter2" not in f"{code}{said}"
