"""This program has moved to deepeyes/quickstart/make.py."""

import sys

if __name__ == "__main__":
    sys.exit("scripts.quickstart_data has moved: use `python -m deepeyes.quickstart.make`")
