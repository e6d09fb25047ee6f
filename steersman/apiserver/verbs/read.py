"""get and list.

Owns resourceVersion semantics of reads, selectors, chunking with snapshot tokens. Source: apiserver's GetOptions and
ListOptions handling, "Resource Versions" and "Retrieving large results sets in chunks" in the API concepts.
"""

from __future__ import annotations

import base64
import binascii
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

import msgspec

from steersman.api import errors, fields, labels
from steersman.api.errors import ApiError, FieldError
from steersman.api.fields import FieldSelector, Getter
from steersman.api.kind import Kind
from steersman.api.labels import Selector
from steersman.api.resource import Object
from steersman.api.schema.decode import malformed
from steersman.api.validation import forbidden, not_supported
from steersman.apiserver.cache import Item, Unreadable
from steersman.apiserver.call import Call
from steersman.apiserver.conversion import remote
from steersman.apiserver.verbs import longlist
from steersman.lib.http.messages import Answer, Response
from steersman.lib.tasks import turn
from steersman.store.interface import Compacted

_PAGE = 500  # objects read from history at a time while looking for those that are selected
_UNCACHED = ("", "events")  # the only kind that the original reads from its store
_EXPIRED = (
    "The provided continue parameter is too old to display a consistent list result. You can start a new list without "
    "the continue parameter, or use the continue token in this response to retrieve the remainder of the results. "
    "Continuing with the provided token results in an inconsistent list - objects that were created, modified, or "
    "deleted between the time the first chunk was returned and now may show up in the list."
)


@dataclass(frozen=True, slots=True)
class Selection:
    """Which objects of a collection are wanted."""

    labels: Selector
    fields: FieldSelector
    namespace: str
    name: str = ""
    getters: Mapping[str, Getter] = field(default_factory=dict)  # of a view of another kind's objects

    @property
    def everything(self) -> bool:
        """Whether nothing is left out."""
        return self.labels.everything and self.fields.everything and not self.name

    def matches(self, item: Item) -> bool:
        """Whether an object is wanted."""
        if self.namespace and item.namespace != self.namespace:
            return False
        if self.name and item.name != self.name:
            return False
        if any((self._field(item, term.field) == term.value) is not term.equal for term in self.fields.terms):
            return False
        return self.labels.everything or self.labels.matches(item.labels)

    def _field(self, item: Item, path: str) -> str:
        getter = self.getters.get(path)
        return item.field(path) if getter is None else getter(item.obj())


def selection(call: Call) -> Selection:
    """The request's selectors. Raises ApiError 400."""
    try:
        chosen = labels.parse(call.query.get("labelSelector"))
    except ValueError as error:
        raise errors.bad_request(str(error)) from None
    wanted = call.query.get("fieldSelector")
    kind = _in_version(call) if wanted and call.kind.custom else call.kind
    try:
        where = fields.select(wanted, kind)
    except ValueError as error:
        raise errors.bad_request(str(error)) from None
    getters = kind.fields if kind.stored_as or kind is not call.kind else {}
    space = call.info.namespace if kind.namespaced else ""  # a namespace is no object in itself
    return Selection(chosen, where, space, call.info.name, getters)  # a name: the watch of one object


def _in_version(call: Call) -> Kind:
    """A custom kind with the fields that the request's version offers, read from objects in that version."""
    kind, version = call.kind, call.kind.version(call.version)
    names = () if version is None else version.fields
    if kind.convert is None or call.version == kind.storage_version.name:
        return replace(kind, fields={name: kind.fields[name] for name in names})
    convert = call.encoder().convert

    def converted(getter: Getter) -> Getter:
        return lambda obj: getter(convert(obj))

    return replace(kind, fields={name: converted(kind.fields[name]) for name in names})


def get(call: Call) -> Response:
    """One object."""
    check_export(call)
    item = call.storage.get(call.kind, call.info.namespace, call.info.name)
    if (version := call.query.get("resourceVersion")) not in ("", "0"):
        check_not_future(call, parse_version(version, plain=True))
    return call.respond(200, call.encoder().object(item))


def check_export(call: Call) -> None:
    """Raises ApiError 400 where an object is asked for as it was once exported."""
    if call.query.flag("export"):
        raise errors.bad_request("the export parameter, deprecated since v1.14, is no longer supported")


