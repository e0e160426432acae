"""What a run's ending and its batches mean, in columns: until now sentences and numbers said it."""

from __future__ import annotations

import re
from typing import Any

import sqlalchemy as sa
from alembic import context, op

revision = "0010"
down_revision = "0009"

_APPLIED_ALL = ("apply: TooManyFailedError: ", "on_complete failed after the applying was done: ")
"""How the failure of a run begins that applied everything all the same."""
_NO_DELETES = re.compile(
    r"no deletes: (the run was limited to some items \(limit, only\)"
    r"|[\d,]+ items had no readable external id and may be any of the missing records)"
)
_GIVEN_UP, _COMPLETE, _FIRST_REFUSED = -1, -2, 1_000_000
"""Numbers of chunks with a meaning. Of a plan in staging tables chunk 0 was what the database wrote itself."""
_PARTS = ("earlier", "complete", "refused", "staged", "unsorted", "batch")
"""Others have come since, and mean nothing to what was before."""
_COLUMNS = ("run_id", "number", "counts", "applied_at")


def upgrade() -> None:
    prefix, schema = context.config.attributes["prefix"], context.config.attributes["schema"]
    runs, chunks, batches = _tables(prefix, schema)
    for name in ("applied_all", "deletes_withheld"):
        op.add_column(
            runs.name, sa.Column(name, sa.Boolean(), nullable=False, server_default=sa.false()), schema=schema
        )
    _create(batches.name, prefix, schema, [sa.Column("part", sa.String(16), primary_key=True)], [_left()])
    if op.get_bind().scalar(sa.select(runs.c.id).limit(1)) is not None:
        _read_failures(runs)
        _read_notes(runs)
        _sort_chunks(runs, chunks, batches)
        _take_out_left(batches)
    op.drop_table(chunks.name, schema=schema)


def downgrade() -> None:
    prefix, schema = context.config.attributes["prefix"], context.config.attributes["schema"]
    runs, chunks, batches = _tables(prefix, schema)
    _create(chunks.name, prefix, schema, [], [])
    _number_batches(chunks, batches)
    op.drop_table(batches.name, schema=schema)
    for name in ("applied_all", "deletes_withheld"):
        op.drop_column(runs.name, name, schema=schema)


def _tables(prefix: str, schema: str | None) -> tuple[sa.TableClause, sa.TableClause, sa.TableClause]:
    """The runs, and their progress before and after."""
    plain: list[sa.ColumnClause[Any]] = [
        sa.column(name) for name in ("id", "kind", "failure", "completed_at", "applied_all", "deletes_withheld")
    ]
    runs = sa.table(f"{prefix}runs", *plain, sa.column("notes", sa.JSON), schema=schema)
    chunks = sa.table(f"{prefix}run_chunks", *_shared(), schema=schema)
    batches = sa.table(f"{prefix}run_batches", *_shared(), sa.column("part"), sa.column("left", sa.JSON), schema=schema)
    return runs, chunks, batches


def _shared() -> list[sa.ColumnClause[Any]]:
    return [sa.column(name, sa.JSON) if name == "counts" else sa.column(name) for name in _COLUMNS]


def _left() -> sa.Column[Any]:
    return sa.Column("left", sa.JSON())


def _create(
    name: str, prefix: str, schema: str | None, key: list[sa.Column[Any]], others: list[sa.Column[Any]]
) -> None:
    runs = f"{schema}.{prefix}runs" if schema else f"{prefix}runs"
    op.create_table(
        name,
        sa.Column("run_id", sa.String(36), sa.ForeignKey(f"{runs}.id", ondelete="CASCADE"), primary_key=True),
        *key,
        sa.Column("number", sa.Integer(), primary_key=True, autoincrement=False),
        sa.Column("counts", sa.JSON(), nullable=False),
        *others,
        sa.Column("applied_at", sa.DateTime(timezone=True), nullable=False),
        schema=schema,
    )


