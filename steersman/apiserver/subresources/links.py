"""Links in proxied pages: absolute paths lead through the proxy again.

Pure. Owns the rewriting of Location headers and of the attributes of HTML tags that hold URLs. Called by `proxy`.
Source: apimachinery's util/proxy/transport.go.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from urllib.parse import urlsplit, urlunsplit

_URLS: dict[str, tuple[str, ...]] = {
    "a": ("href",),
    "applet": ("codebase",),
    "area": ("href",),
    "audio": ("src",),
    "base": ("href",),
    "blockquote": ("cite",),
    "body": ("background",),
    "button": ("formaction",),
    "command": ("icon",),
    "del": ("cite",),
    "embed": ("src",),
    "form": ("action",),
    "frame": ("longdesc", "src"),
    "head": ("profile",),
    "html": ("manifest",),
    "iframe": ("longdesc", "src"),
    "img": ("longdesc", "src", "usemap"),
    "input": ("src", "usemap", "formaction"),
    "ins": ("cite",),
    "link": ("href",),
    "object": ("classid", "codebase", "data", "usemap"),
    "q": ("cite",),
    "script": ("src",),
    "source": ("src",),
    "video": ("poster", "src"),
}
# Lengths are bounded so that a hostile page with a thousand open quotes costs no more than an honest one.
_ATTRIBUTE = rb"""[^\s"'<>/=]{1,128}(?:\s{0,16}=\s{0,16}(?:"[^"]{0,4096}"|'[^']{0,4096}'|[^\s"'<>]{1,4096}))?"""
_TAG = re.compile(rb"<([a-zA-Z]{1,16})((?:\s{1,64}" + _ATTRIBUTE + rb"){1,64}+)")
_PART = re.compile(rb"""(\s([a-zA-Z]{1,16})\s{0,16}=\s{0,16})("[^"]{0,4096}"|'[^']{0,4096}'|[^\s"'<>]{1,4096})""")


def rewrite_url(url: str, prefix: str, hosts: frozenset[str]) -> str:
    """`url` as a client of the proxy must ask for it. `prefix` is the proxy's path; `hosts` mean the server itself."""
    try:
        parts = urlsplit(url)
    except ValueError:
        return url
    if (parts.netloc and parts.netloc not in hosts) or not parts.path.startswith("/"):
        return url
    path = parts.path if parts.path.startswith(prefix) else prefix.rstrip("/") + parts.path
    return urlunsplit(("", "", path, parts.query, parts.fragment))


def rewrite_html(page: bytes, prefix: str, hosts: frozenset[str]) -> bytes:
    """A page with every link that is absolute within the server led through the proxy."""

    import html  # here: it costs a start milliseconds

    def tag(found: re.Match[bytes]) -> bytes:
        wanted = _URLS.get(found[1].decode("latin-1").lower())
        return b"<" + found[1] + _PART.sub(attribute(wanted), found[2]) if wanted else found[0]

    def attribute(wanted: tuple[str, ...]) -> Callable[[re.Match[bytes]], bytes]:
        def moved(found: re.Match[bytes]) -> bytes:
            if found[2].decode("latin-1").lower() not in wanted:
                return found[0]
            value = found[3].decode("utf-8", "surrogateescape")
            link = html.unescape(value[1:-1] if value[0] in "\"'" else value)
            through = rewrite_url(link, prefix, hosts)
            if through == link:
                return found[0]
            return found[1] + f'"{html.escape(through)}"'.encode("utf-8", "surrogateescape")

        return moved

    return _TAG.sub(tag, page)
