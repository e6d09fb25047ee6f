"""IPAddress and ServiceCIDR: which Service has which address, and where such addresses come from.

Source: pkg/apis/networking/validation, pkg/registry/networking/{ipaddress,servicecidr}, printIPAddress.
"""

from __future__ import annotations

from steersman.api import names
from steersman.api.errors import FieldError
from steersman.api.godump import dump
from steersman.api.kind import Behavior, Column, Update
from steersman.api.kinds import strategy
from steersman.api.resource import Object
from steersman.api.table import AGE, NAME, NONE, dig
from steersman.api.validation import IMMUTABLE, each_invalid, invalid, required

GROUP = "networking.k8s.io"
_BOTH = "may specify no more than one IP for each IP family, i.e 192.168.0.0/24 and 2001:db8::/64"


def _address_name(name: str, prefix: bool = False) -> list[str]:
    """An address's name is the address, in canonical form."""
    address = names.parse_ip(name)
    if address is None:
        return ["must be a valid IP address, (e.g. 10.9.8.7 or 2001:db8::ffff)"]
    return [] if str(address) == name else [f'must be in canonical form ("{address}")']


def _validate_address(address: Object) -> list[FieldError]:
    """It says whose it is."""
    path = "spec.parentRef"
    parent = dig(address, "spec", "parentRef")
    if parent is None:
        return [required(path)]
    out: list[FieldError] = []
    if group := parent.get("group"):
        out += each_invalid(f"{path}.group", group, names.dns_subdomain(group))
    for key in ("resource", "name", "namespace"):
        value = parent.get(key) or ""
        if not value and key != "namespace":
            out.append(required(f"{path}.{key}"))
        out += each_invalid(f"{path}.{key}", value, names.path_segment(value))
    return out


def _validate_address_update(new: Object, old: Object) -> list[FieldError]:
    """It stays whose it is."""
    fresh, former = (dig(each, "spec", "parentRef") for each in (new, old))
    shown = dump(fresh, f"{GROUP}/v1:ParentReference") if fresh is not None else None
    return [] if not strategy.differs(fresh, former) else [invalid("spec.parentRef", shown, IMMUTABLE)]


def _validate_ranges(found: Object) -> list[FieldError]:
    """One range, or one of each family."""
    path, ranges = "spec.cidrs", dig(found, "spec", "cidrs") or []
    if not ranges:
        return [required(path, "at least one CIDR required")]
    if len(ranges) > 2:
        return [invalid(path, {"CIDRs": ranges}, "may only hold up to 2 values")]
    out = [error for i, each in enumerate(ranges) for error in names.cidr(f"{path}[{i}]", each)]
    if not out and len(ranges) == 2 and (":" in ranges[0]) == (":" in ranges[1]):
        out.append(invalid(path, ranges, _BOTH))
    return out


def _validate_ranges_update(new: Object, old: Object) -> list[FieldError]:
    """A range never changes; one of the other family may come."""
    path, fresh, former = "spec.cidrs", dig(new, "spec", "cidrs") or [], dig(old, "spec", "cidrs") or []
    grown = (len(former), len(fresh)) == (1, 2)
    if len(fresh) != len(former) and not grown:
        return [invalid(path, fresh or None, IMMUTABLE)]
    pairs = enumerate(zip(fresh, former, strict=False))
    out = [invalid(f"{path}[{i}]", mine, IMMUTABLE) for i, (mine, theirs) in pairs if mine != theirs]
    return out + _validate_ranges(new) if grown else out


def _prepare_status(new: Object, old: Object) -> None:
    """Status, and nothing of the metadata."""
    strategy.keep("spec")(new, old)
    for key in ("labels", "annotations", "finalizers", "ownerReferences", "deletionTimestamp"):
        strategy.copy_field(key, new["metadata"], old["metadata"])
    new.setdefault("status", {})


def _parent(address: Object, now: float) -> str:
    ref = dig(address, "spec", "parentRef")
    if not ref:
        return NONE
    resource = f"{ref.get('resource', '')}.{ref['group']}" if ref.get("group") else ref.get("resource", "")
    parts = [resource.lower(), ref.get("namespace"), ref.get("name", "")]
    return "/".join(part for part in parts if part)


IPADDRESS = Behavior(
    GROUP,
    "IPAddress",
    order="nvmu",
    validate=_validate_address,
    validate_update=_validate_address_update,
    columns=(NAME, Column("ParentRef", _parent)),
    name_rule=_address_name,
)
SERVICECIDR = Behavior(
    GROUP,
    "ServiceCIDR",
    order="mu",
    validate=_validate_ranges,
    prepare_create=strategy.begin({}),
    validate_update=_validate_ranges_update,
    updates={"status": Update(_prepare_status)},
    columns=(NAME, Column("CIDRs", lambda found, now: ",".join(dig(found, "spec", "cidrs") or ())), AGE),
)
