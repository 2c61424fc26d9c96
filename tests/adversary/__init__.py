"""Tries to make the judge's rules say what is not so: `python -m tests.adversary --tries 200000 --seed 0`."""
