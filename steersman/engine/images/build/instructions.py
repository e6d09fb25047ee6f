"""The instructions that only change the configuration: ENV, CMD, LABEL and their like.

Owns one function per instruction, listed in `METADATA`. Pure. Called by `builder`. Source: the Dockerfile reference.
"""

from __future__ import annotations

import re
from collections.abc import Callable

from steersman.engine.images.build import dockerfile, expand
from steersman.engine.images.build.dockerfile import DockerfileError, Instruction
from steersman.engine.images.build.stage import Stage

_PORT = re.compile(r"(\d+)(?:-(\d+))?(?:/([a-zA-Z]+))?")
_DURATION = re.compile(r"(?:\d+(?:\.\d+)?(?:h|m|s|ms|us|µs|ns))+")
_SECONDS = {"h": 3600.0, "m": 60.0, "s": 1.0, "ms": 1e-3, "us": 1e-6, "µs": 1e-6, "ns": 1e-9}


def _env(stage: Stage, instruction: Instruction) -> None:
    for name, value in expand.pairs(instruction.text, stage.variables, instruction.escape, "ENV"):
        stage.set_env(name, value)


def _label(stage: Stage, instruction: Instruction) -> None:
    found = expand.pairs(instruction.text, stage.variables, instruction.escape, "LABEL")
    stage.config["Labels"] = {**(stage.config.get("Labels") or {}), **dict(found)}


def _maintainer(stage: Stage, instruction: Instruction) -> None:
    stage.document["author"] = instruction.text


def _command(stage: Stage, instruction: Instruction) -> list[str]:
    if instruction.words is not None:
        return list(instruction.words)
    return [*stage.shell, instruction.text] if instruction.text else []


def _cmd(stage: Stage, instruction: Instruction) -> None:
    stage.config["Cmd"] = _command(stage, instruction)
    stage.has_cmd = True


def _entrypoint(stage: Stage, instruction: Instruction) -> None:
    stage.config["Entrypoint"] = _command(stage, instruction)
    if not stage.has_cmd:
        stage.config.pop("Cmd", None)


def _expose(stage: Stage, instruction: Instruction) -> None:
    ports = dict(stage.config.get("ExposedPorts") or {})
    for word in expand.words(instruction.text, stage.variables, instruction.escape):
        found = _PORT.fullmatch(word)
        first, last = (int(found[1]), int(found[2] or found[1])) if found else (0, -1)
        protocol = (found[3] or "tcp").lower() if found else ""
        if not 0 < first <= last <= 65535 or protocol not in ("tcp", "udp", "sctp"):
            raise DockerfileError(f"invalid containerPort: {word}")
        ports |= {f"{port}/{protocol}": {} for port in range(first, last + 1)}
    stage.config["ExposedPorts"] = ports


def _user(stage: Stage, instruction: Instruction) -> None:
    stage.config["User"] = expand.expand(instruction.text, stage.variables, instruction.escape)


def _volume(stage: Stage, instruction: Instruction) -> None:
    words = instruction.words
    if words is None:
        words = tuple(expand.words(instruction.text, stage.variables, instruction.escape))
    if not words or not all(words):
        raise DockerfileError("VOLUME specified can not be an empty string")
    stage.config["Volumes"] = {**(stage.config.get("Volumes") or {}), **{word: {} for word in words}}


def _stopsignal(stage: Stage, instruction: Instruction) -> None:
    stage.config["StopSignal"] = expand.expand(instruction.text, stage.variables, instruction.escape)


def _shell(stage: Stage, instruction: Instruction) -> None:
    if not instruction.words:
        raise DockerfileError("SHELL requires the arguments to be in JSON form")
    stage.config["Shell"] = list(instruction.words)


def _healthcheck(stage: Stage, instruction: Instruction) -> None:
    kind, _, rest = instruction.text.partition(" ")
    if kind.upper() == "NONE":
        stage.config["Healthcheck"] = {"Test": ["NONE"]}
        return
    if kind.upper() != "CMD" or not rest.strip():
        raise DockerfileError(f'Unknown type "{kind.upper()}" in HEALTHCHECK (try CMD)')
    command = dockerfile.parse_one(f"CMD {rest.strip()}", instruction.line)
    words = ["CMD", *command.words] if command.words is not None else ["CMD-SHELL", command.text]
    check: dict[str, object] = {"Test": words}
    for flag, name in (
        ("interval", "Interval"),
        ("timeout", "Timeout"),
        ("start-period", "StartPeriod"),
        ("start-interval", "StartInterval"),
    ):
        if instruction.flag(flag):
            check[name] = _nanoseconds(instruction.flag(flag))
    if instruction.flag("retries"):
        if not instruction.flag("retries").isdecimal():
            raise DockerfileError(f"--retries: invalid number {instruction.flag('retries')!r}")
        check["Retries"] = int(instruction.flag("retries"))
    stage.config["Healthcheck"] = check


def _nanoseconds(text: str) -> int:
    if not _DURATION.fullmatch(text):
        raise DockerfileError(f'time: invalid duration "{text}"')
    parts = re.findall(r"(\d+(?:\.\d+)?)(h|ms|m|us|µs|ns|s)", text)
    return round(sum(float(number) * _SECONDS[unit] for number, unit in parts) * 1e9)


def _onbuild(stage: Stage, instruction: Instruction) -> None:
    trigger = dockerfile.parse_one(instruction.text, instruction.line)
    if trigger.keyword in ("ONBUILD", "FROM", "MAINTAINER"):
        raise DockerfileError(f"{trigger.keyword} isn't allowed as an ONBUILD trigger")
    stage.config["OnBuild"] = [*(stage.config.get("OnBuild") or []), instruction.text]


METADATA: dict[str, Callable[[Stage, Instruction], None]] = {
    "CMD": _cmd,
    "ENTRYPOINT": _entrypoint,
    "ENV": _env,
    "EXPOSE": _expose,
    "HEALTHCHECK": _healthcheck,
    "LABEL": _label,
    "MAINTAINER": _maintainer,
    "ONBUILD": _onbuild,
    "SHELL": _shell,
    "STOPSIGNAL": _stopsignal,
    "USER": _user,
    "VOLUME": _volume,
}
"""By keyword; what is not here makes a layer or is ARG or FROM."""
