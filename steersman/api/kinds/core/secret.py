"""Secret: its type decides which keys it must have.

Source: ValidateSecret and ValidateSecretUpdate, and the conversion that merges stringData into data.
"""

from __future__ import annotations

import base64

import msgspec

from steersman.api import names
from steersman.api.errors import FieldError
from steersman.api.fields import text_at
from steersman.api.kind import Behavior
from steersman.api.kinds.core import keypair
from steersman.api.kinds.core.configmap import MAX_SIZE, decoded_size, unchanged
from steersman.api.resource import Object
from steersman.api.schema.decode import malformed
from steersman.api.table import AGE, NAME, field, length
from steersman.api.validation import immutable, invalid, required, too_long

TOKEN = "kubernetes.io/service-account-token"
ACCOUNT_NAME = "kubernetes.io/service-account.name"

_NEEDED = {
    "kubernetes.io/dockercfg": (".dockercfg",),
    "kubernetes.io/dockerconfigjson": (".dockerconfigjson",),
    "kubernetes.io/ssh-auth": ("ssh-privatekey",),
    "kubernetes.io/tls": ("tls.crt", "tls.key"),
}
_JSON = (".dockercfg", ".dockerconfigjson")
_GO_NAMES = {list: "array", str: "string", bool: "bool"}
_REDACTED = "<secret contents redacted>"


def default(secret: Object) -> None:
    """Opaque; stringData becomes data and is gone."""
    if texts := secret.pop("stringData", None):
        data = secret.setdefault("data", {})
        for key, text in texts.items():
            data[key] = base64.b64encode(text.encode()).decode()
    if not secret.get("type"):
        secret["type"] = "Opaque"


def prepare_update(new: Object, old: Object) -> None:
    """A type that is not said stays."""
    new["type"] = new.get("type") or old.get("type", "")


def validate(secret: Object) -> list[FieldError]:
    """Keys, size, and what the type asks for."""
    data, kind = secret.get("data") or {}, secret.get("type") or ""
    out = [invalid(f"data[{key}]", key, text) for key in data for text in names.config_key(key)]
    if sum(map(decoded_size, data.values())) > MAX_SIZE:
        out.append(too_long("data", MAX_SIZE))
    if kind == TOKEN:
        if not (secret["metadata"].get("annotations") or {}).get(ACCOUNT_NAME):
            out.append(required(f"metadata.annotations[{ACCOUNT_NAME}]"))
    elif kind == "kubernetes.io/basic-auth" and "username" not in data and "password" not in data:
        out += [required("data[username]"), required("data[password]")]
    for key in _NEEDED.get(kind, ()):
        if key not in data or (key == "ssh-privatekey" and not data[key]):
            out.append(required(f"data[{key}]"))
        elif key in _JSON:
            out += _json(key, data[key])
    return out


def _json(key: str, value: str) -> list[FieldError]:
    text = base64.b64decode(value)
    try:
        found = msgspec.json.decode(text)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        return [invalid(f"data[{key}]", _REDACTED, malformed(text, error))]
    if found is None or isinstance(found, dict):
        return []
    got = _GO_NAMES.get(type(found), "number")
    problem = f"json: cannot unmarshal {got} into Go value of type map[string]interface {{}}"
    return [invalid(f"data[{key}]", _REDACTED, problem)]


def validate_update(new: Object, old: Object) -> list[FieldError]:
    """The type never changes; `immutable` protects the data."""
    return immutable("type", new.get("type"), old.get("type")) + unchanged(new, old, ("data",))


def warnings(secret: Object) -> list[str]:
    """A certificate and a key that do not belong together."""
    if secret.get("type") != "kubernetes.io/tls":
        return []
    data = secret.get("data") or {}
    text = keypair.complain(*(base64.b64decode(data.get(key) or "") for key in ("tls.crt", "tls.key")))
    return [text] if text else []


SECRET = Behavior(
    "",
    "Secret",
    order="munv",
    default=default,
    validate=validate,
    validate_update=validate_update,
    prepare_update=prepare_update,
    columns=(NAME, field("Type", "type"), length("Data", "data", type="string"), AGE),
    fields={"type": text_at("type")},
    warnings=warnings,
)
