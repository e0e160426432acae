"""What a wrong `SyncJob` says when it is declared, and what a right one offers."""

from __future__ import annotations

import dataclasses
import re
from datetime import timedelta
from decimal import Decimal
from enum import StrEnum
from functools import wraps
from types import SimpleNamespace
from typing import Any
from uuid import UUID

import pytest

from sync_pipelines.engine.declaration import SyncJob
from sync_pipelines.engine.declaration_checks import require_callable_as_declared
from sync_pipelines.engine.external_ids import checked_external_id
from sync_pipelines.engine.guards import Guards
from sync_pipelines.engine.intervals import sync_intervals
from sync_pipelines.engine.retry import Retry
from sync_pipelines.errors import ConfigurationError, ItemError


def nothing(*_: Any) -> None:
    return None


RIGHT: dict[str, Any] = {
    "name": "erp-inventory",
    "fetch_external": list,
    "get_external_id": "sku",
    "find_local": nothing,
    "create": nothing,
    "update": nothing,
}
PER_RECORD = SimpleNamespace(find_local=nothing, create=nothing, update=nothing)
MARKING = SimpleNamespace(**vars(PER_RECORD), delete=nothing, list_local=list, is_marked=nothing)
IN_ITS_PLACE = {"find_local": None, "create": None, "update": None}


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("name", "Erp Inventory"),
        ("name", ""),
        ("name", "erp--inventory"),
        ("name", "-erp"),
        ("name", "7erp"),
        ("name", "größe"),
        ("name", "erp\n"),
        ("name", None),
        ("name", ["erp"]),
        ("fetch_external", [1, 2]),
        ("guards", 0.2),
        ("guards", {"max_deletes": 1}),
        ("guards", Guards(max_update_share=0.5)),  # without has_changed every found record is updated
        ("retry", 6),
        ("retry", Retry(attempts=0)),
        ("retry", Retry(attempts=101)),
        ("retry", Retry(attempts=True)),
        ("retry", Retry(first_wait_s=0)),
        ("retry", Retry(first_wait_s=float("nan"))),
        ("retry", Retry(first_wait_s="60")),  # type: ignore[arg-type]
        ("fail_above", -1),
        ("fail_above", 1.5),
        ("fail_above", True),
        ("fail_above", "5%"),
        ("fail_above", float("nan")),
        ("fresh_within", 3600),
        ("fresh_within", timedelta(0)),
        ("fetch_external", None),
        ("fetch_external", (each for each in ())),
        ("get_external_id", None),
        ("get_external_id", ""),
        ("get_external_id", 5),
        ("find_local", "find"),
        ("find_local", None),
        ("create", None),
        ("create", 1),
        ("update", None),
        ("update", {}),
        ("delete", "yes"),
        ("list_local", ["A"]),
        ("concurrency", 0),
        ("concurrency", 1_001),
        ("concurrency", 2.0),
        ("concurrency", True),
        ("concurrency", None),
        ("max_calls_per_s", 0),
        ("max_calls_per_s", -1.5),
        ("max_calls_per_s", True),
        ("max_calls_per_s", float("nan")),
        ("max_calls_per_s", float("inf")),
        ("max_calls_per_s", "10"),
        ("should_skip", True),
        ("has_changed", False),
        ("on_start", "start"),
        ("on_complete", "done"),
        ("deletes", "soften"),
        ("deletes", "soft"),
        ("deletes", True),
        ("deletes", ["hard"]),
        ("delete_after", 0),
        ("delete_after", 2),  # without deletes
        ("delete_after", 1_001),
        ("delete_after", True),
        ("delete_after", 2.0),
        ("delete_after", None),
        ("schedule", "every hour"),
        ("schedule", 5),
        ("asset_key", "shop variants"),
        ("asset_key", ""),
        ("asset_key", 5),
        ("source_asset", "erp//stock"),
        ("group", "my group"),
        ("group", None),
        ("owners", "me@example.com"),
        ("owners", 5),
        ("owners", None),
        ("owners", ["somebody"]),
        ("owners", [5]),
        ("kinds", "tryton"),
        ("kinds", ("a", "b", "c", "d")),
        ("kinds", [""]),
        ("kinds", ["two words"]),
        ("description", None),
        ("tags", ["a"]),
        ("tags", {"a": 1}),
        ("tags", {"two words": "x"}),
        ("tags", {"a": "two words"}),
        ("tags", None),
        ("upstream", "warehouse/products"),
        ("upstream", None),
        ("upstream", [5]),
        ("upstream", ["warehouse//products"]),
        ("upstream", ["warehouse/two words"]),
        ("upstream", ["sync/erp_inventory"]),  # its own
        ("upstream", ["sources/erp_inventory"]),  # its source
        ("upstream", ["warehouse/products", "warehouse/products"]),
        ("automation", "eager"),  # after nothing
        ("automation", "hourly"),
        ("automation", 5),
        ("run_tags", ["a"]),
        ("run_tags", None),
        ("run_tags", {"two words": "x"}),
        ("run_tags", {5: "x"}),
        ("run_tags", {"sync": "other"}),
        ("run_tags", {"sync/kind": "full"}),
        ("run_tags", {"a": object()}),
        ("run_tags", {"a": float("nan")}),
        ("op_tags", "small"),
        ("op_tags", {"kind": "fetch"}),
        ("op_tags", {"a": {1: "x"}}),
    ],
)
def test_a_wrong_field_is_named_with_its_job(field: str, value: Any) -> None:
    with pytest.raises(ConfigurationError) as caught:
        SyncJob(**{**RIGHT, field: value})
    message = str(caught.value)
    assert re.match(rf"sync job '.*': {field}: ", message, re.DOTALL) or (field == "name" and value is None)
    assert field in message
    assert field == "name" or "'erp-inventory'" in message


