"""`steer image`: the images of this machine, shared by all profiles."""

from __future__ import annotations

import argparse
import asyncio
import os
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import TYPE_CHECKING

from steersman.cli.output import Failure, print_json, step, table
from steersman.cluster.profile import ProfileError, home, load

if TYPE_CHECKING:
    from steersman.engine.images.store import ImageStore


def arguments(parser: argparse.ArgumentParser) -> None:
    """One verb each, as minikube and docker spell them."""
    verbs = parser.add_subparsers(dest="verb", required=True, metavar="VERB")
    listing = verbs.add_parser("ls", aliases=["list"], help="list images")
    listing.add_argument("-o", "--output", choices=["table", "json"], default="table")
    pull = verbs.add_parser("pull", help="fetch an image from its registry")
    pull.add_argument("reference")
    push = verbs.add_parser("push", help="send an image to its registry")
    push.add_argument("reference")
    remove = verbs.add_parser("rm", aliases=["remove"], help="remove images")
    remove.add_argument("references", nargs="+")
    tag = verbs.add_parser("tag", help="give an image another name")
    tag.add_argument("reference")
    tag.add_argument("new")
    build = verbs.add_parser("build", help="build an image from a Dockerfile")
    build.add_argument("context", type=Path)
    build.add_argument("-t", "--tag", action="append", default=[], metavar="NAME")
    build.add_argument("-f", "--file", type=Path, help="default: CONTEXT/Dockerfile")
    build.add_argument("--build-arg", action="append", default=[], metavar="NAME=VALUE")
    build.add_argument("--target", default="", metavar="STAGE")
    build.add_argument("--no-cache", action="store_true")
    for verb in (pull, push, build):
        verb.add_argument("--registry-mirror", action="append", default=[], metavar="[REGISTRY=]URL")


def run(args: argparse.Namespace) -> int:
    """0 when it worked."""
    if os.geteuid() != 0 and args.verb not in ("ls", "list"):
        raise Failure("images are unpacked with their owners and devices, which needs root")
    verb: Callable[[ImageStore, argparse.Namespace], Awaitable[None]] = {
        "ls": _list, "list": _list, "pull": _pull, "push": _push, "rm": _remove, "remove": _remove,
        "tag": _tag, "build": _build,
    }[args.verb]  # fmt: skip
    asyncio.run(_with_store(args, verb))
    return 0


async def _with_store(
    args: argparse.Namespace, verb: Callable[[ImageStore, argparse.Namespace], Awaitable[None]]
) -> None:
    from steersman.cluster.node import parse_mirrors
    from steersman.engine.images.reference import InvalidReference
    from steersman.engine.images.store import ImageStore
    from steersman.engine.interface import PullFailed
    from steersman.lib.clock import SystemClock

    try:
        profile = load(args.profile)
    except ProfileError:
        profile = None
    mirrors = [*getattr(args, "registry_mirror", []), *(profile.mirrors if profile else ())]
    directory = home() / "images"
    directory.mkdir(parents=True, exist_ok=True)
    store = ImageStore(directory, SystemClock(), mirrors=parse_mirrors(mirrors))
    try:
        await verb(store, args)
    except (PullFailed, InvalidReference, OSError) as error:
        raise Failure(str(error)) from error
    finally:
        await store.close()


async def _list(store: ImageStore, args: argparse.Namespace) -> None:
    images = store.list()
    if args.output == "json":
        print_json(
            [{"id": i.id, "repoTags": list(i.tags), "repoDigests": list(i.digests), "size": i.size} for i in images]
        )
        return
    rows = [
        [
            tag.rpartition(":")[0],
            tag.rpartition(":")[2],
            image.id.removeprefix("sha256:")[:12],
            f"{image.size / 1e6:.1f}MB",
        ]
        for image in images
        for tag in (image.tags or ["<none>:<none>"])
    ]
    table([["IMAGE", "TAG", "IMAGE ID", "SIZE"], *rows])


async def _pull(store: ImageStore, args: argparse.Namespace) -> None:
    image = await store.pull(args.reference)
    step(f"{args.reference}: {image.id}")


async def _push(store: ImageStore, args: argparse.Namespace) -> None:
    from steersman.engine.images.push import push

    await push(store, args.reference)
    step(f"{args.reference} pushed")


async def _remove(store: ImageStore, args: argparse.Namespace) -> None:
    for reference in args.references:
        if store.find(reference) is None:
            raise Failure(f"No such image: {reference}")
        await store.remove(reference)
        step(f"{reference} removed")


async def _tag(store: ImageStore, args: argparse.Namespace) -> None:
    if store.find(args.reference) is None:
        raise Failure(f"No such image: {args.reference}")
    await store.tag(args.reference, args.new)


async def _build(store: ImageStore, args: argparse.Namespace) -> None:
    from steersman.engine.images.build import BuildFailed, build

    given = dict(text.partition("=")[::2] for text in args.build_arg)
    try:
        image = await build(
            store, args.context, dockerfile=args.file or args.context / "Dockerfile", tags=args.tag,
            arguments=given, target=args.target, cache=not args.no_cache, progress=print,
        )  # fmt: skip
    except BuildFailed as error:
        raise Failure(str(error)) from error
    step(f"built {image.id}")
