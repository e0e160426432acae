"""Calls the functions of a target: for one record, of which several go at a time, or for many at once."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, cast

from sync_pipelines.database.faults import TargetStateError
from sync_pipelines.engine.calls import call
from sync_pipelines.engine.declaration import SyncJob
from sync_pipelines.engine.places import note_place
from sync_pipelines.engine.redaction import message_of
from sync_pipelines.errors import RetryableError, RunError, TargetError
from sync_pipelines.runner.calls.backoff import call_again, retrying
from sync_pipelines.runner.calls.circuit_breaker import ITEMS_IN_VAIN, CircuitBreaker
from sync_pipelines.runner.calls.rate_limit import RateLimit
from sync_pipelines.runner.calls.whose_fault import (
    SourceStateError,
    asks_for_another_attempt,
    in_words,
    is_no_items_fault,
)
from sync_pipelines.runner.calls.workers import Workers


@dataclass(frozen=True, slots=True)
class Answer:
    """Holds what a function returned for one record, or the error of that record."""

    value: Any = None
    error: Exception | None = None

    @property
    def is_in_vain(self) -> bool:
        """True if the target gave no answer in any attempt, or one that is no record's fault."""
        return self.error is not None and is_no_items_fault(self.error)


class RecordCalls:
    """Keeps to a job's concurrency and rate limit, retries calls, and notices a target that is down.

    Args:
        pace: Says when a call may begin; by default what the job says.
    """

    def __init__(self, job: SyncJob[Any, Any], pace: RateLimit | None = None) -> None:
        self._job = job
        self._workers = Workers(job.concurrency)
        self._pace = pace or RateLimit(job.max_calls_per_s, self._workers.sleep)
        self._at_once = RateLimit(sleep=self._workers.sleep)
        self._outages = CircuitBreaker()
        self._asked_in_vain = False

    def at_once(self, many: Callable[..., Any], argument: Any, *, what: str | None = None) -> Any:
        """Calls a function for many records.

        Args:
            what: What the function is to the user whose own it is; None if it is not.

        Raises:
            TargetError: The target does not answer.
        """
        try:
            return call_again(many, argument, what=what, pace=self._pace)
        except RetryableError as error:
            raise self.does_not_answer(error) from error
        except TargetStateError as error:
            raise in_words(self._job.name, error) from error

    def again(self, many: Callable[..., Any], argument: Any, error: Exception) -> Answer:
        """Calls a function again for one record, if what it met with asks for another attempt; once in vain is enough.

        Raises:
            TargetError: The target does not answer.
        """
        if self._asked_in_vain or not asks_for_another_attempt(error):
            return Answer(error=error)

        def attempt(_: Any) -> Answer:
            try:
                return Answer(call(many, argument))
            except (RetryableError, TargetStateError):
                raise
            except Exception as answer:
                if asks_for_another_attempt(answer):
                    raise RetryableError(message_of(answer)) from answer
                return Answer(error=answer)

        try:
            answer: Answer = self.at_once(attempt, None)
        except TargetError as ended:
            last = ended.__cause__ and ended.__cause__.__cause__
            if not isinstance(last, Exception) or not asks_for_another_attempt(last):
                raise
            self._asked_in_vain = True
            return Answer(error=last)
        return answer

    def one(self, function: Callable[..., Any], *arguments: Any, what: str | None = None) -> Any:
        """Calls a function that no rate limit is for, again if it says so.

        Args:
            what: What the function is to the user whose own it is; None if it is not.

        Raises:
            RetryableError: It got no answer in any attempt.
        """
        return call_again(function, *arguments, what=what, pace=self._at_once)

    def each(  # noqa: PLR0913 - how to call, by keyword
        self,
        function: Callable[..., Any],
        arguments: Mapping[str, tuple[Any, ...]],
        answers: dict[str, Answer],
        *,
        what: str | None = None,
        before: Callable[[], object] = bool,
        one_by_one: bool = False,
    ) -> None:
        """Calls a function for each record, several at a time.

        Args:
            arguments: External id -> what to call it with.
            answers: Gets the answer of each external id as soon as it is there.
            what: What the function is to the user whose own it is; None if it is not.
            before: Called before each attempt; what it raises is no record's error and ends the work.
            one_by_one: True for no more than one at a time, whatever the job says.

        Raises:
            TargetError: The target is down. Records that got no answer are not among the answers then.
        """
        external_ids = list(arguments)
        with self._outages.watching() as watch:

            def work(place: int) -> None:
                external_id = external_ids[place]
                # in no variable: an error has the frames that it came through, and would keep itself alive in theirs
                answers[external_id] = self._one(function, arguments[external_id], what, before)
                if watch.is_down(place, in_vain=answers[external_id].is_in_vain):
                    last = cast("Exception", answers[external_id].error)
                    raise self.does_not_answer(last, f" to calls for {ITEMS_IN_VAIN} records in a row") from last

            try:
                self._workers.each(work, range(len(external_ids)), one_by_one=one_by_one)
            finally:
                for place in watch.no_failures():
                    del answers[external_ids[place]]

    def _one(
        self, function: Callable[..., Any], arguments: tuple[Any, ...], what: str | None, before: Callable[[], object]
    ) -> Answer:
        def attempt() -> Answer:
            before()
            try:
                return Answer(call(function, *arguments))
            except (RetryableError, SourceStateError):
                raise
            except TargetStateError as error:
                raise in_words(self._job.name, error) from error
            except Exception as error:  # noqa: BLE001 - one bad item never stops the others
                if what is not None:
                    note_place(error, what)
                return Answer(error=error)

        try:
            return retrying(attempt, self._pace)
        except RetryableError as error:
            return Answer(error=error)

    def does_not_answer(self, error: Exception, to_what: str = "") -> RunError:
        """Returns the error that ends a run whose target does not answer."""
        return TargetError(
            f"{self._job.name}: the target does not answer{to_what}: {message_of(error).rstrip('.')}. What was applied "
            "is accounted for; run the sync again when it does."
        )
