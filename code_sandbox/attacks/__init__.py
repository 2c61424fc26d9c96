"""Attacks on a sandbox server, one file each; see suite.py. Never run them against a machine that is not yours."""
