"""Having an image before a container starts: pull policy, credentials, back-off, and what people are told.

Owns the decision to pull, one pull at a time for the same image, and the texts of events and waiting states. Called by
`worker`. Source: documentation of images and imagePullPolicy; the back-off is 10 s doubled up to 300 s.
"""

from __future__ import annotations

import base64
import json
import re
from collections.abc import Callable, Iterable, Sequence
from typing import TYPE_CHECKING, Any

from steersman.api.resource import Object
from steersman.engine.interface import Credentials, Image, Images, PullFailed
from steersman.kubelet.crashloop import duration
from steersman.kubelet.tell import EventType
from steersman.lib.backoff import Backoff

if TYPE_CHECKING:
    from steersman.lib.clock import Clock

Tell = Callable[[EventType, str, str], None]
"""(type, reason, message) of an event about the container."""


class NoImage(Exception):
    """There is no image to start from. `until`: not to be tried again before (Unix seconds)."""

    def __init__(self, reason: str, message: str, until: float) -> None:
        super().__init__(message)
        self.reason = reason
        self.until = until


class Puller:
    """Images for the containers of this node."""

    def __init__(self, images: Images, clock: Clock) -> None:
        self._images = images
        self._clock = clock
        self._backoff: Backoff[tuple[str, str]] = Backoff(10.0, 300.0)
        self._failed: dict[tuple[str, str], tuple[float, str]] = {}  # until, the text of the last failure

    def present(self, reference: str, policy: str) -> Image | None:
        """The image, when it is here and the policy is content with that."""
        return None if policy == "Always" else self._images.find(reference)

    async def ensure(
        self, uid: str, reference: str, policy: str, credentials: Sequence[Credentials], tell: Tell
    ) -> Image:
        """The image, pulled if the policy asks. Raises NoImage."""
        if not _valid(reference):
            message = f'Failed to apply default image tag "{reference}": couldn\'t parse image name "{reference}": '
            message += "invalid reference format"
            if _valid(reference.lower()):
                message += f": repository name ({registry_of(reference)[1]}) must be lowercase"
            tell("Warning", "InspectFailed", message)
            raise NoImage("InvalidImageName", message, self._clock.now() + 60)
        found = self.present(reference, policy)
        if found is not None:
            text = f'Container image "{reference}" already present on machine and can be accessed by the pod'
            tell("Normal", "Pulled", text)
            return found
        if policy == "Never":
            text = f'Container image "{reference}" is not present with pull policy of Never'
            tell("Warning", "ErrImageNeverPull", text)
            raise NoImage("ErrImageNeverPull", text, self._clock.now() + 10)
        return await self._pull((uid, reference), credentials, tell)

    def backing_off(self, uid: str, reference: str) -> NoImage | None:
        """What to show while a failed pull waits for its next try."""
        until, why = self._failed.get((uid, reference), (0.0, ""))
        if self._clock.now() >= until:
            return None
        return NoImage("ImagePullBackOff", f'Back-off pulling image "{reference}": {why}', until)

    async def _pull(self, key: tuple[str, str], credentials: Sequence[Credentials], tell: Tell) -> Image:
        waiting = self.backing_off(*key)
        if waiting is not None:
            tell("Normal", "BackOff", f'Back-off pulling image "{key[1]}"')
            raise waiting
        tell("Normal", "Pulling", f'Pulling image "{key[1]}"')
        began = self._clock.monotonic()
        try:
            image = await self._images.pull(key[1], credentials)
        except PullFailed as error:
            message = _text(key[1], error)
            tell("Warning", "Failed", f'Failed to pull image "{key[1]}": {error}')
            until = self._clock.now() + self._backoff.next(key)
            self._failed[key] = (until, f"{error.reason}: {message}")
            raise NoImage(error.reason, message, until) from None
        self._backoff.forget(key)
        self._failed.pop(key, None)
        took = duration(round(self._clock.monotonic() - began, 3))
        text = f'Successfully pulled image "{key[1]}" in {took} ({took} including waiting). '
        tell("Normal", "Pulled", text + f"Image size: {image.size} bytes.")
        return image

    def names(self, image_id: str, asked: str) -> tuple[str, str]:
        """How a status names an image: (a tag of it, the one that was asked for if possible; its digest or id)."""
        found = self._images.find(image_id)
        if found is None:
            return asked or image_id, image_id
        same = self._images.find(asked) if asked else None
        wanted = asked.removeprefix("docker.io/").removeprefix("library/")
        wanted = wanted if ":" in wanted.rpartition("/")[2] else f"{wanted}:latest"
        tag = next((each for each in found.tags if each == asked or each.endswith(f"/{wanted}")), "")
        name = tag or (asked if same is not None and same.id == found.id else next(iter(found.tags), image_id))
        return name, next(iter(found.digests), found.id)

    def forget(self, uid: str) -> None:
        """A pod is gone."""
        for key in [key for key in self._failed if key[0] == uid]:
            del self._failed[key]
            self._backoff.forget(key)


