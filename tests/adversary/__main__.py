"""Command line."""

import argparse
import sys

from tests.adversary.run import attack

parser = argparse.ArgumentParser(prog="tests.adversary", description="Try to make the judge's rules say what is not so.")
parser.add_argument("--tries", type=int, default=200_000)
parser.add_argument("--seed", type=int, default=0)
options = parser.parse_args()
report = attack(options.tries, options.seed)
for what, kind, gold, answer in report.counterexamples[:200]:
    print(f"{kind}: gold {gold!r}, answer {answer!r}: {what}")
shares = ", ".join(f"{made} {outcome} {count:,}" for (made, outcome), count in sorted(report.outcomes.items()))
print(f"{report.tries:,} tries, {len(report.counterexamples):,} counterexamples; {shares}; slowest {report.slowest_s:.2f} s")
sys.exit(bool(report.counterexamples))
