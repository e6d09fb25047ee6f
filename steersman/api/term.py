"""A leader's term: by which Lease somebody leads, and since when; how a request says so.

Owns the header by which a leader's writes name its term. A client sends it with every write of what only a leader may
do; the API server writes only while that term lasts. Who began a newer term may so rely on what it reads: nothing of an
older one comes after. Pure. Source: fencing tokens (Chubby's sequencers); kube-apiserver ignores the header.
"""

from __future__ import annotations

from typing import NamedTuple
from urllib.parse import quote, unquote

from steersman.api import errors
from steersman.api.resource import Object

HEADER = "steer-leader"


class Term(NamedTuple):
    """One holder's time with a Lease: a Lease that is taken again, be it by the same holder, is another term."""

    namespace: str
    name: str
    acquired: str
    holder: str

    def header(self) -> tuple[str, str]:
        """The header of a request that belongs to this term."""
        return HEADER, "/".join(quote(part, safe=":") for part in self)

    def lasts(self, lease: Object | None) -> bool:
        """Whether this is the term that the Lease tells of."""
        spec = (lease or {}).get("spec") or {}
        return (spec.get("acquireTime"), spec.get("holderIdentity")) == (self.acquired, self.holder)


def parse(text: str) -> Term:
    """What `Term.header` wrote. Raises ApiError 400."""
    parts = [unquote(part) for part in text.split("/")]
    if len(parts) != len(Term._fields) or not all(parts):
        raise errors.bad_request(f"the header {HEADER} must name a lease's namespace, name, acquireTime and holder")
    return Term(*parts)
