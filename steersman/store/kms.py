"""Envelope encryption: values are sealed by keys made from a seed, and a plugin seals the seed (KMS v2).

Owns the layout of sealed bytes, which is the original's, the seed in use and when it is changed, and the seeds that the
plugin has opened. Made by `cluster/encryption.py`. It never lets a value wait: one whose seed has not been opened yet
is refused as `Locked`, and whoever may wait asks for it. Source: apiserver's envelope/kmsv2, KEP-3299.
"""

from __future__ import annotations

import re
import uuid
from collections.abc import Mapping
from dataclasses import dataclass, field

from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDFExpand

from steersman.lib.clock import Clock, rfc3339
from steersman.lib.grpc import wire
from steersman.lib.metrics import Value
from steersman.store.ciphers import AesGcm, Entropy
from steersman.store.kmsmetrics import FROM_STORAGE, TO_STORAGE, hashed
from steersman.store.kmsplugin import Plugin, PluginError, annotation_fields, annotations_of, bytes_of, text_of
from steersman.store.sealed import CannotOpen, CannotSeal, Locked, Transformer

_VERSIONS = ("v2", "v2beta1")
_SEED = 32  # bytes of a seed, of what makes a key from it, and of such a key
_MOST = 1024  # bytes of a key's id, and of a sealed seed
_MOST_ANNOTATIONS = 32 * 1024
_COAST = 180.0  # seconds that a seed may be written with after the plugin was last well
_GOOD, _BAD = 20.0, 3.0  # seconds that the outcome of a check is believed
_AGAIN = 1.0  # seconds until a plugin that failed is asked to open another seed
_SEEDS = 4096  # opened ones that are remembered
_RAW_KEY, _DERIVED = 0, 1  # what a sealed seed is: a key of AES-GCM, or what keys are made from
_DOMAIN = re.compile(r"[a-z0-9]([-a-z0-9]*[a-z0-9])?(\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)+").fullmatch


class Derived:
    """AES-GCM with a key of its own for each value: HKDF of the seed and 32 random bytes, which lead the value."""

    def __init__(self, seed: bytes, entropy: Entropy) -> None:
        """Raises CannotOpen for a seed that is too short."""
        if len(seed) < _SEED:
            raise CannotOpen(f"invalid seed length {len(seed)} used for key generation")
        self._seed = seed
        self._entropy = entropy

    def _cipher(self, info: bytes) -> AesGcm:
        return AesGcm(HKDFExpand(SHA256(), _SEED, info).derive(self._seed), self._entropy)

    def seal(self, value: bytes, context: bytes) -> bytes:
        """With a new key."""
        info = self._entropy(_SEED)
        return info + self._cipher(info).seal(value, context)

    def open(self, sealed: bytes, context: bytes) -> tuple[bytes, bool]:
        """The value."""
        if len(sealed) < _SEED:
            raise CannotOpen("the stored data was shorter than the required size")
        return self._cipher(sealed[:_SEED]).open(sealed[_SEED:], context)


@dataclass(frozen=True)
class Envelope:
    """A sealed seed and by which key of the plugin it was sealed: what every value carries along."""

    source: bytes
    key_id: str
    annotations: Mapping[str, bytes] = field(default_factory=dict)
    kind: int = _DERIVED

    def problem(self) -> str:
        """What is wrong with it, in the original's words."""
        if self.kind not in (_RAW_KEY, _DERIVED):
            return f"unknown encryptedDEKSourceType: {self.kind}"
        if not self.source:
            return "failed to validate encrypted DEK source: encrypted DEK source is empty"
        if len(self.source) > _MOST:
            size = f"encrypted DEK source is {len(self.source)} bytes, which exceeds the max size of {_MOST}"
            return f"failed to validate encrypted DEK source: {size}"
        if wrong := _wrong_key_id(self.key_id):
            return f"failed to validate key id: {wrong}"
        strange = [name for name in self.annotations if len(name) > 253 or not _DOMAIN(name)]
        if strange:
            text = f'annotations: Invalid value: "{strange[0]}": should be a domain with at least two segments'
            return f"failed to validate annotations: {text} separated by dots"
        size = sum(len(name.encode()) + len(value) for name, value in self.annotations.items())
        if size > _MOST_ANNOTATIONS:
            text = f"total size of annotations is {size}, which exceeds the max size of {_MOST_ANNOTATIONS}"
            return f"failed to validate annotations: {text}"
        return ""

    def identity(self) -> bytes:
        """Bytes that are the same for the same envelope only."""
        return repr((self.kind, self.source, self.key_id, sorted(self.annotations.items()))).encode()

    def encode(self, value: bytes) -> bytes:
        """The message EncryptedObject."""
        key_id = wire.data(2, self.key_id.encode())
        rest = wire.data(3, self.source) + annotation_fields(4, self.annotations) + wire.number(5, self.kind)
        return wire.data(1, value) + key_id + rest


