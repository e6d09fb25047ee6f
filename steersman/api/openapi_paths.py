"""The operations of a kind, before they are written as OpenAPI v2 or v3.

Owns `Operation` and the list of them that follows from a `Kind`: paths, methods, query parameters, the definitions of
body and answer. Called by `openapi.py`. The names and actions are those of kube-apiserver's published documents.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

from steersman.api.kind import Kind, Subresource
from steersman.api.schema import Schemas, number

META = "io.k8s.apimachinery.pkg.apis.meta.v1"
DELETE_OPTIONS, PATCH, STATUS = f"{META}.DeleteOptions", f"{META}.Patch", f"{META}.Status"
WATCH_EVENT = f"{META}.WatchEvent"

PARAMETERS: dict[str, tuple[str, str]] = {
    "allowWatchBookmarks": ("boolean", "Ask for watch events of type BOOKMARK."),
    "command": ("string", "The command and its arguments, not run in a shell."),
    "container": ("string", "The container; the only one when left out."),
    "continue": ("string", "Where the list goes on, as an earlier page said."),
    "dryRun": ("string", "All: do everything but persist."),
    "fieldManager": ("string", "Who makes the change, at most 128 printable characters; required for apply."),
    "fieldSelector": ("string", "Only objects whose fields match."),
    "fieldValidation": ("string", "What to do about unknown and repeated fields: Ignore, Warn or Strict."),
    "follow": ("boolean", "Go on as the log grows."),
    "force": ("boolean", "Take over fields that others manage; only for apply."),
    "gracePeriodSeconds": ("integer", "Seconds until the object goes; 0 is at once."),
    "ignoreStoreReadErrorWithClusterBreakingPotential": (
        "boolean",
        "Delete what cannot be read, at the risk of whoever relies on its end.",
    ),
    "insecureSkipTLSVerifyBackend": ("boolean", "Take the log from a kubelet whose certificate nobody verified."),
    "labelSelector": ("string", "Narrows the list of returned objects to those whose labels match."),
    "limit": ("integer", "At most so many objects in a page."),
    "limitBytes": ("integer", "At most so many bytes of the log."),
    "name": ("string", "The object's name."),
    "namespace": ("string", "The object's namespace."),
    "orphanDependents": ("boolean", "Deprecated: use propagationPolicy."),
    "path": ("string", "The path at the other side of the proxy."),
    "ports": ("integer", "The ports to forward."),
    "pretty": ("string", "If 'true', the answer is indented."),
    "previous": ("boolean", "The log of the container before this one."),
    "propagationPolicy": ("string", "What happens to dependents: Orphan, Background or Foreground."),
    "resourceVersion": ("string", "The state that is asked for."),
    "resourceVersionMatch": ("string", "How resourceVersion is meant: Exact or NotOlderThan."),
    "sendInitialEvents": ("boolean", "Begin a watch with what is there."),
    "shardSelector": ("string", "Only objects of some shards, by ranges of their hashes; alpha."),
    "sinceSeconds": ("integer", "Only what is not older."),
    "stderr": ("boolean", "Stream standard error."),
    "stdin": ("boolean", "Stream standard input."),
    "stdout": ("boolean", "Stream standard output."),
    "stream": ("string", "The stream to show: All, Stdout or Stderr."),
    "tailLines": ("integer", "Only so many lines from the end."),
    "timeoutSeconds": ("integer", "How long a list or watch may take."),
    "timestamps": ("boolean", "A timestamp in front of each line."),
    "tty": ("boolean", "The streams are a terminal."),
    "watch": ("boolean", "Watch for changes to the described resources instead of listing them."),
}
"""Parameters by name: type and description."""

_WRITE = ("dryRun", "fieldManager", "fieldValidation")
_PICK = (
    "continue", "fieldSelector", "labelSelector", "limit", "resourceVersion", "resourceVersionMatch", "shardSelector",
)  # fmt: skip
_LIST = ("allowWatchBookmarks", *_PICK, "sendInitialEvents", "timeoutSeconds", "watch")
_DELETE = (
    "dryRun", "gracePeriodSeconds", "ignoreStoreReadErrorWithClusterBreakingPotential", "orphanDependents",
    "propagationPolicy",
)  # fmt: skip
_SINCE = {
    "ignoreStoreReadErrorWithClusterBreakingPotential": (1, 32),
    "shardSelector": (1, 36),
    "stream": (1, 32),
}
"""Releases that brought parameters."""
_PROXIED = ("get", "put", "post", "delete", "options", "head", "patch")
_CONNECT = {
    "attach": ("container", "stderr", "stdin", "stdout", "tty"),
    "exec": ("command", "container", "stderr", "stdin", "stdout", "tty"),
    "log": (
        "container",
        "follow",
        "insecureSkipTLSVerifyBackend",
        "limitBytes",
        "previous",
        "sinceSeconds",
        "stream",
        "tailLines",
        "timestamps",
    ),
    "portforward": ("ports",),
    "proxy": ("path",),
}
_METHODS = {"create": "post", "get": "get", "update": "put", "patch": "patch", "delete": "delete"}
_WORDS = {"post": "create", "get": "read", "put": "replace", "patch": "patch", "delete": "delete"}


@dataclass(frozen=True, slots=True)
class Operation:
    """One method of one path. `body` and `answer` are definitions' names, empty for none and for plain text."""

    path: str
    method: str
    id: str
    action: str
    group: str
    version: str
    kind: str
    query: tuple[str, ...]
    body: str = ""
    answer: str = ""
    custom: bool = False

    @property
    def description(self) -> str:
        """What it does."""
        return f"{self.action} {self.kind}"


