"""Metrics of KMS plugins and of the configuration that names them. Names as the original's.

Owns the families. Handed to `kms.py` and `kmsplugin.py` by `cluster/sealing.py`. Ids of keys and of the server are
shown as hashes. Source: apiserver's envelope/metrics and encryptionconfig/metrics.
"""

from __future__ import annotations

import hashlib

from steersman.lib.metrics import Registry, Value

FROM_STORAGE, TO_STORAGE = "from_storage", "to_storage"
_LATENCIES = [0.0001 * 2.0**power for power in range(20)]  # seconds


def hashed(text: str) -> str:
    """How an id is shown; nothing for none."""
    return f"sha256:{hashlib.sha256(text.encode()).hexdigest()}" if text else ""


class KmsMetrics:
    """One server's; `registry` prints them."""

    def __init__(self, server: str = "") -> None:
        """`server`: its id."""
        self.registry = of = Registry()
        self._server = hashed(server)
        name, config = "apiserver_envelope_encryption_", "apiserver_encryption_config_controller_"
        self._calls = of.histogram(
            f"{name}kms_operations_latency_seconds",
            "Seconds of a plugin's answers.",
            ("provider_name", "method_name", "grpc_status_code"),
            _LATENCIES,
        )
        where = ("provider_name", "key_id_hash", "apiserver_id_hash")
        self._uses = of.counter(f"{name}key_id_hash_total", "Values, by their key.", ("transformation_type", *where))
        self._told = of.gauge(
            f"{name}key_id_hash_status_last_timestamp_seconds", "When a plugin last named a key.", where
        )
        self._invalid = of.counter(
            f"{name}invalid_key_id_from_status_total", "Keys' ids that cannot be.", ("provider_name", "error")
        )
        self._seeds = of.gauge(f"{name}dek_source_cache_size", "Opened seeds that are kept.", ("provider_name",))
        both = ("status", "apiserver_id_hash")
        self._reloads = of.counter(f"{config}automatic_reloads_total", "Files read anew.", both)
        self._reloaded = of.gauge(f"{config}automatic_reload_last_timestamp_seconds", "When that was last done.", both)
        self._info = of.gauge(f"{config}last_config_info", "The file in use.", ("apiserver_id_hash", "hash"))
        self._file = ""

    def called(self, provider: str, method: str, code: str, seconds: float) -> None:
        """A plugin answered, or did not."""
        self._calls.labels(provider, method, code).observe(seconds)

    def uses(self, direction: str, provider: str, key_id: str) -> Value:
        """What counts values that are sealed or opened with a key."""
        return self._uses.labels(direction, provider, hashed(key_id), self._server)

    def told(self, provider: str, key_id: str, now: float) -> None:
        """A plugin says which key it seals with; `now` in Unix seconds."""
        self._told.labels(provider, hashed(key_id), self._server).set(now)

    def invalid(self, provider: str, key_id: str) -> None:
        """What it says cannot be."""
        self._invalid.labels(provider, "too_long" if key_id else "empty").value += 1

    def seeds(self, provider: str, number: int) -> None:
        """So many seeds are kept."""
        self._seeds.labels(provider).set(number)

    def reloaded(self, now: float, *, well: bool) -> None:
        """The file was read anew."""
        status = "success" if well else "failure"
        self._reloads.labels(status, self._server).value += 1
        self._reloaded.labels(status, self._server).set(now)

    def in_use(self, digest: str) -> None:
        """This is the file that counts."""
        self._info.forget(self._server, self._file)
        self._file = digest
        self._info.labels(self._server, digest).set(1)
