"""`steer up`, also `steer start`: make or restart a cluster and point kubectl at it."""

from __future__ import annotations

import argparse
import os

from steersman.cli.output import Failure, print_json, step
from steersman.cluster import profile as profiles
from steersman.cluster.profile import Profile, ProfileError


def arguments(parser: argparse.ArgumentParser) -> None:
    """minikube's flags."""
    add = parser.add_argument
    add("-n", "--nodes", type=int, metavar="N", help="number of nodes; 0 is a control plane alone (default 1)")
    add("--kubernetes-version", metavar="VERSION", help="the API's release, such as 1.37 or v1.36.3")
    add("--apiserver-port", type=int, metavar="PORT", help="default: 6443, or a free port when it is taken")
    add(
        "--extra-config",
        action="append",
        default=[],
        metavar="COMPONENT.KEY=VALUE",
        help="a setting for one component; may be given more than once",
    )
    add(
        "--store",
        metavar="STORE",
        help="sqlite (default), memory, or etcd=URL[,URL...]; the TLS files of etcd are settings of the API server",
    )
    add(
        "--registry-mirror",
        action="append",
        default=[],
        metavar="[REGISTRY=]URL",
        help="ask URL instead of REGISTRY (default docker.io) for images",
    )
    add("--keep-context", action="store_true", help="do not make this cluster kubectl's current context")
    add("-o", "--output", choices=["text", "json"], default="text")


def run(args: argparse.Namespace) -> int:
    """Returns 0 when the cluster is ready."""
    from steersman.cluster import kubeconfig, launch

    try:
        profiles.check_name(args.profile)
        with profiles.locked(profiles.home(), args.profile):
            profile = _settle(args)
            _preconditions(profile)
            names = {"apiserver": "API server"} | {
                f"node-{n}": f"node {profile.node_name(n)}" for n in range(profile.nodes)
            }
            profile = launch.start(profile, lambda name, at: step(f"{names.get(name, name)} ready after {at:.2f} s"))
            entry = kubeconfig.entry(profile.name, launch.server_url(profile), profile.pki, "admin")
            kubeconfig.merge(kubeconfig.user_file(), entry, current=not args.keep_context)
    except (ProfileError, kubeconfig.KubeconfigError) as error:
        raise Failure(str(error)) from error
    if args.output == "json":
        print_json({"name": profile.name, "server": launch.server_url(profile), "nodes": profile.nodes})
    else:
        step(f'kubectl now uses the cluster "{profile.name}" and the namespace "default"')
    return 0


def _settle(args: argparse.Namespace) -> Profile:
    """The profile as asked for: a new one, or the one that is there with what may change changed."""
    found = profiles.load(args.profile)
    if args.nodes is not None and not 0 <= args.nodes <= 16:
        raise ProfileError(f"invalid value for --nodes: {args.nodes} is not between 0 and 16")
    if args.apiserver_port is not None and not 1 <= args.apiserver_port <= 65535:
        raise ProfileError(f"invalid value for --apiserver-port: {args.apiserver_port} is not a port")
    wanted: dict[str, object] = {}
    if args.nodes is not None:
        wanted["nodes"] = args.nodes
    if args.apiserver_port is not None:
        wanted["api_port"] = args.apiserver_port
    if args.kubernetes_version:
        wanted["release"] = release(args.kubernetes_version)
    if args.extra_config:
        wanted["extra_config"] = tuple(profiles.check_extra_config(text) for text in args.extra_config)
    if args.store:
        wanted["store"] = profiles.check_store(args.store)
    if args.registry_mirror:
        wanted["mirrors"] = tuple(args.registry_mirror)
    profile = found or profiles.create(args.profile)
    return profiles.change(profile, **wanted) if wanted else profile


def release(text: str) -> str:
    """`v1.36.3` as `1.36`. Raises ProfileError for what is not served."""
    from steersman.api.schema import releases

    parts = text.removeprefix("v").split(".")
    short, served = ".".join(parts[:2]), releases()
    if text in ("stable", "latest"):
        return profiles.DEFAULT_RELEASE
    if short not in served or not all(part.isdecimal() for part in parts):
        raise ProfileError(f"cannot serve Kubernetes {text!r}: this version serves {served[0]} to {served[-1]}")
    return short


def _preconditions(profile: Profile) -> None:
    if profile.options("scheduler").get("config"):
        from steersman.cluster import scheduling

        scheduling.check(scheduling.configuration(profile))
    if profile.nodes and os.geteuid() != 0:
        raise ProfileError(
            "a node needs root, for namespaces, cgroups and nftables; run it as root, or with --nodes 0 for a "
            "control plane alone"
        )
