"""A job file that can't be loaded stops only itself, and says where it is broken."""

from __future__ import annotations

import pickle
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from sync_pipelines.errors import ConfigurationError
from sync_pipelines.registry import registry
from sync_pipelines.registry.job_file_errors import JobFileError, declared_jobs
from sync_pipelines.registry.registry import JobFiles, find_job, find_jobs, known_job, read_job_files
from sync_pipelines_tests.packages import Packages

JOB = """\
from sync_pipelines import SyncJob, register_sync_job, schedule_sync_job
JOB = SyncJob(
    name="{name}", fetch_external=list, get_external_id="sku", find_local=str, create=str, update=max{more}
)
"""
SCHEDULED = ', schedule="0 4 * * *"'


def job_file(name: str, more: str = "") -> str:
    return JOB.format(name=name, more=more)


@pytest.fixture
def packages(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Packages]:
    monkeypatch.setattr(registry, "_recorded", registry.Registry())
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.setattr(sys, "dont_write_bytecode", True)  # a file that is mended within a second is read again
    packages = Packages(tmp_path, "broken_files")
    yield packages
    packages.forget()


@pytest.fixture
def of_environment(packages: Packages, monkeypatch: pytest.MonkeyPatch) -> str:
    """A good file beside a broken one, as the environment names them."""
    name = packages.make(
        stock=job_file("erp-stock"), prices=job_file("erp-prices") + "raise RuntimeError('password=geheim')"
    )
    monkeypatch.setenv("SYNC_PIPELINES_JOBS", name)
    return name


def only_problem(files: JobFiles) -> JobFileError:
    (problem,) = files.problems
    return problem


@pytest.mark.parametrize(
    ("text", "line", "told"),
    [
        ("x = 1\nimport nowhere_to_be_found\n", 2, "ModuleNotFoundError: No module named 'nowhere_to_be_found'"),
        ("x = 1\n\ndef broken(:\n", 3, "SyntaxError: invalid syntax"),
        ("if True:\nx = 1\n", 2, "IndentationError: expected an indented block after 'if' statement on line 1"),
        ("def f():\n    return {}['x']\n\nf()\n", 2, "KeyError: 'x'"),
        ("import json\n\njson.loads('{')\n", 3, "JSONDecodeError: Expecting property name"),
        ("import ast\n\nast.literal_eval('(')\n", 3, "SyntaxError: '(' was never closed"),
        ("raise SystemExit(3)\n", 1, "SystemExit: 3"),
        ("import sys\nsys.exit()\n", 2, "SystemExit"),
        ("raise RuntimeError('postgresql://shop:geheim@db/shop')\n", 1, "RuntimeError: postgresql://shop:***@db/shop"),
        (
            "from sync_pipelines import SyncJob\n\nJOB = SyncJob(name='a b')\n",
            3,
            "the field 'fetch_external' is missing",
        ),
    ],
)
def test_the_others_are_given_and_what_is_wrong_is_told_with_file_and_line(
    packages: Packages, tmp_path: Path, text: str, line: int, told: str
) -> None:
    name = packages.make(stock=job_file("erp-stock"), broken=text, zz=job_file("last"))

    files = read_job_files([name])

    problem = only_problem(files)
    path = str(tmp_path / name / "broken.py")
    assert list(files.jobs) == ["erp-stock", "last"]
    assert (problem.module, problem.file, problem.line) == (f"{name}.broken", path, line)
    assert told in str(problem)
    assert str(problem).endswith(f" ({path}:{line})")
    assert "geheim" not in str(problem)


def test_an_error_in_a_helper_of_the_file_is_told_where_it_is(packages: Packages, tmp_path: Path) -> None:
    name = packages.make(_shared="def column():\n    return 1 / 0\n")
    packages.write(name, "stock", f"from {name} import _shared\n\n_shared.column()\n")

    problem = only_problem(read_job_files([name]))

    assert problem.module == f"{name}.stock"
    assert (problem.file, problem.line) == (str(tmp_path / name / "_shared.py"), 2)


def test_a_file_that_is_no_text_is_named(packages: Packages, tmp_path: Path) -> None:
    name = packages.make()
    (tmp_path / name / "binary.py").write_bytes(b"x = 1\0")

    problem = only_problem(read_job_files([name]))

    assert problem.file == str(tmp_path / name / "binary.py")