@pytest.mark.parametrize(
    ("fields", "named"),
    [
        ({"target": PER_RECORD}, "find_local"),
        ({"target": PER_RECORD, **IN_ITS_PLACE, "delete": nothing}, "delete"),
        ({"target": PER_RECORD, **IN_ITS_PLACE, "list_local": list}, "list_local"),
        ({"target": object(), **IN_ITS_PLACE}, "target"),
        ({"target": SimpleNamespace(find_local=nothing, create=nothing), **IN_ITS_PLACE}, "target"),
        ({"target": PER_RECORD, **IN_ITS_PLACE, "get_external_id": None}, "get_external_id"),
        ({"target": PER_RECORD, **IN_ITS_PLACE, "deletes": "hard"}, "deletes"),
        ({"target": MARKING, **IN_ITS_PLACE, "deletes": "hard"}, "deletes"),
        ({"target": PER_RECORD, **IN_ITS_PLACE, "deletes": "soft"}, "deletes"),
        ({"deletes": "hard"}, "delete"),
        ({"deletes": "hard", "delete": nothing}, "list_local"),
    ],
)
def test_fields_that_do_not_go_together_are_named(fields: dict[str, Any], named: str) -> None:
    with pytest.raises(ConfigurationError, match=f"sync job 'erp-inventory': {named}: "):
        SyncJob(**{**RIGHT, **fields})


@pytest.mark.parametrize(
    ("misspelt", "hint"),
    [
        ("fetch_externl", "did you mean 'fetch_external'"),
        ("on_completed", "did you mean 'on_complete'"),
        ("xyz", "the fields are: name, "),
    ],
)
def test_a_misspelt_field_gets_a_hint(misspelt: str, hint: str) -> None:
    with pytest.raises(ConfigurationError, match=f"'erp-inventory': there is no field '{misspelt}'; {hint}"):
        SyncJob(**{**RIGHT, misspelt: nothing})


@pytest.mark.parametrize("field", ["name", "fetch_external"])
def test_a_missing_field_is_named(field: str) -> None:
    given = {name: value for name, value in RIGHT.items() if name != field}
    with pytest.raises(ConfigurationError, match=f"the field '{field}' is missing"):
        SyncJob(**given)


