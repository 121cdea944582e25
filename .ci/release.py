"""The checklist of a release, run item by item: what must agree, what must pass, what must be built.

    python .ci/release.py            # everything; the suite and the slow tests take most of an hour
    python .ci/release.py --quick    # only what takes seconds

It changes nothing but dist/, publishes nothing, and ends with the two commands that do. `make release` runs it.
Exit codes: 0 all items pass; 1 some fail, each named with what to do.
"""

from __future__ import annotations

import datetime
import re
import subprocess
import sys
import tomllib
from collections.abc import Callable, Sequence
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
HEADING = re.compile(r"^## (?:\[?([0-9][^\]\s]*)\]? - (\d{4}-\d\d-\d\d)|(Unreleased))\s*$", re.MULTILINE)


def read(name: str) -> str:
    """Read a text file of the repository."""
    return (ROOT / name).read_text(encoding="utf-8")


def check_versions() -> str | None:
    """pyproject.toml, CITATION.cff and the newest entry of CHANGELOG.md name one version."""
    version = tomllib.loads(read("pyproject.toml"))["project"]["version"]
    cited = re.search(r"^version: (\S+)$", read("CITATION.cff"), re.MULTILINE)
    newest = next((match for match in HEADING.finditer(read("CHANGELOG.md")) if match[1]), None)
    if newest is None:
        return f"CHANGELOG.md has no heading like: ## {version} - {datetime.date.today()}"
    found = {"pyproject.toml": version, "CITATION.cff": cited and cited[1], "CHANGELOG.md": newest[1]}
    if len(set(found.values())) > 1:
        return "write one version into all of them: " + ", ".join(f"{name} has {one}" for name, one in found.items())
    if datetime.date.fromisoformat(newest[2]) > datetime.date.today():
        return f"CHANGELOG.md dates {newest[1]} in the future: {newest[2]}"
    return None


def check_changelog() -> str | None:
    """Nothing stands under "Unreleased"."""
    text = read("CHANGELOG.md")
    headings = list(HEADING.finditer(text))
    if not headings or headings[0][3] is None:
        return "CHANGELOG.md does not begin with: ## Unreleased"
    end = headings[1].start() if len(headings) > 1 else len(text)
    return "move what is Unreleased under the version" if text[headings[0].end() : end].strip() else None


def check_tree() -> str | None:
    """Everything is committed."""
    done = subprocess.run(["git", "status", "--porcelain"], cwd=ROOT, capture_output=True, text=True, check=True)
    changed = [line[3:] for line in done.stdout.splitlines()]
    return f"commit or remove {len(changed)} files, {changed[0]} among them" if changed else None


def run(*command: str) -> Callable[[], str | None]:
    """Make an item that runs a command, whose output is shown."""

    def check() -> str | None:
        code = subprocess.run(command, cwd=ROOT, check=False).returncode
        return None if code == 0 else f"mend what it shows above (exit code {code}): {' '.join(command)}"

    return check


QUICK: tuple[tuple[str, Callable[[], str | None]], ...] = (
    ("one version everywhere", check_versions),
    ("the changelog is written", check_changelog),
    ("nothing is uncommitted", check_tree),
)
LONG: tuple[tuple[str, Callable[[], str | None]], ...] = (
    ("format, types, layers", run("make", "check")),
    ("the documents as a site", run("make", "site")),
    ("the fast tests", run("make", "test")),
    ("the slow tests, the wheel in a clean environment among them", run("make", "test-slow")),
    ("no known vulnerability", run("make", "audit", "AUDIT=--must-reach")),
    ("the bill of materials", run("make", "sbom")),
    ("the wheel", run(".venv/bin/python", "-m", "pip", "wheel", "--quiet", "--no-deps", "--wheel-dir", "dist", ".")),
)


def main(words: Sequence[str]) -> int:
    """Run the items, print a line for each, and return the exit code."""
    failed = 0
    for title, check in QUICK if "--quick" in words else (*QUICK, *LONG):
        problem = check()
        failed += problem is not None
        print(f"[{'x' if problem is None else ' '}] {title}{'' if problem is None else f': {problem}'}", flush=True)
    if failed:
        print(f"{failed} of the items fail; nothing was published")
        return 1
    version = tomllib.loads(read("pyproject.toml"))["project"]["version"]
    print(f"now, by hand: git tag v{version} && git push --tags; twine upload dist/sharpstudent-{version}-*.whl")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
