"""Runs go to other harnesses, and answers come from them."""
