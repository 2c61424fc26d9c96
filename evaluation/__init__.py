"""Benchmarks, run through the same episode loop as training."""
