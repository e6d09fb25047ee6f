"""In-tree volume plugins whose volumes CSI drivers serve.

Pure data. Called by whoever must name the driver instead of the plugin. Source: csi-translation-lib's plugins.
"""

from __future__ import annotations

from collections.abc import Mapping

from steersman.api.resource import Object

SOURCES: Mapping[str, tuple[str, str]] = {
    "awsElasticBlockStore": ("kubernetes.io/aws-ebs", "ebs.csi.aws.com"),
    "azureDisk": ("kubernetes.io/azure-disk", "disk.csi.azure.com"),
    "azureFile": ("kubernetes.io/azure-file", "file.csi.azure.com"),
    "cinder": ("kubernetes.io/cinder", "cinder.csi.openstack.org"),
    "gcePersistentDisk": ("kubernetes.io/gce-pd", "pd.csi.storage.gke.io"),
    "portworxVolume": ("kubernetes.io/portworx-volume", "pxd.portworx.com"),
    "vsphereVolume": ("kubernetes.io/vsphere-volume", "csi.vsphere.vmware.com"),
}
"""By the source's field in a volume: the plugin's name, and the driver's."""

DRIVERS: Mapping[str, str] = dict(SOURCES.values())
"""The driver by the plugin's name."""


def migrated(volume: Object) -> tuple[str, str] | None:
    """The in-tree plugin and the CSI driver that serves its volumes; None for every other volume."""
    return next((names for source, names in SOURCES.items() if volume["spec"].get(source) is not None), None)
