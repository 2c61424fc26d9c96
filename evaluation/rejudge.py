"""This program has moved to evaluation/runs/rejudge.py."""

import sys

if __name__ == "__main__":
    sys.exit("evaluation.rejudge has moved: use `deepeyes rejudge`, or `python -m evaluation.runs.rejudge`")