def definition_name(schemas: Schemas, kind: Kind, version: str, *, of_list: bool = False) -> str:
    """The name in `definitions` of a kind, or of its list; `com.example.v1.Widget` for a custom one."""
    name = kind.list_kind or f"{kind.kind}List" if of_list else kind.kind
    if not kind.custom:
        return schemas.name(kind.group, version, name) or ""
    return ".".join((*reversed(kind.group.split(".")), version, name))


def tag(group: str) -> str:
    """The group as operations are tagged: `core`, `rbacAuthorization`."""
    first, *rest = (group or "core").removesuffix(".k8s.io").split(".")
    return first + "".join(part.capitalize() for part in rest)


def operations(schemas: Schemas, kind: Kind, version: str) -> Iterator[Operation]:
    """Every operation on a kind and its subresources."""
    root = f"/apis/{kind.group}/{version}" if kind.group else f"/api/{version}"
    scope = f"{root}/namespaces/{{namespace}}" if kind.namespaced else root
    group_word = tag(kind.group)
    word = group_word[0].upper() + group_word[1:] + version.capitalize()
    noun = f"{'Namespaced' if kind.namespaced else ''}{kind.kind}"
    name = definition_name(schemas, kind, version)
    lists = definition_name(schemas, kind, version, of_list=True)
    collection, item = f"{scope}/{kind.plural}", f"{scope}/{kind.plural}/{{name}}"

    def op(path: str, method: str, id: str, action: str, query: tuple[str, ...], body: str, answer: str) -> Operation:
        return Operation(path, method, id, action, kind.group, version, kind.kind, query, body, answer, kind.custom)

    listed, gone_query = _present(_LIST, schemas), _present(_DELETE, schemas)
    if "list" in kind.verbs:
        yield op(collection, "get", f"list{word}{noun}", "list", listed, "", lists)
        if kind.namespaced:
            all_id = f"list{word}{kind.kind}ForAllNamespaces"
            yield op(f"{root}/{kind.plural}", "get", all_id, "list", listed, "", lists)
    if "create" in kind.verbs:
        yield op(collection, "post", f"create{word}{noun}", "post", _WRITE, name, name)
    if "deletecollection" in kind.verbs:
        query = tuple(sorted({*_present(_PICK, schemas), *gone_query, "sendInitialEvents", "timeoutSeconds"}))
        id = f"delete{word}Collection{noun}"
        yield op(collection, "delete", id, "deletecollection", query, DELETE_OPTIONS, STATUS)
    if "get" in kind.verbs:
        yield op(item, "get", f"read{word}{noun}", "get", (), "", name)
    if "update" in kind.verbs:
        yield op(item, "put", f"replace{word}{noun}", "put", _WRITE, name, name)
    if "patch" in kind.verbs:
        yield op(item, "patch", f"patch{word}{noun}", "patch", (*_WRITE, "force"), PATCH, name)
    if "delete" in kind.verbs:
        gone = name if kind.returns_deleted else STATUS
        yield op(item, "delete", f"delete{word}{noun}", "delete", gone_query, DELETE_OPTIONS, gone)
    if "watch" in kind.verbs and not kind.custom:
        yield from _watches(op, kind, root, word, noun, listed)
    for sub in kind.subresources_of(version):
        yield from _subresource(schemas, kind, version, sub, f"{item}/{sub.name}", word, noun)


