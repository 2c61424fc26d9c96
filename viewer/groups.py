"""The rollouts of one prompt, whose rewards are compared: a group of training, or an item's samples in an evaluation."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from viewer.advantages import AdvantageRule, advantages, recorded_advantages
from viewer.filters import where
from viewer.index import EpisodeIndex
from viewer.listing import ListedEpisode

SORTS = {
    "step": "step", "item_id": "item_id", "rollouts": "rollouts", "right": "right_share", "reward": "mean",
    "spread": "spread", "lost": "lost",
}  # fmt: skip
MOST_ROLLOUTS = 64
_DIFFERENT = 1e-6


@dataclass(frozen=True, slots=True)
class Group:
    """One of the list."""

    step: int | None
    group: str
    validation: int
    item_id: str
    source: str
    rollouts: int
    lost: int
    """Of them, that have no reward: an outage ended them."""
    right: int | None
    """With full credit; None where nobody decided."""
    reward: float | None
    """Their mean."""
    lowest: float | None
    highest: float | None


@dataclass(frozen=True, slots=True)
class GroupPage:
    """A page of the list."""

    total: int
    equal: int
    """Of those groups, whose rewards are all the same: nothing is learned from them."""
    rows: list[Group]


@dataclass(frozen=True, slots=True)
class Member:
    """A rollout of a group."""

    episode: ListedEpisode
    advantage: float | None


@dataclass(frozen=True, slots=True)
class WholeGroup:
    """A group with its rollouts."""

    rule: str
    """What the advantages are, or why there are none."""
    total: int
    members: list[Member]
    """The first `MOST_ROLLOUTS`."""


def group_page(
    index: EpisodeIndex,
    filters: Mapping[str, str],
    *,
    kind: str = "",
    sort: str = "step",
    descending: bool = False,
    offset: int = 0,
    limit: int = 100,
) -> GroupPage:
    """One page of the groups of the episodes that fit.

    Args:
        index: The run's.
        filters: See `where`.
        kind: `equal` or `different` for those whose rewards are so; empty for all.
        sort: One of `SORTS`.
        descending: Largest first.
        offset: Rows before the page.
        limit: Rows of the page.

    Raises:
        ValueError: An unknown kind or column, or a value that its filter cannot have.
    """
    if sort not in SORTS:
        raise ValueError(f"no column {sort!r}; there are: {', '.join(SORTS)}")
    condition, values = where(filters)
    having = {"": "1", "equal": f"spread <= {_DIFFERENT}", "different": f"spread > {_DIFFERENT}"}
    if kind not in having:
        raise ValueError(f"no kind of groups {kind!r}; there are: equal, different")
    # An outcome is the reward, or in an evaluation, which has none, the score.
    grouped = (
        "SELECT step, grp, validation, min(item_id) AS item_id, min(source) AS source, count(*) AS rollouts, "  # noqa: S608
        "sum(outcome IS NULL) AS lost, sum(score = 1.0) AS right_sum, "
        "avg(score = 1.0) AS right_share, avg(outcome) AS mean, min(outcome) AS low, max(outcome) AS high, "
        "max(outcome) - min(outcome) AS spread FROM (SELECT *, coalesce(reward, score) AS outcome FROM episodes "
        f"WHERE {condition} AND grp != '') GROUP BY step, validation, grp HAVING rollouts > 1"
    )
    order = f"{SORTS[sort]} IS NULL, {SORTS[sort]} {'DESC' if descending else 'ASC'}, step, validation, grp"
    columns = "step, grp, validation, item_id, source, rollouts, lost, right_sum, mean, low, high"
    counts = f"SELECT count(*), sum(spread <= {_DIFFERENT}) FROM ({grouped}) WHERE {having[kind]}"  # noqa: S608
    ((total, equal),) = index.select(counts, values)
    rows = index.select(
        f"SELECT {columns} FROM ({grouped}) WHERE {having[kind]} ORDER BY {order} LIMIT ? OFFSET ?",  # noqa: S608
        [*values, limit, offset],
    )
    return GroupPage(total, equal or 0, [Group(*row) for row in rows])


def whole_group(index: EpisodeIndex, filters: Mapping[str, str], rule: AdvantageRule) -> WholeGroup:
    """The rollouts of one group with their advantages.

    Args:
        index: The run's.
        filters: `step`, `group` and `validation` of the group; see `where`.
        rule: How the run's advantages follow from its rewards.

    Raises:
        LookupError: No such group.
        ValueError: A value that its filter cannot have.
    """
    found = index.page(filters, sort="sample", limit=MOST_ROLLOUTS)
    if not found.rows:
        raise LookupError(f"no group {filters.get('group', '')[:100]!r} in step {filters.get('step', 'none')[:20]}")
    says, of = _advantages(index, filters, rule)
    return WholeGroup(says, found.total, [Member(row, of.get(row.episode_id)) for row in found.rows])


def _advantages(index: EpisodeIndex, filters: Mapping[str, str], rule: AdvantageRule) -> tuple[str, dict[str, float | None]]:
    """What they are, or why there are none; and each rollout's, by its id."""
    if filters.get("validation") == "1":
        return "none: nothing is learned from a validation", {}
    condition, values = where(filters)
    rewards = dict(index.select(f"SELECT episode_id, reward FROM episodes WHERE {condition}", values))  # noqa: S608
    step = filters.get("step", "")
    written = recorded_advantages(index.directory, int(step)) if step.removeprefix("-").isdecimal() else None
    if written is not None:
        of: dict[str, float | None] = {name: written[name] for name in rewards if name in written}
        return "as the trainer wrote them" if of else "none: the trainer did not learn from this group", of
    if rule.problem:
        return rule.problem, {}
    return rule.says, dict(zip(rewards, advantages(list(rewards.values()), by_deviation=rule.by_deviation), strict=True))
