"""A run from the question to the score: its folder, settings, asking, scoring, a second judge."""