def _text(reference: str, error: PullFailed) -> str:
    for reason, why in (
        ("RegistryUnavailable", "the registry is unavailable"),
        ("SignatureValidationFailed", "the signature validation failed"),
    ):
        if error.reason == reason:
            detail = str(error).removeprefix(reason)
            detail = detail if detail.startswith(":") or not detail else f": {detail}"
            return f"image pull failed for {reference} because {why}{detail}"
    return str(error)


_REFERENCE = re.compile(
    r"^(?:(?:[A-Za-z0-9](?:[A-Za-z0-9.-]*[A-Za-z0-9])?(?::[0-9]+)?|\[[0-9a-fA-F:]+\](?::[0-9]+)?)/)?"
    r"[a-z0-9]+(?:(?:\.|_|__|-+)[a-z0-9]+)*(?:/[a-z0-9]+(?:(?:\.|_|__|-+)[a-z0-9]+)*)*"
    r"(?::[\w][\w.-]{0,127})?(?:@[A-Za-z][A-Za-z0-9]*(?:[-_+.][A-Za-z][A-Za-z0-9]*)*:[0-9a-fA-F]{32,})?$"
)


def _valid(reference: str) -> bool:
    return len(reference) < 1024 and _REFERENCE.match(reference) is not None


def credentials_for(reference: str, secrets: Iterable[Object]) -> list[Credentials]:
    """Logins of pull secrets (kubernetes.io/dockerconfigjson, .../dockercfg) for a reference's registry.

    What can not be read is left out: the pull says what is missing.
    """
    host, path = registry_of(reference)
    out: list[tuple[int, Credentials]] = []
    for secret in secrets:
        for server, entry in _entries(secret).items():
            matched = _matches(server, host, path)
            login = _login(entry) if matched else None
            if login is not None:
                out.append((matched, login))
    return [login for _, login in sorted(out, key=lambda each: -each[0])]


def registry_of(reference: str) -> tuple[str, str]:
    """(registry host, repository path) of a reference, as Docker reads it."""
    name = reference.split("@")[0]
    first, slash, rest = name.partition("/")
    if slash and ("." in first or ":" in first or first == "localhost"):
        return first, rest.split(":")[0]
    return "docker.io", name.split(":")[0] if "/" in name else f"library/{name.split(':')[0]}"


def _entries(secret: Object) -> dict[str, Any]:
    data = secret.get("data") or {}
    try:
        if ".dockerconfigjson" in data:
            found = json.loads(base64.b64decode(data[".dockerconfigjson"])).get("auths") or {}
        elif ".dockercfg" in data:
            found = json.loads(base64.b64decode(data[".dockercfg"]))
        else:
            return {}
    except (ValueError, AttributeError, RecursionError):
        return {}
    return found if isinstance(found, dict) else {}


def _matches(server: str, host: str, path: str) -> int:
    """How closely an entry fits (longer is closer), 0 when it does not."""
    server = re.sub(r"^https?://", "", server).rstrip("/")
    server_host, _, server_path = server.partition("/")
    if server_path in ("v1", "v2"):
        server_path = ""
    if server_host in ("index.docker.io", "registry-1.docker.io"):
        server_host = "docker.io"
    wanted, actual = server_host.split("."), host.split(".")
    if len(wanted) != len(actual) or not all(
        re.fullmatch(re.escape(pattern).replace(r"\*", "[^.]*"), part)
        for pattern, part in zip(wanted, actual, strict=True)
    ):
        return 0
    return 1 + len(server_path) if path.startswith(server_path) else 0


def _login(entry: Any) -> Credentials | None:
    if not isinstance(entry, dict):
        return None
    user, password = entry.get("username") or "", entry.get("password") or ""
    if entry.get("auth"):
        try:
            user, _, password = base64.b64decode(entry["auth"]).decode().partition(":")
        except ValueError:
            return None
    return Credentials(str(user), str(password), str(entry.get("identitytoken") or ""))