def test_positional_arguments_are_refused_with_the_form_that_works() -> None:
    with pytest.raises(ConfigurationError, match="keyword arguments only"):
        SyncJob("erp-inventory", list)  # type: ignore[misc]


def test_a_declaration_may_name_its_types() -> None:
    """`SyncJob[Item, Local](...)` is a job like any other; a frozen generic dataclass stumbles here on Python 3.11."""
    job = SyncJob[dict[str, Any], dict[str, Any]](**RIGHT)
    assert isinstance(job, SyncJob)
    assert job.name == "erp-inventory"
    with pytest.raises(ConfigurationError, match="no field 'nmae'"):
        SyncJob[dict[str, Any], dict[str, Any]](**{**RIGHT, "nmae": "x"})


def test_a_schedule_and_an_automation_exclude_each_other() -> None:
    automated: dict[str, Any] = {**RIGHT, "upstream": ["warehouse/products"], "automation": "on_change"}
    assert SyncJob(**automated).automation == "on_change"

    with pytest.raises(ConfigurationError, match=r"automation: a job has a schedule or an automation, not both"):
        SyncJob(**automated, schedule="0 * * * *")
    with pytest.raises(ConfigurationError, match=r"automation: a job has a schedule or an automation, not both"):
        SyncJob(**automated).scheduled(sync_intervals.hours(1))


def test_the_value_of_a_wrong_run_tag_is_not_shown() -> None:
    with pytest.raises(ConfigurationError) as caught:
        SyncJob(**RIGHT, run_tags={"team/config": {"password": {"hunter2"}}})
    assert "hunter2" not in str(caught.value)


def test_upstreams_may_have_the_names_that_other_tools_give() -> None:
    SyncJob(**RIGHT, upstream=["stg_orders", "dbt__raw/orders-2024.v1"], run_tags={"dagster-k8s/config": {"a": [1]}})


def test_a_declaration_cannot_be_changed_but_copied() -> None:
    job = SyncJob(**RIGHT)
    with pytest.raises(dataclasses.FrozenInstanceError):
        job.name = "other"  # type: ignore[misc]
    copy = dataclasses.replace(job, schedule=sync_intervals.hours(1))
    assert (copy.name, copy.interval) == (job.name, sync_intervals.hours(1))
    assert len({job, copy}) == 2


def test_a_target_alone_is_enough_if_it_knows_its_key() -> None:
    target = SimpleNamespace(find_local=nothing, create=nothing, update=nothing, external_id=lambda item: item["sku"])
    job = SyncJob(name="stock", fetch_external=list, target=target)
    assert job.identify({"sku": "A"}) == "A"


def test_deletes_with_a_target_that_can_delete_and_list_are_right() -> None:
    target = SimpleNamespace(**vars(PER_RECORD), delete_many=nothing, list_local=list)
    assert SyncJob(**{**RIGHT, **IN_ITS_PLACE, "target": target, "deletes": "hard"}).deletes == "hard"


def test_soft_deletes_with_a_target_that_marks_records_are_right() -> None:
    assert SyncJob(**{**RIGHT, **IN_ITS_PLACE, "target": MARKING, "deletes": "soft"}).deletes == "soft"


def test_soft_deletes_by_functions_are_refused_with_what_to_do_instead() -> None:
    with pytest.raises(ConfigurationError, match=r"'soft' needs a target that marks .* write 'hard', let it mark the"):
        SyncJob(**RIGHT, deletes="soft", delete=nothing, list_local=list)


def test_everything_that_presents_a_job_may_be_given() -> None:
    job = SyncJob(
        **RIGHT,
        schedule="0 * * * *",
        asset_key="shop/variants",
        source_asset="erp/stock",
        group="shop",
        owners=["me@example.com", "team:data platform"],
        kinds=("tryton", "sqlite"),
        upstream=("warehouse/products",),
        run_tags={"dagster/priority": "3"},
        op_tags={"team/step": "small"},
        tags={"domain": "stock", "mine/level": ""},
        description="**Stock**",
    )
    assert job.dagster_name == "erp_inventory"
    assert job.interval is not None


