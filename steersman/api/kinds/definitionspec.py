"""The spec of a CustomResourceDefinition: versions, names, columns and conversion, in the order of the original.

Owns what is asked of everything around the schemas; the schemas are `structure`'s and their rules `rules`'. What all
versions share is told of once, at the top of the spec, where the original keeps it. Called by `extension`. Pure.
Source: apiextensions-apiserver's pkg/apis/apiextensions/validation.
"""

from __future__ import annotations

import base64
from collections.abc import Mapping, Sequence
from typing import Any

from steersman.api import formats, names, plainschema, rules, structure
from steersman.api.errors import FieldError
from steersman.api.godump import dump
from steersman.api.kinds import webhookclient
from steersman.api.validation import forbidden, invalid, not_supported, quote, required

Complaints = list[FieldError]
Found = Mapping[str, Any]

_COLUMN_TYPES = ("boolean", "date", "integer", "number", "string")
_COLUMN_FORMATS = ("byte", "date", "date-time", "double", "float", "int32", "int64", "password")
_AT_ROOT = (
    "Description", "Type", "Format", "Title", "Maximum", "ExclusiveMaximum", "Minimum", "ExclusiveMinimum", "MaxLength",
    "MinLength", "Pattern", "MaxItems", "MinItems", "UniqueItems", "MultipleOf", "Required", "Items", "Properties",
    "ExternalDocs", "Example", "XPreserveUnknownFields", "XValidations",
)  # fmt: skip
_SCHEMA = "apiextensions.k8s.io/v1:JSONSchemaProps"
_VERSION = "apiextensions.k8s.io/v1:CustomResourceDefinitionVersion"
_NAMES = ("plural", "singular", "kind", "listKind")


def check(spec: Found, *, schemas: bool = True) -> Complaints:
    """Complaints about a spec; with `schemas` about those, too, which an update may leave wrong."""
    versions = spec.get("versions") or ()
    out = _group(spec.get("group") or "") + _choice("spec.scope", spec.get("scope"), ("Cluster", "Namespaced"))
    for i, version in enumerate(versions):
        if _schema(version) is None:
            out.append(required(f"spec.versions[{i}].schema.openAPIV3Schema"))
    if spec.get("preserveUnknownFields") and any(_has_defaults(_schema(each) or {}) for each in versions):
        text = "must be false in order to use defaults in the schema"
        out.append(invalid("spec.preserveUnknownFields", True, text))
    together = _together(versions)
    for i, (version, own) in enumerate(zip(versions, _own(versions), strict=True)):
        here, name = f"spec.versions[{i}]", version.get("name") or ""
        if texts := names.dns1035_label(name):
            out.append(invalid(f"{here}.name", name, ",".join(texts)))
        out += _deprecation(here, version) + _parts(here, own, version, f"{here}.schema", schemas=schemas)
    out += _all_versions(spec, versions)
    if versions and (texts := names.dns1035_label(versions[0].get("name") or "")) and versions[0].get("name"):
        out.append(invalid("spec.version", versions[0]["name"], ",".join(texts)))
    found = spec.get("names") or {}
    out += [required(f"spec.names.{key}") for key in _NAMES if not found.get(key)]
    out += check_names("spec.names", found)
    if versions:
        own = {key: value for key, value in versions[0].items() if together.get(key)}
        out += _parts("spec", own, versions[0], "spec.validation", schemas=schemas)
    how = (spec.get("conversion") or {}).get("strategy", "None")
    if how != "None" and spec.get("preserveUnknownFields"):
        out.append(invalid("spec.conversion.strategy", how, "must be None if spec.preserveUnknownFields is true"))
    return out + _conversion(spec.get("conversion"))


def _below(schema: Found) -> list[Found]:
    found = [*(schema.get("properties") or {}).values(), schema.get("items"), schema.get("additionalProperties")]
    found += [each for key in ("allOf", "anyOf", "oneOf") for each in schema.get(key) or ()]
    return [each for each in [*found, schema.get("not")] if isinstance(each, dict)]


def _has_defaults(schema: Found) -> bool:
    return "default" in schema or any(map(_has_defaults, _below(schema)))


def warnings(definition: Found) -> list[str]:
    """Formats that nobody checks."""
    seen: dict[str, None] = {}
    for version in (definition.get("spec") or {}).get("versions") or ():
        waiting = [_schema(version) or {}]
        while waiting:
            schema = waiting.pop()
            wanted = schema.get("format") or ""
            if wanted and not formats.known(wanted, schema.get("type") or ""):
                seen[wanted] = None
            waiting += _below(schema)
    return [f"unrecognized format {quote(each)}" for each in seen]


def _schema(version: Found) -> Found | None:
    return (version.get("schema") or {}).get("openAPIV3Schema")


def _together(versions: Sequence[Found]) -> dict[str, bool]:
    """What is said for all versions at once."""
    together = {key: _shared(versions, key) for key in ("schema", "subresources", "additionalPrinterColumns")}
    return {**together, "selectableFields": len(versions) == 1}


