"""Makes sure that no sync reads what it writes itself, on whatever way: Dagster would say it of all definitions."""

from collections.abc import Iterator, Mapping, Sequence

from dagster import AssetKey

from sync_pipelines.engine.declaration import AnyJob
from sync_pipelines.orchestration.broken_files import JobsConflictError
from sync_pipelines.orchestration.keys import asset_key, read_keys, source_key


def require_no_circle(sync_jobs: Sequence[AnyJob]) -> None:
    """Makes sure that no sync reads, by way of others, what it writes itself; names those on the way if one does.

    Raises:
        JobsConflictError: One does; the message names each on the way and what to change.
    """
    writers = {asset_key(job): job for job in sync_jobs}
    seen: set[str] = set()
    for job in sync_jobs:
        if job.name in seen:
            continue
        seen.add(job.name)
        way = [(job, _read_syncs(job, writers))]
        while way:
            before = next(way[-1][1], None)
            if before is None:
                way.pop()
                continue
            on_the_way = [each for each, _ in way]
            if before in on_the_way:
                raise _circle(on_the_way[on_the_way.index(before) :])
            if before.name not in seen:
                seen.add(before.name)
                way.append((before, _read_syncs(before, writers)))


def _read_syncs(job: AnyJob, writers: Mapping[AssetKey, AnyJob]) -> Iterator[AnyJob]:
    return (writers[key] for key in read_keys(job) if key in writers)


def _circle(way: Sequence[AnyJob]) -> JobsConflictError:
    first, after = way[0], way[1] if len(way) > 1 else way[0]
    field = "source_asset" if source_key(first) == asset_key(after) else "upstream"
    if len(way) == 1:
        return JobsConflictError(
            f"sync job {first.name!r}: {field}: it would read its own asset {asset_key(first).to_user_string()}; "
            f"give another {field} or asset_key",
            way,
        )
    reads = ", which reads ".join(f"{asset_key(job).to_user_string()} of {job.name!r}" for job in way[1:])
    return JobsConflictError(
        f"sync job {first.name!r}: {field}: it reads {reads}, which reads {asset_key(first).to_user_string()} of "
        f"{first.name!r} itself: a circle that Dagster can't load; change the source_asset or upstream of one",
        way,
    )
