"""Command line."""

import argparse
import sys

from tests.adversary.run import attack


def main() -> None:
    """Try, print what was found, and end with 1 if anything was."""
    parser = argparse.ArgumentParser(prog="tests.adversary", description="Try to make the judge's rules say what is not so.")
    parser.add_argument("--tries", type=int, default=200_000)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    report = attack(options.tries, options.seed)
    lines = [
        f"{kind}: gold {gold!r}, answer {answer!r}: {what}" for what, kind, gold, answer in report.counterexamples[:200]
    ]
    shares = ", ".join(f"{made} {outcome} {count:,}" for (made, outcome), count in sorted(report.outcomes.items()))
    found = f"{report.tries:,} tries, {len(report.counterexamples):,} counterexamples"
    sys.stdout.write("\n".join([*lines, f"{found}; {shares}; slowest {report.slowest_s:.2f} s"]) + "\n")
    sys.exit(bool(report.counterexamples))


if __name__ == "__main__":
    main()
