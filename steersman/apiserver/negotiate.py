"""What the client accepts: JSON, YAML, protobuf, or JSON as a Table or as metadata only.

Owns `Format` and the reading of Accept headers. Called once per request; `encode.py` does the encoding. Pure.
Source: apiserver's negotiation, go-restful's matching of routes; kubectl's Accept headers.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import lru_cache
from urllib.parse import parse_qs

from steersman.api.errors import generic, not_acceptable

JSON = "application/json"
YAML = "application/yaml"
PROTOBUF = "application/vnd.kubernetes.protobuf"
META_GROUP = "meta.k8s.io"

PRODUCES = (JSON, YAML, PROTOBUF)
"""What a route of the original offers, where nothing else is said."""
WATCHED = (*PRODUCES, f"{JSON};stream=watch", f"{PROTOBUF};stream=watch")
LOGGED = ("text/plain", *PRODUCES)

_READERS = ("curl", "Wget", "Mozilla/5.0")  # with people in front of them
_YES = frozenset({"1", "t", "T", "true", "TRUE", "True"})
_TRANSFORMS = frozenset({"Table", "PartialObjectMetadata", "PartialObjectMetadataList"})


@dataclass(frozen=True, slots=True)
class Format:
    """`transform` is Table or PartialObjectMetadata (of `version`), or empty for the object itself."""

    media: str = JSON
    transform: str = ""
    version: str = ""
    indent: bool = False
    listed: bool = False  # whether the metadata of a list was asked for, not of one object

    @property
    def plain(self) -> bool:
        """Whether stored bytes can be sent as they are."""
        return self.media == JSON and not self.transform and not self.indent

    @property
    def content_type(self) -> str:
        """The Content-Type of an answer."""
        return self.media


DEFAULT = Format()


INDENTED = Format(indent=True)


def indented(query: str, agent: str) -> bool:
    """Whether JSON is to be read by people: the parameter `pretty` says so, else the User-Agent."""
    if "pretty" in query and (asked := parse_qs(query).get("pretty")):
        return asked[0] in _YES
    return agent.startswith(_READERS)


@lru_cache(maxsize=256)
def routed(accept: str, offered: tuple[str, ...]) -> None:
    """Whether a route has anything that the client accepts, parameters left aside. Raises ApiError 406."""
    wanted = {clause.partition(";")[0].strip() for clause in accept.split(",")}
    if wanted.isdisjoint(offered) and "*/*" not in wanted and accept:
        message = f"406: Not Acceptable\n\nAvailable representations: {', '.join(offered)}"
        raise generic(406, "NotAcceptable", message)


@lru_cache(maxsize=256)
def negotiate(accept: str, *, protobuf: bool, transforms: bool = True, indent: bool = False) -> Format:
    """The first acceptable format, in the client's order of preference. Raises ApiError 406.

    `protobuf`: whether the kind has a protobuf form (custom resources have none).
    """
    if indent:
        found = negotiate(accept, protobuf=protobuf, transforms=transforms)
        return replace(found, indent=found.media == JSON)
    if not accept:
        return DEFAULT
    clauses = sorted(enumerate(_clauses(accept)), key=lambda pair: (-pair[1][2], pair[0]))
    for _, (media, parameters, _) in clauses:
        found = _acceptable(media, parameters, protobuf, transforms)
        if found is not None:
            return found
    raise not_acceptable(f"only the following media types are accepted: {', '.join(PRODUCES)}")


def _clauses(accept: str) -> list[tuple[str, dict[str, str], float]]:
    found = []
    for clause in accept.split(","):
        media, *rest = (part.strip() for part in clause.split(";"))
        parameters = dict(part.split("=", 1) for part in rest if "=" in part)
        try:
            quality = float(parameters.pop("q", "1"))
        except ValueError:
            quality = 1.0
        found.append((media, parameters, quality))
    return found


def _acceptable(media: str, parameters: dict[str, str], protobuf: bool, transforms: bool) -> Format | None:
    if media in ("*/*", "*", "application/*"):
        media = JSON
    if media not in (JSON, YAML) and not (media == PROTOBUF and protobuf):
        return None
    transform = parameters.get("as", "")
    if not transform:
        return Format(media, indent=media == JSON and parameters.get("pretty") == "1")
    if not transforms or transform not in _TRANSFORMS or parameters.get("g") != META_GROUP:
        return None
    version = parameters.get("v", "")
    if version not in ("v1", "v1beta1") or (media == PROTOBUF and transform == "Table"):
        return None
    listed = transform == "PartialObjectMetadataList"
    return Format(media, "Table" if transform == "Table" else "PartialObjectMetadata", version, listed=listed)
