"""Structures as refusals repeat them, recorded from kube-apiserver 1.36.3."""

from __future__ import annotations

import json

from steersman.api.godump import dump


def test_everything_is_written_out() -> None:
    claim = {"devices": {"requests": [{"name": "gpu", "exactly": {"deviceClassName": "a", "count": 1}}]}}
    shown = json.dumps(dump(claim, "resource.k8s.io/v1:ResourceClaimSpec"), separators=(",", ":"))
    assert shown == (
        '{"Devices":{"Requests":[{"Name":"gpu","Exactly":{"DeviceClassName":"a","Selectors":null,"AllocationMode":"",'
        '"Count":1,"AdminAccess":null,"Tolerations":null,"Capacity":null},"FirstAvailable":null}],"Constraints":null,'
        '"Config":null}}'
    )


def test_nothing_is_the_zero() -> None:
    shown = dump(None, "storage.k8s.io/v1:VolumeAttachmentSpec")
    assert shown == {"Attacher": "", "Source": {"PersistentVolumeName": None, "InlineVolumeSpec": None}, "NodeName": ""}
    assert list(shown) == ["Attacher", "Source", "NodeName"]


def test_names_that_json_has_otherwise() -> None:
    found = dump({"inlineVolumeSpec": {"csi": {"fsType": "ext4"}}}, "storage.k8s.io/v1:VolumeAttachmentSource")
    inline = found["InlineVolumeSpec"]
    assert inline["CSI"]["FSType"] == "ext4"
    assert list(inline)[:4] == ["Capacity", "GCEPersistentDisk", "AWSElasticBlockStore", "HostPath"]
    assert list(inline)[7:10] == ["Quobyte", "ISCSI", "FlexVolume"]


def test_metadata_and_selectors_keep_their_json_names() -> None:
    template = {"metadata": {"labels": {"a": "b"}}, "spec": {}}
    assert dump(template, "resource.k8s.io/v1:ResourceClaimTemplateSpec")["labels"] == {"a": "b"}


def test_schemas() -> None:
    schema = {"type": "object", "additionalProperties": False, "properties": {"a": {"items": {"type": "string"}}}}
    shown = dump(schema, "apiextensions.k8s.io/v1:JSONSchemaProps")
    assert list(shown)[:6] == ["ID", "Schema", "Ref", "Description", "Type", "Nullable"]
    assert shown["AdditionalProperties"] == {"Allows": False, "Schema": None}
    assert shown["Properties"]["a"]["Items"]["Schema"]["Type"] == "string"
