"""What the site of the documents needs besides mkdocs: the README as its first page, links that leave docs/.

mkdocs calls these functions (mkdocs.yml names this file). A link to a file of the repository that is no page becomes
the name of that file; a link to a file that does not exist stays, so that `mkdocs build --strict` fails at it.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

from mkdocs.structure.files import File, Files

ROOT = Path(__file__).resolve().parents[1]
LINK = re.compile(r"(?<!!)\[([^\]]+)\]\(([^)#\s]+)(#[^)\s]*)?\)")


def on_files(files: Files, config: Any) -> Files:
    """Add the README as the first page, and a list of the decisions."""
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    text = re.sub(r"\]\(docs/", "](", readme)
    files.append(File.generated(config, "index.md", content=text))
    files.append(File.generated(config, "decisions/index.md", content=list_decisions()))
    return files


def list_decisions() -> str:
    """Write the page that lists the decisions by their titles."""
    lines = ["# Decisions", "", "Why it is as it is, half a page each.", ""]
    for path in sorted((ROOT / "docs" / "decisions").glob("*.md")):
        title = path.read_text(encoding="utf-8").partition("\n")[0].removeprefix("# ")
        lines.append(f"- [{title}]({path.name})")
    return "\n".join(lines) + "\n"


def on_page_markdown(markdown: str, page: Any, config: Any, files: Files) -> str:
    """Replace links that leave docs/ by the names of the files."""
    folder = ROOT if page.file.src_uri == "index.md" else (Path(config["docs_dir"]) / page.file.src_uri).parent
    known = {file.src_uri for file in files}

    def replace(match: re.Match[str]) -> str:
        text, target, _ = match.groups()
        if "://" in target or target.startswith("mailto:"):
            return match[0]
        path = (folder / target).resolve()
        docs = Path(config["docs_dir"])
        is_page = path.is_relative_to(docs) and path.relative_to(docs).as_posix() in known
        if is_page or not path.exists():
            return match[0]
        name = path.relative_to(ROOT).as_posix()
        return text if name in text else f"{text} (`{name}`)"

    return LINK.sub(replace, markdown)
