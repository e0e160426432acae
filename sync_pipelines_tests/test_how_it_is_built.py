"""The page "How it is built" shows the rooms and floors that the contracts hold, and names what exists."""

from __future__ import annotations

import ast
import re
import tomllib
from collections.abc import Iterator
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).parents[1]
PACKAGE = REPOSITORY / "sync_pipelines"
PAGE = (REPOSITORY / "docs" / "how-it-is-built.md").read_text(encoding="utf-8")
PYPROJECT = tomllib.loads((REPOSITORY / "pyproject.toml").read_text(encoding="utf-8"))
LAYERS = {
    contract["containers"][0]: contract["layers"]
    for contract in PYPROJECT["tool"]["importlinter"]["contracts"]
    if contract["type"] == "layers"
}
ROOMS = {path.stem for path in PACKAGE.iterdir() if path.suffix in {"", ".py"} and path.stem[0] not in "._"}


def picture_below(heading: str) -> list[str]:
    """The rooms of the first picture below a heading, each line as a contract writes it."""
    found = re.search(rf"^#+ {heading}\n.*?^```text\n(.*?)^```", PAGE, re.MULTILINE | re.DOTALL)
    assert found is not None, heading
    return [re.split(r"\s{2,}", line)[0] for line in found[1].splitlines()]


def names_on_the_page() -> list[str]:
    """What is in backticks and begins with a room: modules, classes, functions."""
    words = re.findall(r"`([a-z_]+(?:\.\w+)+)`", PAGE)
    return sorted({word for word in words if word.partition(".")[0] in ROOMS and not word.endswith(".py")})


def members(node: ast.Module | ast.ClassDef) -> Iterator[ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef]:
    for child in node.body:
        if isinstance(child, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
            yield child


def exists(name: str) -> bool:
    """True for a folder or module of the package, and for a class, function or method that is defined in one."""
    parts = name.split(".")
    path = PACKAGE
    while parts and (path / parts[0]).is_dir():
        path /= parts.pop(0)
    if not parts:
        return True
    module = path / f"{parts.pop(0)}.py"
    if not module.exists():
        return False
    node: ast.AST = ast.parse(module.read_text(encoding="utf-8"))
    for part in parts:
        inside = {each.name: each for each in members(node)} if isinstance(node, ast.Module | ast.ClassDef) else {}
        if part not in inside:
            return False
        node = inside[part]
    return True


@pytest.mark.parametrize(
    ("heading", "package"),
    [
        ("Rooms", "sync_pipelines"),
        ("Inside the runner", "sync_pipelines.runner"),
        ("Inside the targets", "sync_pipelines.targets"),
    ],
)
def test_the_pictures_show_what_the_contracts_hold(heading: str, package: str) -> None:
    drawn = picture_below(heading)

    assert [line.split(" | ") for line in drawn] == [layer.split(" | ") for layer in LAYERS[package]]


def test_every_contract_of_layers_is_drawn() -> None:
    assert set(LAYERS) == {"sync_pipelines", "sync_pipelines.runner", "sync_pipelines.targets"}


@pytest.mark.parametrize("name", names_on_the_page())
def test_what_the_page_names_exists(name: str) -> None:
    assert exists(name)


def test_each_decision_is_made_by_one_function() -> None:
    found = re.search(r"^\| \.\.\. \| Decided by.*?\n\|[-|]+\n(.*?)^$", PAGE, re.MULTILINE | re.DOTALL)
    assert found is not None
    rows = [row.strip("|").split("|") for row in found[1].splitlines()]

    assert len(rows) >= 15
    assert [row[0].strip() for row in rows if len(re.findall(r"`[a-z_]+\.[^`]+`", row[1])) != 1] == []


def test_the_tests_that_the_page_names_exist() -> None:
    named = set(re.findall(r"`(sync_pipelines_tests/[\w/.]+)`", PAGE))

    assert len(named) > 5
    assert [name for name in named if not (REPOSITORY / name).exists()] == []
