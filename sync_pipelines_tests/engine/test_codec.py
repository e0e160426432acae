"""Items into a snapshot and back: exactly what went in comes out."""

from __future__ import annotations

import enum
import math
import sys
import textwrap
from collections import OrderedDict, deque, namedtuple
from dataclasses import dataclass, field
from datetime import UTC, date, datetime, time, timedelta, timezone
from decimal import Decimal
from ipaddress import IPv4Address, IPv6Network
from pathlib import Path, PurePosixPath
from types import MappingProxyType
from typing import Any, ClassVar, Generic, NamedTuple, TypeVar
from uuid import UUID
from zoneinfo import ZoneInfo

import pydantic
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sync_pipelines.engine.codec import decode, encode
from sync_pipelines.errors import ConfigurationError, ItemError
from sync_pipelines_tests.children import run_child

REPOSITORY = Path(__file__).parents[2]
T = TypeVar("T")


class Colour(enum.Enum):
    RED = "red"
    ALSO_RED = "red"  # noqa: PIE796 - a second name of the same member
    PAIR = (1, 2)


class Level(enum.IntEnum):
    LOW = 1


class Right(enum.Flag):
    READ = 1
    WRITE = 2


class Place(NamedTuple):
    warehouse: str
    shelf: int | None


Old = namedtuple("Old", ["a", "b"])  # noqa: PYI024 - the older form of a named tuple is what is tested


@dataclass
class Open:
    sku: str
    tags: list[str] = field(default_factory=list)
    shared: ClassVar[int] = 5


@dataclass(frozen=True, slots=True)
class Closed:
    sku: str
    price: Decimal
    place: Place | None = None
    inner: Open | None = None
    derived: str = field(init=False, default="")

    def __post_init__(self) -> None:
        object.__setattr__(self, "derived", self.sku.lower())


@dataclass(frozen=True)
class Box(Generic[T]):
    value: T


class Model(pydantic.BaseModel):
    sku: str
    price: Decimal = Decimal("1.0")
    children: list[Model] = []
    closed: Closed | None = None


class Swapped(pydantic.BaseModel):
    """Each field's alias is the other's name."""

    model_config = pydantic.ConfigDict(populate_by_name=False)
    left: int = pydantic.Field(alias="right")
    right: int = pydantic.Field(alias="left")


class Loose(pydantic.BaseModel):
    model_config = pydantic.ConfigDict(extra="allow")
    sku: str
    _seen: int = pydantic.PrivateAttr(default=0)


class FrozenModel(pydantic.BaseModel):
    model_config = pydantic.ConfigDict(frozen=True)
    sku: str


class Ids(pydantic.RootModel[list[int]]):
    pass


def again(value: Any) -> Any:
    return decode(encode(value))


def same(left: Any, right: Any) -> bool:  # noqa: PLR0911 - one answer per kind
    """Equal in value and type at every depth; NaN is itself."""
    if type(left) is not type(right):
        return False
    if isinstance(left, float) and math.isnan(left):
        return math.isnan(right)
    if isinstance(left, Decimal):
        return str(left) == str(right)
    if isinstance(left, list | tuple):
        return len(left) == len(right) and all(map(same, left, right))
    if isinstance(left, dict):
        return len(left) == len(right) and all(map(same, left.items(), right.items()))
    if isinstance(left, Box | Open):
        return same(vars(left), vars(right))
    if isinstance(left, Loose):
        return same(left.model_extra, right.model_extra)
    return bool(left == right)


offsets = st.integers(-23 * 60, 23 * 60).map(lambda minutes: timezone(timedelta(minutes=minutes)))
scalars = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(),
    st.floats(allow_nan=True, allow_infinity=True),
    st.text(alphabet=st.characters(exclude_categories=["Cs"])),
    st.binary(),
    st.decimals(allow_nan=False),
    st.sampled_from([Decimal("NaN"), Decimal("sNaN"), Decimal("Infinity"), Decimal("0E-10"), Decimal("-0")]),
    st.datetimes(),
    st.datetimes(timezones=offsets),
    st.dates(),
    st.times(),
    st.timedeltas(),
    st.uuids(),
    st.sampled_from([*Colour, *Level, *Right, Right.READ | Right.WRITE, Right(0)]),
)
hashable = scalars.filter(lambda value: not isinstance(value, Decimal) or not value.is_snan())
texts = st.text(alphabet=st.characters(exclude_categories=["Cs"]), max_size=5)


