"""What a client of Go's says of an answer that is no success, and of a connection that came to nothing.

Owns the words, which end up in refusals and conditions. Called by everything that asks webhooks. Pure. Source:
apimachinery's errors.NewGenericServerResponse; client-go's rest.Request.
"""

from __future__ import annotations

import json
import ssl

from steersman.lib.http.messages import ClientResponse

_TEXTS = {
    400: "the server rejected our request for an unknown reason",
    401: "the server has asked for the client to provide credentials",
    404: "the server could not find the requested resource",
    405: "the server does not allow this method on the requested resource",
    409: "the server reported a conflict",
    422: "the server rejected our request due to an error in our request",
    429: "the server has received too many requests and has asked us to try again later",
    503: "the server is currently unable to handle the request",
    504: "the server was unable to return a response in the time allotted, but may still be processing the request",
}
_SHOWN = 2048  # bytes of a body
_STRANGERS = (18, 19, 20, 21)  # OpenSSL's codes where nobody who is believed has signed


def success(status: int) -> bool:
    """Whether an answer is one."""
    return 200 <= status <= 206


def refused(answer: ClientResponse, body: bytes) -> str:
    """What an answer that is no success is told as: a Status' own message, else words for its code."""
    try:
        told = json.loads(body)
    except (ValueError, RecursionError):
        told = None
    if (
        isinstance(told, dict)
        and (told.get("apiVersion"), told.get("kind")) == ("v1", "Status")
        and told.get("message")
    ):
        return str(told["message"])
    code = answer.status
    if code in _TEXTS:
        return _TEXTS[code]
    textual = (answer.header("content-type") or "text/").startswith("text/")
    said = body[:_SHOWN].decode(errors="replace").strip() if textual else "unknown"
    if code >= 500:
        return f"an error on the server ({json.dumps(said)}) has prevented the request from succeeding"
    if code == 406 and said in ("", "unknown"):
        return "the server was unable to respond with a content type that the client supports"
    if code in (403, 406, 415):
        return said
    return f"the server responded with the status code {code} but did not return more information"


def broken(error: OSError) -> str:
    """Why no answer came."""
    if isinstance(error, ConnectionResetError) and not error.errno:
        return "EOF"
    cause = error.__cause__
    if isinstance(cause, ssl.SSLCertVerificationError) and cause.verify_code in _STRANGERS:
        return "tls: failed to verify certificate: x509: certificate signed by unknown authority"
    return str(error)
