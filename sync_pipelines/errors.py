"""Every error of the package, sorted by what the runner does when it meets one.

SyncPipelinesError
├── ConfigurationError        stop: a person must edit a declaration, a setting or a table
├── RetryableError            back off and try again; after the last attempt it counts as what it interrupted
├── ItemError                 keep it with its external id, go on with the others
│   ├── DeleteRefusedError    the delete would have taken or changed other records; it was left as it is
│   ├── WriteRefusedError     the create or update would have removed other records, or was not kept; nothing of it was
│   └── StalePlanError        the local record has changed since the plan was made; it was left as it is
├── WebhookRejectedError      answer 4xx and store nothing; the sender must change what it sends
└── RunError                  the run as a whole has failed
    ├── FetchError            the source broke off; nothing was applied
    ├── TargetError           the target broke off; what was applied is accounted for, run again to go on
    ├── UnavailableError      the ledger does not answer just now; the same may work later
    ├── SyncBusyError         another run of this sync is under way; nothing was done
    ├── PlanError             the plan can't be applied or read: applied already, expired, made for something else
    ├── LeaseLostError        another run has taken over from this one, which had stalled
    ├── TooManyFailedError    more items failed than `fail_above` allows; all others were applied
    ├── AccountsError         the outcomes do not add up to the items fetched
    └── HookError             a hook of the job failed
"""

from __future__ import annotations

from typing import Any


class SyncPipelinesError(Exception):
    """The root of all errors that this package raises on purpose."""


class ConfigurationError(SyncPipelinesError):
    """A declaration, a setting or a table is wrong; the message names it and says what to do.

    Args:
        message: What is wrong, and what to do.
        field: The field of a declaration that is wrong, where one alone is.
    """

    def __init__(self, message: str, *, field: str | None = None) -> None:
        super().__init__(message)
        self.field = field


class RetryableError(SyncPipelinesError):
    """Something outside did not answer in time or asked us to wait.

    Args:
        message: What did not work.
        retry_after_s: Seconds to wait before the next attempt, when the other side said so.
    """

    def __init__(self, message: str, *, retry_after_s: float | None = None) -> None:
        super().__init__(message)
        self.retry_after_s = retry_after_s


class ItemError(SyncPipelinesError):
    """One item can't be synced; the others can.

    Args:
        message: What is wrong with the item, naming field and value.
        external_id: The item's external id, when it is known.
    """

    def __init__(self, message: str, *, external_id: str | None = None) -> None:
        super().__init__(message)
        self.external_id = external_id

    def __reduce__(self) -> tuple[Any, ...]:
        return _rebuild_item_error, (type(self), str(self), self.external_id)


def _rebuild_item_error(kind: type[ItemError], message: str, external_id: str | None) -> ItemError:
    return kind(message, external_id=external_id)


class StalePlanError(ItemError):
    """An entry of a plan was refused: the local record is no longer what it was when the plan was made."""


class DeleteRefusedError(ItemError):
    """A record was not deleted: the database would have taken or changed others with it that are not to be deleted."""


class WriteRefusedError(ItemError):
    """A record was not written: the database would have removed others with it, or not kept it as one of that key."""


class WebhookRejectedError(SyncPipelinesError):
    """A webhook's event is not valid: it is answered with status 422 and the message, and nothing is stored."""


class RunError(SyncPipelinesError):
    """The run as a whole has failed.

    Args:
        message: What happened, and what was or was not applied.
        results: The run's `SyncResults` as far as they are known.
    """

    def __init__(self, message: str, *, results: Any = None) -> None:
        super().__init__(message)
        self.results = results


class FetchError(RunError):
    """The source broke off; nothing was applied.

    Args:
        message: What the source raised.
        items_fetched: How many items had come until then.
        results: The run's `SyncResults` as far as they are known.
    """

    def __init__(self, message: str, *, items_fetched: int = 0, results: Any = None) -> None:
        super().__init__(message, results=results)
        self.items_fetched = items_fetched


class TargetError(RunError):
    """The target broke off half-way; what was applied is accounted for, and running again goes on from there."""


class UnavailableError(RunError):
    """The ledger's database does not answer just now; what was applied stays, and the same may work later."""


class SyncBusyError(RunError):
    """Another run of this sync is under way; this one has done nothing."""


class PlanError(RunError):
    """The plan was applied already, has expired, or was made for something else; nothing was written."""


class LeaseLostError(RunError):
    """This run stalled for so long that another one has taken over; it has stopped writing."""


class TooManyFailedError(RunError):
    """More items failed than the job's `fail_above` allows; all others were applied."""


class AccountsError(RunError):
    """The outcomes of a run do not add up to the items it fetched: a defect, never to be shown as success."""


class HookError(RunError):
    """`on_start` or `on_complete` raised; the message says which and whether items were applied."""
