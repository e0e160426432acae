"""`new`: a job file to fill in."""

from __future__ import annotations

import importlib.util
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path

from sync_pipelines.cli.job_file import job_file_text, module_name
from sync_pipelines.cli.job_sketch import read_sample, read_table, sketch_sync
from sync_pipelines.cli.output import remark, show_json, show_line
from sync_pipelines.engine.declaration import SyncJob
from sync_pipelines.errors import ConfigurationError
from sync_pipelines.registry.registry import read_job_files
from sync_pipelines.settings.model import Settings, load_settings

_OWN_FOLDER = Path(__file__).resolve().parent.parent
_INSTALLED = {"site-packages", "dist-packages"}


@dataclass(frozen=True, slots=True)
class NewJobFile:
    """What the operator asked for: the arguments of `new`."""

    name: str
    table: str | None
    sample: Path | None
    folder: Path | None
    force: bool


def write_job_file(new_file: NewJobFile, *, as_json: bool) -> None:
    """Writes the file and says what comes next.

    Raises:
        ConfigurationError: The name is no name or taken, the file is there, or the table or sample can't be read.
    """
    settings = load_settings()
    _check_name(new_file.name)
    folder = (new_file.folder or _jobs_folder(settings)).resolve()
    path = folder / f"{module_name(new_file.name)}.py"
    if path.exists() and not new_file.force:
        raise ConfigurationError(f"{path} is there already; --force overwrites it")
    _check_free(new_file, settings, path)
    items = read_sample(new_file.sample) if new_file.sample is not None else []
    table = read_table(settings.local_url(), new_file.table) if new_file.table is not None else None
    sketch = replace(
        sketch_sync(new_file.name, new_file.table, table, items), inside=folder.is_relative_to(_OWN_FOLDER)
    )
    _write(path, job_file_text(sketch), force=new_file.force)
    if as_json:
        show_json({"job": new_file.name, "path": str(path), "table": sketch.table, "key": list(sketch.key)})
    else:
        _show_next_steps(new_file, path)


def _show_next_steps(new_file: NewJobFile, path: Path) -> None:
    elsewhere = "" if new_file.folder is None else " (SYNC_PIPELINES_JOBS must name the package of that folder)"
    steps = f"sync-pipelines check {new_file.name}; sync-pipelines run {new_file.name} --limit 10"
    show_line(str(path))
    remark(f"next: fill in fetch there; {steps}{elsewhere}")


def _check_name(name: str) -> None:
    """Lets the declaration say what is wrong with a name."""
    SyncJob(name=name, fetch_external=list, get_external_id="id", find_local=str, create=str, update=max)


def _jobs_folder(settings: Settings) -> Path:
    package = settings.jobs[0] if settings.jobs else "?"
    spec = None
    with suppress(ImportError, ValueError):
        spec = importlib.util.find_spec(package)
    places = list(spec.submodule_search_locations or ()) if spec is not None else []
    if not places:
        raise ConfigurationError(
            f"SYNC_PIPELINES_JOBS: there is no package {package!r} to be found from {Path.cwd()}; make it (a folder "
            "with an __init__.py), or say with --folder where to write"
        )
    folder = Path(places[0])
    if _INSTALLED & set(folder.parts):
        raise ConfigurationError(
            f"the jobs package {package!r} is installed in {folder}, where the next installation would remove your "
            "files; name a package of your own in SYNC_PIPELINES_JOBS, or say with --folder where to write"
        )
    return folder


def _check_free(new_file: NewJobFile, settings: Settings, path: Path) -> None:
    """Makes sure that the new file would not take the name of another job."""
    taken = {job.dagster_name for job in read_job_files(settings.jobs).jobs.values()}  # `check` tells of broken files
    if module_name(new_file.name) in taken and not path.exists():
        raise ConfigurationError(f"another sync job is named {new_file.name!r} already; names must be unique")


def _write(path: Path, text: str, *, force: bool) -> None:
    try:
        with path.open("w" if force else "x", encoding="utf-8") as file:
            file.write(text)
    except OSError as error:
        raise ConfigurationError(f"{path} can't be written: {error.strerror}") from error
