"""The JSON schema by which `dg check yaml` and editors know the form of the YAML."""

from __future__ import annotations

import jsonschema  # comes with dg, which the tests have
import pytest
import yaml

from sync_pipelines.component.component import SyncComponent
from sync_pipelines_tests.component.test_page import BLOCKS

SCHEMA = jsonschema.Draft202012Validator(SyncComponent.model().model_json_schema())


def test_the_declarations_of_the_page_have_the_form() -> None:
    declared = [yaml.safe_load(text) for title, text in BLOCKS.items() if title.endswith(".yaml")]
    ours = [each["attributes"] for each in declared if each["type"] == "sync_pipelines.SyncComponent"]

    assert len(ours) >= 4
    for attributes in ours:
        SCHEMA.validate(attributes)


@pytest.mark.parametrize(
    ("attributes", "path"),
    [
        ("source: {rest: {url: x, urll: y}}", ["source", "rest"]),
        ("source: {csv: {path: x, page_size: many}}", ["source", "csv", "page_size"]),
        ("source: {rest: {url: x, paging: pages}}", ["source", "rest", "paging"]),
        ("source: {csv: {path: x}, sql: {query: y}}", ["source"]),
        ("syncs: [{name: a}, {title: b}]", ["syncs", 1]),
    ],
)
def test_the_form_leads_to_what_is_wrong(attributes: str, path: list[str | int]) -> None:
    (error,) = SCHEMA.iter_errors(yaml.safe_load(attributes))

    assert list(error.path) == path


@pytest.mark.parametrize(
    "attributes",
    [
        'source: {csv: {path: x, page_size: "{{ env.SIZE }}"}}',
        'source: "{{ fetch }}"',
        "source: {rest: {url: x, paging: link_header}}",
        "deletes: off",
        "schedule: 0 5 * * *",
        "guards: null",
        "target: {table: t, key: k, soft_delete: deleted_at}",
    ],
)
def test_the_form_lets_short_forms_and_templates_pass(attributes: str) -> None:
    SCHEMA.validate(yaml.safe_load(attributes))