def _own(versions: Sequence[Found]) -> list[Found]:
    """The versions without what is said for all of them at once."""
    together = _together(versions)
    return [{key: value for key, value in each.items() if not together.get(key)} for each in versions]


def _shared(versions: Sequence[Found], key: str) -> bool:
    """Whether all versions say the same here, and say something."""
    found = [each.get(key) for each in versions]
    return bool(found) and found[0] is not None and all(each == found[0] for each in found)


def _group(group: str) -> Complaints:
    if not group:
        return [required("spec.group")]
    if texts := names.dns_subdomain(group):
        return [invalid("spec.group", group, ",".join(texts))]
    return [] if "." in group else [invalid("spec.group", group, "should be a domain with at least one dot")]


def _choice(path: str, value: Any, accepted: Sequence[str]) -> Complaints:
    if not value:
        return [required(path)]
    return [] if value in accepted else [not_supported(path, value, accepted)]


def _deprecation(path: str, version: Found) -> Complaints:
    text, here = version.get("deprecationWarning"), f"{path}.deprecationWarning"
    if text is None:
        return []
    if not version.get("deprecated"):
        return [invalid(here, text, "can only be set for deprecated versions")]
    out = [invalid(here, text, "must be <= 256 characters long")] if len(text.encode()) > 256 else []
    out += [] if text else [invalid(here, text, "must not be an empty string")]
    odd = next((at for at, char in enumerate(text) if not char.isprintable()), None)
    if odd is not None:
        where = len(text[:odd].encode())
        told = f"must only contain printable UTF-8 characters; non-printable character found at index {where}"
        out.append(invalid(here, text, told))
    return out


def _parts(path: str, own: Found, version: Found, place: str, *, schemas: bool) -> Complaints:
    """The schema, subresources, columns and selectable fields in `own`, of one version or of all of them."""
    schema, status = _schema(own), "status" in (version.get("subresources") or {})
    out: Complaints = []
    if schema is not None and schemas:
        out += check_schema(schema, f"{place}.openAPIV3Schema", status=status)
    if schemas and isinstance(scale := (own.get("subresources") or {}).get("scale"), dict):
        out += structure.check_scale(scale, f"{path}.subresources.scale")
    for j, column in enumerate(own.get("additionalPrinterColumns") or ()):
        out += _column(f"{path}.additionalPrinterColumns[{j}]", column)
    fields, whole = own.get("selectableFields") or (), _schema(version)
    if fields and whole is None:
        text = "may only be set when `version.schema.openAPIV3Schema` is not included"
        text = "may only be set when validations.schema is included" if path == "spec" else text
        out.append(invalid(f"{path}.selectableFields", "", text))
    elif schemas and fields:
        out += structure.check_selectable(fields, whole or {}, f"{path}.selectableFields")
    return out


def check_schema(schema: Found, path: str, *, status: bool) -> Complaints:
    """Complaints about a schema: what the root may say, its structure and defaults, its keywords, then its rules."""
    out = _root(schema, path) if status else []
    out += [forbidden(f"{path}.nullable", "nullable cannot be true at the root")] if schema.get("nullable") else []
    plain = plainschema.check(schema, path)
    if unreadable := structure.unreadable(schema):
        out += plain
        return out or [invalid(path, "", unreadable)]
    if shape := structure.check_structure(schema, path):
        return out + shape + plain
    said = rules.compile_rules(schema, path)[1]  # those of levels with nothing wrong below
    wrong = [each.field for each in plain]
    level = f".{rules.RULES}["
    return out + plain + [e for e in said if not any(w.startswith(e.field.partition(level)[0]) for w in wrong)]


def _root(schema: Found, path: str) -> Complaints:
    """What a root may say beside a status of its own, whose schema is taken out of it."""
    shown = dump(schema, _SCHEMA)
    for name, value in shown.items():
        if value is None or value is False or value == "":
            continue
        if name == "Type":
            if value != "object":
                text = 'only "object" is allowed as the type at the root of the schema if the status subresource is '
                return [invalid(f"{path}.type", value, f"{text}enabled")]
        elif name not in _AT_ROOT:
            text = f"only [{' '.join(_AT_ROOT)}] fields are allowed at the root of the schema if the status subresource"
            return [invalid(path, shown, f"{text} is enabled")]
    return []


def _column(path: str, column: Found) -> Complaints:
    kind, form, where = (column.get(key) or "" for key in ("type", "format", "jsonPath"))
    out = [] if column.get("name") else [required(f"{path}.name")]
    must = f"must be one of {','.join(_COLUMN_TYPES)}"
    if not kind:
        out.append(required(f"{path}.type", must))
    elif kind not in _COLUMN_TYPES:
        out.append(invalid(f"{path}.type", kind, must))
    if form and form not in _COLUMN_FORMATS:
        out.append(invalid(f"{path}.format", form, f"must be one of {','.join(_COLUMN_FORMATS)}"))
    if not where:
        out.append(required(f"{path}.JSONPath"))
    elif not where.startswith("."):
        out.append(invalid(f"{path}.JSONPath", where, "must be a simple json path starting with ."))
    return out