def test_a_package_that_is_not_there_keeps_no_other_from_being_read(packages: Packages) -> None:
    name = packages.make(stock=job_file("erp-stock"))

    files = read_job_files(["no_such_package", name])

    problem = only_problem(files)
    assert list(files.jobs) == ["erp-stock"]
    assert (problem.module, problem.file, problem.line) == ("no_such_package", None, None)
    assert str(problem) == (
        "the jobs module no_such_package can't be imported: ModuleNotFoundError: No module named 'no_such_package'"
    )


def test_ctrl_c_in_a_file_ends_the_reading(packages: Packages) -> None:
    name = packages.make(broken="raise KeyboardInterrupt\n")

    with pytest.raises(KeyboardInterrupt):
        read_job_files([name])


def test_what_a_broken_file_has_registered_before_is_forgotten(packages: Packages) -> None:
    text = job_file("erp-stock") + "register_sync_job(JOB)\nschedule_sync_job('erp-stock', '0 4 * * *')\n1 / 0\n"
    name = packages.make(stock=text, crm=job_file("crm") + "register_sync_job(JOB)\n")

    for _ in range(2):  # a second reading meets the same error, and not a job of that name from the first
        files = read_job_files([name])
        assert list(files.jobs) == ["crm"]
        assert "ZeroDivisionError" in str(only_problem(files))

    packages.write(name, "stock", text.replace("1 / 0", "1 / 1"))
    files = read_job_files([name])
    assert list(files.jobs) == ["crm", "erp-stock"]
    assert (files.problems, files.jobs["erp-stock"].interval is not None) == ([], True)


def test_what_a_helper_has_registered_before_it_failed_is_forgotten(packages: Packages) -> None:
    half = job_file("half") + "register_sync_job(JOB)\nschedule_sync_job('half', '0 4 * * *')\n1 / 0\n"
    name = packages.make(_whole=job_file("whole") + "register_sync_job(JOB)\n", _half=half)
    packages.write(name, "stock", f"from {name} import _whole, _half\n")

    for _ in range(2):
        files = read_job_files([name])
        assert list(files.jobs) == ["whole"]
        assert "ZeroDivisionError" in str(only_problem(files))


def test_what_no_module_has_registered_stays_when_a_file_fails(packages: Packages) -> None:
    exec(job_file("by-hand") + "register_sync_job(JOB)\n", {"__name__": "a_script"})
    name = packages.make(broken="1 / 0\n")

    assert list(read_job_files([name]).jobs) == ["by-hand"]


def test_a_package_that_is_named_twice_tells_its_problems_once(packages: Packages) -> None:
    name = packages.make(stock=job_file("erp-stock"), broken="1 / 0\n")

    files = read_job_files([name, name])

    assert list(files.jobs) == ["erp-stock"]
    assert "ZeroDivisionError" in str(only_problem(files))


def test_of_two_jobs_with_one_name_neither_is_given(packages: Packages, tmp_path: Path) -> None:
    """The copy of a file that still has its name would write in place of the first, if it came first."""
    name = packages.make(a=job_file("twin"), b="\n\n" + job_file("twin"), c=job_file("other"))

    files = read_job_files([name])

    problem = only_problem(files)
    assert list(files.jobs) == ["other"]
    assert [job.name for job in problem.jobs] == ["twin", "twin"]
    assert str(problem) == (
        f"{name}.b: another sync job is named 'twin' already, in {name}.a; names must be unique "
        f"({tmp_path / name / 'b.py'}:4)"
    )


def test_a_schedule_that_contradicts_a_job_is_told_where_it_is_and_the_job_can_be_run(
    packages: Packages, tmp_path: Path
) -> None:
    name = packages.make(stock=job_file("stock", SCHEDULED) + "schedule_sync_job('stock', '0 5 * * *')\n")

    files = read_job_files([name])

    problem = only_problem(files)
    assert list(files.jobs) == ["stock"]
    assert [job.name for job in problem.jobs] == ["stock"]
    assert "'stock' is scheduled twice" in str(problem)
    assert (problem.file, problem.line) == (str(tmp_path / name / "stock.py"), 5)


def test_a_schedule_for_nobody_is_told_where_it_is(packages: Packages, tmp_path: Path) -> None:
    name = packages.make(stock=job_file("stock") + "schedule_sync_job('stokc', '0 5 * * *')\n")

    problem = only_problem(read_job_files([name]))

    assert "there is no sync job 'stokc'; there are: stock" in str(problem)
    assert (problem.file, problem.line) == (str(tmp_path / name / "stock.py"), 5)


