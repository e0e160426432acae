"""Which sync jobs there are: those in files of the jobs packages, and those registered by hand."""

from __future__ import annotations

import itertools
import sys
import textwrap
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from sync_pipelines.delivery.single_items import trigger_item
from sync_pipelines.delivery.webhook_app import webhook_app
from sync_pipelines.engine.changes import Delete, Ignore, Refetch, Upsert
from sync_pipelines.engine.declaration import SyncJob
from sync_pipelines.engine.intervals import sync_intervals
from sync_pipelines.engine.webhook_signatures import Unsigned
from sync_pipelines.engine.webhooks import Webhook
from sync_pipelines.errors import ConfigurationError, ItemError
from sync_pipelines.registry import registry
from sync_pipelines.registry.registry import find_job, find_jobs, register_sync_job, schedule_sync_job
from sync_pipelines.runner.context.workspace import open_workspace
from sync_pipelines.settings.model import Settings

_numbers = itertools.count()

JOB_FILE = """
from sync_pipelines.engine.declaration import SyncJob

def nothing(*_):
    return None

JOB = SyncJob(
    name="{name}", fetch_external=list, get_external_id="sku", find_local=nothing, create=nothing, update=nothing
    {more}
)
"""


def job(name: str, **fields: Any) -> SyncJob[Any, Any]:
    def nothing(*_: Any) -> None:
        return None

    given = {"fetch_external": list, "get_external_id": "sku", "find_local": nothing, "create": nothing}
    return SyncJob(**{"name": name, **given, "update": nothing, **fields})


def job_file(name: str, more: str = "") -> str:
    return JOB_FILE.format(name=name, more=f", {more}" if more else "")


