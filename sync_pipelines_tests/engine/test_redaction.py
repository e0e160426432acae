"""Messages that may be logged, stored and shown: the error's own words, without secrets."""

from __future__ import annotations

import time

import pytest
import sqlalchemy as sa
from hypothesis import given, settings
from hypothesis import strategies as st

from sync_pipelines.engine.redaction import MAX_MESSAGE_CHARS, exception_type, forget_frames, message_of, redact

SECRET = "hunter2-Tr0ub4dor"


@pytest.mark.parametrize(
    "text",
    [
        f"postgresql://me:{SECRET}@db.example.com/shop failed",
        f"postgresql+psycopg2://me:{SECRET}@db/shop?sslmode=require",
        f"could not reach 'https://user:{SECRET}@erp.example.com:8000/rpc'",
        f"redis://:{SECRET}@cache:6379",
        f"Authorization: Bearer {SECRET}",
        f"headers={{'Authorization': 'Basic {SECRET}=='}}",
        f"authorization: session {SECRET}",
        f"password={SECRET}",
        f"host=db user=me password={SECRET} dbname=shop",
        f"{{'password': '{SECRET}', 'user': 'me'}}",
        f'{{"api_key": "{SECRET}"}}',
        f"api-key: {SECRET}",
        f"ERP_TOKEN={SECRET}",
        f"client_secret={SECRET}&grant=x",
        f"https://erp.example.com/items?access_token={SECRET}&page=2",
        f"PGPASSWORD={SECRET} psql",
        f"pwd: {SECRET}; more",
        f"DETAIL: Key (api_token)=({SECRET}) already exists.",
        f"DETAIL: Key (tenant, password)=(7, ({SECRET})) already exists.",
        f"Duplicate entry '7-{SECRET}' for key 'users.api_token'",
    ],
)
def test_secrets_are_redacted(text: str) -> None:
    shown = redact(text)
    assert SECRET not in shown
    assert "***" in shown
    assert SECRET not in message_of(ValueError(text))


@pytest.mark.parametrize(
    "text",
    [
        "item 'A-1': stock -3 violates check constraint",
        "https://erp.example.com/items?page=2",
        "time 12:30@noon",
        "the token has expired",
        "password authentication failed for user",
        "mail me@example.com",
        "basic auth is off",
        "a session ended",
        "DETAIL: Key (sku)=(A-1) already exists.",
        "Duplicate entry 'A-1' for key 'variants.sku'",
    ],
)
def test_what_is_no_secret_stays(text: str) -> None:
    assert redact(text) == text


@settings(deadline=None)
@given(st.text())
def test_redacting_twice_is_redacting_once(text: str) -> None:
    assert redact(redact(text)) == redact(text)


def test_a_password_with_an_at_sign_is_redacted_whole() -> None:
    assert "ord" not in redact("postgresql://me:pass@w@ord@db/shop")


@pytest.mark.parametrize("part", ["a", "aB3/+", "a-", "password-", "://a:", "x+y.z-", "token "])
def test_texts_of_megabytes_are_looked_through_at_all(part: str) -> None:
    """Where the time grew with the square of the length, these would take hours and not let go of the process."""
    text = part * (2_000_000 // len(part))
    shown = redact(f"{text} password={SECRET}")
    assert SECRET not in shown
    assert shown.endswith("***")


class BrokenError(Exception):
    def __str__(self) -> str:
        raise RuntimeError("no words")


class NoTextError(Exception):
    def __str__(self) -> str:
        return 5  # type: ignore[return-value]  # noqa: PLE0307 - the point of this class


@pytest.mark.parametrize(
    ("error", "message"), [(BrokenError(), "BrokenError"), (NoTextError(), "NoTextError"), (ValueError(), "ValueError")]
)
def test_an_exception_without_words_is_told_by_its_name(error: Exception, message: str) -> None:
    assert message_of(error) == message


def test_lines_and_unicode_are_kept_and_what_no_database_takes_is_replaced() -> None:
    assert message_of(ValueError("first\nsecond Größe")) == "first\nsecond Größe"
    assert message_of(ValueError("a\x00b\ud800c")) == "a\\x00b?c"


@pytest.mark.parametrize(
    "message", ["a" * 2_000_000, "a-" * 500_000, "x=" * 500_000, "a://" * 300_000, "token" * 200_000]
)
def test_a_huge_message_is_cut_without_being_looked_at_whole(message: str) -> None:
    """Patterns that go back and forth would take hours for a megabyte."""
    began_s = time.monotonic()
    shown = message_of(ValueError(message))
    assert len(shown) <= MAX_MESSAGE_CHARS
    assert shown.endswith("…")
    assert time.monotonic() - began_s < 5


def test_a_secret_at_the_place_of_the_cut_is_not_shown_by_half() -> None:
    for length in range(1_900, 2_100):
        assert "hunter" not in message_of(
            ValueError("y" * length + f" postgresql://me:{SECRET}@db/shop " + "z" * 9_000)
        )
    for length in range(3_900, 4_100):
        text = "password=abcdefgh " * 220 + "y" * (length - 3_960)
        assert "hunter" not in message_of(ValueError(text + f" postgresql://me:{SECRET}@db/shop " + "z" * 9_000))


def test_a_database_error_shows_the_databases_own_words_without_statement_and_values() -> None:
    """Statement and values may hold personal data, and the statement hides what is wrong."""
    database = sa.create_engine("sqlite://")
    table = sa.Table("people", sa.MetaData(), sa.Column("name", sa.Text, sa.CheckConstraint("length(name) < 3")))
    with database.begin() as connection:
        table.create(connection)
        with pytest.raises(sa.exc.IntegrityError) as caught:
            connection.execute(sa.insert(table), {"name": "Jane Doe"})
    database.dispose()
    assert "Jane Doe" in str(caught.value)
    assert message_of(caught.value) == "CHECK constraint failed: length(name) < 3"
    assert exception_type(caught.value) == "IntegrityError"


def test_an_exception_and_all_that_led_to_it_let_go_of_their_frames() -> None:
    def fail() -> None:
        try:
            {}["first"]
        except KeyError as error:
            raise ExceptionGroup("both", [ValueError("second")]) from error

    with pytest.raises(ExceptionGroup) as caught:
        fail()
    forget_frames(caught.value)
    assert caught.value.__traceback__ is None
    assert caught.value.__cause__ is not None
    assert caught.value.__cause__.__traceback__ is None


def test_exceptions_that_caused_each_other_let_go_of_their_frames() -> None:
    first, second = ValueError("first"), ValueError("second")
    first.__cause__, second.__cause__ = second, first
    forget_frames(first)
    assert (first.__traceback__, second.__traceback__) == (None, None)


@pytest.mark.parametrize(
    "said",
    [
        '{"password": "correct horse battery"}',
        "SECRET_KEY=battery",
        "aws_secret_access_key=battery",
        '{"secretKey": "battery"}',
        "Authorization: ApiKey battery",
        "Cookie: sid=battery; other=battery",
    ],
)
def test_secrets_in_whatever_dress_are_hidden(said: str) -> None:
    assert "battery" not in redact(said)
    assert "***" in redact(said)
