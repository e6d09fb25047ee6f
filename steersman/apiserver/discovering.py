"""/api, /apis and what is below them that is no resource: discovery over HTTP.

Owns which methods these paths have, what is negotiated for them and the headers of their answers; the documents are
`api.discovery`'s. Called by `app.py` for paths that are no resource. Source: apiserver's pkg/endpoints/discovery
(routes of /api and of versions, for GET alone; aggregated documents), kube-aggregator's handler_apis.go (/apis and
/apis/G, for every method).
"""

from __future__ import annotations

import msgspec

from steersman.api import errors
from steersman.api.discovery import AGGREGATED, Answer, Discovery, aggregated_type
from steersman.apiserver.encode import content_type, in_medium
from steersman.apiserver.negotiate import JSON, PRODUCES, PROTOBUF, Format, indented, negotiate, routed
from steersman.lib.http.messages import Request, Response


def answer(discovery: Discovery, request: Request) -> Response | None:
    """The document at the request's path; None where there is none. Raises ApiError 405, 406."""
    path, accept = request.path.rstrip("/"), request.header("accept") or ""
    version = discovery.negotiated(accept) if path in ("/api", "/apis") else ""
    found = discovery.answer(path, accept)
    if found is None:
        return None
    if path == "/api" or (path.count("/") != 1 + path.startswith("/apis/") and not discovery.custom(path)):
        # a route; the others are handlers
        if request.method != "GET":
            raise errors.no_such_method()
        routed(accept, PRODUCES)
    indent = indented(request.query, request.header("user-agent") or "")
    if version:
        return _aggregated(request, found, version, accept, indent=indent)
    format = negotiate(accept, protobuf=True, transforms=False, indent=indent)
    private = ("cache-control", "no-cache, private")
    if format.plain:
        return Response(200, [private, ("content-type", JSON)], found.body)
    document = msgspec.json.decode(found.body)
    if format.media == PROTOBUF:
        document["apiVersion"] = "v1"  # the core group's documents do not say theirs
    media = content_type(document["kind"], document.get("apiVersion", ""), format)
    return Response(200, [private, ("content-type", media)], in_medium(document, format))


def _aggregated(request: Request, found: Answer, version: str, accept: str, *, indent: bool) -> Response:
    media = next(
        (part for clause in accept.split(",") if (part := clause.partition(";")[0].strip()) in AGGREGATED), JSON
    )
    headers = [("cache-control", "public"), ("content-type", aggregated_type(media, version)), ("vary", "Accept")]
    headers.append(("etag", found.etag))
    if request.header("if-none-match") == found.etag:
        return Response(304, headers)
    if media == JSON and not indent:
        return Response(200, headers, found.body)
    return Response(200, headers, in_medium(msgspec.json.decode(found.body), Format(media, indent=indent)))
