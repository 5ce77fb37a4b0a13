"""Holds requirements.txt to the known vulnerabilities, with pip-audit: `python .ci/audit.py FILE`, or `make audit`.

Exit code 0: every package was looked up, none has one. 1: some have. 2: not every package was looked up, so nothing is known.
"""

from __future__ import annotations

import json
import subprocess
import sys

PASSED, FOUND, UNKNOWN = 0, 1, 2


def verdict(answer: str, fault: str) -> tuple[int, str]:
    """Returns the exit code and what to print. answer, fault: what pip-audit wrote to stdout, as JSON, and to stderr."""
    try:
        packages = json.loads(answer)["dependencies"]
    except (ValueError, KeyError, TypeError):
        reason = (fault.strip().splitlines() or ["no answer"])[-1]
        return UNKNOWN, f"audit: the vulnerability service cannot be reached; nothing was checked. {reason}"
    known = [f"{p['name']} {p['version']}: {v['id']}" for p in packages for v in p.get("vulns", ())]
    skipped = [p for p in packages if "skip_reason" in p]
    if known:
        return FOUND, "\n".join([f"audit: {len(known)} known vulnerabilities", *known])
    if skipped or not packages:  # pip-audit itself reports success: a mirror without the service answers "not found"
        reason = skipped[0]["skip_reason"] if skipped else "no packages"
        return UNKNOWN, f"audit: {len(skipped)} of {len(packages)} packages could not be looked up; nothing is known. {reason}"
    return PASSED, f"audit: {len(packages)} packages, none with a known vulnerability"


def main(requirements: str) -> int:
    command = [
        "pip_audit",
        "--disable-pip",
        "--require-hashes",
        "--progress-spinner",
        "off",
        "--format",
        "json",
        "-r",
        requirements,
    ]
    done = subprocess.run([sys.executable, "-m", *command], capture_output=True, text=True)
    code, text = verdict(done.stdout, done.stderr)
    print(text, file=sys.stderr if code else sys.stdout)
    return code


if __name__ == "__main__":
    sys.exit(main(sys.argv[1]))
