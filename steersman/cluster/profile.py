"""A profile: one cluster on this machine, as the user named and sized it, and where its files are.

Owns `profile.json` and the choice of address ranges that keep profiles apart. Called by the CLI (to make, read and
delete profiles) and by every process of the cluster (to read its own). It starts nothing.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import re
import shutil
from collections.abc import Iterator
from dataclasses import asdict, dataclass, fields, replace
from ipaddress import IPv4Network
from pathlib import Path

from steersman.cluster import apiserverflags, controllerflags

DEFAULT_NAME = "steer"
DEFAULT_RELEASE = "1.37"
_NAME = re.compile(r"[a-z0-9]([a-z0-9-]{0,38}[a-z0-9])?\Z")
_MAX_PROFILES = 100
_FORMAT = 1
_SERVICE_RANGE = "service-cluster-ip-range"
_CLAIMS = Path("/run/steersman/profiles")  # one file an index: machine-wide, gone with a reboot


class ProfileError(Exception):
    """The profile cannot be used; the text says why and what to do."""


@dataclass(frozen=True)
class Profile:
    """What was asked for. `index` sets the profile's addresses apart from those of its neighbours."""

    name: str
    home: Path
    index: int = 0
    nodes: int = 1
    release: str = DEFAULT_RELEASE
    api_port: int = 0  # 0: chosen at the first start
    extra_config: tuple[str, ...] = ()
    mirrors: tuple[str, ...] = ()  # registry=URL
    store: str = "sqlite"
    format: int = _FORMAT

    @property
    def directory(self) -> Path:
        """Everything that belongs to this cluster alone."""
        return self.home / "profiles" / self.name

    @property
    def images(self) -> Path:
        """The image store, shared by all profiles."""
        return self.home / "images"

    @property
    def run(self) -> Path:
        """Process ids, sockets and state that mean nothing after a reboot."""
        return self.directory / "run"

    @property
    def logs(self) -> Path:
        """One log file per process."""
        return self.directory / "logs"

    @property
    def erased(self) -> Path:
        """There when the cluster is being deleted: nothing in it needs to end well."""
        return self.run / "erased"

    @property
    def volumes(self) -> Path:
        """Directories of volumes that were provisioned."""
        return self.directory / "volumes"

    @property
    def pki(self) -> Path:
        """Keys and certificates."""
        return self.directory / "pki"

    @property
    def admin_kubeconfig(self) -> Path:
        """Credentials of the administrator, for this machine's user."""
        return self.directory / "admin.conf"

    @property
    def pod_network(self) -> IPv4Network:
        """All pod addresses: 10.244.0.0/16 for the first profile, then counting down."""
        return IPv4Network(f"10.{244 - self.index}.0.0/16")

    @property
    def service_network(self) -> IPv4Network:
        """All service addresses: as asked for, else 10.96.0.0/16 for the first profile, then counting up."""
        if given := self.options("apiserver").get(_SERVICE_RANGE):
            return IPv4Network(given)
        return IPv4Network(f"10.{96 + self.index}.0.0/16" if self.index < 48 else f"172.{self.index - 32}.0.0/16")

    @property
    def api_service_address(self) -> str:
        """ClusterIP of default/kubernetes."""
        return str(self.service_network[1])

    @property
    def dns_address(self) -> str:
        """ClusterIP of kube-system/kube-dns."""
        return str(self.service_network[10])

    def node_name(self, number: int) -> str:
        """minikube's names: NAME, NAME-m02, NAME-m03."""
        return self.name if number == 0 else f"{self.name}-m{number + 1:02}"

    def node_network(self, number: int) -> IPv4Network:
        """The pod addresses of one node."""
        return IPv4Network((int(self.pod_network.network_address) + (number << 8), 24))

    def node_address(self, number: int) -> str:
        """The node's own address: the first of its range, on its loopback."""
        return str(self.node_network(number)[1])

    def node_directory(self, number: int) -> Path:
        """Containers, volumes and state of one node."""
        return self.directory / "nodes" / str(number)

    def save(self) -> None:
        """Write `profile.json` atomically."""
        self.directory.mkdir(parents=True, exist_ok=True)
        data = {key: value for key, value in asdict(self).items() if key != "home"}
        target = self.directory / "profile.json"
        temporary = target.with_suffix(".tmp")
        temporary.write_text(json.dumps(data, indent=2) + "\n")
        temporary.replace(target)

    def options(self, component: str) -> dict[str, str]:
        """The `--extra-config` settings for one component, such as {"controllers": "*,-ttl"}."""
        chosen = {}
        for text in self.extra_config:
            where, _, value = text.partition("=")
            owner, _, key = where.partition(".")
            if owner == component:
                chosen[key] = value
        return chosen