def _all_versions(spec: Found, versions: Sequence[Found]) -> Complaints:
    called = [each.get("name") or "" for each in versions]
    shown = [dump(each, _VERSION) for each in _own(versions)] if spec.get("versions") is not None else None
    out: Complaints = []
    if len(set(called)) != len(called):
        out.append(invalid("spec.versions", shown, "must contain unique version names"))
    if sum(bool(each.get("storage")) for each in versions) != 1:
        out.append(invalid("spec.versions", shown, "must have exactly one version marked as storage version"))
    return out


def check_names(path: str, found: Found) -> Complaints:
    """Names that are there are DNS labels, kinds in any case."""
    out: Complaints = []
    for key in _NAMES:
        value = found.get(key) or ""
        cased = key in ("kind", "listKind")
        if value and (texts := names.dns1035_label(value.lower() if cased else value)):
            text = ",".join(texts)
            text = f"may have mixed case, but should otherwise match: {text}" if cased else text
            out.append(invalid(f"{path}.{key}", value, text))
    for i, short in enumerate(found.get("shortNames") or ()):
        if texts := names.dns1035_label(short):
            out.append(invalid(f"{path}.shortNames[{i}]", short, ",".join(texts)))
    if found.get("kind") and found.get("kind") == found.get("listKind"):
        out.append(invalid(f"{path}.listKind", found["listKind"], "kind and listKind may not be the same"))
    for i, category in enumerate(found.get("categories") or ()):
        if texts := names.dns1035_label(category):
            out.append(invalid(f"{path}.categories[{i}]", category, ",".join(texts)))
    return out


def _conversion(conversion: Found | None) -> Complaints:
    if conversion is None:
        return []
    path, webhook = "spec.conversion", conversion.get("webhook") or {}
    out = _choice(f"{path}.strategy", conversion.get("strategy"), ("None", "Webhook"))
    client, versions = webhook.get("clientConfig"), webhook.get("conversionReviewVersions") or []
    if conversion.get("strategy") != "Webhook":
        text = "should not be set when strategy is not set to Webhook"
        out += [forbidden(f"{path}.webhookClientConfig", text)] if client is not None else []
        return out + ([forbidden(f"{path}.conversionReviewVersions", text)] if versions else [])
    here = f"{path}.webhookClientConfig"
    if client is None:
        out.append(required(here, "required when strategy is set to Webhook"))
    elif ("url" in client) == ("service" in client):
        out.append(required(here, "exactly one of url or service is required"))
    elif "url" in client:
        out += webhookclient.url(f"{here}.url", client["url"])
    else:
        out += webhookclient.service(f"{here}.service", client["service"])
    return out + webhookclient.reviews(f"{path}.conversionReviewVersions", versions)


def check_bundle(new: Found, old: Found) -> Complaints:
    """Whether an update of a spec keeps certificates of a webhook that can be read; bad ones may stay or be changed."""
    mine, before = (
        (((spec.get("conversion") or {}).get("webhook") or {}).get("clientConfig") or {}) for spec in (new, old)
    )
    problem = _no_roots(mine.get("caBundle") or "")
    if not problem or _no_roots(before.get("caBundle") or ""):
        return []
    text = f"unable to load root certificates: {problem}"
    return [invalid("spec.conversion.webhookClientConfig.caBundle", mine["caBundle"], text)]


def _no_roots(encoded: str) -> str:
    if not encoded:
        return ""
    from cryptography import x509  # slow to import, and webhooks that convert are rare

    data = base64.b64decode(encoded)
    if b"-----BEGIN CERTIFICATE-----" not in data:
        return "unable to parse bytes as PEM block"
    try:
        x509.load_pem_x509_certificates(data)
    except ValueError:
        return "failed to parse certificate: x509: malformed certificate"
    return ""


def stored_versions(stored: Sequence[str] | None, versions: Sequence[Found]) -> Complaints:
    """What is stored is among the versions, and the version that is stored in among what is stored."""
    path = "status.storedVersions"
    if not stored:
        return [invalid(path, stored or None, "must have at least one stored version")]
    out: Complaints = []
    left = {name: at for at, name in enumerate(stored)}
    for version in versions:
        name = version.get("name") or ""
        if left.pop(name, None) is None and version.get("storage"):
            out.append(invalid(path, list(stored), f"must have the storage version {name}"))
    for name, at in left.items():
        text = (
            f"missing from spec.versions; {name} was previously a storage version, and must remain in "
            f"spec.versions until a storage migration ensures no data remains persisted in {name} and removes "
            f"{name} from status.storedVersions"
        )
        out.append(invalid(f"{path}[{at}]", name, text))
    return out
