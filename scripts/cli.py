"""This program has moved to deepeyes/cli.py."""

import sys

if __name__ == "__main__":
    sys.exit("scripts.cli has moved: use `deepeyes`, or `python -m deepeyes.cli`")
