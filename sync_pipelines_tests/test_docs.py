"""The documentation builds without a warning, does what it says, and names what exists: no more, no less."""

from __future__ import annotations

import os
import re
import shlex
import stat
import subprocess
import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import typer

import sync_pipelines
from sync_pipelines.engine.plan import Outcome
from sync_pipelines.settings.model import Settings
from sync_pipelines.settings.tryton import TrytonSettings
from sync_pipelines_tests.children import run_child

REPOSITORY = Path(__file__).parents[1]
DOCS = REPOSITORY / "docs"
PAGES = {path.relative_to(DOCS).as_posix(): path.read_text(encoding="utf-8") for path in DOCS.rglob("*.md")}
EVERYTHING = {**PAGES, "README.md": (REPOSITORY / "README.md").read_text(encoding="utf-8")}
FENCE = re.compile(r'^```(\w+)(?: title="([^"]+)")?\n(.*?)^```', re.MULTILINE | re.DOTALL)
OWN_EXAMPLES = (
    "index.md",
    "how-to/add-a-sync.md",
    "how-to/add-a-source.md",
    "how-to/targets-that-are-functions.md",
    "how-to/webhooks.md",
)
LARGEST_PICTURE_BYTES = 250_000


@dataclass(frozen=True)
class Block:
    """A fenced block of a page."""

    kind: str
    title: str
    text: str


def blocks_of(page: str) -> list[Block]:
    return [Block(*found) for found in FENCE.findall(PAGES[page])]


def code_of(text: str) -> str:
    """What stands in blocks and in backticks, one piece a line."""
    fenced = [block for _, _, block in FENCE.findall(text)]
    rest = FENCE.sub("", text)
    indented = re.findall(r"^ {4,}(.*)$", rest, re.MULTILINE)
    return "\n".join([*fenced, *indented, *re.findall(r"`([^`\n]+)`", rest)])


def run_python(*arguments: str, cwd: Path) -> str:
    environment = {"PYTHONPATH": str(REPOSITORY), "PATH": os.environ["PATH"], "NO_MKDOCS_2_WARNING": "1"}
    found = run_child([sys.executable, *arguments], cwd=cwd, env=environment)
    assert found.returncode == 0, found.stdout + found.stderr
    return found.stdout + found.stderr


