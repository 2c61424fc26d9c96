"""This program has moved to evaluation/smoke/suite.py."""

import sys

if __name__ == "__main__":
    sys.exit("scripts.benchmark_suite has moved: use `bash evaluation/run_benchmarks.sh`")