def deeper(inner: st.SearchStrategy[Any]) -> st.SearchStrategy[Any]:
    return st.one_of(
        st.lists(inner, max_size=4),
        st.lists(inner, max_size=4).map(tuple),
        st.dictionaries(st.one_of(texts, st.just("$")), inner, max_size=4),
        st.dictionaries(hashable, inner, max_size=3),
        st.builds(Place, inner, inner),
        st.builds(Open, texts, st.lists(inner, max_size=3)),
        st.builds(Box, inner),
        st.builds(lambda value: Loose.model_construct(sku="A", more=value), inner),
    )


@settings(deadline=None)
@given(st.recursive(scalars, deeper, max_leaves=12))
def test_whatever_goes_into_a_snapshot_comes_out_the_same(value: Any) -> None:
    assert same(again(value), value)


@settings(deadline=None)
@given(st.sets(st.one_of(texts, st.integers()), max_size=4))
def test_sets_come_back_as_sets(values: set[Any]) -> None:
    assert same(again(values), values)
    assert same(again(frozenset(values)), frozenset(values))


@pytest.mark.parametrize(
    "item",
    [
        Closed("A", Decimal("1.50"), Place("north", None), Open("B", ["x"])),
        Model(sku="A", children=[Model(sku="B")], closed=Closed("C", Decimal(1))),
        Model.model_construct(sku=5, price="not checked"),  # type: ignore[arg-type]
        Swapped(right=1, left=2),
        Loose(sku="A", more={"x": [1]}),  # type: ignore[call-arg]
        FrozenModel(sku="A"),
        Ids([1, 2]),
        Old(1, [2]),
        {"$": "decimal", "v": "1"},
        {1: "a", None: "b", (1, "x"): "c", False: "d"},
        {"nested": {"$": {"$": "$"}}},
        [Colour.ALSO_RED, Colour.PAIR],
        "\x00 \ud7ff\U0010ffff",
    ],
)
def test_items_of_every_form_come_back_equal(item: Any) -> None:
    restored = again(item)
    assert type(restored) is type(item)
    assert restored == item


def test_restoring_an_item_runs_none_of_its_code() -> None:
    """What `__post_init__` or a validator would do has been done; doing it again might change the item, or fail."""
    item = Closed("A", Decimal(1))
    object.__setattr__(item, "sku", "B")
    assert again(item).derived == "a"
    assert again(Model.model_construct(sku="A")).model_fields_set == {"sku"}


def test_private_attributes_of_a_model_are_kept() -> None:
    item = Loose(sku="A")
    item._seen = 7
    assert again(item)._seen == 7


def test_what_subclasses_a_plain_type_comes_back_plain() -> None:
    """A mapping of any kind becomes a dict, a text of any kind a text: items are data, not behaviour."""

    class Text(str):
        __slots__ = ()

    for special, plain in (
        (OrderedDict(a=1), {"a": 1}),
        (MappingProxyType({"a": 1}), {"a": 1}),
        (Text("x"), "x"),
        ({Text("x"): 1}, {"x": 1}),
        (bytearray(b"x"), b"x"),
    ):
        assert same(again(special), plain)


def test_a_moment_keeps_its_offset_though_not_the_name_of_its_zone() -> None:
    moment = datetime(2024, 7, 1, 12, tzinfo=ZoneInfo("Europe/Berlin"))
    assert again(moment) == moment
    assert again(moment).utcoffset() == timedelta(hours=2)


def test_numpy_and_pandas_values_become_python_values() -> None:
    import numpy as np
    import pandas as pd

    cases: list[tuple[Any, Any]] = [
        (np.int64(7), 7),
        (np.float64(1.5), 1.5),
        (np.bool_(True), True),
        (np.str_("x"), "x"),
        (np.datetime64("2024-01-02T03:04:05.000000006"), datetime(2024, 1, 2, 3, 4, 5)),  # noqa: DTZ001 - naive it is
        (np.datetime64("2024-01-02"), datetime(2024, 1, 2)),  # noqa: DTZ001
        (np.timedelta64(90, "s"), timedelta(seconds=90)),
        (np.datetime64("NaT"), None),
        (pd.NA, None),
        (pd.NaT, None),
        (pd.Timestamp("2024-01-02T03:04:05Z"), datetime(2024, 1, 2, 3, 4, 5, tzinfo=UTC)),
        (pd.Timedelta("1s"), timedelta(seconds=1)),
    ]
    for given_value, expected in cases:
        assert same(again({"x": given_value})["x"], expected), given_value


def test_a_class_inside_a_function_works_within_the_process() -> None:
    @dataclass
    class Local:
        sku: str

    class LocalColour(enum.Enum):
        BLUE = 1

    assert again(Local("A")) == Local("A")
    assert again(LocalColour.BLUE) is LocalColour.BLUE


