"""ServiceAccount: its secrets are names only.

Source: pkg/registry/core/serviceaccount/strategy.go.
"""

from __future__ import annotations

from steersman.api.kind import Behavior
from steersman.api.resource import Object
from steersman.api.table import AGE, NAME

ENFORCE = "kubernetes.io/enforce-mountable-secrets"


def prepare_create(account: Object) -> None:
    """Of a reference to a secret only the name is kept."""
    account["metadata"].pop("generation", None)
    _clean(account)


def prepare_update(new: Object, old: Object) -> None:
    """As on create."""
    _clean(new)


def _clean(account: Object) -> None:
    if "secrets" in account:
        account["secrets"] = [{"name": each["name"]} if each.get("name") else {} for each in account["secrets"]]


def warnings(account: Object) -> list[str]:
    """One annotation is on its way out."""
    if ENFORCE not in (account["metadata"].get("annotations") or {}):
        return []
    return [
        f"metadata.annotations[{ENFORCE}]: deprecated in v1.32+; "
        "prefer separate namespaces to isolate access to mounted secrets"
    ]


SERVICEACCOUNT = Behavior(
    "",
    "ServiceAccount",
    order="mnv",
    prepare_create=prepare_create,
    prepare_update=prepare_update,
    columns=(NAME, AGE),
    warnings=warnings,
)
