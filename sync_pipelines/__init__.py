"""Keeps your own database in step with an ERP, a PIM or a CRM: one file per sync, everything else is done for you.

Everything a user needs is importable from here. Names are loaded on first use, so that the import stays light.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from sync_pipelines.component.component import SyncComponent
    from sync_pipelines.delivery.single_items import apply_item, trigger_item
    from sync_pipelines.delivery.webhook_app import webhook_app
    from sync_pipelines.engine.causes import Cause
    from sync_pipelines.engine.changes import Delete, Ignore, Refetch, Upsert
    from sync_pipelines.engine.completeness import tell_incomplete
    from sync_pipelines.engine.declaration import SyncJob
    from sync_pipelines.engine.guards import Guards
    from sync_pipelines.engine.history import HistoryEvent
    from sync_pipelines.engine.intervals import Interval, sync_intervals
    from sync_pipelines.engine.plan import FieldChange, PlanCounts, PlanEntry
    from sync_pipelines.engine.progress import Progress
    from sync_pipelines.engine.results import Duplicate, ItemResult, SyncError, SyncResults
    from sync_pipelines.engine.retry import Retry
    from sync_pipelines.engine.webhook_handshakes import Handshake
    from sync_pipelines.engine.webhook_signatures import BearerToken, HmacSignature, StandardWebhooks, Unsigned
    from sync_pipelines.engine.webhooks import Webhook, WebhookEvent
    from sync_pipelines.errors import (
        AccountsError,
        ConfigurationError,
        DeleteRefusedError,
        FetchError,
        HookError,
        ItemError,
        LeaseLostError,
        PlanError,
        RetryableError,
        RunError,
        StalePlanError,
        SyncBusyError,
        SyncPipelinesError,
        TargetError,
        TooManyFailedError,
        UnavailableError,
        WebhookRejectedError,
        WriteRefusedError,
    )
    from sync_pipelines.orchestration.build import sync_definitions
    from sync_pipelines.orchestration.triggers import trigger_sync
    from sync_pipelines.registry.history import record_history
    from sync_pipelines.registry.plans import apply_plan
    from sync_pipelines.registry.registry import register_sync_job, schedule_sync_job
    from sync_pipelines.runner.changes.retry_failures import retry_failures
    from sync_pipelines.runner.changes.single_item import sync_single_item
    from sync_pipelines.runner.plans.plan_view import Plan, open_plan
    from sync_pipelines.runner.run_sync import run_sync
    from sync_pipelines.settings.model import Settings
    from sync_pipelines.sources.dlt import dlt_resource
    from sync_pipelines.sources.files import csv_file, parquet_file
    from sync_pipelines.sources.frame_pages import frame_pages
    from sync_pipelines.sources.json_lines import json_lines
    from sync_pipelines.sources.json_paths import AnswerHeader
    from sync_pipelines.sources.rest import RestSource
    from sync_pipelines.sources.rest_auth import ApiKeyAuth, BasicAuth, BearerAuth
    from sync_pipelines.sources.rest_oauth import OAuthClientCredentials
    from sync_pipelines.sources.rest_paging import (
        CursorPaging,
        LinkHeaderPaging,
        NextUrlPaging,
        OffsetPaging,
        PageNumberPaging,
    )
    from sync_pipelines.sources.sql_query import sql_query
    from sync_pipelines.sources.tryton import Tryton
    from sync_pipelines.targets.sql_table import SqlTable
    from sync_pipelines.targets.table.soft_delete import SoftDelete

_PLACES = {
    "AccountsError": "errors",
    "AnswerHeader": "sources.json_paths",
    "ApiKeyAuth": "sources.rest_auth",
    "BasicAuth": "sources.rest_auth",
    "BearerAuth": "sources.rest_auth",
    "BearerToken": "engine.webhook_signatures",
    "Cause": "engine.causes",
    "ConfigurationError": "errors",
    "CursorPaging": "sources.rest_paging",
    "Delete": "engine.changes",
    "DeleteRefusedError": "errors",
    "Duplicate": "engine.results",
    "FetchError": "errors",
    "FieldChange": "engine.plan",
    "Guards": "engine.guards",
    "Handshake": "engine.webhook_handshakes",
    "HistoryEvent": "engine.history",
    "HmacSignature": "engine.webhook_signatures",
    "HookError": "errors",
    "Ignore": "engine.changes",
    "Interval": "engine.intervals",
    "ItemError": "errors",
    "ItemResult": "engine.results",
    "LeaseLostError": "errors",
    "LinkHeaderPaging": "sources.rest_paging",
    "NextUrlPaging": "sources.rest_paging",
    "OAuthClientCredentials": "sources.rest_oauth",
    "OffsetPaging": "sources.rest_paging",
    "PageNumberPaging": "sources.rest_paging",
    "Plan": "runner.plans.plan_view",
    "PlanCounts": "engine.plan",
    "PlanEntry": "engine.plan",
    "PlanError": "errors",
    "Progress": "engine.progress",
    "Refetch": "engine.changes",
    "RestSource": "sources.rest",
    "Retry": "engine.retry",
    "RetryableError": "errors",
    "RunError": "errors",
    "Settings": "settings.model",
    "SoftDelete": "targets.table.soft_delete",
    "SqlTable": "targets.sql_table",
    "StalePlanError": "errors",
    "StandardWebhooks": "engine.webhook_signatures",
    "SyncBusyError": "errors",
    "SyncComponent": "component.component",
    "SyncError": "engine.results",
    "SyncJob": "engine.declaration",
    "SyncPipelinesError": "errors",
    "SyncResults": "engine.results",
    "TargetError": "errors",
    "TooManyFailedError": "errors",
    "UnavailableError": "errors",
    "Tryton": "sources.tryton",
    "Unsigned": "engine.webhook_signatures",
    "Upsert": "engine.changes",
    "Webhook": "engine.webhooks",
    "WebhookEvent": "engine.webhooks",
    "WebhookRejectedError": "errors",
    "WriteRefusedError": "errors",
    "apply_plan": "registry.plans",
    "csv_file": "sources.files",
    "dlt_resource": "sources.dlt",
    "frame_pages": "sources.frame_pages",
    "json_lines": "sources.json_lines",
    "open_plan": "runner.plans.plan_view",
    "parquet_file": "sources.files",
    "record_history": "registry.history",
    "register_sync_job": "registry.registry",
    "retry_failures": "runner.changes.retry_failures",
    "run_sync": "runner.run_sync",
    "schedule_sync_job": "registry.registry",
    "sql_query": "sources.sql_query",
    "sync_definitions": "orchestration.build",
    "sync_intervals": "engine.intervals",
    "sync_single_item": "runner.changes.single_item",
    "tell_incomplete": "engine.completeness",
    "apply_item": "delivery.single_items",
    "trigger_item": "delivery.single_items",
    "trigger_sync": "orchestration.triggers",
    "webhook_app": "delivery.webhook_app",
}

__all__ = [
    "AccountsError",
    "AnswerHeader",
    "ApiKeyAuth",
    "BasicAuth",
    "BearerAuth",
    "BearerToken",
    "Cause",
    "ConfigurationError",
    "CursorPaging",
    "Delete",
    "DeleteRefusedError",
    "Duplicate",
    "FetchError",
    "FieldChange",
    "Guards",
    "Handshake",
    "HistoryEvent",
    "HmacSignature",
    "HookError",
    "Ignore",
    "Interval",
    "ItemError",
    "ItemResult",
    "LeaseLostError",
    "LinkHeaderPaging",
    "NextUrlPaging",
    "OAuthClientCredentials",
    "OffsetPaging",
    "PageNumberPaging",
    "Plan",
    "PlanCounts",
    "PlanEntry",
    "PlanError",
    "Progress",
    "Refetch",
    "RestSource",
    "Retry",
    "RetryableError",
    "RunError",
    "Settings",
    "SoftDelete",
    "SqlTable",
    "StalePlanError",
    "StandardWebhooks",
    "SyncBusyError",
    "SyncComponent",
    "SyncError",
    "SyncJob",
    "SyncPipelinesError",
    "SyncResults",
    "TargetError",
    "TooManyFailedError",
    "Tryton",
    "UnavailableError",
    "Unsigned",
    "Upsert",
    "Webhook",
    "WebhookEvent",
    "WebhookRejectedError",
    "WriteRefusedError",
    "apply_item",
    "apply_plan",
    "csv_file",
    "dlt_resource",
    "frame_pages",
    "json_lines",
    "open_plan",
    "parquet_file",
    "record_history",
    "register_sync_job",
    "retry_failures",
    "run_sync",
    "schedule_sync_job",
    "sql_query",
    "sync_definitions",
    "sync_intervals",
    "sync_single_item",
    "tell_incomplete",
    "trigger_item",
    "trigger_sync",
    "webhook_app",
]


def __getattr__(name: str) -> Any:
    """Loads a public name when it is first used."""
    if name not in _PLACES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(import_module(f"{__name__}.{_PLACES[name]}"), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted([*globals(), *_PLACES])