class Opaque:
    pass


@pytest.mark.parametrize(
    ("item", "place"),
    [
        (Opaque(), "the item holds a .*Opaque"),
        ({"a": {"b": [Opaque()]}}, "the item, field 'a', field 'b' holds a .*Opaque"),
        (Box(Opaque()), "the item, field 'value' holds a .*Opaque"),
        (Loose(sku="A", more=Opaque()), "the item, field .*'more' holds a .*Opaque"),  # type: ignore[call-arg]
        (Model.model_construct(sku=Opaque()), "the item, field 'sku' holds a .*Opaque"),  # type: ignore[arg-type]
        ({"a": 1j}, "field 'a' holds a builtins.complex"),
        ({"a": (each for each in ())}, "field 'a' holds a builtins.generator"),
        ({"a": print}, "field 'a' holds a "),
    ],
)
def test_a_value_that_cannot_be_kept_is_named_with_its_place(item: Any, place: str) -> None:
    with pytest.raises(ItemError, match=place):
        encode(item)


def test_an_array_becomes_a_list() -> None:
    import numpy as np

    assert same(again({"a": np.array([[1, 2], [3, 4]])})["a"], [[1, 2], [3, 4]])
    assert same(again({"a": np.array(["2024-01-02"], "datetime64[ns]")})["a"], [datetime(2024, 1, 2)])  # noqa: DTZ001


def test_values_that_are_known_by_their_text_come_back() -> None:
    """Paths and network addresses."""
    for value in (PurePosixPath("a/b"), IPv4Address("10.0.0.1"), IPv6Network("fe80::/10")):
        assert same(again({"a": value})["a"], value)
    assert again(deque([1, 2])) == [1, 2]


def test_text_that_is_no_unicode_is_refused() -> None:
    with pytest.raises(ItemError, match=r"not Unicode: '\\ud800'"):
        encode({"a": "x\ud800y"})


def test_an_error_that_a_source_left_in_a_field_is_raised_for_its_item() -> None:
    with pytest.raises(ItemError, match="line 7 is no number"):
        encode({"a": ItemError("line 7 is no number")})


def test_a_class_that_cannot_be_imported_elsewhere_says_what_to_do(tmp_path: Path) -> None:
    """The snapshot was taken in one process; another one, which lacks the class, reads it."""
    local = textwrap.dedent(
        """
        from dataclasses import dataclass
        from sync_pipelines.engine.codec import encode
        def make():
            @dataclass
            class Local:
                sku: str
            return Local("A")
        print(encode(make()))
        print(encode(__import__("decimal").Decimal(1)))
        """
    )
    script = tmp_path / "gone.py"
    script.write_text(local)
    environment = {"PYTHONPATH": str(REPOSITORY)}
    ran = run_child([sys.executable, str(script)], env=environment, check=True)
    first, second = ran.stdout.splitlines()
    with pytest.raises(ConfigurationError, match=r"__main__:make\.<locals>\.Local .*top level of a module"):
        decode(first)
    assert decode(second) == Decimal(1)
    with pytest.raises(ConfigurationError, match=r"nowhere:Item .*can't be imported"):
        decode('{"$":"object","c":"nowhere:Item","v":{}}')


def test_a_snapshot_cannot_name_just_any_class() -> None:
    """A file that somebody wrote must not make the reader build objects of classes that are no items."""
    for name in ("subprocess:Popen", "os:system", "builtins:dict"):
        with pytest.raises(ConfigurationError, match=f"{name} is no dataclass"):
            decode(f'{{"$":"object","c":"{name}","v":{{}}}}')


@pytest.mark.parametrize(
    "value",
    [date(2024, 2, 29), time(1, 2, 3, 4), timedelta(days=-1, microseconds=5), UUID(int=1), b"\x00\xff", 10**40, 1e-300],
)
def test_a_value_alone_is_kept_as_well(value: Any) -> None:
    assert same(again(value), value)


def test_an_item_that_contains_itself_is_refused_not_followed_for_ever() -> None:
    item: dict[str, Any] = {}
    item["self"] = item
    with pytest.raises(RecursionError):
        encode(item)


def test_a_set_is_the_same_text_in_every_process() -> None:
    script = "from sync_pipelines.engine.codec import encode; print(encode({'tags': {'a', 'b', 'c', 'd', 1, None}}))"
    texts = {
        run_child(
            [sys.executable, "-c", script], env={"PYTHONPATH": str(REPOSITORY), "PYTHONHASHSEED": seed}, check=True
        ).stdout
        for seed in ("1", "2", "3")
    }
    assert len(texts) == 1
