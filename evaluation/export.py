"""This program has moved to evaluation/exchange/export.py."""

import sys

if __name__ == "__main__":
    sys.exit("evaluation.export has moved: use `deepeyes export --to`, or `python -m evaluation.exchange.export`")
