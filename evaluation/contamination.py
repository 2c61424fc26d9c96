"""This program has moved to evaluation/analysis/contamination.py."""

import sys

if __name__ == "__main__":
    sys.exit("evaluation.contamination has moved: use `deepeyes contamination`")