def parse_version(text: str, *, plain: bool = False) -> int:
    """A resourceVersion. Raises ApiError: 400, and where it is `plain`, of gets and watches, 500."""
    digits = text.isascii() and text.isdecimal()
    if digits and int(text) < 1 << 64:
        return int(text)
    wrong = "value out of range" if digits else "invalid syntax"
    why = f'resourceVersion: Invalid value: "{text}": strconv.ParseUint: parsing "{text}": {wrong}'
    raise ApiError(500, "", why) if plain else errors.bad_request(f"invalid resource version: {why}")


def check_not_future(call: Call, version: int) -> None:
    """Raises the 504 of a version that this server has not reached."""
    current = call.storage.revision
    if version > current:
        cached = (call.kind.group, call.kind.plural) != _UNCACHED
        raise ApiError(
            504,
            "Timeout",
            f"Timeout: Too large resource version: {version}, current: {current}",
            {"causes": [{"reason": "ResourceVersionTooLarge", "message": "Too large resource version"}],
             **({"retryAfterSeconds": 1} if cached else {})},
            [("retry-after", "1")] if cached else [],
        )  # fmt: skip


async def list_(call: Call) -> Answer:
    """A collection, or a chunk of it."""
    chosen = selection(call)
    limit = max(call.query.number("limit") or 0, 0)
    call.query.number("timeoutSeconds")
    token = call.query.get("continue")
    match = call.query.get("resourceVersionMatch")
    version = call.query.get("resourceVersion")
    _check_options(version, match, token, initial=call.query.has("sendInitialEvents"))
    storage, kind = call.storage, call.kind
    prefix = storage.prefix(kind, chosen.namespace if kind.namespaced else "")
    if token:
        return await _resume(call, chosen, limit, token, prefix)
    if version not in ("", "0"):
        wanted = parse_version(version)
        check_not_future(call, wanted)
        if match == "Exact" or (limit and not match and wanted):
            return await _snapshot(call, chosen, limit, prefix, wanted, "")
    return await _present(call, chosen, limit, prefix)


async def _present(call: Call, chosen: Selection, limit: int, prefix: str, after: str = "") -> Answer:
    """What is there now, of the keys that sort after `after`."""
    cache, revision = call.storage.cache(call.kind), call.storage.revision
    keys, items = cache.slice(prefix, after, limit + 1 if limit and chosen.everything else 0)
    if chosen.fields.terms and remote(call.kind):
        await call.encoder().prepare(items)
    found, last, more = await _take(keys, items, chosen, limit)
    cache.lists += 1
    cache.newest += not call.query.get("resourceVersion")
    cache.fetched += len(items)
    cache.returned += len(found)
    remaining = None
    if more and chosen.everything:
        first, end = cache.span(prefix, last)
        remaining = end - first
    return await _answer(call, found, revision, last if more else "", remaining, prefix)


def _check_options(version: str, match: str, token: str, *, initial: bool) -> None:
    """Raises ApiError 422. Source: apimachinery's metav1/validation ValidateListOptions, for lists."""
    found: list[FieldError] = []
    if match:
        name = "resourceVersionMatch"
        if not version:
            found.append(forbidden(name, "resourceVersionMatch is forbidden unless resourceVersion is provided"))
        if token:
            found.append(forbidden(name, "resourceVersionMatch is forbidden when continue is provided"))
        if match not in ("Exact", "NotOlderThan"):
            found.append(not_supported(name, match, ["Exact", "NotOlderThan", ""]))
        if match == "Exact" and version == "0":
            found.append(forbidden(name, 'resourceVersionMatch "exact" is forbidden for resourceVersion "0"'))
    if initial:
        found.append(forbidden("sendInitialEvents", "sendInitialEvents is forbidden for list"))
    if found:
        raise errors.invalid("meta.k8s.io", "ListOptions", "", found)


async def _take(
    keys: Sequence[str], items: Sequence[Item], chosen: Selection, limit: int
) -> tuple[Sequence[Item], str, bool]:
    """Up to `limit` matching items (0: all), the last one's key, and whether there are more."""
    if chosen.everything:
        more = bool(limit) and len(items) > limit
        return (items[:limit] if more else items), (keys[limit - 1] if more else ""), more
    found: list[Item] = []
    last = ""
    for start in range(0, len(items), longlist.TURN):
        if start:
            await turn()
        for at in range(start, min(start + longlist.TURN, len(items))):
            if not chosen.matches(items[at]):
                continue
            if limit and len(found) == limit:
                return found, last, True
            found.append(items[at])
            last = keys[at]
    return found, last, False


