"""Each kind of source in YAML is the source that Python makes of the same options, and no option is missing."""

from __future__ import annotations

import dataclasses
import inspect
from collections.abc import Callable
from datetime import date, datetime
from decimal import Decimal
from typing import Any

import pytest
from pydantic import SecretStr

from sync_pipelines import (
    AnswerHeader,
    ApiKeyAuth,
    BasicAuth,
    BearerAuth,
    CursorPaging,
    Guards,
    LinkHeaderPaging,
    NextUrlPaging,
    OAuthClientCredentials,
    OffsetPaging,
    PageNumberPaging,
    RestSource,
    Retry,
    SoftDelete,
    SqlTable,
    SyncJob,
    csv_file,
    dlt_resource,
    json_lines,
    parquet_file,
    sql_query,
)
from sync_pipelines.component import declaration, rest, sources
from sync_pipelines.component.sources import truth_value
from sync_pipelines_tests.component.projects import plain, sync_with

REST = "https://erp.example.com/stock"

SOURCES: dict[str, tuple[str, Any]] = {
    "rest, as little as can be": (f"rest: {{url: {REST}}}", RestSource(REST)),
    "rest, all options": (
        f"""
        rest:
          url: {REST}
          items_path: [data, items]
          parameters: {{updated: true, limit: 5, warehouse: north}}
          headers: {{Accept-Language: de}}
          total_path: {{header: X-Total-Count}}
          decimals: false
          null_is_empty: true
          timeout_s: 5
          attempts: 2
          longest_wait_s: 1.5
          max_pages: 10
        """,
        RestSource(
            REST,
            items_path=["data", "items"],
            parameters={"updated": True, "limit": 5, "warehouse": "north"},
            headers={"Accept-Language": "de"},
            total_path=AnswerHeader("X-Total-Count"),
            decimals=False,
            null_is_empty=True,
            timeout_s=5,
            attempts=2,
            longest_wait_s=1.5,
            max_pages=10,
        ),
    ),
    "rest without a total": (f"rest: {{url: {REST}, total_path: false}}", RestSource(REST, total_path=False)),
    "sql": (
        """
        sql:
          query: SELECT sku FROM stock WHERE warehouse = :warehouse
          database: postgresql://reader@erp/stock
          parameters: {warehouse: 7}
          page_size: 50
        """,
        sql_query(
            "SELECT sku FROM stock WHERE warehouse = :warehouse",
            database="postgresql://reader@erp/stock",
            parameters={"warehouse": 7},
            page_size=50,
        ),
    ),
    "csv, as little as can be": ("csv: {path: stock.csv}", csv_file("stock.csv")),
    "csv, all options": (
        """
        csv:
          path: stock.csv
          columns:
            a: text
            b: integer
            c: decimal
            d: float
            e: boolean
            f: date
            g: datetime
            h: statistics.mean
          empty_as_none: true
          delimiter: ";"
          quotechar: null
          encoding: cp1252
          line_break_at_end: true
          page_size: 7
          max_field_chars: 100
        """,
        csv_file(
            "stock.csv",
            columns={
                "a": str,
                "b": int,
                "c": Decimal,
                "d": float,
                "e": truth_value,
                "f": date.fromisoformat,
                "g": datetime.fromisoformat,
                "h": __import__("statistics").mean,
            },
            empty_as_none=True,
            delimiter=";",
            quotechar=None,
            encoding="cp1252",
            line_break_at_end=True,
            page_size=7,
            max_field_chars=100,
        ),
    ),
    "parquet": (
        "parquet: {path: stock.parquet, columns: [sku, quantity], page_size: 7}",
        parquet_file("stock.parquet", columns=["sku", "quantity"], page_size=7),
    ),
    "json lines": (
        "json_lines: {path: stock.jsonl.gz, encoding: latin-1, decimals: false, page_size: 7}",
        json_lines("stock.jsonl.gz", encoding="latin-1", decimals=False, page_size=7),
    ),
    "dlt": ("dlt: {resource: builtins.list, page_size: 7}", dlt_resource(list, page_size=7)),
    "a function": ("function: builtins.list", list),
}

AUTHS = {
    "bearer: {token: ERP_TOKEN}": BearerAuth("ERP_TOKEN"),
    "basic: {user: reader, password: ERP_PASSWORD}": BasicAuth("reader", "ERP_PASSWORD"),
    "api_key: {key: ERP_KEY, header: X-Key, parameter: key}": ApiKeyAuth("ERP_KEY", header="X-Key", parameter="key"),
    "oauth_client_credentials: {token_url: 'https://erp/token', client_id: us, client_secret: ERP_SECRET, "
    "scope: [read, list], secret_place: body, parameters: {audience: erp}}": OAuthClientCredentials(
        "https://erp/token", "us", "ERP_SECRET", ["read", "list"], "body", {"audience": "erp"}
    ),
}

PAGINGS = {
    "{page_number: {parameter: p, first_page: 0, size_parameter: n, size: 9, pages_path: meta.pages, "
    "end_status: [404, 416], empty_page_ends: true}}": PageNumberPaging(
        "p", 0, "n", 9, pages_path="meta.pages", end_status=[404, 416], empty_page_ends=True
    ),
    "{page_number: {more_path: {header: X-More}, end_status: 404}}": PageNumberPaging(
        more_path=AnswerHeader("X-More"), end_status=404
    ),
    "{offset: {limit: 9, parameter: o, limit_parameter: l, total_path: total, empty_page_ends: true}}": OffsetPaging(
        9, "o", "l", total_path="total", empty_page_ends=True
    ),
    "offset": OffsetPaging(),
    "{cursor: {path: [meta, next.cursor], parameter: after, more_path: meta.more}}": CursorPaging(
        ["meta", "next.cursor"], "after", "meta.more"
    ),
    "{next_url: {path: links.next}}": NextUrlPaging("links.next"),
    "next_url": NextUrlPaging(),
    "link_header": LinkHeaderPaging(),
    "{link_header: }": LinkHeaderPaging(),
}