def decode(sealed: bytes) -> tuple[Envelope, bytes]:
    """The envelope and the sealed value. Raises CannotOpen."""
    found: dict[int, wire.Value] = {}
    notes: list[wire.Value] = []
    try:
        for number, item in wire.fields(sealed):
            if number == 4:
                notes.append(item)
            else:
                found[number] = item
        kind, value, source = found.get(5, _RAW_KEY), bytes_of(found.get(1, b"")), bytes_of(found.get(3, b""))
        if not isinstance(kind, int):
            raise ValueError("a field has the wrong type")
        envelope = Envelope(source, text_of(found.get(2, b"")), annotations_of(notes), kind)
    except ValueError as error:
        raise CannotOpen(f"proto: cannot parse invalid wire-format data: {error}") from None
    problem = "" if value else "encrypted data is empty"
    if problem := problem or envelope.problem():
        raise CannotOpen(problem)
    return envelope, value


def _wrong_key_id(key_id: str) -> str:
    size = len(key_id.encode())
    if not size:
        return "keyID is empty"
    return f"keyID is {size} bytes, which exceeds the max size of {_MOST}" if size > _MOST else ""


@dataclass
class _Seed:
    """What values are sealed with now."""

    cipher: Derived
    envelope: Envelope
    until: float  # on the monotonic clock


