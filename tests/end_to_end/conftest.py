"""Data, weights and a user's folder for the end-to-end tests; what can be shared is made once a session."""

from __future__ import annotations

import sys
from collections.abc import Callable, Generator, Sequence
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).resolve().parents[2]
for _folder in (
    ROOT,
    ROOT / "tests" / "helpers",
):
    if str(_folder) not in sys.path:
        sys.path.insert(0, str(_folder))

import ffpp_tree
from workplace import TINY, Workplace


@pytest.fixture(scope="session")
def ffpp_root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small FaceForensics++ in the SBI layout; read only."""
    return ffpp_tree.build_tree(tmp_path_factory.mktemp("ffpp") / "FaceForensics++")


@pytest.fixture(scope="session")
def teacher_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A checkpoint in the form of FFc23.tar; read only."""
    return ffpp_tree.write_teacher(tmp_path_factory.mktemp("teacher") / "FFc23.tar")


@pytest.fixture(scope="session")
def narrow_init(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """First weights for mobilevitv2_050; read only."""
    return ffpp_tree.write_student_init(tmp_path_factory.mktemp("init") / "init.pth", "mobilevitv2_050")


@pytest.fixture(scope="session")
def labelled_root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Drawn faces of two classes, twelve people; read only."""
    return ffpp_tree.write_labelled(tmp_path_factory.mktemp("labelled") / "labelled", people=12)


@pytest.fixture
def workplace(tmp_path: Path) -> Workplace:
    """A user's folder without data and weights."""
    return Workplace(tmp_path)


@pytest.fixture
def tiny(workplace: Workplace, labelled_root: Path) -> Workplace:
    """A user's folder with `configs/tiny.json`, whose stage 1 takes a second or two."""
    (workplace / "data").mkdir()
    (workplace / "data/labelled").symlink_to(labelled_root)
    (workplace / "configs/tiny.json").write_text(TINY)
    return workplace


@pytest.fixture(scope="session")
def make_sbi_workplace(ffpp_root: Path, teacher_file: Path) -> Callable[[Path], Workplace]:
    """Links FaceForensics++ and the teacher to where the shipped config looks for them."""

    def make(folder: Path) -> Workplace:
        place = Workplace(folder)
        for link, target in (("data/FaceForensics++", ffpp_root), ("weights/FFc23.tar", teacher_file)):
            (place / link).parent.mkdir(exist_ok=True)
            (place / link).symlink_to(target)
        return place

    return make


@pytest.fixture(scope="module")
def clean_imports(request: pytest.FixtureRequest) -> Generator[None]:
    """Remove a module's invented tasks, and their folders on the import path, when its tests are done."""
    path = list(sys.path)
    yield
    sys.path[:] = path
    for task in request.module.TASKS:
        sys.modules.pop(task.name, None)


@pytest.fixture(scope="session")
def drawn_sheets() -> dict[object, bytes]:
    """Sheets of charts as they were drawn, by what their charts have columns of, and whether for one epoch or more."""
    return {}


@pytest.fixture(scope="module", autouse=True)
def _curves_of_a_kind_are_drawn_once(drawn_sheets: dict[object, bytes]) -> Generator[None]:
    """Drawing logs/curves.png anew after every epoch takes two thirds of the time of a tiny run in this process."""
    from sharpstudent.report import curves

    render = curves.render_sheet

    def render_once(charts: Sequence[Any], title: str = "") -> bytes:
        kind = tuple((chart.columns, len(chart.rows) > 1) for chart in charts)
        if kind not in drawn_sheets:
            drawn_sheets[kind] = render(charts, title)
        return drawn_sheets[kind]

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(curves, "render_sheet", render_once)
        yield
