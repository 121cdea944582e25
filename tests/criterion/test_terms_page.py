"""docs/terms.md lists the terms that there are, with what it promises of each."""

import re
from pathlib import Path

import pytest
from sharpstudent.config.terms import TERMS

PAGE = (Path(__file__).parents[2] / "docs" / "terms.md").read_text()
SECTIONS = dict(re.findall(r"^## `(\w+)`\n(.*?)(?=^## |\Z)", PAGE, flags=re.DOTALL | re.MULTILINE))


def test_every_term_has_a_section_and_no_other_has() -> None:
    assert set(SECTIONS) == set(TERMS)


@pytest.mark.parametrize("name", TERMS)
def test_a_section_has_formula_settings_and_when_to_use_it(name: str) -> None:
    text = SECTIONS[name]
    assert re.search(r"^    \S", text, flags=re.MULTILINE), "no formula"
    assert "**When:**" in text
    shared_words = {"temperature": "T", "gamma": "gamma"}
    missing = [one for one in TERMS[name].settings if one not in text and shared_words.get(one, one) not in text]
    assert not missing


def test_the_table_of_what_is_dead_names_what_the_builders_refuse() -> None:
    """The tests of these terms check the refusals themselves."""
    table = PAGE.split("| Refused |")[1].split("\n\n")[0]
    for name in ("kd", "dkd", "dist", "rkd", "supcon", "attention", "hard", "focal", "self"):
        assert f"`{name}`" in table