async def _answer(
    call: Call, items: Sequence[Item], revision: int, last: str, remaining: int | None, prefix: str
) -> Answer:
    meta: Object = {"resourceVersion": str(revision)}
    if last:
        meta["continue"] = _token(revision, last.removeprefix(prefix))
        if remaining:
            meta["remainingItemCount"] = remaining
    encoder = call.encoder()
    if longlist.wanted(call, encoder, items):
        return await longlist.answer(call, encoder, items, meta)
    return call.respond(200, encoder.list(items, meta))


def _token(revision: int, start: str) -> str:
    body = msgspec.json.encode({"v": "meta.k8s.io/v1", "rv": revision, "start": f"{start}\0"})
    return base64.urlsafe_b64encode(body).decode().rstrip("=")


def _read_token(token: str) -> tuple[int, str]:
    """Source: DecodeContinue in apiserver's pkg/storage/continue.go."""
    wrong = "invalid continue token: continue key is not valid: "
    body = b""
    try:
        body = base64.b64decode(token + "=" * (-len(token) % 4), b"-_", validate=True)
        read = _TOKEN.decode(body)
    except binascii.Error:
        at = next((at for at, char in enumerate(token) if not _OF_BASE64.match(char)), len(token))
        raise errors.bad_request(f"{wrong}illegal base64 data at input byte {at}") from None
    except (ValueError, RecursionError) as error:
        raise errors.bad_request(wrong + malformed(body, error)) from None
    if read.v != _TOKEN_VERSION:
        raise errors.bad_request(f"{wrong}server does not recognize this encoded version {read.v}")
    if not read.rv:
        raise errors.bad_request(f"{wrong}incorrect encoded start resourceVersion (version {_TOKEN_VERSION})")
    if not read.start:
        raise errors.bad_request(f"{wrong}encoded start key empty (version {_TOKEN_VERSION})")
    if {"", ".", ".."}.intersection(read.start.removeprefix("/").split("/")):
        raise errors.bad_request(wrong + read.start)
    return read.rv, read.start.removesuffix("\0")


class _Token(msgspec.Struct):
    v: str = ""
    rv: int = 0
    start: str = ""


_TOKEN, _TOKEN_VERSION, _OF_BASE64 = msgspec.json.Decoder(_Token), "meta.k8s.io/v1", re.compile("[A-Za-z0-9_-]")


async def _resume(call: Call, chosen: Selection, limit: int, token: str, prefix: str) -> Answer:
    revision, start = _read_token(token)
    if call.query.get("resourceVersion") not in ("", "0"):
        raise errors.bad_request("specifying resource version is not allowed when using continue")
    if revision < 0:  # a token from an expired answer: go on with what is there now
        return await _present(call, chosen, limit, prefix, prefix + start)
    return await _snapshot(call, chosen, limit, prefix, revision, prefix + start)


async def _snapshot(call: Call, chosen: Selection, limit: int, prefix: str, revision: int, after: str) -> Answer:
    """The state at a revision. Raises ApiError 410 when it is no longer kept."""
    kind = call.storage.cache(call.kind).kind
    found: list[Item] = []
    last, more, plain, remaining = after, True, chosen.everything, 0
    while more and not (limit and len(found) == limit):
        want = limit - len(found)
        size = 0 if not limit else want if plain else max(want, _PAGE)
        try:
            page = await call.storage.store.list(prefix, after=last, limit=size, revision=revision)
        except Compacted:
            if after:
                raise ExpiredToken(_EXPIRED, _token(-1, after.removeprefix(prefix))) from None
            raise errors.gone("The resourceVersion for the provided list is too old.") from None
        try:
            items = [kind.item(entry.key, entry.value, entry.revision) for entry in page.entries]
        except Unreadable as error:
            raise error.in_list() from None
        taken, key, more = await _take([entry.key for entry in page.entries], items, chosen, want if limit else 0)
        found += taken
        last = key if more or not page.entries else page.entries[-1].key
        remaining = page.remaining
        more = more or remaining > 0
    return await _answer(call, found, revision, last if more else "", remaining if plain else None, prefix)


class ExpiredToken(ApiError):
    """410 with a token to go on inconsistently."""

    def __init__(self, message: str, token: str) -> None:
        super().__init__(410, "Expired", message)
        self.token = token

    def status(self) -> Object:
        """The Status, with the new token in its metadata."""
        status = super().status()
        status["metadata"] = {"continue": self.token}
        return status
