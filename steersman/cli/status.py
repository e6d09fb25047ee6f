"""`steer status`: minikube's words and exit codes for how a cluster is doing."""

from __future__ import annotations

import argparse

from steersman.cli.output import print_json, profile_of
from steersman.cluster.profile import Profile

_STOPPED = 7  # minikube's bits: 1 host, 2 cluster, 4 Kubernetes


def arguments(parser: argparse.ArgumentParser) -> None:
    """`-o`."""
    parser.add_argument("-o", "--output", choices=["text", "json"], default="text")


def run(args: argparse.Namespace) -> int:
    """0 when everything runs, else minikube's bits."""
    profile = profile_of(args.profile)
    nodes = states(profile)
    if args.output == "json":
        print_json(nodes[0] if len(nodes) == 1 else nodes)
    else:
        for node in nodes:
            print(node["Name"])
            print(f"type: {'Worker' if node['Worker'] else 'Control Plane'}")
            print(f"host: {node['Host']}\nkubelet: {node['Kubelet']}")
            if not node["Worker"]:
                print(f"apiserver: {node['APIServer']}\nkubeconfig: {node['Kubeconfig']}")
            print()
    return 0 if all(node["Host"] == "Running" for node in nodes) else _STOPPED


def states(profile: Profile) -> list[dict[str, object]]:
    """One record per node, with minikube's keys."""
    from steersman.cluster import kubeconfig
    from steersman.cluster.supervisor import processes

    running = processes(profile.run)

    def state(name: str) -> str:
        return "Running" if running.get(name) else "Stopped"

    try:
        configured = "Configured" if kubeconfig.has(kubeconfig.user_file(), profile.name) else "Misconfigured"
    except kubeconfig.KubeconfigError:
        configured = "Misconfigured"
    return [
        {
            "Name": profile.node_name(number),
            "Host": state("supervisor"),
            "Kubelet": state(f"node-{number}") if profile.nodes else "Nonexistent",
            "APIServer": state("apiserver"),
            "Kubeconfig": configured if running else "Stopped",
            "Worker": number > 0,
        }
        for number in range(max(profile.nodes, 1))
    ]
