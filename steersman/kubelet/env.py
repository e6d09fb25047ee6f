"""A container's environment: declared variables, their sources, `$(VAR)` references, variables of Services.

Pure: ConfigMaps and Secrets that are named were fetched before and are handed over. Called by `containerconfig`.
Source: Pod API (env, envFrom), documentation of dependent environment variables and service links.
"""

from __future__ import annotations

import base64
import re
from collections.abc import Iterable, Mapping, Sequence

from steersman.api.resource import Object
from steersman.kubelet import downward


class ConfigError(Exception):
    """A container's configuration can not be made; the text goes to an event and the status."""


Fetched = Mapping[tuple[str, str], Object | None]
"""("configmaps" or "secrets", name) to the object; None: it does not exist."""


def references(container: Object) -> set[tuple[str, str]]:
    """The ConfigMaps and Secrets that a container's environment names, as keys of `Fetched`."""
    out = set()
    for source in container.get("envFrom") or ():
        if source.get("configMapRef"):
            out.add(("configmaps", source["configMapRef"].get("name", "")))
        if source.get("secretRef"):
            out.add(("secrets", source["secretRef"].get("name", "")))
    for variable in container.get("env") or ():
        value_from = variable.get("valueFrom") or {}
        if value_from.get("configMapKeyRef"):
            out.add(("configmaps", value_from["configMapKeyRef"].get("name", "")))
        if value_from.get("secretKeyRef"):
            out.add(("secrets", value_from["secretKeyRef"].get("name", "")))
    return out


def environment(
    pod: Object, container: Object, fetched: Fetched, services: Mapping[str, str], facts: downward.Facts
) -> list[tuple[str, str]]:
    """The variables in the order of declaration, then those of Services. Raises ConfigError."""
    out: dict[str, str] = {}
    for source in container.get("envFrom") or ():
        prefix = source.get("prefix") or ""
        for key, value in _all_of(pod, source, fetched).items():
            out[prefix + key] = value
    for variable in container.get("env") or ():
        value = _value(pod, container, variable, fetched, {**services, **out}, facts)
        if value is not None:
            out[variable["name"]] = value
    out.update({name: value for name, value in services.items() if name not in out})
    return list(out.items())


def _find(pod: Object, kind: str, ref: Object, fetched: Fetched) -> Object | None:
    name = ref.get("name", "")
    found = fetched.get((kind, name))
    if found is None and not ref.get("optional"):
        raise ConfigError(f'{kind[:-1]} "{name}" not found')
    return found


def _all_of(pod: Object, source: Object, fetched: Fetched) -> Mapping[str, str]:
    if source.get("configMapRef"):
        found = _find(pod, "configmaps", source["configMapRef"], fetched)
        return (found or {}).get("data") or {}
    if source.get("secretRef"):
        found = _find(pod, "secrets", source["secretRef"], fetched)
        return {key: _decoded(value) for key, value in ((found or {}).get("data") or {}).items()}
    return {}


def _decoded(value: str) -> str:
    return base64.b64decode(value).decode("utf-8", "surrogateescape")


def _value(
    pod: Object,
    container: Object,
    variable: Object,
    fetched: Fetched,
    known: Mapping[str, str],
    facts: downward.Facts,
) -> str | None:
    """The variable's value; None when an optional source is missing."""
    source = variable.get("valueFrom") or {}
    if variable.get("value") or not source:
        return expand(variable.get("value") or "", known)
    try:
        if source.get("fieldRef"):
            return downward.field_value(pod, source["fieldRef"]["fieldPath"], facts)
        if source.get("resourceFieldRef"):
            return downward.resource_value(pod, container, source["resourceFieldRef"], facts)
    except ValueError as error:
        raise ConfigError(str(error)) from None
    for kind, part, label in (("configmaps", "configMapKeyRef", "ConfigMap"), ("secrets", "secretKeyRef", "Secret")):
        ref = source.get(part)
        if not ref:
            continue
        found = _find(pod, kind, ref, fetched)
        if found is None:
            return None
        data = found.get("data") or {}
        if ref["key"] not in data:
            if ref.get("optional"):
                return None
            namespace = pod["metadata"].get("namespace", "")
            raise ConfigError(f"couldn't find key {ref['key']} in {label} {namespace}/{ref.get('name', '')}")
        return _decoded(data[ref["key"]]) if kind == "secrets" else str(data[ref["key"]])
    return ""


_REFERENCE = re.compile(r"\$(\$|\(([^)]*)\))")


def expand(text: str, known: Mapping[str, str]) -> str:
    """`$(NAME)` replaced where NAME is known, `$$` by `$`; anything else stays as it is."""

    def replaced(match: re.Match[str]) -> str:
        if match[1] == "$":
            return "$"
        return known.get(match[2], match[0])

    return _REFERENCE.sub(replaced, text)


def expand_strict(text: str, known: Mapping[str, str]) -> str:
    """As `expand`, but an unknown name is an error (subPathExpr). Raises ConfigError."""
    for match in _REFERENCE.finditer(text):
        if match[1] != "$" and match[2] not in known:
            raise ConfigError(f'missing value for "{match[2]}"')
    return expand(text, known)


def service_variables(services: Iterable[Object], namespace: str, *, links: bool) -> dict[str, str]:
    """What a pod of `namespace` is told about Services: always `kubernetes`, with `links` those of its namespace."""
    chosen: dict[str, Object] = {}
    for service in services:
        meta, ip = service["metadata"], service["spec"].get("clusterIP")
        if not ip or ip == "None" or service["spec"].get("type") == "ExternalName":
            continue
        if meta.get("namespace") == "default" and meta["name"] == "kubernetes":
            chosen.setdefault("kubernetes", service)
        elif links and meta.get("namespace") == namespace:
            chosen[meta["name"]] = service
    out: dict[str, str] = {}
    for name in sorted(chosen):
        out.update(_variables_of(name, chosen[name]["spec"]["clusterIP"], chosen[name]["spec"].get("ports") or ()))
    return out


def _variables_of(name: str, ip: str, ports: Sequence[Object]) -> dict[str, str]:
    prefix = name.replace("-", "_").upper()
    out = {f"{prefix}_SERVICE_HOST": ip}
    if not ports:
        return out
    out[f"{prefix}_SERVICE_PORT"] = str(ports[0]["port"])
    for port in ports:
        if port.get("name"):
            out[f"{prefix}_SERVICE_PORT_{port['name'].replace('-', '_').upper()}"] = str(port["port"])
    host = f"[{ip}]" if ":" in ip else ip
    for index, port in enumerate(ports):
        protocol = (port.get("protocol") or "TCP").lower()
        url = f"{protocol}://{host}:{port['port']}"
        if index == 0:
            out[f"{prefix}_PORT"] = url
        link = f"{prefix}_PORT_{port['port']}_{protocol.upper()}"
        out[link] = url
        out[f"{link}_PROTO"] = protocol
        out[f"{link}_PORT"] = str(port["port"])
        out[f"{link}_ADDR"] = ip
    return out
