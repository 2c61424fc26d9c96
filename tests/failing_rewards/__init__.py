"""Rewards that fail on purpose, for runs whose rollouts must get lost: `run.env.VERL_USE_EXTERNAL_MODULES` names this package.

Each file is a data source, as in reinforcement_learning/rewards.
"""

import reinforcement_learning.rewards

reinforcement_learning.rewards.__path__.append(__path__[0])
