"""Which rollout replica answers: all rollouts of a prompt the same one, so that its caches hold their opening.

verl's own balancer keeps an episode on one replica and spreads the episodes of a prompt, so each replica prefills the
opening and encodes its images again. Named by `rollout.router_config_path`; the methods are those that verl asks of a
`RequestLoadBalancer`.
"""

from __future__ import annotations

from collections import Counter
from typing import Any

from cachetools import LRUCache

_EPISODES = 200_000
_GROUPS = 20_000
_MAX_EXCESS = 64


def request_name(group: str, episode: str) -> str:
    """The request id that tells the router to which group an episode belongs."""
    return f"{group}/{episode}"


class GroupRouter:
    """Episodes of a group go where the group is, groups go where least is to be done.

    A rollout leaves its group when that replica has more than `max_excess` requests in flight beyond the least loaded one;
    it is then counted in `get_status`. An episode never moves, unless its replica is removed.

    Args:
        servers: Handles by address.
        config: The router's YAML: `max_excess`, and `rollouts`, how many a group will have.
    """

    def __init__(self, servers: dict[str, Any], config: dict[str, Any] | None = None) -> None:
        self._servers = dict(servers)
        self._max_excess = int((config or {}).get("max_excess", _MAX_EXCESS))
        self._rollouts = int((config or {}).get("rollouts", 1))
        self._in_flight = dict.fromkeys(servers, 0)
        # Rollouts that a group has yet to send count as load, or the first to arrive would all see idle replicas.
        self._to_come: dict[str, int] = {}
        self._awaited: Counter[str] = Counter()
        self._by_episode: LRUCache[str, str] = LRUCache(_EPISODES)
        self._by_group: LRUCache[str, str] = LRUCache(_GROUPS)
        self._replicas_of_group: LRUCache[str, set[str]] = LRUCache(_GROUPS)
        self._num_spilled = 0

    def acquire_server(self, request_id: str) -> tuple[str, Any]:
        """Choose for one request of an episode.

        Args:
            request_id: From `request_name`, the same for all turns of an episode. One without a group is a group of its own.

        Raises:
            RuntimeError: There is no replica.
        """
        if not self._servers:
            # The words are what verl's clients wait on.
            raise RuntimeError("No available servers in load balancer")
        group = request_id.partition("/")[0]
        server = self._by_episode.get(request_id)
        if server not in self._servers:
            server = self._by_episode[request_id] = self._choose(group)
        self._replicas_of_group.setdefault(group, set()).add(server)
        self._in_flight[server] += 1
        return server, self._servers[server]

    def _choose(self, group: str) -> str:
        home = self._by_group.get(group)
        if home not in self._servers:
            home = min(self._servers, key=lambda server: self._in_flight[server] + self._awaited[server])
            self._by_group[group] = home
            self._to_come[group] = self._rollouts
            self._awaited[home] += self._rollouts
        if self._to_come.get(group):
            self._to_come[group] -= 1
            self._awaited[home] -= 1
        least = min(self._in_flight, key=lambda server: self._in_flight[server])
        if self._in_flight[home] - self._in_flight[least] > self._max_excess:
            self._num_spilled += 1
            return least
        return home

    def release_server(self, server_id: str, request_id: str | None = None) -> None:
        """A request is done."""
        if self._in_flight.get(server_id, 0) > 0:
            self._in_flight[server_id] -= 1

    def require_acquire_fields(self) -> list[str]:
        """Nothing but the request id."""
        return []

    def require_release_fields(self) -> list[str]:
        """Nothing but the server."""
        return []

    def add_servers(self, servers: dict[str, Any]) -> None:
        """Take replicas into use."""
        for server, handle in servers.items():
            self._servers[server] = handle
            self._in_flight[server] = 0

    def remove_servers(self, server_ids: list[str]) -> None:
        """Their episodes and groups are chosen for anew."""
        for server in server_ids:
            self._servers.pop(server, None)
            self._in_flight.pop(server, None)
            self._awaited.pop(server, None)

    def get_all_servers(self) -> list[str]:
        """Addresses of the replicas in use."""
        return list(self._servers)

    def get_inflight_count(self, server_id: str) -> int:
        """Requests in flight at one replica."""
        return self._in_flight.get(server_id, 0)

    def get_total_inflight(self) -> int:
        """Requests in flight at all of them."""
        return sum(self._in_flight.values())

    def clear_sticky_cache(self) -> dict[str, Any]:
        """Forget where episodes and groups are."""
        cleared = len(self._by_episode)
        self._by_episode.clear()
        self._by_group.clear()
        self._to_come.clear()
        self._awaited.clear()
        return {"cleared_entries": cleared, "server_loads": dict(self._in_flight)}

    def get_status(self) -> dict[str, Any]:
        """Load, and how many replicas the groups were spread over."""
        return {
            "servers": dict(self._in_flight),
            "total_inflight": self.get_total_inflight(),
            "active_servers": len(self._servers),
            "registered_handles": list(self._servers),
            "spilled": self._num_spilled,
        }

    def take_spread(self) -> dict[str, float]:
        """Replicas a group since the last call, for the metrics of a step that is over."""
        self._to_come.clear()
        self._awaited.clear()
        spread = [len(replicas) for replicas in self._replicas_of_group.values()]
        self._replicas_of_group.clear()
        spilled, self._num_spilled = self._num_spilled, 0
        if not spread:
            return {}
        return {
            "replicas_per_group/mean": sum(spread) / len(spread),
            "replicas_per_group/max": float(max(spread)),
            "left_their_group": float(spilled),
        }
