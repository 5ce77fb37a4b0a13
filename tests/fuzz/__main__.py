"""Reads a million mutated inputs, or as many as asked for, in processes of their own: `make fuzz`."""

from __future__ import annotations

import argparse
import sys
import time
import warnings

from fuzz.run import run
from fuzz.targets import TARGETS


def main() -> int:
    warnings.simplefilter("ignore")
    options = argparse.ArgumentParser("fuzz", description=__doc__)
    options.add_argument("--cases", type=int, default=1_000_000, help="of all targets together")
    options.add_argument("--jobs", type=int, default=2)
    options.add_argument("--seed", type=int, default=0, help="other cases")
    options.add_argument("--target", action="append", choices=[target.name for target in TARGETS], help="repeat for several")
    options.add_argument("--only", type=int, help="the number of one case, with --target: prints it and what it does")
    chosen = options.parse_args()
    targets = [target for target in TARGETS if chosen.target is None or target.name in chosen.target]
    begin = time.monotonic()
    results = run(targets, chosen.cases, chosen.seed, chosen.jobs, chosen.only)
    print(f"{'target':18}{'cases':>10}{'CPU s':>9}{'accepted':>10}  findings")
    for one in results:
        print(f"{one.target:18}{one.cases:>10}{one.seconds:>9.1f}{one.accepted / max(one.cases, 1):>10.1%}  {len(one.findings)}")
        for place, (number, what) in sorted(one.findings.items()):
            print(f"    {place}, case {number}: {ascii(what)}")
    found = sum(len(one.findings) for one in results)
    cases = sum(one.cases for one in results)
    print(f"{cases} cases in {time.monotonic() - begin:.0f} s, {found} findings; a case again: --target NAME --only NUMBER")
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main())
