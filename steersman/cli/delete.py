"""`steer delete`: stop the cluster and remove everything that belongs to it."""

from __future__ import annotations

import argparse
import shutil

from steersman.cli.output import Failure, step
from steersman.cluster.profile import ProfileError, check_name, home, load, locked, names


def arguments(parser: argparse.ArgumentParser) -> None:
    """`--all` and `--purge`, as minikube has them."""
    parser.add_argument("--all", action="store_true", help="delete every profile")
    parser.add_argument("--purge", action="store_true", help="with --all: delete the image store too")


def run(args: argparse.Namespace) -> int:
    """0, also when there was nothing to delete."""
    try:
        for name in names() if args.all else [check_name(args.profile)]:
            _delete(name)
    except ProfileError as error:
        raise Failure(str(error)) from error
    if args.all and args.purge:
        shutil.rmtree(home(), ignore_errors=True)
        step("images and settings removed")
    return 0


def _delete(name: str) -> None:
    from steersman.cluster import erase, kubeconfig

    with locked(home(), name):
        try:
            profile = load(name)
        except ProfileError:
            profile = None
            shutil.rmtree(home() / "profiles" / name)
        if profile is not None:
            erase.profile(profile)
        try:
            kubeconfig.remove(kubeconfig.user_file(), name)
        except kubeconfig.KubeconfigError as error:
            step(str(error))
        step(f'"{name}" deleted' if profile else f'there is no profile "{name}"')
