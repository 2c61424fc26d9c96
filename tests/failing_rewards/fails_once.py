"""The first rollout of the whole run that is scored is lost; `FAILS_ONCE` names a file that remembers it."""

import os

from reinforcement_learning.rewards.perception import reward as perception


async def reward(episode, task, judge, weights=None):
    try:
        os.close(os.open(os.environ["FAILS_ONCE"], os.O_CREAT | os.O_EXCL))
    except FileExistsError:
        return await perception(episode, task, judge, weights)
    raise ValueError("this rollout is lost on purpose")
