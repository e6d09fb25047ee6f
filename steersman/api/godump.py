"""Structures as the original's errors show them: its internal types, written by Go's JSON encoder without JSON names.

Owns the way from a decoded object of a stable version to that form: every field in the order of its declaration, by its
Go name, zeros and nulls written out. Called by the rules of kinds for values that a refusal repeats whole. Pure. What
fields there are and which are pointers is `protobuf/fields.txt`; what differs between a version and the internal type
is here, as of release 1.36. Source: pkg/apis of kubernetes, apiextensions-apiserver's internal types.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from steersman.api import labels
from steersman.api.protobuf.table import Field, table
from steersman.api.validation import Struct

_NAMES = {
    "apiGroup": "APIGroup", "apiGroups": "APIGroups", "apiVersion": "APIVersion", "apiVersions": "APIVersions",
    "awsElasticBlockStore": "AWSElasticBlockStore", "caBundle": "CABundle", "cel": "CEL", "cephfs": "CephFS",
    "cidr": "CIDR", "cidrs": "CIDRs", "csi": "CSI", "dnsConfig": "DNSConfig", "dnsPolicy": "DNSPolicy", "fc": "FC",
    "fsGroup": "FSGroup", "fsGroupChangePolicy": "FSGroupChangePolicy", "fsGroupPolicy": "FSGroupPolicy",
    "fsType": "FSType", "gcePersistentDisk": "GCEPersistentDisk", "gid": "GID",
    "gmsaCredentialSpec": "GMSACredentialSpec", "gmsaCredentialSpecName": "GMSACredentialSpecName", "grpc": "GRPC",
    "http": "HTTP", "httpGet": "HTTPGet", "httpHeaders": "HTTPHeaders", "id": "ID", "ip": "IP", "ipBlock": "IPBlock",
    "ipFamilies": "IPFamilies", "ipFamilyPolicy": "IPFamilyPolicy", "ipMode": "IPMode", "iqn": "IQN", "iscsi": "ISCSI",
    "iscsiInterface": "ISCSIInterface", "jsonPath": "JSONPath", "nfs": "NFS", "os": "OS", "osImage": "OSImage",
    "pdName": "PDName", "qosClass": "QOSClass", "rbd": "RBD", "seLinuxChangePolicy": "SELinuxChangePolicy",
    "seLinuxMount": "SELinuxMount", "seLinuxOptions": "SELinuxOptions", "sslEnabled": "SSLEnabled",
    "storageos": "StorageOS", "tcpSocket": "TCPSocket", "tls": "TLS", "tty": "TTY",
    "ttlSecondsAfterFinished": "TTLSecondsAfterFinished", "uid": "UID", "url": "URL", "wwids": "WWIDs",
    "$schema": "Schema", "$ref": "Ref", "openAPIV3Schema": "OpenAPIV3Schema",
    "x-kubernetes-preserve-unknown-fields": "XPreserveUnknownFields",
    "x-kubernetes-embedded-resource": "XEmbeddedResource", "x-kubernetes-int-or-string": "XIntOrString",
    "x-kubernetes-list-map-keys": "XListMapKeys", "x-kubernetes-list-type": "XListType",
    "x-kubernetes-map-type": "XMapType", "x-kubernetes-validations": "XValidations",
    "diskURI": "DataDiskURI", "chapAuthDiscovery": "DiscoveryCHAPAuth", "chapAuthSession": "SessionCHAPAuth",
}  # fmt: skip
_RADOS = {"image": "RBDImage", "monitors": "CephMonitors", "pool": "RBDPool", "user": "RadosUser"}
_OWN_NAMES = {
    "RBDPersistentVolumeSource": _RADOS,
    "RBDVolumeSource": _RADOS,
    "GlusterfsPersistentVolumeSource": {"endpoints": "EndpointsName"},
    "GlusterfsVolumeSource": {"endpoints": "EndpointsName"},
    "ContainerStatus": {"lastState": "LastTerminationState"},
}
_MOVED = {
    "JSONSchemaProps": {"nullable": "type"},
    "PersistentVolumeSource": {"quobyte": "rbd", "iscsi": "quobyte", "flexVolume": "iscsi"},
    "VolumeSource": {"quobyte": "rbd"},
    "CSIDriverSpec": {"fsGroupPolicy": "attachRequired"},
    "PodSpec": {"setHostnameAsFQDN": "subdomain", "preemptionPolicy": "priority", "overhead": "runtimeClassName"},
    "PodSecurityContext": {"fsGroupChangePolicy": "fsGroup"},
    "JobSpec": {"activeDeadlineSeconds": "successPolicy"},
    "ContainerResourceMetricSource": {"container": "name"},
}
"""Fields that stand elsewhere in the internal type: after which other."""
_OF_THE_HOST = ("hostNetwork", "hostPID", "hostIPC", "shareProcessNamespace", "hostUsers")
"""Fields of a PodSpec that the internal type has in its security context, before all others."""
_ABSENT: Mapping[str, frozenset[str]] = {
    name: frozenset(fields.split())
    for name, fields in {
        "PodSpec": "serviceAccount evictionResponders " + " ".join(_OF_THE_HOST),
        "VolumeMount": "bindMountOptions", "JobSpec": "scheduling", "EmptyDirVolumeSource": "mode",
        "ConfigMapVolumeSource": "defaultUser", "SecretVolumeSource": "defaultUser", "KeyToPath": "user",
        "DownwardAPIVolumeSource": "defaultUser", "DownwardAPIVolumeFile": "user",
        "ProjectedVolumeSource": "defaultUser", "ServiceAccountTokenProjection": "user",
        "ClusterTrustBundleProjection": "user",
        "PodCertificateProjection": "user", "GRPCAction": "mode", "HTTPGetAction": "protocol",
    }.items()
}  # fmt: skip
"""Fields that the internal type has not."""
_LATER = frozenset({"derivedAttributes", "compatibilityGroups", "skipNodeOperations", "partitionTypeAttribute"})
"""Fields that 1.36 has not."""
_ZEROS: Mapping[str, Any] = {"s": "", "b": False, "i": 0, "d": 0, "Q": "0", "O": 0, "D": "0s"}
_JSON_NAMES = "meta:"  # the types of metav1 keep theirs, inside too


def dump(value: Mapping[str, Any] | None, message: str) -> Struct:
    """A structure such as `resource.k8s.io/v1:ResourceClaimSpec`; nothing at all is its zero. Raises KeyError."""
    value = value or {}
    name = message.rpartition(":")[2]
    out = Struct()
    if name == "PodSpec":
        host = {key: value[key] for key in _OF_THE_HOST if key in value}
        value = {**value, "securityContext": {**(value.get("securityContext") or {}), **host}}
        value["containers"] = value.get("containers") or None  # a default of ours, where there are none
    if name == "PodSecurityContext":
        zeros = (False, False, False, None, None)
        out.update({_go_name(name, key): value.get(key, zero) for key, zero in zip(_OF_THE_HOST, zeros, strict=True)})
    for field in _fields(message, name):
        given = value.get(field.name)
        if field.inline:
            out.update(dump(value, field.message))
        elif field.message == "meta:ObjectMeta":
            out.update(_metadata(given or {}))
        elif given is not None or field.name not in _LATER:
            out[_go_name(name, field.name)] = _value(given, field)
    return out


def _fields(message: str, name: str) -> list[Field]:
    absent = _ABSENT.get(name, ())
    found = [field for field in table().message(message).declared if field.name not in absent]
    for moved, after in _MOVED.get(name, {}).items():
        field = next(each for each in found if each.name == moved)
        found.remove(field)
        found.insert(1 + next(at for at, each in enumerate(found) if each.name == after), field)
    return found


def _go_name(message: str, name: str) -> str:
    return _OWN_NAMES.get(message, {}).get(name) or _NAMES.get(name) or name[0].upper() + name[1:]


def _metadata(value: Mapping[str, Any]) -> Mapping[str, Any]:
    """Metadata keeps its JSON names, in the order of its declaration."""
    names = [field.name for field in table().message("meta:ObjectMeta").declared]
    return {name: value[name] for name in names if value.get(name)}


def _value(given: Any, field: Field) -> Any:
    if field.many == "*":
        return [_one(each, field) for each in given] if given is not None else None
    if field.many == "%":
        return {key: _one(given[key], field) for key in sorted(given)} if given is not None else None
    if given is None:
        if field.pointer or field.type not in "@" + "".join(_ZEROS):
            return None
        if field.type != "@":
            return _ZEROS[field.type]
    return _one(given, field)


def _one(given: Any, field: Field) -> Any:
    if field.type == "A":  # JSONSchemaPropsOrArray
        several = isinstance(given, list)
        schemas = [dump(each, _SCHEMA) for each in given] if several else None
        return Struct(Schema=None if several else dump(given, _SCHEMA), JSONSchemas=schemas)
    if field.type == "B":  # JSONSchemaPropsOrBool
        whole = isinstance(given, bool)
        return Struct(Allows=given if whole else True, Schema=None if whole else dump(given, _SCHEMA))
    if field.type == "C":  # JSONSchemaPropsOrStringArray
        names = isinstance(given, list)
        return Struct(Schema=None if names else dump(given, _SCHEMA), Property=given if names else None)
    if field.type != "@":
        return given
    if field.message == "meta:LabelSelector":
        return labels.shown(given)
    if field.message.startswith(_JSON_NAMES):
        return given or {}
    return dump(given, field.message)


_SCHEMA = "apiextensions.k8s.io/v1:JSONSchemaProps"
