"""SQLAlchemy's ORM as its documentation teaches it: per page one SELECT, a bulk INSERT, a bulk UPDATE."""

from __future__ import annotations

from sqlalchemy import delete, insert, select, update
from sqlalchemy.orm import Session

from benchmarks.contestants.sqlalchemy_table import Variant, connect, differs
from benchmarks.task import Report, Run, Task
from benchmarks.work import KEY, Item, Work

_CHUNK = 1_000


def prepare(task: Task) -> Run:
    """Connects."""
    engine = connect(task)

    def run() -> Report:
        with Session(engine) as session, session.begin():
            _sync(session, task.work)
        return Report()

    return run


def _sync(session: Session, work: Work) -> None:
    seen: set[str] = set()
    for page in work.pages(_CHUNK):
        _write(session, page)
        session.expunge_all()
        if work.deletes:
            seen.update(item[KEY] for item in page)
    if work.deletes:
        gone = [key for key, sku in session.execute(select(Variant.id, Variant.sku)) if sku not in seen]
        for first in range(0, len(gone), _CHUNK):
            session.execute(delete(Variant).where(Variant.id.in_(gone[first : first + _CHUNK])))


def _write(session: Session, page: list[Item]) -> None:
    found = session.scalars(select(Variant).where(Variant.sku.in_([item[KEY] for item in page])))
    local = {each.sku: each for each in found}
    new = [item for item in page if item[KEY] not in local]
    changed = [
        {**item, "id": local[item[KEY]].id}
        for item in page
        if item[KEY] in local and differs(item, vars(local[item[KEY]]))
    ]
    if new:
        session.execute(insert(Variant), new)
    if changed:
        session.execute(update(Variant), changed)
