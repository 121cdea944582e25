"""Audit the installed packages for known vulnerabilities, and say so where that could not be done.

    python .ci/audit.py PIP_AUDIT SITE_PACKAGES [--must-reach]

PIP_AUDIT is the program of https://pypi.org/project/pip-audit. It exits alike for a vulnerability and for a database
that it cannot reach; here the two are told apart, because an audit that was not made must never look like a clean one.

Exit codes: 0 nothing known, or not done (a line says so); 1 vulnerabilities; 3 not done, with --must-reach.
"""

from __future__ import annotations

import json
import subprocess
import sys
from typing import Any

FOUND, NOT_DONE = 1, 3
SECONDS = 15  # that one answer of the database may take


def main(words: list[str]) -> int:
    """Run the audit, print what it found, and return the exit code."""
    must_reach = "--must-reach" in words
    program, site_packages = (word for word in words if word != "--must-reach")
    command = [program, "--format", "json", "--progress-spinner", "off", "--timeout", str(SECONDS)]
    try:
        done = subprocess.run([*command, "--path", site_packages], capture_output=True, text=True, check=False)
        packages: list[dict[str, Any]] = json.loads(done.stdout)["dependencies"]
    except (OSError, ValueError, KeyError, TypeError) as error:
        reason = str(error) if isinstance(error, OSError) else (done.stderr.strip().splitlines() or ["no answer"])[-1]
        print(f"audit: NOT DONE: pip-audit gave no result; could its database not be reached? {reason[:400]}")
        return NOT_DONE if must_reach else 0
    skipped = [one for one in packages if "skip_reason" in one]
    for one in skipped:
        print(f"audit: not looked up: {one['name']}: {one['skip_reason']}")
    count = len(packages) - len(skipped)
    if count == 0:
        print(f"audit: NOT DONE: no package was looked up in {site_packages}")
        return NOT_DONE if must_reach else 0
    found = [(one, flaw) for one in packages for flaw in one.get("vulns", ())]
    for one, flaw in found:
        mended = ", ".join(flaw.get("fix_versions", ())) or "no version yet"
        print(f"audit: {one['name']} {one['version']}: {flaw['id']}, mended in {mended}")
    print(f"audit: {len(found)} known vulnerabilities in {count} packages")
    return FOUND if found else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