_SWITCHES = ("allow-privileged", "leader-elect")
_PORT = "secure-port"
COMPONENTS: dict[str, frozenset[str]] = {
    "apiserver": apiserverflags.EFFECTIVE,
    "controller-manager": controllerflags.FLAGS,
    "scheduler": frozenset({"config", "leader-elect", "scheduler-name", _PORT}),
    "kubelet": frozenset({"cloud-provider", "max-pods", "registry-mirrors"}),
    "kube-proxy": frozenset(),
}


def check_extra_config(text: str) -> str:
    """`component.key=value`, as minikube spells it. Raises ProfileError naming what is wrong."""
    where, equals, _ = text.partition("=")
    component, dot, key = where.partition(".")
    if not equals or not dot or not key:
        raise ProfileError(f"invalid value for --extra-config: {text!r} is not of the form component.key=value")
    if component not in COMPONENTS:
        raise ProfileError(
            f"invalid value for --extra-config: unknown component {component!r}, valid components are: "
            f"{', '.join(sorted(COMPONENTS))}"
        )
    if component == "controller-manager" and (reason := controllerflags.MEANINGLESS.get(key)):
        raise ProfileError(f"invalid value for --extra-config: --{key} means nothing here: {reason}")
    if component == "apiserver" and (reason := apiserverflags.why_not(key)):
        raise ProfileError(f"invalid value for --extra-config: --{key} means nothing here: {reason}")
    if key not in COMPONENTS[component]:
        known = ", ".join(sorted(COMPONENTS[component])) or "none yet"
        raise ProfileError(
            f"invalid value for --extra-config: {component} has no setting {key!r} here, it has: {known}"
        )
    value = text.partition("=")[2]
    if component == "controller-manager":
        try:
            controllerflags.value(key, value)
        except ValueError as error:
            raise ProfileError(f"invalid value for --extra-config: {error}") from None
    elif key in _SWITCHES and value not in ("true", "false"):
        raise ProfileError(f"invalid value for --extra-config: {where} is true or false, not {value!r}")
    if key == _SERVICE_RANGE:
        _check_range(where, value)
    if key == _PORT and not (value.isascii() and value.isdecimal() and int(value) <= 65535):
        raise ProfileError(f"invalid value for --extra-config: {where}: {value} must be between 0 and 65535")
    if (component, key) == ("kubelet", "cloud-provider") and value not in ("", "external"):
        raise ProfileError(f"invalid value for --extra-config: {where} is external or empty, not {value!r}")
    return text


def _check_range(where: str, text: str) -> None:
    try:
        size = IPv4Network(text).num_addresses
    except ValueError as error:
        raise ProfileError(f"invalid value for --extra-config: {where}: {error}") from None
    if size < 16:  # the API's Service has the first address, DNS the tenth
        raise ProfileError(f"invalid value for --extra-config: {where}: {text} has fewer than 16 addresses")


def check_store(text: str) -> str:
    """`sqlite`, `memory` or `etcd=URL,...`. Raises ProfileError."""
    if text in ("sqlite", "memory") or (text.startswith("etcd=") and len(text) > len("etcd=")):
        return text
    raise ProfileError(f"invalid value for --store: {text!r} is none of sqlite, memory, etcd=URL[,URL...]")


def home() -> Path:
    """STEER_HOME, else ~/.steer."""
    return Path(os.environ.get("STEER_HOME") or Path.home() / ".steer")


def check_name(name: str) -> str:
    """A profile's name becomes node names and interface names. Raises ProfileError."""
    if not _NAME.match(name):
        raise ProfileError(
            f"invalid profile name {name!r}: use lower case letters, digits and '-', at most 40, "
            "starting and ending with a letter or digit"
        )
    return name


