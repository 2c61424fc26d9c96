"""This program has moved to evaluation/reports/leaderboard.py."""

import sys

if __name__ == "__main__":
    sys.exit("evaluation.leaderboard has moved: use `deepeyes leaderboard`, or `python -m evaluation.reports.leaderboard`")
