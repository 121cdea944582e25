"""What is installed beside the package: the audit tells "nothing known" from "not looked up", NOTICE is complete."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from importlib import metadata
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
NOTICE = (ROOT / "NOTICE").read_text(encoding="utf-8")
CLEAN = {"name": "torch", "version": "1", "vulns": []}
FLAWED = {"name": "pillow", "version": "1", "vulns": [{"id": "CVE-1", "fix_versions": ["2"]}]}
UNKNOWN = {"name": "sharpstudent", "skip_reason": "not on PyPI"}
# Copyleft libraries that a wheel carries, by the name of the file.
COPYLEFT = {"libx264": "x264", "libx265": "x265", "libmp3lame": "LAME", "libgnutls": "GnuTLS", "libnettle": "Nettle"}


def audit(folder: Path, code: str, *words: str) -> subprocess.CompletedProcess[str]:
    """Run the audit with a program in place of pip-audit."""
    program = folder / "pip-audit"
    program.write_text(f"#!{sys.executable}\n{code}\n")
    program.chmod(0o755)
    command = [sys.executable, str(ROOT / ".ci" / "audit.py"), str(program), "site-packages", *words]
    return subprocess.run(command, capture_output=True, text=True, check=False)


def answer(*packages: object) -> str:
    return f"print({json.dumps({'dependencies': packages})!r})"


@pytest.mark.parametrize(
    ("code", "said", "plain", "strict"),
    [
        (answer(CLEAN, UNKNOWN), "audit: not looked up: sharpstudent", 0, 0),
        (answer(CLEAN), "audit: 0 known vulnerabilities in 1 packages", 0, 0),
        (answer(CLEAN, FLAWED) + "; raise SystemExit(1)", "pillow 1: CVE-1, mended in 2", 1, 1),
        ("raise ConnectionError('pypi.org: no route')", "NOT DONE: pip-audit gave no result", 0, 3),
        (answer(), "NOT DONE: no package was looked up", 0, 3),
        (answer(UNKNOWN), "NOT DONE: no package was looked up", 0, 3),
    ],
)
def test_an_audit_that_was_not_made_never_looks_like_a_clean_one(
    tmp_path: Path, code: str, said: str, plain: int, strict: int
) -> None:
    ended = audit(tmp_path, code)
    assert said in ended.stdout
    assert ended.returncode == plain
    assert ("NOT DONE" in ended.stdout) == (strict == 3)
    if strict != plain:
        assert audit(tmp_path, code, "--must-reach").returncode == strict


def test_an_audit_without_its_program_says_so(tmp_path: Path) -> None:
    command = [sys.executable, str(ROOT / ".ci" / "audit.py"), str(tmp_path / "none"), "site-packages"]
    ended = subprocess.run(command, capture_output=True, text=True, check=False)
    assert (ended.returncode, "NOT DONE" in ended.stdout) == (0, True)


@pytest.mark.slow
def test_pip_audit_itself_with_an_index_that_cannot_be_reached_is_an_audit_that_was_not_made(tmp_path: Path) -> None:
    program = ROOT / ".venv-audit" / "bin" / "pip-audit"
    if not program.is_file():
        pytest.skip("pip-audit is not installed: make audit")
    about = tmp_path / "packaging-26.0.dist-info" / "METADATA"
    about.parent.mkdir()
    about.write_text("Metadata-Version: 2.1\nName: packaging\nVersion: 26.0\n")
    nowhere = dict.fromkeys(("HTTP_PROXY", "HTTPS_PROXY", "http_proxy", "https_proxy"), "http://127.0.0.1:9")
    for words, code in (((), 0), (("--must-reach",), 3)):
        command = [sys.executable, str(ROOT / ".ci" / "audit.py"), str(program), str(tmp_path), *words]
        environment = {**os.environ, "NO_PROXY": "", "no_proxy": "", **nowhere}
        ended = subprocess.run(command, capture_output=True, text=True, check=False, env=environment)
        assert "NOT DONE: pip-audit gave no result; could its database not be reached?" in ended.stdout
        assert ended.returncode == code


def test_the_notice_names_every_installed_package_under_a_proprietary_or_copyleft_licence() -> None:
    named = {}
    for one in metadata.distributions():
        classifiers = [text for text in one.metadata.get_all("Classifier") or () if text.startswith("License")]
        licence = one.metadata.get("License-Expression") or one.metadata.get("License") or "; ".join(classifiers)
        if re.search(r"proprietary|\b[AL]?GPL|LicenseRef", licence.splitlines()[0] if licence else "", re.IGNORECASE):
            named[one.metadata["Name"]] = licence
    assert {name: licence for name, licence in named.items() if name not in NOTICE} == {}


def test_the_notice_names_every_copyleft_library_in_a_wheel() -> None:
    sites = {Path(str(one.locate_file(""))) for one in metadata.distributions()}
    held = {file.name.split("-")[0] for site in sites for file in site.glob("*.libs/*")}
    assert [name for file, name in COPYLEFT.items() if file in held and name not in NOTICE] == []


def test_the_notice_and_the_licence_travel_with_the_wheel() -> None:
    assert 'license-files = ["LICENSE", "NOTICE"]' in (ROOT / "pyproject.toml").read_text(encoding="utf-8")
