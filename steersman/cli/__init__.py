"""The steer command: one file per subcommand, one line per subcommand in `COMMANDS`.

Owns argument parsing, exit codes and what is printed. Every command module has `arguments(parser)` and `run(args)`;
heavy imports are inside `run`, so that `steer --help` costs nothing. Spelling follows minikube.
"""

from __future__ import annotations

import argparse
import importlib
import os
import sys
from collections.abc import Sequence

from steersman import __version__
from steersman.cli.output import Failure

COMMANDS: tuple[tuple[str, tuple[str, ...], str], ...] = (
    ("up", ("start",), "Start a cluster"),
    ("status", (), "Show how a cluster is doing"),
    ("stop", (), "Stop a cluster, keeping its state"),
    ("delete", (), "Delete a cluster and everything that belongs to it"),
    ("etcd", (), "Save and restore a cluster's whole state, with etcdctl's words"),
    ("kubectl", (), "Run kubectl against the cluster"),
    ("image", (), "Build, list, pull, push, load and remove images"),
    ("logs", (), "Show what the cluster's own processes logged"),
    ("scheduler", (), "Run one more scheduler for a cluster"),
    ("why", (), "Say why a pod is on its node, or on none"),
    ("doctor", (), "Probe this machine and say what works and why not"),
    ("profile", (), "List profiles"),
    ("envtest", (), "Write a kube-apiserver and an etcd for envtest, and print where"),
    ("version", (), "Print the version"),
)


def parser() -> argparse.ArgumentParser:
    """The whole command line."""
    top = argparse.ArgumentParser(
        prog="steer", description="Kubernetes, with the container engine under it, in one Python package."
    )
    top.add_argument("--version", action="version", version=f"steer {__version__}")
    _profile_flag(top, default="steer")
    commands = top.add_subparsers(title="commands", metavar="COMMAND", required=True)
    for name, aliases, text in COMMANDS:
        module = importlib.import_module(f"steersman.cli.{name}")
        sub = commands.add_parser(name, aliases=aliases, help=text, description=text + ".")
        _profile_flag(sub, default=argparse.SUPPRESS)
        module.arguments(sub)
        sub.set_defaults(run=module.run)
    return top


def _profile_flag(to: argparse.ArgumentParser, default: str) -> None:
    to.add_argument("-p", "--profile", default=default, metavar="NAME", help="the cluster's name (default: steer)")


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command; returns its exit code: 0 done, 1 failed (said on standard error), 2 wrong usage."""
    words = list(sys.argv[1:] if argv is None else argv)
    try:
        args = parser().parse_args(_protect_kubectl(words))
        return int(args.run(args) or 0)
    except Failure as failure:
        print(f"steer: {failure}", file=sys.stderr)
        return failure.code
    except KeyboardInterrupt:
        return 130
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
        return 1


def _protect_kubectl(words: list[str]) -> list[str]:
    """Everything after `kubectl` is kubectl's, with or without the `--` that minikube asks for."""
    if "kubectl" in words:
        at = words.index("kubectl")
        if all(word.startswith("-") or words[i - 1] in ("-p", "--profile") for i, word in enumerate(words[:at])):
            rest = words[at + 1 :]
            return [*words[: at + 1], "--", *(rest[1:] if rest[:1] == ["--"] else rest)]
    return words


if __name__ == "__main__":
    sys.exit(main())