class Kms:
    """Implements `Transformer` with one plugin; `check` has to be called again and again: it keeps the seed in use."""

    def __init__(self, plugin: Plugin, clock: Clock, entropy: Entropy) -> None:
        self.name = plugin.name
        self.timeout = plugin.timeout
        self._plugin = plugin
        self._clock = clock
        self._entropy = entropy
        self._seed: _Seed | None = None
        self._opened: dict[bytes, Transformer] = {}
        self._failed: tuple[float, str] = (0.0, "")  # until when nobody asks again, and why
        self._metrics = plugin.metrics
        self._uses: dict[tuple[str, str], Value] = {}
        self._version = ""
        self._checked: tuple[float, str] = (0.0, "")  # until when it is believed, and what was wrong

    # Values ------------------------------------------------------------------------------------------------------

    def seal(self, value: bytes, context: bytes) -> bytes:
        """By the seed in use. Raises CannotSeal when there is none, or its time is over."""
        seed = self._seed
        if seed is None:
            raise CannotSeal("got unexpected nil transformer")
        now = self._clock.monotonic()
        if now > seed.until:
            wall = self._clock.now()
            ended, then = rfc3339(wall - (now - seed.until)), rfc3339(wall)
            text = f'encryptedDEKSource with keyID hash "{hashed(seed.envelope.key_id)}" expired at {ended}'
            raise CannotSeal(f"{text} (current time is {then})")
        self._count(TO_STORAGE, seed.envelope.key_id)
        return seed.envelope.encode(seed.cipher.seal(value, context))

    def open(self, sealed: bytes, context: bytes) -> tuple[bytes, bool]:
        """The value. Raises Locked when the plugin has to open its seed first."""
        envelope, inner = decode(sealed)
        identity = envelope.identity()
        cipher = self._opened.get(identity)
        if cipher is None:
            raise Locked(self._failed[1] or "its key was not asked for yet", identity, lambda: self._unlock(envelope))
        self._count(FROM_STORAGE, envelope.key_id)
        value, _ = cipher.open(inner, context)
        used = self._seed.envelope if self._seed is not None else None
        return value, used is None or (used.key_id, used.kind) != (envelope.key_id, envelope.kind)

    def _count(self, direction: str, key_id: str) -> None:
        found = self._uses.get((direction, key_id))
        if found is None:
            found = self._uses[direction, key_id] = self._metrics.uses(direction, self.name, key_id)
        found.value += 1

    async def _unlock(self, envelope: Envelope) -> None:
        """Ask the plugin for a seed; when it does not give it, `open` says why."""
        identity = envelope.identity()
        if identity in self._opened or self._clock.monotonic() < self._failed[0]:
            return
        try:
            plain = await self._plugin.decrypt(envelope.source, envelope.key_id, envelope.annotations)
            self._remember(identity, self._cipher(plain, envelope.kind))
            self._failed = (0.0, "")
        except (PluginError, CannotOpen) as error:
            self._failed = (self._clock.monotonic() + _AGAIN, f"failed to decrypt DEK, error: {error}")

    def _cipher(self, plain: bytes, kind: int) -> Transformer:
        if kind == _DERIVED:
            return Derived(plain, self._entropy)
        if len(plain) not in (16, 24, 32):
            raise CannotOpen(f"crypto/aes: invalid key size {len(plain)}")
        return AesGcm(plain, self._entropy)

    def _remember(self, identity: bytes, cipher: Transformer) -> None:
        while len(self._opened) >= _SEEDS:
            self._opened.pop(next(iter(self._opened)))
        self._opened[identity] = cipher
        self._metrics.seeds(self.name, len(self._opened))

    # The seed ----------------------------------------------------------------------------------------------------

    async def check(self) -> str:
        """What is wrong with the plugin; nothing when it is well. A key that it changed is taken into use."""
        if self._clock.monotonic() < self._checked[0]:
            return self._checked[1]
        wrong = await self._checked_now()
        self._checked = (self._clock.monotonic() + (_BAD if wrong else _GOOD), wrong)
        return wrong

    async def _checked_now(self) -> str:
        try:
            status = await self._plugin.status()
        except PluginError as error:
            return f"failed to perform status section of the healthz check for KMS Provider {self.name}, error: {error}"
        problems = []
        if status.healthz != "ok":
            problems.append(f"got unexpected healthz status: {status.healthz}")
        self._version = self._version or (status.version if status.version in _VERSIONS else "")
        if status.version not in _VERSIONS:
            problems.append(f"expected KMSv2 API version v2, got {status.version}")
        elif status.version != self._version:
            text = "KMSv2 API version should not change after the initial status response version"
            problems.append(f"{text} {self._version}, got {status.version}")
        if wrong := _wrong_key_id(status.key_id):
            self._metrics.invalid(self.name, status.key_id)
            problems.append(f'got invalid KMSv2 KeyID hash "{hashed(status.key_id)}": {wrong}')
        else:
            self._metrics.told(self.name, status.key_id, self._clock.now())
            if wrong := await self._rotate(status.key_id):
                problems.append(wrong)
        if not problems:
            return ""
        said = problems[0] if len(problems) == 1 else f"[{', '.join(problems)}]"
        return f"kmsv2 Provider {self.name} is not healthy, error: {said}"

    async def _rotate(self, key_id: str) -> str:
        """Go on with the seed, or make one under the plugin's new key; what is wrong. A failure changes nothing."""
        until = self._clock.monotonic() + _COAST
        if self._seed is not None and self._seed.envelope.key_id == key_id:
            self._seed.until = until
            return ""
        call, plain, said, used = str(uuid.uuid4()), self._entropy(_SEED), "", ""
        try:
            envelope = Envelope(*await self._plugin.encrypt(plain, call))
            said, used = envelope.problem(), envelope.key_id
            if not said and used == key_id:
                cipher = Derived(plain, self._entropy)
                self._remember(envelope.identity(), cipher)
                self._seed = _Seed(cipher, envelope, until)
                return ""
        except PluginError as error:
            said = f"failed to encrypt DEK, error: {error}"
        old = "<nil>" if self._seed is not None else "got unexpected nil transformer"
        mine = hashed(self._seed.envelope.key_id) if self._seed is not None else ""
        return (
            f'failed to rotate DEK uid="{call}", useSeed=true, errState={old}, errGen={said or "<nil>"}, '
            f'statusKeyIDHash="{hashed(key_id)}", encryptKeyIDHash="{hashed(used)}", stateKeyIDHash="{mine}"'
        )

    def close(self) -> None:
        """Drop the connection."""
        self._plugin.close()
