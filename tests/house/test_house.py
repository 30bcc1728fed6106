"""The house, where no linter looks after it: how long a file may be, what it says of itself, what it offers.

Who may import whom is in pyproject.toml, and ``make check`` holds it.
"""

from __future__ import annotations

import ast
import tomllib
from collections import Counter
from pathlib import Path

from paths import ROOT

PACKAGES: list[str] = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["importlinter"]["root_packages"]
SOURCES = sorted({path for package in PACKAGES for path in (ROOT / package).rglob("*.py")})
TESTS = sorted(path for path in (ROOT / "tests").rglob("*.py") if "node_modules" not in path.parts)
_MOST_LINES = 450
_MOST_FILES = 23  # in a folder


def named(paths: list[Path]) -> list[str]:
    return [str(path.relative_to(ROOT)) for path in paths]


def test_there_is_a_house() -> None:
    assert len(SOURCES) > 200
    assert len(TESTS) > 150


def test_a_file_is_one_idea() -> None:
    assert not named([path for path in [*SOURCES, *TESTS] if len(path.read_text().splitlines()) > _MOST_LINES])


def test_a_folder_can_be_looked_over() -> None:
    files = Counter(path.parent for path in [*SOURCES, *TESTS] if path.name != "__init__.py")
    assert not named([folder for folder, n in files.items() if n > _MOST_FILES])


def test_no_two_test_files_have_one_name() -> None:
    """Python knows them by it, and would take the one for the other."""
    names = Counter(path.name for path in TESTS if path.name not in ("conftest.py", "__init__.py"))
    assert not [name for name, n in names.items() if n > 1]


def test_a_file_says_what_it_is() -> None:
    def silent(path: Path) -> bool:
        text = path.read_text()
        return bool(text.strip()) and not ast.get_docstring(ast.parse(text)) and path.name != "__main__.py"

    assert not named([path for path in SOURCES if silent(path)])


def test_imports_say_the_whole_name() -> None:
    def relative(path: Path) -> bool:
        return any(isinstance(node, ast.ImportFrom) and node.level for node in ast.walk(ast.parse(path.read_text())))

    assert not named([path for path in SOURCES if relative(path)])


def test_test_modules_never_import_one_another() -> None:
    def imported(path: Path) -> set[str]:
        nodes = list(ast.walk(ast.parse(path.read_text())))
        plain = {alias.name for node in nodes if isinstance(node, ast.Import) for alias in node.names}
        return plain | {node.module for node in nodes if isinstance(node, ast.ImportFrom) and node.module}

    modules = {path.stem for path in TESTS if path.name.startswith("test_")} | {"conftest", "tests"}
    for path in TESTS:
        assert modules.isdisjoint(name.partition(".")[0] for name in imported(path)), path


def test_what_a_file_offers_is_there_and_in_order() -> None:
    for path in SOURCES:
        defined, offered = _names(ast.parse(path.read_text()))
        assert set(offered) <= defined, path
        in_order = sorted(set(offered), key=lambda name: (not name.isupper(), not name[0].isupper(), name))
        assert offered == in_order, path


def _names(tree: ast.Module) -> tuple[set[str], list[str]]:
    """What a module defines, and its ``__all__``."""
    defined: set[str] = set()
    offered: list[str] = []
    for node in tree.body:
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
            defined.add(node.name)
        elif isinstance(node, ast.Assign | ast.AnnAssign):
            targets = node.targets if isinstance(node, ast.Assign) else [node.target]
            names = {name.id for target in targets for name in ast.walk(target) if isinstance(name, ast.Name)}
            defined |= names
            if "__all__" in names:
                assert node.value is not None
                offered = ast.literal_eval(node.value)
        elif isinstance(node, ast.Import | ast.ImportFrom):
            defined |= {alias.asname or alias.name for alias in node.names}
    return defined, offered
