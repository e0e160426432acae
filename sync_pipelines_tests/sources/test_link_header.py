"""The header `Link` as RFC 8288 has it, and what is none."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sync_pipelines.sources.link_header import LinkHeader, read_link_header


@pytest.mark.parametrize(
    ("header", "links"),
    [
        ('<u>; title="page = 2"; rel="next"', {"next": "u"}),
        ('<u>; title="a;b, <c>"; rel=next', {"next": "u"}),
        (r'<u>; title="she said \"rel=prev\""; rel=next', {"next": "u"}),
        ("<u>; REL=NEXT", {"next": "u"}),
        ('<u> ; Rel = "Next" ; type="text/html"', {"next": "u"}),
        ("<u>;crossorigin;rel=next", {"next": "u"}),
        ("<u>;;rel=next;", {"next": "u"}),
        ("<u?a=1,2;b>; rel=next", {"next": "u?a=1,2;b"}),
        ("<u>; rel=prev; rel=next", {"prev": "u"}),
        ('<u>; rel="prev\tnext last"', {"prev": "u", "next": "u", "last": "u"}),
        ("<u>;rel=next, <v>;rel=next", {"next": "u"}),
        ("<a>;rel=first,<b>;rel=next , ,<c>;rel=last", {"first": "a", "next": "b", "last": "c"}),
        ('<u>; rel=next; anchor="#part", <v>; rel=next', {"next": "v"}),
        ("< ../u >; rel=next", {"next": "../u"}),
        ("<u>", {}),
        ("<u>; rel", {}),
        ("", {}),
        (" , ", {}),
    ],
)
def test_links_are_found_whatever_stands_around_them(header, links):
    assert read_link_header(header) == LinkHeader(links)


@pytest.mark.parametrize(
    ("header", "links", "unread"),
    [
        ("u; rel=next", {}, "u; rel=next"),
        ("<u>; rel=first, v; rel=next", {"first": "u"}, "v; rel=next"),
        ("<u; rel=next", {}, "u; rel=next"),
        ("<u> rel=next", {}, "rel=next"),
        ('<u>; rel="first"next, <v>; rel=next', {"first": "u"}, "next, <v>; rel=next"),
    ],
)
def test_what_can_not_be_read_is_said(header, links, unread):
    assert read_link_header(header) == LinkHeader(links, unread)


_TEXT = st.text(st.characters(min_codepoint=32, max_codepoint=126), max_size=12)


@given(title=_TEXT, flag=st.sampled_from(["", ";x", "; hreflang=de", "; y = z"]), first=st.booleans())
def test_no_title_hides_the_next_page(title: str, flag: str, *, first: bool) -> None:
    quoted = '; title="{}"'.format(title.replace("\\", "\\\\").replace('"', '\\"'))
    around = f'<u>{flag}; rel="next"{quoted}' if first else f'<u>{quoted}{flag}; rel="next"'
    assert read_link_header(f'<a>; rel="first"{quoted}, {around}, <z>; rel="last"').links == {
        "first": "a",
        "next": "u",
        "last": "z",
    }
