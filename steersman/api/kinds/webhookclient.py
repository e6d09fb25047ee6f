"""How a webhook's URL or Service may be written, in configurations of admission and in definitions.

Pure. Called by the kinds that name webhooks. Source: apiserver's util/webhook/validation.go.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any
from urllib.parse import urlsplit

from steersman.api import names
from steersman.api.errors import FieldError
from steersman.api.validation import invalid, required

_FORM = "; desired format: https://host[/path]"


def url(path: str, text: str) -> list[FieldError]:
    """An https URL with a host, and nothing that a request could not keep."""
    try:
        parts = urlsplit(text)
    except ValueError as error:
        return [required(path, f"url must be a valid URL: {error}{_FORM}")]
    out: list[FieldError] = []
    if parts.scheme != "https":
        out.append(invalid(path, parts.scheme, f"'https' is the only allowed URL scheme{_FORM}"))
    user, _, host = parts.netloc.rpartition("@")
    if not host:
        out.append(invalid(path, "", f"host must be specified{_FORM}"))
    if "@" in parts.netloc:
        out.append(invalid(path, user, "user information is not permitted in the URL"))
    if parts.fragment:
        out.append(invalid(path, parts.fragment, "fragments are not permitted in the URL"))
    if parts.query:
        out.append(invalid(path, parts.query, "query parameters are not permitted in the URL"))
    return out


def service(path: str, found: Mapping[str, Any]) -> list[FieldError]:
    """A Service: the original takes the two names for each other."""
    out = [required(f"{path}.{shown}") for shown, key in _SWAPPED if not found.get(key)]
    port = found.get("port", 443)
    if problems := names.port(port):
        out.append(invalid(f"{path}.port", port, f"port is not valid: {', '.join(problems)}"))
    return out + _path(f"{path}.path", found.get("path") or "/")


_SWAPPED = (("name", "namespace"), ("namespace", "name"))


def _path(path: str, text: str) -> list[FieldError]:
    if text == "/":
        return []
    if text == "//":
        return [invalid(path, text, "segment[0] may not be empty")]
    out = [] if text.startswith("/") else [invalid(path, text, "must start with a '/'")]
    for i, step in enumerate(text[1:].removesuffix("/").split("/")):
        if not step:
            out.append(invalid(path, text, f"segment[{i}] may not be empty"))
        else:
            out += [invalid(path, text, f"segment[{i}]: {problem}") for problem in names.dns_subdomain(step)]
    return out


_REVIEWS = ("v1", "v1beta1")


def reviews(path: str, versions: Sequence[str], none: str = "") -> list[FieldError]:
    """The versions of reviews that a webhook understands; `none` is said where there are none."""
    if not versions:
        return [required(path, none)]
    out: list[FieldError] = []
    for i, version in enumerate(versions):
        if version in versions[:i]:
            out.append(invalid(f"{path}[{i}]", version, "duplicate version"))
        else:
            out += [invalid(f"{path}[{i}]", version, text) for text in names.dns1035_label(version)]
    if not set(versions) & set(_REVIEWS):
        out.append(invalid(path, versions, "must include at least one of v1, v1beta1"))
    return out
