"""Another server's OpenAPI v2 document, made to fit into ours, or turned into a v3 document.

Owns which part of it is taken, the renaming of definitions that differ, and the conversion for servers that have no
v3. Called by `openapi` and by the aggregator. Pure; what comes in is distrusted: whatever has the wrong shape raises
ValueError, nothing recurses. Source: kube-openapi's pkg/aggregator and pkg/openapiconv.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from steersman.api.openapi_schemas import V2, V3

Document = dict[str, Any]
_METHODS = ("get", "put", "post", "delete", "options", "head", "patch")
_TREES: tuple[type, type] = (dict, list)
_DEEPEST = 100  # levels of a document
_GVK = "x-kubernetes-group-version-kind"
_NOT_SCHEMA = frozenset({"name", "in", "description", "required", "collectionFormat", "allowEmptyValue"})


def part_of(document: object, prefix: str) -> Document:
    """The paths below `prefix` and the definitions that they lead to. Raises ValueError."""
    if not isinstance(document, dict):
        raise ValueError("the document is no object")
    paths, definitions = _maps(document, "paths"), _maps(document, "definitions")
    kept = {path: item for path, item in paths.items() if path.startswith(prefix)}
    _check(kept)
    _check_depth([kept, definitions])
    wanted = set(_references(kept, definitions))
    todo = list(wanted)
    while todo:
        for name in _references(definitions[todo.pop()], definitions):
            if name not in wanted:
                wanted.add(name)
                todo.append(name)
    return {"paths": kept, "definitions": {name: definitions[name] for name in sorted(wanted)}}


def merge(document: Document, part: Document) -> None:
    """Add a part: paths that are not there, and definitions, under another name where ours of that name differs."""
    renamed: dict[str, str] = {}
    have = document["definitions"]
    for name, definition in part["definitions"].items():
        found, number = name, 1
        while found in have and _bare(have[found]) != _bare(definition):
            number += 1
            found = f"{name}_v{number}"
        if found != name:
            renamed[V2 + name] = V2 + found
    for name, definition in part["definitions"].items():
        have.setdefault(renamed.get(V2 + name, V2 + name).removeprefix(V2), _copy(definition, renamed))
    for path, item in part["paths"].items():
        document["paths"].setdefault(path, _copy(item, renamed))


def to_v3(part: Document, info: Document) -> Document:
    """A part of a v2 document as a v3 document. Raises ValueError."""
    renamed = {V2 + name: V3 + name for name in part["definitions"]}
    schemas = _copy(part["definitions"], renamed)
    paths: Document = {}
    for path, item in _copy(part["paths"], renamed).items():
        made: Document = {key: _operation(item[key]) for key in _METHODS if key in item}
        if shared := item.get("parameters"):
            made["parameters"] = [_parameter(each) for each in shared]
        paths[path] = made
    return {"openapi": "3.0.0", "info": info, "paths": paths, "components": {"schemas": schemas}}


def _maps(document: Document, key: str) -> Document:
    found = document.get(key) or {}
    if not isinstance(found, dict) or not all(isinstance(each, dict) for each in found.values()):
        raise ValueError(f"{key} is no map of objects")
    return found


def _check(paths: Document) -> None:
    """That what is read of operations later has its shape."""
    for item in paths.values():
        operations = [item[key] for key in _METHODS if key in item]
        for node in (item, *operations):
            parameters = node.get("parameters") or [] if isinstance(node, dict) else None
            if not isinstance(parameters, list) or not all(_is_parameter(each) for each in parameters):
                raise ValueError("an operation's parameters have the wrong shape")
        for operation in operations:
            answers = operation.get("responses") or {}
            if not isinstance(answers, dict) or not all(isinstance(each, dict) for each in answers.values()):
                raise ValueError("an operation's responses have the wrong shape")
            for key in ("produces", "consumes", "tags"):
                texts = operation.get(key) or []
                if not isinstance(texts, list) or not all(isinstance(each, str) for each in texts):
                    raise ValueError(f"an operation's {key} are no texts")


def _check_depth(tree: Any) -> None:
    todo = [(tree, 0)]
    while todo:
        node, depth = todo.pop()
        if depth > _DEEPEST:
            raise ValueError(f"the document has more than {_DEEPEST} levels")
        inside = node.values() if isinstance(node, dict) else node
        todo += [(each, depth + 1) for each in inside if isinstance(each, _TREES)]


def _is_parameter(node: object) -> bool:
    return isinstance(node, dict) and isinstance(node.get("name"), str) and isinstance(node.get("in"), str)


def _nodes(tree: Any) -> Iterator[Document]:
    """Every object in a tree."""
    todo = [tree]
    while todo:
        node = todo.pop()
        if isinstance(node, dict):
            yield node
            todo += node.values()
        elif isinstance(node, list):
            todo += node


def _references(tree: Any, definitions: Document) -> Iterator[str]:
    """The definitions that a tree names. Raises ValueError for one that is not there."""
    for node in _nodes(tree):
        where = node.get("$ref")
        if isinstance(where, str):
            name = where.removeprefix(V2)
            if name not in definitions:
                raise ValueError(f"{where} leads nowhere")
            yield name


def _copy(tree: Any, renamed: dict[str, str]) -> Any:
    """A deep copy with other references."""
    out: list[Any] = [tree]
    todo: list[tuple[Any, Any]] = [(out, 0)]
    while todo:
        holder, key = todo.pop()
        node = holder[key]
        if isinstance(node, dict):
            made: Any = dict(node)
            where = made.get("$ref")
            if isinstance(where, str):
                made["$ref"] = renamed.get(where, where)
            todo += [(made, each) for each, value in made.items() if isinstance(value, _TREES)]
        elif isinstance(node, list):
            made = list(node)
            todo += [(made, at) for at, value in enumerate(made) if isinstance(value, _TREES)]
        else:
            made = node
        holder[key] = made
    return out[0]


def _bare(definition: Document) -> Document:
    """A definition as it is compared: two servers may give one type different kinds."""
    return {key: value for key, value in definition.items() if key != _GVK}


def _operation(node: Document) -> Document:
    parameters = node.get("parameters") or []
    left = {key: value for key, value in node.items() if key not in ("parameters", "consumes", "produces", "responses")}
    plain = [_parameter(each) for each in parameters if each["in"] != "body"]
    if plain:
        left["parameters"] = plain
    for body in (each for each in parameters if each["in"] == "body"):
        content = _content(node.get("consumes"), body)
        left["requestBody"] = {"content": content} | ({"required": True} if body.get("required") else {})
    left["responses"] = {code: _response(answer, node) for code, answer in (node.get("responses") or {}).items()}
    return left


def _response(answer: Document, operation: Document) -> Document:
    made: Document = {"description": answer.get("description", "")}
    return made | {"content": _content(operation.get("produces"), answer)} if "schema" in answer else made


def _content(medias: list[str] | None, node: Document) -> Document:
    return {media: {"schema": node["schema"]} if "schema" in node else {} for media in medias or ["*/*"]}


def _parameter(node: Document) -> Document:
    if "$ref" in node:
        return node
    schema = {key: value for key, value in node.items() if key not in _NOT_SCHEMA}
    made = {key: node[key] for key in ("name", "in", "description", "required") if key in node}
    return {**made, "schema": schema}
