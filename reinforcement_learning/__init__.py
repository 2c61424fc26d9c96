"""GRPO with verl on a Ray cluster; rollouts run `agent.run_episode`."""
