"""No rollout can be scored."""


async def reward(episode, task, judge, weights=None):
    raise ValueError("nothing can be scored today")
