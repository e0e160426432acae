"""Loads YAML as a project of `dg` does, and compares what came of it with what Python makes."""

from __future__ import annotations

import textwrap
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import fields, is_dataclass
from pathlib import Path
from typing import Any

from dagster.components.core.component_tree import ComponentTree
from dagster.components.testing import create_defs_folder_sandbox
from sqlalchemy import ClauseElement

from sync_pipelines.component.component import SyncComponent
from sync_pipelines.engine.declaration import AnyJob

CSV = "csv: {path: stock.csv}"
TARGET = "{table: stock, key: sku}"


@contextmanager
def project(folders: Mapping[str, str]) -> Iterator[tuple[ComponentTree, Path]]:
    """A project with a component in each folder; yields its components and the folder of all of them."""
    with create_defs_folder_sandbox() as sandbox:
        for folder, yaml in folders.items():
            path = sandbox.defs_folder_path / folder / "defs.yaml"
            path.parent.mkdir(parents=True)
            path.write_text(yaml, encoding="utf-8")
        with sandbox.build_component_tree() as tree:
            yield tree, sandbox.defs_folder_path


def of_type(attributes: str, kind: str = "sync_pipelines.SyncComponent") -> str:
    """A whole `defs.yaml`."""
    return f"type: {kind}\nattributes:\n{textwrap.indent(textwrap.dedent(attributes).strip(), '  ')}\n"


def jobs_of(attributes: str) -> list[AnyJob]:
    """The jobs of a component with these attributes."""
    component = SyncComponent.resolve_from_yaml(textwrap.dedent(attributes))
    return [sync.build() for sync in component.syncs]


def job_of(attributes: str) -> AnyJob:
    (job,) = jobs_of(attributes)
    return job


def sync_with(source: str = CSV, target: str = TARGET, **fields: str) -> AnyJob:
    """The job of a sync with this source, target and further fields, in YAML."""
    lines = "".join(f"\n{name}: {value}" for name, value in fields.items())
    return job_of(f"name: erp-stock\ntarget: {target}{lines}\nsource:\n{textwrap.indent(source, '  ')}")


def plain(value: Any) -> Any:
    """What a declaration holds, to be compared with another; sources and targets have no equality of their own."""
    if isinstance(value, ClauseElement):
        return str(value)
    if is_dataclass(value) and not isinstance(value, type):
        return type(value), {
            field.name: plain(getattr(value, field.name)) for field in fields(value) if field.name[0] != "_"
        }
    if isinstance(value, Mapping):
        return {name: plain(each) for name, each in value.items()}
    if isinstance(value, (list, tuple)):
        return [plain(each) for each in value]
    if hasattr(value, "get_secret_value"):
        return "a secret", value.get_secret_value()
    return value


def chain_of(error: BaseException) -> str:
    """The messages of an error and of all that it came from, as a terminal shows them."""
    parts = []
    current: BaseException | None = error
    while current is not None:
        parts.append(str(current))
        current = current.__cause__ or current.__context__
    return "\n".join(parts)
