"""This program has moved to deepeyes/quickstart/tiny_model.py."""

import sys

if __name__ == "__main__":
    sys.exit("cold_start.tiny_model has moved: use `python -m deepeyes.quickstart.tiny_model`")