def test_a_schedule_for_the_job_of_a_broken_file_is_no_second_problem(packages: Packages) -> None:
    name = packages.make(
        stock=job_file("erp-stock") + "1 / 0\n",
        times=JOB.splitlines()[0] + "\nschedule_sync_job('erp-stock', '0 5 * * *')",
    )

    assert "ZeroDivisionError" in str(only_problem(read_job_files([name])))


@pytest.mark.usefixtures("of_environment")
def test_a_good_job_is_found_beside_a_broken_file() -> None:
    assert find_job("erp-stock").name == "erp-stock"
    with pytest.raises(ConfigurationError, match="RuntimeError"):
        find_jobs()


def test_of_a_job_that_the_broken_file_declares_its_error_is_told(of_environment: str) -> None:
    told = (
        rf"^the sync job 'erp-prices' can't be loaded: the jobs module {of_environment}.prices can't be imported: "
        r"RuntimeError: password=\*\*\* \(.*prices\.py:5\)$"
    )
    with pytest.raises(ConfigurationError, match=told):
        find_job("erp-prices")
    assert known_job("erp-prices") is None


@pytest.mark.usefixtures("of_environment")
def test_of_a_job_that_may_be_anywhere_all_broken_files_are_told() -> None:
    told = "there is no sync job 'nope'; there are: erp-stock; more may be in what can't be loaded: .*prices.py:5"
    with pytest.raises(ConfigurationError, match=told):
        find_job("nope")


@pytest.mark.parametrize("named", ["erp-prices", "prices"])
def test_a_file_that_declares_nothing_by_name_may_have_the_job_of_its_own_name(
    packages: Packages, monkeypatch: pytest.MonkeyPatch, named: str
) -> None:
    monkeypatch.setenv("SYNC_PIPELINES_JOBS", packages.make(**{named.replace("-", "_"): "1 / 0"}))

    with pytest.raises(ConfigurationError, match=f"the sync job '{named}' can't be loaded: .*ZeroDivisionError"):
        find_job(named)


@pytest.mark.parametrize(
    ("text", "declared"),
    [
        ("SyncJob(name='erp-stock')", [("erp-stock", "sync/erp_stock", 1)]),
        ("\nx = sync_pipelines.SyncJob[int, str](name='a', group='g')", [("a", "g/a", 2)]),
        ("SyncJob(name='a', asset_key='shop/x', group='g')", [("a", "shop/x", 1)]),
        ("SyncJob(name='a')\nSyncJob(name='b')", [("a", "sync/a", 1), ("b", "sync/b", 2)]),
        ("SyncJob(name=NAME)", []),
        ("SyncJob(**given)", []),
        ("SyncJob(name=1)", []),
        ("SyncJob(webhook=Webhook(name='hook'))", []),
        ("Webhook(name='hook')", []),
        ("", []),
        # what is no Python is searched as text
        (
            "SyncJob(\n  name='erp-stock',\n  asset_key='shop/stock',\n  webhook=Webhook(name='hook')\n\ndef (",
            [("erp-stock", "shop/stock", 1)],
        ),
        ("JOB: SyncJob[Item, Any] = SyncJob[Item, Any](name='a')\n)", [("a", "sync/a", 1)]),
        ("<<<<<<< HEAD\nSyncJob(name='a',\n=======\nSyncJob(name='b',", [("a", "sync/a", 2), ("b", "sync/b", 4)]),
    ],
)
def test_what_a_file_declares_is_read_from_its_text(
    tmp_path: Path, text: str, declared: list[tuple[str, str, int]]
) -> None:
    path = tmp_path / "file.py"
    path.write_text(text)

    assert [(each.name, each.asset_key, each.line) for each in declared_jobs(str(path))] == declared


def test_a_file_that_can_not_be_read_declares_nothing(tmp_path: Path) -> None:
    (tmp_path / "latin.py").write_bytes("SyncJob(name='ü')".encode("latin-1"))

    assert declared_jobs(str(tmp_path / "latin.py")) == ()
    assert declared_jobs(str(tmp_path / "not_there.py")) == ()


def test_the_error_survives_pickling() -> None:
    error = JobFileError("wrong", module="jobs.stock", file="stock.py", line=3)

    copy = pickle.loads(pickle.dumps(error))

    assert (str(copy), copy.module, copy.file, copy.line) == ("wrong (stock.py:3)", "jobs.stock", "stock.py", 3)
