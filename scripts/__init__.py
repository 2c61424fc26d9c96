"""Command line and pipeline; may import every room, and no room imports it."""