def _present(query: tuple[str, ...], schemas: Schemas) -> tuple[str, ...]:
    """Those parameters that the release has."""
    release = number(schemas.release)
    return tuple(name for name in query if release >= _SINCE.get(name, (0, 0)))


def _watches(
    op: Callable[..., Operation], kind: Kind, root: str, word: str, noun: str, query: tuple[str, ...]
) -> Iterator[Operation]:
    """The old spelling of watches."""
    scope = f"{root}/watch/namespaces/{{namespace}}" if kind.namespaced else f"{root}/watch"
    path = f"{scope}/{kind.plural}"
    yield op(path, "get", f"watch{word}{noun}List", "watchlist", query, "", WATCH_EVENT)
    yield op(f"{path}/{{name}}", "get", f"watch{word}{noun}", "watch", query, "", WATCH_EVENT)
    if kind.namespaced:
        every, id = f"{root}/watch/{kind.plural}", f"watch{word}{kind.kind}ListForAllNamespaces"
        yield op(every, "get", id, "watchlist", query, "", WATCH_EVENT)


def _subresource(
    schemas: Schemas, kind: Kind, version: str, sub: Subresource, path: str, word: str, noun: str
) -> Iterator[Operation]:
    group, sub_version = (sub.group, sub.version) if sub.version else (kind.group, version)
    sub_kind = sub.kind or kind.kind
    name = schemas.name(group, sub_version, sub_kind) or ("" if sub.kind else definition_name(schemas, kind, version))
    title = sub.name.capitalize()
    if sub.name == "proxy":
        for tail, more in (("", ""), ("/{path}", "WithPath")):
            for method in _PROXIED:
                id = f"connect{word}{method.capitalize()}{noun}{title}{more}"
                yield Operation(path + tail, method, id, "connect", group, sub_version, sub_kind, _CONNECT["proxy"])
        return
    for verb in sub.verbs:
        method = _METHODS[verb]
        if sub.name in _CONNECT and sub.name != "log":
            id = f"connect{word}{method.capitalize()}{noun}{title}"
            yield Operation(path, method, id, "connect", group, sub_version, sub_kind, _CONNECT[sub.name])
            continue
        query = {"get": _present(_CONNECT.get(sub.name, ()), schemas), "patch": (*_WRITE, "force")}.get(method, _WRITE)
        body = {"get": "", "patch": PATCH}.get(method, name)
        answer = "" if sub.name == "log" else name
        id = f"{_WORDS[method]}{word}{noun}{title}"
        yield Operation(path, method, id, method, group, sub_version, sub_kind, query, body, answer, kind.custom)
