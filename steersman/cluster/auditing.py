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
            sinks.append(LogFile(path, clock, size=(size or 100) << 20, backups=backups, age=days * 86400.0))
        if path := flags.get(flag := "audit-webhook-config-file"):
            webhook = WebhookSink(
                from_kubeconfig(Path(path), clock), clock, batch=_number(flags, "audit-webhook-batch-max-size") or 400
            )
            tasks.spawn(webhook.run(), "audit webhook")
            sinks.append(webhook)
    except (OSError, ValueError) as error:
        raise StartFailure(f"--{flag}: {error}") from error
    return Auditor(chosen if sinks else None, sinks, clock, random)


def _number(flags: Mapping[str, str], name: str) -> int:
    text = flags.get(name, "0")
    if not text.isdecimal():
        raise StartFailure(f'invalid argument "{text}" for "--{name}" flag: strconv.ParseInt: invalid syntax')
    return int(text)
