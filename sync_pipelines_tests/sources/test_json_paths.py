"""The one reader of paths: names with dots, keys that hold dots themselves, lists of names, headers."""

import pytest

from sync_pipelines.errors import ConfigurationError
from sync_pipelines.sources.json_paths import MISSING, AnswerHeader, look_up, path_names, shown_path

BODY = {
    "@odata.nextLink": "u",
    "data": {"items": [1, 2], "v1.2": {"page.next": "w"}, "none": None},
    "a.b": {"c": "dotted"},
    "a": {"b": {"c": "nested", "d": "only nested"}},
    "x.y": 0,
}


@pytest.mark.parametrize(
    ("path", "found"),
    [
        ("@odata.nextLink", "u"),
        ("data.items", [1, 2]),
        ("data.items.1", 2),
        ("data.v1.2.page.next", "w"),
        ("data.none", None),
        ("a.b.c", "dotted"),
        ("a.b.d", "only nested"),
        ("x.y", 0),
        (["a", "b", "c"], "nested"),
        (["a.b", "c"], "dotted"),
        ("data.items.2", MISSING),
        ("data.items.x", MISSING),
        ("data.none.more", MISSING),
        ("@odata.nextlink", MISSING),
        (["x", "y"], MISSING),
        (AnswerHeader("X-Next"), MISSING),
        ((), BODY),
    ],
)
def test_key_of_exactly_that_name_is_found_first(path, found):
    assert look_up(BODY, path) == found


def test_paths_are_checked_and_shown():
    assert path_names(AnswerHeader("X-Total")) == ["X-Total"]
    assert [shown_path("a.b"), shown_path(["a", "b"]), shown_path(AnswerHeader("X"))] == [
        "'a.b'",
        "'a.b'",
        "the header X",
    ]
    for wrong in ("a..b", ["a", ""], AnswerHeader("")):
        with pytest.raises(ConfigurationError, match="empty part"):
            path_names(wrong)
