"""This program has moved to deepeyes/quickstart/pipeline.py."""

import sys

if __name__ == "__main__":
    sys.exit("scripts.quickstart has moved: use `bash scripts/quickstart.sh`")
