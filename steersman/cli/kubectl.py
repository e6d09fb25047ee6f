"""`steer kubectl`: the kubectl on PATH (or the one STEER_KUBECTL names), pointed at the cluster."""

from __future__ import annotations

import argparse
import os
import shutil

from steersman.cli.output import Failure, profile_of


def arguments(parser: argparse.ArgumentParser) -> None:
    """Everything is kubectl's."""
    parser.add_argument("words", nargs=argparse.REMAINDER, metavar="-- ARGUMENTS")


def run(args: argparse.Namespace) -> int:
    """kubectl's own exit code: the process is replaced by it."""
    profile = profile_of(args.profile)
    program = os.environ.get("STEER_KUBECTL") or shutil.which("kubectl")
    if not program:
        raise Failure("kubectl is not on PATH; install it, or name one with STEER_KUBECTL")
    words = args.words[1:] if args.words[:1] == ["--"] else args.words
    environment = os.environ | {"KUBECONFIG": str(profile.admin_kubeconfig)}
    try:
        os.execve(program, ["kubectl", *words], environment)
    except OSError as error:
        raise Failure(f"cannot run {program}: {error.strerror}") from error
