"""Links in proxied pages."""

from __future__ import annotations

import time

import pytest

from steersman.apiserver.subresources.links import rewrite_html, rewrite_url

PREFIX = "/api/v1/namespaces/default/pods/web/proxy"
HOSTS = frozenset({"", "api:6443"})


@pytest.mark.parametrize(
    ("url", "moved"),
    [
        ("/a", f"{PREFIX}/a"),
        ("/a/", f"{PREFIX}/a/"),
        ("/", f"{PREFIX}/"),
        ("/a?b=c#d", f"{PREFIX}/a?b=c#d"),
        ("a/b", "a/b"),
        ("", ""),
        ("#top", "#top"),
        ("http://elsewhere/a", "http://elsewhere/a"),
        ("//elsewhere/a", "//elsewhere/a"),
        ("https://api:6443/a", f"{PREFIX}/a"),
        (f"{PREFIX}/a", f"{PREFIX}/a"),
        ("http://[bad", "http://[bad"),
    ],
)
def test_urls(url: str, moved: str) -> None:
    assert rewrite_url(url, PREFIX, HOSTS) == moved


@pytest.mark.parametrize(
    ("page", "moved"),
    [
        ('<a href="/x">t</a>', f'<a href="{PREFIX}/x">t</a>'),
        ("<a href='/x'>t</a>", f'<a href="{PREFIX}/x">t</a>'),
        ("<a href=/x>t</a>", f'<a href="{PREFIX}/x">t</a>'),
        ('<A class="k" HREF="/x">', f'<A class="k" HREF="{PREFIX}/x">'),
        ('<img alt=">" src="/i.png"/>', f'<img alt=">" src="{PREFIX}/i.png"/>'),
        ('<a title="/x">', '<a title="/x">'),
        ('<p href="/x">', '<p href="/x">'),
        ('<a href="x">', '<a href="x">'),
        ('<a href="/x?a=1&amp;b=2">', f'<a href="{PREFIX}/x?a=1&amp;b=2">'),
        ("a < b and /x", "a < b and /x"),
        ("<link\n  href='/s.css'\n>", f'<link\n  href="{PREFIX}/s.css"\n>'),
    ],
)
def test_pages(page: str, moved: str) -> None:
    assert rewrite_html(page.encode(), PREFIX, HOSTS).decode() == moved


def test_bytes_that_are_no_text_stay_as_they_are() -> None:
    page = b'\xff\xfe<a href="/\xff">\x00'
    assert rewrite_html(page, PREFIX, HOSTS) == b'\xff\xfe<a href="' + PREFIX.encode() + b'/\xff">\x00'


@pytest.mark.parametrize("piece", [b'<a href="', b"<a ", b"<a x=", b"<", b"<a href=/x ", b"<a \"'", b"<a\t\t\t\t"])
def test_hostile_pages_take_no_long_time(piece: bytes) -> None:
    page = piece * (200_000 // len(piece))
    start = time.process_time()
    rewrite_html(page, PREFIX, HOSTS)
    assert time.process_time() - start < 2.0