@pytest.fixture(autouse=True)
def nothing_recorded(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each test begins with an empty registry."""
    monkeypatch.setattr(registry, "_recorded", registry.Registry())


@pytest.fixture
def package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[..., str]]:
    """Makes an importable package of files and gives its name."""
    monkeypatch.syspath_prepend(str(tmp_path))
    made: list[str] = []

    def make(**files: str) -> str:
        name = f"jobs_of_test_{next(_numbers)}"
        folder = tmp_path / name
        folder.mkdir()
        for module, text in {"__init__": "", **files}.items():
            (folder / f"{module}.py").write_text(textwrap.dedent(text))
        made.append(name)
        return name

    yield make
    for module in [each for each in sys.modules if each.partition(".")[0] in made]:
        del sys.modules[module]


def test_a_file_is_registered_by_being_there(package: Callable[..., str]) -> None:
    name = package(stock=job_file("erp-stock"), prices=job_file("erp-prices"))
    assert list(find_jobs([name])) == ["erp-prices", "erp-stock"]


def test_a_file_may_hold_several_jobs_or_none_and_names_do_not_matter(package: Callable[..., str]) -> None:
    several = job_file("one") + job_file("two").replace("JOB =", "ANOTHER =") + "\nALSO = ANOTHER\n"
    assert list(find_jobs([package(several=several, none="X = 1")])) == ["one", "two"]


def test_private_modules_are_left_alone(package: Callable[..., str]) -> None:
    name = package(stock=job_file("erp-stock"), _shared="raise RuntimeError('never imported')")
    assert list(find_jobs([name])) == ["erp-stock"]


def test_a_job_that_another_file_imports_is_the_same_job(package: Callable[..., str]) -> None:
    name = package(stock=job_file("erp-stock"))
    folder = Path(sys.path[0]) / name
    (folder / "zz_report.py").write_text(f"from {name}.stock import JOB\n")
    assert list(find_jobs([name])) == ["erp-stock"]


def test_several_packages_and_single_modules_are_searched(package: Callable[..., str]) -> None:
    first, second = package(stock=job_file("erp-stock")), package(mail=job_file("crm-mail"))
    assert list(find_jobs([first, second])) == ["crm-mail", "erp-stock"]
    assert list(find_jobs([f"{first}.stock"])) == ["erp-stock"]


def test_the_setting_names_the_packages(package: Callable[..., str], monkeypatch: pytest.MonkeyPatch) -> None:
    first, second = package(stock=job_file("erp-stock")), package(mail=job_file("crm-mail"))
    monkeypatch.setenv("SYNC_PIPELINES_JOBS", f"{first}, {second},")
    assert list(find_jobs()) == ["crm-mail", "erp-stock"]


def test_two_jobs_of_one_name_are_refused_with_the_file(package: Callable[..., str]) -> None:
    name = package(a=job_file("erp-stock"), b=job_file("erp-stock"))
    with pytest.raises(ConfigurationError, match=rf"{name}\.b: another sync job is named 'erp-stock' already"):
        find_jobs([name])


def test_two_jobs_that_dagster_could_not_tell_apart_are_refused(package: Callable[..., str]) -> None:
    name = package(a=job_file("erp-stock"), b=job_file("erp_stock"))
    with pytest.raises(ConfigurationError, match="'erp-stock' and 'erp_stock' have the same name in Dagster"):
        find_jobs([name])


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("import nowhere_to_be_found", "ModuleNotFoundError: No module named 'nowhere_to_be_found'"),
        ("def broken(:", "SyntaxError"),
        ("raise RuntimeError('password=hunter22')", r"RuntimeError: password=\*\*\*"),
        ("1 / 0", "ZeroDivisionError: division by zero"),
    ],
)
def test_a_file_that_breaks_is_named_with_what_it_raised(package: Callable[..., str], text: str, told: str) -> None:
    name = package(broken=text)
    with pytest.raises(ConfigurationError, match=rf"the jobs module {name}\.broken can't be imported: {told}"):
        find_jobs([name])


def test_a_wrong_declaration_in_a_file_names_file_job_and_field(package: Callable[..., str]) -> None:
    name = package(stock=job_file("erp-stock", "on_compleet=nothing"))
    with pytest.raises(ConfigurationError, match=rf"{name}\.stock: sync job 'erp-stock': .*'on_complete'"):
        find_jobs([name])


def test_a_package_that_is_not_there_is_named() -> None:
    with pytest.raises(ConfigurationError, match="the jobs module no_such_package can't be imported"):
        find_jobs(["no_such_package"])


def test_a_job_may_be_registered_by_hand_also_twice() -> None:
    mine = job("by-hand")
    register_sync_job(mine)
    register_sync_job(mine)
    assert find_jobs([]) == {"by-hand": mine}
    with pytest.raises(ConfigurationError, match="another sync job is named 'by-hand'"):
        register_sync_job(job("by-hand"))


def test_only_jobs_can_be_registered() -> None:
    with pytest.raises(ConfigurationError, match="'erp-stock' is no SyncJob"):
        register_sync_job("erp-stock")  # type: ignore[arg-type]


def test_a_job_registered_by_hand_and_found_in_a_file_is_one_job(package: Callable[..., str]) -> None:
    text = job_file("erp-stock") + "\nfrom sync_pipelines.registry.registry import register_sync_job\n"
    name = package(stock=text + "register_sync_job(JOB)\n")
    assert list(find_jobs([name])) == ["erp-stock"]


def test_a_schedule_may_be_attached_before_or_after_the_job_is_known() -> None:
    schedule_sync_job("late", sync_intervals.hours(1))
    register_sync_job(job("late"))
    register_sync_job(job("early"))
    schedule_sync_job("early", "0 4 * * *")
    jobs = find_jobs([])
    assert jobs["late"].interval == sync_intervals.hours(1)
    assert jobs["early"].interval is not None


def test_the_same_schedule_twice_is_fine_and_another_one_is_refused() -> None:
    register_sync_job(job("stock", schedule=sync_intervals.hours(1)))
    schedule_sync_job("stock", sync_intervals.hours(1))
    schedule_sync_job("stock", sync_intervals.hours(1))
    assert find_jobs([])["stock"].interval == sync_intervals.hours(1)
    with pytest.raises(ConfigurationError, match="'stock' is scheduled twice"):
        schedule_sync_job("stock", sync_intervals.hours(2))


def test_a_schedule_that_contradicts_the_declaration_is_refused() -> None:
    register_sync_job(job("stock", schedule=sync_intervals.hours(1)))
    schedule_sync_job("stock", sync_intervals.days(1))
    with pytest.raises(ConfigurationError, match="sync job 'stock' is scheduled twice"):
        find_jobs([])


def test_a_schedule_for_nobody_names_those_there_are() -> None:
    register_sync_job(job("stock"))
    schedule_sync_job("stokc", sync_intervals.hours(1))
    with pytest.raises(ConfigurationError, match="no sync job 'stokc'; there are: stock"):
        find_jobs([])


def test_an_interval_that_makes_no_sense_is_refused_at_once() -> None:
    with pytest.raises(ConfigurationError):
        schedule_sync_job("stock", "now and then")


def test_the_shipped_jobs_are_found() -> None:
    assert {"erp-inventory", "erp-products"} <= set(find_jobs(["sync_pipelines.jobs"]))


class TestSingleItems:
    @pytest.fixture
    def settings(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, package: Callable[..., str]) -> Settings:
        monkeypatch.setenv("SYNC_PIPELINES_JOBS", package(stock=job_file("erp-stock")))
        return Settings(data_dir=tmp_path / "data", database_url=None, ledger_url=None)

    def test_an_item_is_stored_for_the_next_drain(self, settings: Settings) -> None:
        numbers = [trigger_item("erp-stock", {"sku": sku}, settings=settings) for sku in ("A", "B")]
        with open_workspace(settings) as workspace:
            waiting = workspace.inbox.oldest_waiting("erp-stock", 10)
        assert [(each.id, each.item) for each in waiting] == list(
            zip(numbers, ['{"sku":"A"}', '{"sku":"B"}'], strict=True)
        )

    def test_an_unknown_job_names_those_there_are(self, settings: Settings) -> None:
        with pytest.raises(ConfigurationError, match="there is no sync job 'erp-stokc'; there are: erp-stock"):
            trigger_item("erp-stokc", {"sku": "A"}, settings=settings)
        with pytest.raises(ConfigurationError, match="there is no sync job ''"):
            find_job("")

    @pytest.mark.parametrize(
        ("item", "told"),
        [
            ({"sku": None}, "no external id"),
            ({"ean": "A"}, "no field 'sku'; it has: ean"),
            ({"sku": "A", "x": object()}, r"field 'x' holds a builtins\.object"),
            ("A", "no field 'sku'"),
            (None, "no field 'sku'"),
        ],
    )
    def test_a_bad_item_is_refused_and_not_stored(self, settings: Settings, item: Any, told: str) -> None:
        with pytest.raises(ItemError, match=told):
            trigger_item("erp-stock", item, settings=settings)
        with open_workspace(settings) as workspace:
            assert workspace.inbox.count("erp-stock") == 0

    def test_whatever_get_external_id_raises_is_the_fault_of_the_item(self, settings: Settings) -> None:
        register_sync_job(job("by-hand", get_external_id=lambda item: item["no"]["such"]))
        with pytest.raises(ItemError, match="KeyError: 'no'") as caught:
            trigger_item("by-hand", {"sku": "A"}, settings=settings)
        assert isinstance(caught.value.__cause__, KeyError)

    def test_a_delete_and_an_upsert_may_be_said_to_be_so(self, settings: Settings) -> None:
        numbers = [trigger_item("erp-stock", each, settings=settings) for each in (Delete("A"), Upsert({"sku": "B"}))]
        with open_workspace(settings) as workspace:
            waiting = workspace.inbox.oldest_waiting("erp-stock", 10)
        assert [(each.id, each.kind, each.external_id, each.item) for each in waiting] == [
            (numbers[0], "delete", "A", None),
            (numbers[1], "upsert", "B", '{"sku":"B"}'),
        ]

    def test_a_named_delivery_is_stored_once(self, settings: Settings) -> None:
        numbers = {trigger_item("erp-stock", {"sku": "A"}, delivery_id="e-1", settings=settings) for _ in range(2)}
        assert len(numbers) == 1

    def test_a_refetch_needs_a_job_that_can(self, settings: Settings) -> None:
        with pytest.raises(ConfigurationError, match=r"'erp-stock': Refetch.* needs a fetch_one"):
            trigger_item("erp-stock", Refetch("A"), settings=settings)
        with pytest.raises(ItemError, match="nothing to store"):
            trigger_item("erp-stock", Ignore(), settings=settings)
        with pytest.raises(ItemError, match="empty"):
            trigger_item("erp-stock", Delete(""), settings=settings)


class TestWebhookApp:
    @pytest.fixture
    def settings(self, tmp_path: Path, package: Callable[..., str]) -> Settings:
        return Settings(data_dir=tmp_path / "data", database_url=None, ledger_url=None, jobs=(package(),))

    def test_it_serves_the_webhooks_of_all_jobs(self, settings: Settings) -> None:
        register_sync_job(job("by-hand", webhook=Webhook(signature=Unsigned())))
        app = webhook_app(settings=settings)
        assert callable(app)
        app.close()

    def test_without_any_webhook_it_says_so(self, settings: Settings) -> None:
        with pytest.raises(ConfigurationError, match="no sync job has a webhook"):
            webhook_app(settings=settings)


def test_of_many_jobs_the_error_names_some_and_counts_the_others() -> None:
    for number in range(1, 31):
        register_sync_job(job(f"sync-{number:02}"))
    with pytest.raises(ConfigurationError, match=r"there are: erp-.*sync-\d\d and \d+ more: sync-pipelines list$"):
        find_job("nobody")


def test_a_job_in_place_of_its_name_is_told_so() -> None:
    with pytest.raises(ConfigurationError, match="'stock' is asked for by the SyncJob itself; give its name: 'stock'"):
        trigger_item(job("stock"), {"sku": "A"})  # type: ignore[arg-type]  # as a user might
