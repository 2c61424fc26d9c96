"""The rollouts of a prompt meet on one replica, and none drowns in them."""

import os
import random
import subprocess
import sys

import pytest

from reinforcement_learning.verl_adapter.router import GroupRouter, request_name
from tests.conftest import ROOT


def router(replicas=4, **config):
    return GroupRouter({f"r{number}": f"handle {number}" for number in range(replicas)}, config)


def test_all_rollouts_of_a_prompt_and_all_their_turns_use_one_replica():
    route, rng = router(8, rollouts=16), random.Random(0)
    episodes = [(group, episode) for group in range(32) for episode in range(16)]
    used: dict[int, set[str]] = {}
    for _ in range(5):
        rng.shuffle(episodes)
        held = []
        for group, episode in episodes:
            server, handle = route.acquire_server(request_name(f"prompt{group}", f"e{group}-{episode}"))
            assert handle == f"handle {server[1:]}"
            used.setdefault(group, set()).add(server)
            held.append(server)
        loads = [held.count(f"r{number}") for number in range(8)]
        assert max(loads) - min(loads) == 0
        for server in held:
            route.release_server(server)
    assert {len(servers) for servers in used.values()} == {1}
    assert route.take_spread() == {"replicas_per_group/mean": 1.0, "replicas_per_group/max": 1.0, "left_their_group": 0.0}
    assert route.take_spread() == {}
    assert route.get_total_inflight() == 0


def test_a_rollout_leaves_a_replica_that_is_much_more_loaded_and_is_counted():
    route = router(2, max_excess=10)
    home, _ = route.acquire_server(request_name("big", "0"))
    servers = [route.acquire_server(request_name("big", str(number)))[0] for number in range(1, 40)]
    loads = {server: [home, *servers].count(server) for server in route.get_all_servers()}
    assert max(loads.values()) - min(loads.values()) <= 11
    assert route.get_status()["spilled"] == sum(server != home for server in servers) > 0
    assert route.take_spread()["replicas_per_group/max"] == 2.0
    # An episode stays where it is, whatever the load.
    assert [route.acquire_server(request_name("big", str(number)))[0] for number in range(40)] == [home, *servers]


def test_groups_go_where_least_is_to_be_done():
    route = router(3)
    first = route.acquire_server(request_name("a", "0"))[0]
    second = route.acquire_server(request_name("b", "0"))[0]
    third = route.acquire_server(request_name("c", "0"))[0]
    assert {first, second, third} == set(route.get_all_servers())
    route.release_server(second)
    assert route.acquire_server(request_name("d", "0"))[0] == second


def test_what_was_on_a_removed_replica_is_chosen_for_anew():
    route = router(2)
    gone, _ = route.acquire_server(request_name("a", "0"))
    route.remove_servers([gone])
    route.release_server(gone)
    left = route.get_all_servers()
    assert {route.acquire_server(request_name("a", str(number)))[0] for number in range(4)} == set(left)
    route.remove_servers(left)
    with pytest.raises(RuntimeError, match="No available servers"):
        route.acquire_server(request_name("a", "0"))
    route.add_servers({"new": "handle"})
    assert route.acquire_server(request_name("a", "0")) == ("new", "handle")


def test_clearing_forgets_places_but_not_load():
    route = router(2)
    home, _ = route.acquire_server(request_name("a", "0"))
    assert route.clear_sticky_cache() == {"cleared_entries": 1, "server_loads": route.get_status()["servers"]}
    assert route.acquire_server(request_name("a", "0"))[0] != home
    assert route.get_total_inflight() == 2


def test_a_request_without_a_group_is_one_of_its_own():
    route = router(4)
    assert len({route.acquire_server(f"plain{number}")[0] for number in range(4)}) == 4


IN_RAY = """
import asyncio, sys
from pathlib import Path
from types import SimpleNamespace

import ray
from omegaconf import OmegaConf
from verl.workers.rollout.llm_server import LLMServerClient
from verl.workers.rollout.router import get_router_handle

from reinforcement_learning.verl_adapter.launch import route_groups
from reinforcement_learning.verl_adapter.router import request_name

@ray.remote(num_cpus=0)
class Server:
    def __init__(self, name):
        self.name = name

    async def generate(self, **request):
        await asyncio.sleep(0.01)
        # As far as the client looks at it; verl's own class would be imported by every server.
        return SimpleNamespace(token_ids=[1], extra_fields={"served_by": self.name})

rollout = {"name": "vllm", "n": 16, "router_config_path": None, "full_determinism": False}
config = OmegaConf.create({"actor_rollout_ref": {"rollout": rollout}})
route_groups(config, Path(sys.argv[1]))
ray.init(num_cpus=4, include_dashboard=False, log_to_driver=False)
servers = {f"r{number}": Server.remote(f"r{number}") for number in range(4)}
balancer = get_router_handle(servers, router_config_path=config.actor_rollout_ref.rollout.router_config_path)
client = LLMServerClient(config, balancer)

async def episode(group, number):
    seen = set()
    for _ in range(3):
        output = await client.generate(
            request_name(f"p{group}", str(number)), prompt_ids=[1], sampling_params={}, image_data=[SimpleNamespace()]
        )
        seen.add(output.extra_fields["served_by"])
    return group, seen

async def step():
    return await asyncio.gather(*(episode(group, number) for number in range(16) for group in range(8)))

used = {}
for group, seen in asyncio.run(step()):
    used.setdefault(group, set()).update(seen)
assert {group: len(names) for group, names in used.items()} == dict.fromkeys(range(8), 1), used
assert set().union(*used.values()) == set(servers), f"and the groups are spread over all: {used}"
assert ray.get(balancer.take_spread.remote())["replicas_per_group/max"] == 1.0
ray.shutdown()
print("ONE REPLICA EACH")
"""


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_verls_own_client_and_yaml_reach_one_replica_with_all_sixteen(tmp_path):
    """verl's LLMServerClient and router actor, in a Ray of their own; the servers only say who they are."""
    env = {name: value for name, value in os.environ.items() if not name.startswith("RAY_")}
    env |= {
        "PYTHONPATH": str(ROOT),
        "VERL_PLATFORM": "cpu",
        "VERL_USE_EXTERNAL_MODULES": "reinforcement_learning.verl_adapter.plugin",
    }
    done = subprocess.run(
        [sys.executable, "-c", IN_RAY, str(tmp_path)],
        env=env,
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=500,
        check=False,
    )
    assert "ONE REPLICA EACH" in done.stdout, done.stderr[-3000:]