# The site


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The built documentation; any warning fails the build."""
    folder = tmp_path_factory.mktemp("site")
    run_python("-m", "mkdocs", "build", "--strict", "--site-dir", str(folder), cwd=REPOSITORY)
    return folder


def test_it_builds_without_warnings_and_has_every_page(site: Path) -> None:
    built = {path.relative_to(site).with_suffix(".md").as_posix() for path in site.rglob("*.html")} - {"404.md"}

    assert built == {page.replace("README.md", "index.md") for page in PAGES}


def test_no_page_asks_another_server_for_anything(site: Path) -> None:
    loaded = re.compile(r'<(?:script|link|img|iframe)[^>]+(?:src|href)="?(?:https?:)?//')
    elsewhere = [path.name for path in site.rglob("*.html") if loaded.search(path.read_text(encoding="utf-8"))]
    imported = re.compile(r"@import|url\(['\"]?(?:https?:)?//")

    assert elsewhere == []
    assert [path.name for path in site.rglob("*.css") if imported.search(path.read_text(encoding="utf-8"))] == []


def test_the_reference_shows_docstrings(site: Path) -> None:
    page = (site / "reference" / "running.html").read_text(encoding="utf-8")

    assert "Runs a sync now and gives its results." in page
    assert "The source broke off; nothing was applied." in page


def test_pictures_are_small_and_each_is_used() -> None:
    pictures = {path.name: path.stat().st_size for path in (DOCS / "images").iterdir()}
    used = set(re.findall(r"images/([\w-]+\.(?:png|svg))", "".join(EVERYTHING.values())))

    assert used == set(pictures)
    assert max(pictures.values()) < LARGEST_PICTURE_BYTES


def test_every_decision_is_listed() -> None:
    listed = set(re.findall(r"\]\((\d{4}-[a-z0-9-]+\.md)\)", PAGES["decisions/README.md"]))

    assert listed == {path.name for path in (DOCS / "decisions").glob("[0-9]*.md")}


# Names


def test_every_public_name_is_in_the_reference_once() -> None:
    listed = re.findall(r"^::: sync_pipelines\.(\w+)$", "\n".join(PAGES.values()), re.MULTILINE)

    assert sorted(listed) == sorted(sync_pipelines.__all__), "docs/reference/*.md has a line `::: sync_pipelines.NAME`"


def test_every_name_that_is_imported_from_the_package_is_public() -> None:
    imports = re.findall(r"from sync_pipelines import ([\w, ]+)", "\n".join(map(code_of, EVERYTHING.values())))
    named = {name.strip() for line in imports for name in line.split(",")}

    assert "SyncJob" in named
    assert named <= set(sync_pipelines.__all__)


def test_the_settings_page_names_each_setting_and_no_other() -> None:
    fields = [field.upper() for field in Settings.model_fields]
    tryton = [field.upper() for field in TrytonSettings.model_fields]

    assert re.findall(r"^\| `SYNC_PIPELINES_(\w+)` \|", PAGES["settings.md"], re.MULTILINE) == fields
    assert re.findall(r"^\| `TRYTON_(\w+)` \|", PAGES["settings.md"], re.MULTILINE) == tryton


def test_every_setting_that_is_named_anywhere_exists() -> None:
    settings = {field.upper() for field in Settings.model_fields}
    wrong = {
        page: unknown
        for page, text in EVERYTHING.items()
        if (unknown := set(re.findall(r"SYNC_PIPELINES_([A-Z_]*[A-Z])", text)) - settings)
    }

    assert wrong == {}


def commands() -> Mapping[str, set[str]]:
    """The commands of the command line with their own options."""
    from sync_pipelines.cli.app import app

    program = typer.main.get_command(app)
    everywhere = {"--help", "--debug"}

    def below(group: Any, prefix: str) -> Iterator[tuple[str, Any]]:
        for name, command in group.commands.items():
            yield from (
                below(command, f"{prefix}{name} ") if hasattr(command, "commands") else [(prefix + name, command)]
            )

    return {
        name: {option for parameter in command.params for option in parameter.opts if option.startswith("--")}
        - everywhere
        for name, command in below(program, "")
    }


def test_the_page_of_the_command_line_has_each_command_with_its_options() -> None:
    sections = re.split(
        r"^## `sync-pipelines ([a-z]+(?: [a-z]+)?)[^\n]*\n", PAGES["reference/command-line.md"], flags=re.MULTILINE
    )
    described = dict(zip(sections[1::2], sections[2::2], strict=True))

    assert {name: set(re.findall(r"`(--[a-z-]+)", text)) for name, text in described.items()} == commands()


def test_every_command_that_is_named_anywhere_exists() -> None:
    known = {*commands(), "plan"}  # `plan NAME` is `plan make NAME`
    names = "|".join(sorted(known, key=len, reverse=True))
    typed = re.compile(rf"(?<!install )\bsync-pipelines(?: --[a-z]+)* ({names}|[a-z]+)\b")
    named = {page: set(typed.findall(code_of(text))) for page, text in EVERYTHING.items()}

    assert {"check", "run", "show", "item", "trigger"} <= named["tutorial.md"]
    assert {page: unknown for page, names in named.items() if (unknown := names - known)} == {}


def test_every_make_target_that_is_named_exists() -> None:
    makefile = (REPOSITORY / "Makefile").read_text(encoding="utf-8")
    targets = set(re.findall(r"^([a-z-]+):", makefile, re.MULTILINE))
    named = {
        target for text in PAGES.values() for target in re.findall(r"^make ([a-z-]+)", code_of(text), re.MULTILINE)
    }

    assert {"demo", "demo-change", "dev"} <= named <= targets


def test_the_glossary_has_every_outcome() -> None:
    assert [outcome.value for outcome in Outcome if outcome.value not in PAGES["glossary.md"]] == []


# Examples


@pytest.mark.parametrize("page", OWN_EXAMPLES)
def test_the_examples_run_as_they_stand(page: str, tmp_path: Path) -> None:
    program = "import sys\n"
    for number, block in enumerate(block for block in blocks_of(page) if block.kind == "python"):
        (tmp_path / f"block_{number}.py").write_text(block.text, encoding="utf-8")
        program += f"import block_{number}\n"
    (tmp_path / "all_blocks.py").write_text(program, encoding="utf-8")

    run_python("-W", "error", "all_blocks.py", cwd=tmp_path)


def test_the_example_of_a_target_keeps_the_contract(tmp_path: Path) -> None:
    (example,) = [block for block in blocks_of("how-to/add-a-source.md") if "TargetContract" in block.text]
    (tmp_path / "test_shelf.py").write_text(example.text, encoding="utf-8")

    told = run_python("-m", "pytest", "-q", "-p", "no:cacheprovider", "test_shelf.py", cwd=tmp_path)

    assert int(re.findall(r"(\d+) passed", told)[0]) >= 15


class Terminal:
    """A newcomer's terminal: what is exported stays, and the id of the last run is at hand."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder / "checkout"
        self.folder.mkdir()
        tools = folder / "bin"
        tools.mkdir()
        # as pip installs it: the current folder is not among the places where Python looks for modules
        self._add_tool(
            tools / "sync-pipelines", f"#!{sys.executable}\nfrom sync_pipelines.cli.app import main\nmain()\n"
        )
        self._add_tool(tools / "python", f'#!/bin/sh\nexec {shlex.quote(sys.executable)} "$@"\n')
        self._environment = {"PATH": f"{tools}{os.pathsep}{os.environ['PATH']}", "PYTHONPATH": str(REPOSITORY)}
        self._exports = ""
        self._last_run = ""

    def _add_tool(self, path: Path, text: str) -> None:
        path.write_text(text, encoding="utf-8")
        path.chmod(path.stat().st_mode | stat.S_IXUSR)

    def write(self, block: Block) -> None:
        (self.folder / block.title).write_text(block.text, encoding="utf-8")

    def run(self, block: Block) -> str:
        """Runs a block and gives what it prints, times and ids apart."""
        typed = re.sub(r"(?<=show )[0-9a-f]{8}", self._last_run, block.text)
        done = run_child(
            ["bash", "-euc", self._exports + typed], cwd=self.folder, env=self._environment, stderr=subprocess.STDOUT
        )
        assert done.returncode == 0, f"{typed}\n{done.stdout}"
        self._exports += "".join(re.findall(r"^export .*\n", block.text, re.MULTILINE))
        for run_id in re.findall(r"sync-pipelines show ([0-9a-f]{8})", done.stdout):
            self._last_run = run_id
        return without_times(done.stdout)

    @property
    def exported(self) -> dict[str, str]:
        return dict(re.findall(r"^export (\w+)=(.*)$", self._exports, re.MULTILINE))