def load(name: str, where: Path | None = None) -> Profile | None:
    """The profile called `name`, or None. Raises ProfileError when its file cannot be read."""
    base = where or home()
    path = base / "profiles" / check_name(name) / "profile.json"
    try:
        data = json.loads(path.read_text())
        if not isinstance(data, dict) or data.get("format") != _FORMAT:
            raise ValueError("unknown format")
        known = {f.name for f in fields(Profile)} - {"home"}
        if unknown := set(data) - known:
            raise ValueError(f"unknown settings {sorted(unknown)}")
        data["extra_config"] = tuple(data.get("extra_config", ()))
        data["mirrors"] = tuple(data.get("mirrors", ()))
        return Profile(home=base, **data)
    except FileNotFoundError:
        return None
    except (ValueError, TypeError) as error:
        raise ProfileError(
            f"cannot read {path}: {error}; nothing was changed. Mend the file, or run 'steer delete -p {name}'"
        ) from error


def names(where: Path | None = None) -> list[str]:
    """Every profile that has a directory."""
    folder = (where or home()) / "profiles"
    return sorted(path.name for path in folder.iterdir() if _NAME.match(path.name)) if folder.is_dir() else []


@contextlib.contextmanager
def locked(where: Path, name: str) -> Iterator[None]:
    """Hold `name`'s lock; only one command changes a profile at a time. Raises ProfileError when it is taken."""
    folder = where / "locks"
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / name).open("a") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise ProfileError(f"another steer command is working on profile {name!r}; wait for it to end") from None
        yield


def create(name: str, where: Path | None = None) -> Profile:
    """A new profile with the lowest free index, saved."""
    base = where or home()
    check_name(name)
    base.mkdir(parents=True, exist_ok=True)
    with (base / "index.lock").open("a") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        taken = set()
        for other in names(base):
            with contextlib.suppress(ProfileError):
                taken.add(profile.index if (profile := load(other, base)) else -1)
        taken |= _claimed()
        free = next((index for index in range(_MAX_PROFILES) if index not in taken), None)
        if free is None:
            raise ProfileError(f"there are {_MAX_PROFILES} profiles already: delete one")
        profile = Profile(name=name, home=base, index=free)
        profile.save()
        claim(profile)
    return profile


def claim(profile: Profile) -> None:
    """Tell other homes of this machine which addresses are taken; without root there is nothing to share."""
    if os.geteuid() == 0:
        _CLAIMS.mkdir(parents=True, exist_ok=True)
        (_CLAIMS / str(profile.index)).write_text(str(profile.directory))


def _claimed() -> set[int]:
    """Indexes of profiles that exist somewhere on this machine."""
    found = set()
    for path in _CLAIMS.glob("[0-9]*"):
        with contextlib.suppress(OSError, ValueError):
            if Path(path.read_text().strip()).is_dir():
                found.add(int(path.name))
    return found


def change(profile: Profile, **changes: object) -> Profile:
    """The profile with other settings, saved. Raises ProfileError."""
    changed = replace(profile, **changes)  # type: ignore[arg-type]
    if changed.service_network.overlaps(changed.pod_network):
        raise ProfileError(f"{changed.service_network} has addresses of pods, which are {changed.pod_network}")
    if changed.service_network != profile.service_network and profile.pki.exists():
        raise ProfileError(
            f"the cluster's services have addresses of {profile.service_network}, which cannot change any more; "
            f"nothing was changed. To have others, run 'steer delete -p {profile.name}' first"
        )
    changed.save()
    return changed


def remove(profile: Profile) -> None:
    """Delete the profile's directory; the caller has stopped and purged what used it."""
    shutil.rmtree(profile.directory, ignore_errors=False)
    (profile.home / "locks" / profile.name).unlink(missing_ok=True)
    with contextlib.suppress(OSError):
        if (_CLAIMS / str(profile.index)).read_text() == str(profile.directory):
            (_CLAIMS / str(profile.index)).unlink()


__all__ = [
    "COMPONENTS",
    "DEFAULT_NAME",
    "DEFAULT_RELEASE",
    "Profile",
    "ProfileError",
    "change",
    "check_extra_config",
    "check_name",
    "create",
    "home",
    "load",
    "locked",
    "names",
    "remove",
]
