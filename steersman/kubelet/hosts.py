"""The /etc/hosts file of a pod.

Owns its text and its place in the pod's directory. Source: documentation of hostAliases; the header lines tell people
and tests who wrote the file.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from steersman.api.resource import Object
from steersman.kubelet import podspec

_HEADER = "# Kubernetes-managed hosts file.\n"
_HOST_HEADER = "# Kubernetes-managed hosts file (host network).\n"
_FIXED = (
    "127.0.0.1\tlocalhost\n"
    "::1\tlocalhost ip6-localhost ip6-loopback\n"
    "fe00::0\tip6-localnet\n"
    "fe00::0\tip6-mcastprefix\n"
    "fe00::1\tip6-allnodes\n"
    "fe00::2\tip6-allrouters\n"
)


def content(pod: Object, ips: Sequence[str], cluster_domain: str, node_file: str) -> str:
    """The text for a pod with these addresses; `node_file`: what the node's own file says, for the host's network."""
    if podspec.host_network(pod):
        return _HOST_HEADER + node_file + _aliases(pod)
    host, domain = podspec.hostname_and_domain(pod, cluster_domain)
    names = f"{host}.{domain}\t{host}" if domain else host
    return _HEADER + _FIXED + "".join(f"{ip}\t{names}\n" for ip in ips) + _aliases(pod)


def _aliases(pod: Object) -> str:
    aliases = pod["spec"].get("hostAliases") or ()
    if not aliases:
        return ""
    lines = (f"{each['ip']}\t" + "\t".join(each.get("hostnames") or ()) + "\n" for each in aliases)
    return "\n# Entries added by HostAliases.\n" + "".join(lines)


def write(path: Path, text: str) -> None:
    """Put the file there, readable by everyone; the same file, since containers have it mounted."""
    path.write_text(text, encoding="utf-8")
    path.chmod(0o644)
