"""The dry run's question to real sandbox servers: is there a session for every episode?"""

import pytest

from agent.recipes import RecipeError
from reinforcement_learning.checks.capacity import check_sandbox_capacity
from reinforcement_learning.recipe import load_recipe
from serving.processes import sandbox_server


@pytest.fixture(scope="module")
def servers(tmp_path_factory, redis_url):
    directory = tmp_path_factory.mktemp("capacity")
    with (
        sandbox_server(directory / "a", redis_url, arguments=["--max-sessions", "40"]) as first,
        sandbox_server(directory / "b", redis_url, arguments=["--max-sessions", "24"]) as second,
    ):
        yield first, second


def recipe(urls, *overrides):
    return load_recipe("tiny_cpu", [f"agent.sandbox_urls=[{','.join(urls)}]", *overrides])


def test_servers_with_a_session_for_every_episode_are_enough(servers):
    assert check_sandbox_capacity(recipe(servers)).startswith("64 sessions needed, 64 there")


@pytest.mark.parametrize(
    ("overrides", "needed", "each"),
    [(["verl.data.train_batch_size=9"], 72, 36), (["verl.actor_rollout_ref.rollout.n=16"], 128, 64)],
)
def test_servers_smaller_than_the_rollouts_are_refused_with_what_is_needed_and_there(servers, overrides, needed, each):
    with pytest.raises(
        RecipeError, match=rf"{needed} episodes .* have 64 \(.* 40, .* 24\): start each with --max-sessions {each}"
    ):
        check_sandbox_capacity(recipe(servers, *overrides))


def test_a_server_elsewhere_without_a_token_is_refused_before_it_is_asked(monkeypatch):
    monkeypatch.delenv("CODE_SANDBOX_TOKEN", raising=False)
    with pytest.raises(RecipeError, match="export CODE_SANDBOX_TOKEN here and before `ray start`"):
        check_sandbox_capacity(recipe(["http://10.0.0.5:8000"]))
