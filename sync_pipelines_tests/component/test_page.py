"""The page about YAML: each of its declarations loads."""

from __future__ import annotations

import re
import sys
from pathlib import Path

import pytest
from dagster import Definitions

from sync_pipelines_tests.component.projects import project

PAGE = (Path(__file__).parents[2] / "docs" / "how-to" / "yaml.md").read_text(encoding="utf-8")
BLOCKS: dict[str, str] = dict(re.findall(r'^```\w+ title="([^"]+)"\n(.*?)^```', PAGE, re.MULTILINE | re.DOTALL))
DECLARATIONS = [title for title in BLOCKS if title.endswith(".yaml")]


@pytest.fixture
def modules(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The page's modules, as those of a project that is installed."""
    for title, text in BLOCKS.items():
        path = tmp_path / title
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")
    monkeypatch.syspath_prepend(tmp_path / "src")
    for name in [name for name in sys.modules if name.partition(".")[0] == "my_project"]:
        monkeypatch.delitem(sys.modules, name)


@pytest.mark.usefixtures("modules")
@pytest.mark.parametrize("title", DECLARATIONS)
def test_each_declaration_loads(title: str) -> None:
    with project({"of_the_page": BLOCKS[title]}) as (tree, _):
        Definitions.validate_loadable(tree.build_defs())


def test_the_page_has_declarations() -> None:
    assert len(DECLARATIONS) >= 5
