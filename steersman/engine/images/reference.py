"""Image references as Docker reads them: `nginx` is `docker.io/library/nginx:latest`.

Owns the value `Reference` and its grammar. Pure. Used by the image store, the registry client and the builder.
Source: the grammar and normalisation of distribution's `reference` package; its error texts are facts that users know.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, replace

DEFAULT_DOMAIN = "docker.io"
DEFAULT_TAG = "latest"
_MAX_NAME = 255

_PATH_PART = r"[a-z0-9]+(?:(?:\.|_|__|-+)[a-z0-9]+)*"
_PATH = re.compile(rf"{_PATH_PART}(?:/{_PATH_PART})*")
_DOMAIN_PART = r"(?:[a-zA-Z0-9]|[a-zA-Z0-9][a-zA-Z0-9-]*[a-zA-Z0-9])"
_DOMAIN = re.compile(rf"(?:{_DOMAIN_PART}(?:\.{_DOMAIN_PART})*|\[[a-fA-F0-9:]+\])(?::[0-9]+)?")
_TAG = re.compile(r"[\w][\w.-]{0,127}", re.ASCII)
_DIGEST = re.compile(r"[A-Za-z][A-Za-z0-9]*(?:[-_+.][A-Za-z][A-Za-z0-9]*)*:[0-9a-fA-F]{32,}")
_SHA256 = re.compile(r"sha256:[0-9a-f]{64}")
_IDENTIFIER = re.compile(r"[a-f0-9]{64}")


class InvalidReference(ValueError):
    """The text is not an image reference; the message is Docker's."""


@dataclass(frozen=True, slots=True)
class Reference:
    """A normalised name. At least one of `tag` and `digest` is set."""

    domain: str
    path: str
    tag: str = ""
    digest: str = ""

    @property
    def repository(self) -> str:
        """Domain and path, such as `docker.io/library/nginx`."""
        return f"{self.domain}/{self.path}"

    @property
    def tagged(self) -> str:
        """The name without its digest, as images are tagged with; empty when there is no tag."""
        return f"{self.repository}:{self.tag}" if self.tag else ""

    @property
    def target(self) -> str:
        """What a registry is asked for: the digest if there is one, else the tag."""
        return self.digest or self.tag

    def with_digest(self, digest: str) -> Reference:
        """The same repository by digest alone."""
        return replace(self, tag="", digest=digest)

    def familiar(self) -> str:
        """The short form that people type: `nginx:latest`."""
        name = self.repository
        if self.domain == DEFAULT_DOMAIN:
            name = self.path.removeprefix("library/") if self.path.count("/") == 1 else self.path
        return f"{name}{f':{self.tag}' if self.tag else ''}{f'@{self.digest}' if self.digest else ''}"

    def __str__(self) -> str:
        tag = f":{self.tag}" if self.tag else ""
        return f"{self.repository}{tag}{f'@{self.digest}' if self.digest else ''}"


def is_digest(text: str) -> bool:
    """Whether `text` is a SHA-256 digest, the only algorithm that the content store keeps."""
    return _SHA256.fullmatch(text) is not None


def parse(text: str) -> Reference:
    """Normalise a reference; no tag and no digest means `:latest`. Raises InvalidReference."""
    if _IDENTIFIER.fullmatch(text):
        raise InvalidReference(f"invalid repository name ({text}), cannot specify 64-byte hexadecimal strings")
    name, at, digest = text.partition("@")
    domain, path = _split_domain(name)
    path, colon, tag = path.partition(":")
    if path != path.lower():
        raise InvalidReference("invalid reference format: repository name must be lowercase")
    valid = (
        _PATH.fullmatch(path)
        and _DOMAIN.fullmatch(domain)
        and (not colon or _TAG.fullmatch(tag))
        and (not at or _DIGEST.fullmatch(digest))
    )
    if not valid:
        raise InvalidReference("invalid reference format")
    if len(path) > _MAX_NAME:
        raise InvalidReference("repository name must not be more than 255 characters")
    if digest and not is_digest(digest):
        known = digest.split(":")[0] in ("sha256", "sha384", "sha512")
        raise InvalidReference("invalid checksum digest length" if known else "unsupported digest algorithm")
    return Reference(domain, path, tag if tag or digest else DEFAULT_TAG, digest)


def _split_domain(name: str) -> tuple[str, str]:
    first, slash, rest = name.partition("/")
    is_host = slash and (any(c in first for c in ".:") or first == "localhost" or first != first.lower())
    domain, path = (first, rest) if is_host else (DEFAULT_DOMAIN, name)
    if domain == "index.docker.io":
        domain = DEFAULT_DOMAIN
    if domain == DEFAULT_DOMAIN and "/" not in path:
        path = f"library/{path}"
    return domain, path