@pytest.mark.parametrize("kind", SOURCES)
def test_a_source_is_what_python_makes_of_the_same_options(kind: str) -> None:
    yaml, expected = SOURCES[kind]

    assert plain(sync_with(inspect.cleandoc(yaml)).fetch_external) == plain(expected)


@pytest.mark.parametrize("yaml", AUTHS)
def test_an_authentication_is_what_python_makes_of_it(yaml: str) -> None:
    job = sync_with(f"rest: {{url: {REST}, auth: {{{yaml}}}}}")

    assert plain(job.fetch_external) == plain(RestSource(REST, auth=AUTHS[yaml]))


@pytest.mark.parametrize("yaml", PAGINGS)
def test_a_paging_is_what_python_makes_of_it(yaml: str) -> None:
    job = sync_with(f"rest: {{url: {REST}, paging: {yaml}}}")

    assert plain(job.fetch_external) == plain(RestSource(REST, paging=PAGINGS[yaml]))


def rows_of(source: Any) -> list[Any]:
    return [row for page in source() for row in page]


def test_a_dlt_resource_is_made_anew_at_each_fetch_with_its_arguments() -> None:
    place = "sync_pipelines_tests.component.dlt_shop"

    made = sync_with(f"dlt: {{resource: {place}.articles, arguments: {{count: 2}}}}").fetch_external
    selected = sync_with(f"dlt: {{resource: {place}.shop, with_resources: orders}}").fetch_external

    assert rows_of(made) == rows_of(made) == [{"sku": "A-0"}, {"sku": "A-1"}]
    assert rows_of(selected) == [{"order": 1}]


def test_truth_values_are_few() -> None:
    assert [truth_value(text) for text in ("true", "TRUE", "1", "false", "0")] == [True, True, True, False, False]
    with pytest.raises(ValueError, match="'yes' is neither true nor false"):
        truth_value("yes")


# No option is missing, and none has another default

SAME_OPTIONS: list[tuple[Any, Callable[..., Any], set[str]]] = [
    (rest.RestDeclaration, RestSource, {"transport"}),  # for tests
    (rest.BearerDeclaration, BearerAuth, set()),
    (rest.BasicDeclaration, BasicAuth, set()),
    (rest.ApiKeyDeclaration, ApiKeyAuth, set()),
    (rest.OAuthDeclaration, OAuthClientCredentials, set()),
    (rest.PageNumberDeclaration, PageNumberPaging, set()),
    (rest.OffsetDeclaration, OffsetPaging, set()),
    (rest.CursorDeclaration, CursorPaging, set()),
    (rest.NextUrlDeclaration, NextUrlPaging, set()),
    (rest.LinkHeaderDeclaration, LinkHeaderPaging, set()),
    (sources.SqlDeclaration, sql_query, set()),
    (sources.CsvDeclaration, csv_file, set()),
    (sources.ParquetDeclaration, parquet_file, set()),
    (sources.JsonLinesDeclaration, json_lines, set()),
    (sources.DltDeclaration, dlt_resource, set()),
    (declaration.TargetDeclaration, SqlTable, set()),
    (declaration.SoftDeleteDeclaration, SoftDelete, set()),
    (declaration.GuardsDeclaration, Guards, set()),
    (declaration.RetryDeclaration, Retry, set()),
    (
        declaration.SyncDeclaration,
        SyncJob,
        {
            "fetch_external",  # is called `source`
            "webhook",  # the receiver reads job files, and no YAML
            # what a target does
            *("find_local", "create", "update", "delete", "list_local", "has_changed"),
        },
    ),
]
ONLY_IN_YAML = {"arguments", "with_resources", "job", "source"}
PLAIN = (int, float, str, bool)


@pytest.mark.parametrize(("declared", "python", "left_out"), SAME_OPTIONS)
def test_yaml_has_every_option_of_python(declared: Any, python: Callable[..., Any], left_out: set[str]) -> None:
    parameters = {
        name: each
        for name, each in inspect.signature(python).parameters.items()
        if each.kind not in (each.VAR_KEYWORD, each.VAR_POSITIONAL)
    }
    if dataclasses.is_dataclass(python):  # SyncJob takes its fields by __new__
        parameters = dict(inspect.signature(python.__init__).parameters)  # type: ignore[misc]
        parameters.pop("self")

    assert set(declared.model_fields) - ONLY_IN_YAML == set(parameters) - left_out
    shown = {name: field.default for name, field in declared.model_fields.items() if isinstance(field.default, PLAIN)}
    assert shown == {name: parameters[name].default for name in shown}


def test_a_secret_out_of_a_template_of_ones_own_is_a_secret() -> None:
    job = sync_with(f"rest: {{url: {REST}, auth: {{bearer: {{token: \"{{{{ 'sesame' }}}}\"}}}}}}")

    assert plain(job.fetch_external.auth) == plain(BearerAuth(SecretStr("sesame")))