def _read_failures(runs: sa.TableClause) -> None:
    failed_late = sa.or_(*(runs.c.failure.startswith(each, autoescape=True) for each in _APPLIED_ALL))
    ended = sa.and_(runs.c.completed_at.is_not(None), sa.or_(runs.c.failure.is_(None), failed_late))
    op.execute(sa.update(runs).where(runs.c.kind != "dry run", ended).values(applied_all=sa.true()))


def _read_notes(runs: sa.TableClause) -> None:
    connection = op.get_bind()
    noted = sa.cast(runs.c.notes, sa.Text).contains("no deletes: ")
    for run_id, notes in connection.execute(sa.select(runs.c.id, runs.c.notes).where(noted)).all():
        if any(_NO_DELETES.fullmatch(note) for note in notes):
            connection.execute(sa.update(runs).where(runs.c.id == run_id).values(deletes_withheld=sa.true()))


def _sort_chunks(runs: sa.TableClause, chunks: sa.TableClause, batches: sa.TableClause) -> None:
    """Copies what was noted. Of a run that broke off only its plan may say what chunk 0 is: then apply will ask it."""
    number, others = chunks.c.number, chunks.alias("others")
    odd = sa.or_(others.c.number == _COMPLETE, others.c.number >= _FIRST_REFUSED)
    is_staged = sa.exists().where(others.c.run_id == chunks.c.run_id, odd)
    is_open = sa.exists().where(runs.c.id == chunks.c.run_id, runs.c.kind == "full", sa.not_(runs.c.applied_all))
    part = sa.case(
        (number == _GIVEN_UP, "earlier"),
        (number == _COMPLETE, "complete"),
        (number >= _FIRST_REFUSED, "refused"),
        (sa.and_(is_staged, number == 0), "staged"),
        (sa.and_(is_open, sa.not_(is_staged)), "unsorted"),
        else_="batch",
    )
    place = sa.case(
        (number <= 0, 0), (number >= _FIRST_REFUSED, number - _FIRST_REFUSED), (is_staged, number - 1), else_=number
    )
    rows = sa.select(chunks.c.run_id, part, place, chunks.c.counts, chunks.c.applied_at)
    op.execute(sa.insert(batches).from_select(["run_id", "part", "number", "counts", "applied_at"], rows))


def _take_out_left(batches: sa.TableClause) -> None:
    connection = op.get_bind()
    columns = (batches.c.run_id, batches.c.part, batches.c.number, batches.c.counts)
    has_left = sa.cast(batches.c.counts, sa.Text).contains('"left"')
    for run_id, part, number, counts in connection.execute(sa.select(*columns).where(has_left)).all():
        own = (batches.c.run_id == run_id, batches.c.part == part, batches.c.number == number)
        left = counts.pop("left")
        connection.execute(sa.update(batches).where(*own).values(counts=counts, left=left))


def _number_batches(chunks: sa.TableClause, batches: sa.TableClause) -> None:
    connection = op.get_bind()
    part, others = batches.c.part, batches.alias("others")
    odd = others.c.part.in_(("staged", "refused", "complete"))
    first = sa.case((sa.exists().where(others.c.run_id == batches.c.run_id, odd), 1), else_=0)
    number = sa.case(
        (part == "earlier", _GIVEN_UP),
        (part == "complete", _COMPLETE),
        (part == "refused", batches.c.number + _FIRST_REFUSED),
        (part == "batch", batches.c.number + first),
        else_=batches.c.number,
    )
    rows = sa.select(batches.c.run_id, number, batches.c.counts, batches.c.applied_at).where(part.in_(_PARTS))
    op.execute(sa.insert(chunks).from_select(list(_COLUMNS), rows))
    query = sa.select(batches.c.run_id, number, batches.c.counts, batches.c.left).where(
        batches.c.left.is_not(None), part.in_(_PARTS)
    )
    for run_id, place, counts, left in connection.execute(query).all():
        own = (chunks.c.run_id == run_id, chunks.c.number == place)
        connection.execute(sa.update(chunks).where(*own).values(counts={**counts, "left": left}))