def without_times(text: str) -> str:
    return re.sub(r"\bin \d+\.\d s", "in # s", re.sub(r"\bshow [0-9a-f]{8}", "show #", text))


def test_the_tutorial_works_as_it_is_typed(tmp_path: Path) -> None:
    """Every file is written, every command is run, and prints what the page says that it prints."""
    terminal, printed, compared = Terminal(tmp_path), "", 0
    for block in blocks_of("tutorial.md"):
        if block.title:
            terminal.write(block)
        elif block.kind == "bash":
            printed = terminal.run(block)
        elif block.kind == "text":
            missing = [line for line in without_times(block.text).splitlines() if line not in printed]
            assert missing == [], printed
            compared += 1
        else:
            assert block.kind == "console", block
    assert compared >= 5

    names = "[each.name for each in (*defs.schedules, *defs.sensors)]"
    loaded = f"from sync_pipelines.definitions import defs; print({names})"
    found = run_child(
        [sys.executable, "-W", "ignore", "-c", loaded],
        cwd=terminal.folder,
        env={"PATH": os.environ["PATH"], "PYTHONPATH": str(REPOSITORY), **terminal.exported},
        check=True,
    ).stdout
    assert "warehouse_stock_every_hour" in found, "what `make dev` loads has the schedule that the page names"


def test_what_the_tutorial_leaves_to_the_reader_is_little_and_exists() -> None:
    """Commands that wait for a person, or for an address; the demo itself has end-to-end tests."""
    lines = [line for block in blocks_of("tutorial.md") if block.kind == "console" for line in block.text.splitlines()]

    allowed = re.compile(r"git clone ADDRESS|cd |make (demo|dev)$|\. \.venv/bin/activate$|sync-pipelines trigger ")
    assert [line for line in lines if not allowed.match(line)] == []
