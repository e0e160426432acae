"""Items that were applied outside of any run show in the history of their asset."""

import pytest
from dagster import AssetKey, DagsterInstance

from sync_pipelines.engine.results import ItemResult
from sync_pipelines.orchestration.asset_events import dagster_reporter, reporter_to
from sync_pipelines_tests.orchestration.shop import Shop


def test_what_was_written_is_a_materialisation_without_a_run(shop: Shop, instance: DagsterInstance) -> None:
    reporter_to(instance)(shop.job(), ItemResult("updated", "A-1"))
    event = instance.get_latest_materialization_event(AssetKey(["shop", "stock"]))
    assert event is not None
    assert event.asset_materialization is not None
    assert event.run_id == ""
    found = {name: value.value for name, value in event.asset_materialization.metadata.items()}
    assert found == {"external id": "A-1", "action": "updated"}


@pytest.mark.parametrize("action", ["unchanged", "skipped"])
def test_what_was_not_written_is_not_told(shop: Shop, instance: DagsterInstance, action: str) -> None:
    reporter_to(instance)(shop.job(), ItemResult(action, "A-1"))
    assert instance.get_latest_materialization_event(AssetKey(["shop", "stock"])) is None


def test_without_a_dagster_there_is_nobody_to_tell(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("DAGSTER_HOME", raising=False)
    assert dagster_reporter() is None
