"""Auditing by kube-apiserver's flags.

Owns their reading. Called by `apiserver.py`. Every mistake is a StartFailure with the flag's name.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from random import Random

from steersman.apiserver.audit import policy
from steersman.apiserver.audit.sinks import LogFile, WebhookSink
from steersman.apiserver.audit.trail import Auditor, Sink
from steersman.apiserver.audit.truncate import Truncate
from steersman.apiserver.webhookclient import from_kubeconfig
from steersman.cluster.process import StartFailure
from steersman.lib.clock import Clock
from steersman.lib.tasks import Tasks


def auditor(flags: Mapping[str, str], clock: Clock, random: Random, tasks: Tasks) -> Auditor:
    """What the flags ask for; without a policy only the Audit-Id header. Raises StartFailure."""
    sinks: list[Sink] = []
    chosen: policy.Policy | None = None
    flag = ""
    try:
        if path := flags.get(flag := "audit-policy-file"):
            chosen = policy.read(Path(path))
        if path := flags.get(flag := "audit-log-path"):
            size, backups, days = (_number(flags, f"audit-log-{name}") for name in ("maxsize", "maxbackup", "maxage"))
            file = LogFile(path, clock, size=(size or 100) << 20, backups=backups, age=days * 86400.0)
            sinks.append(_truncated(flags, "log", file)[0])
        if path := flags.get(flag := "audit-webhook-config-file"):
            batch = _number(flags, "audit-webhook-batch-max-size") or 400
            webhook = WebhookSink(from_kubeconfig(Path(path), clock), clock, batch=batch)
            shown, webhook.most = _truncated(flags, "webhook", webhook)
            tasks.spawn(webhook.run(), "audit webhook")
            sinks.append(shown)
    except (OSError, ValueError) as error:
        raise StartFailure(f"--{flag}: {error}") from error
    return Auditor(chosen if sinks else None, sinks, clock, random)


def _truncated(flags: Mapping[str, str], name: str, sink: Sink) -> tuple[Sink, int]:
    """The sink, behind what shortens events where that is asked for, and the most bytes of a batch (0: no limit)."""
    event = _number(flags, f"audit-{name}-truncate-max-event-size", "102400")
    batch = _number(flags, f"audit-{name}-truncate-max-batch-size", "10485760")
    if event <= 0:
        raise StartFailure(f"invalid audit truncate {name} max event size {event}, must be a positive number")
    if batch < event:
        text = f"must be greater than max event size ({event})"
        raise StartFailure(f"invalid audit truncate {name} max batch size {batch}, {text}")
    if flags.get(f"audit-{name}-truncate-enabled", "false").lower() not in ("true", "1", "t"):
        return sink, 0
    return Truncate(sink, event), batch


def _number(flags: Mapping[str, str], name: str, otherwise: str = "0") -> int:
    text = flags.get(name, otherwise)
    if not text.isdecimal():
        raise StartFailure(f'invalid argument "{text}" for "--{name}" flag: strconv.ParseInt: invalid syntax')
    return int(text)