@pytest.mark.parametrize(
    ("item", "field"),
    [({"sku": "A"}, "sku"), (SimpleNamespace(sku="A"), "sku"), ({"no-identifier": "A"}, "no-identifier")],
)
def test_the_id_may_be_a_field_of_a_mapping_or_an_object(item: Any, field: str) -> None:
    assert SyncJob(**{**RIGHT, "get_external_id": field}).identify(item) == "A"


def test_a_missing_id_field_names_those_there_are() -> None:
    with pytest.raises(ItemError, match="no field 'sku'; it has: ean, stock"):
        SyncJob(**RIGHT).identify({"ean": "A", "stock": 1})


class Colour(StrEnum):
    RED = "red"


@pytest.mark.parametrize(
    ("given", "text"),
    [
        ("A", "A"),
        (" A ", " A "),
        ("007", "007"),
        (7, "7"),
        (7.0, "7"),
        (7.5, "7.5"),
        (10**30, str(10**30)),
        (Decimal("7.10"), "7.10"),
        (UUID(int=5), "00000000-0000-0000-0000-000000000005"),
        (Colour.RED, "red"),
        ("nan", "nan"),
    ],
)
def test_an_id_becomes_text(given: Any, text: str) -> None:
    assert checked_external_id(given) == text


@pytest.mark.parametrize(
    "given", [None, "", "  ", "\t\n", float("nan"), True, False, b"A", ["A"], ("A",), {"sku": "A"}]
)
def test_what_can_be_no_id_is_refused(given: Any) -> None:
    with pytest.raises(ItemError, match="external id"):
        checked_external_id(given)


def test_what_pandas_writes_for_a_missing_id_is_refused() -> None:
    import numpy as np
    import pandas as pd

    for missing in (pd.NA, pd.NaT, np.nan, np.float64("nan")):
        with pytest.raises(ItemError, match="no external id"):
            checked_external_id(missing)
    assert checked_external_id(np.int64(7)) == "7"
    assert checked_external_id(np.float64(7.0)) == "7"
    assert checked_external_id(np.str_("A")) == "A"


def _yields(*_: Any) -> Any:
    yield


@pytest.mark.parametrize(
    ("field", "value", "problem"),
    [
        ("fetch_external", lambda page: [], "is called with no argument, which it does not take"),
        ("create", lambda: None, "is called with one argument, which it does not take"),
        ("update", lambda item: None, "is called with two arguments, which it does not take"),
        ("has_changed", lambda item: True, "is called with two arguments, which it does not take"),
        ("on_start", lambda results: None, "is called with no argument, which it does not take"),
        ("on_complete", lambda: None, "is called with one argument, which it does not take"),
        ("should_skip", _yields, "has a yield: called, it would do nothing; let it return"),
        ("on_start", _yields, "has a yield: called, it would do nothing; let it return"),
        ("create", _yields, "has a yield: called, it would do nothing; let it return"),
    ],
)
def test_a_function_that_could_never_work_is_refused(field: str, value: Any, problem: str) -> None:
    given: dict[str, Any] = {"name": "stock", "fetch_external": list, "get_external_id": "id", "find_local": str,
                             "create": str, "update": max}  # fmt: skip

    with pytest.raises(ConfigurationError) as caught:
        require_callable_as_declared(SyncJob(**given | {field: value}))

    assert str(caught.value).startswith(f"sync job 'stock': {field}: ")
    assert str(caught.value).endswith(problem)


def test_a_decorator_may_give_a_function_more_than_it_is_called_with() -> None:
    def with_client(function: Any) -> Any:
        @wraps(function)
        def called(*given: Any) -> Any:
            return function("client", *given)

        return called

    @with_client
    def create(_client: str, _item: Any) -> None:
        """Is called with the item alone."""

    job = SyncJob(name="stock", fetch_external=list, get_external_id="id", find_local=str, create=create, update=max)

    require_callable_as_declared(job)
