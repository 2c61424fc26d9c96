"""This program has moved to evaluation/analysis/compare.py."""

import sys

if __name__ == "__main__":
    sys.exit("evaluation.compare has moved: use `deepeyes compare`, or `python -m evaluation.analysis.compare`")
