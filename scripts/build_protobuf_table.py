"""Derive `steersman/api/protobuf/fields.txt` from the Go sources of the Kubernetes API.

The numbers, JSON names and types of fields are facts of the wire format; they stand in the struct tags of the modules
k8s.io/api, apimachinery, apiextensions-apiserver, kube-aggregator and metrics (Apache-2.0). Run when a new release is
served, with the directory that holds the modules (`go env GOMODCACHE` and `/k8s.io`) and their version:

    python scripts/build_protobuf_table.py $(go env GOMODCACHE)/k8s.io v0.37.0

The output's format is described in `steersman/api/protobuf/table.py`. Standard library only.
"""

from __future__ import annotations

import re
import sys
from pathlib import Path

OUT = Path(__file__).resolve().parent.parent / "steersman" / "api" / "protobuf" / "fields.txt"

PACKAGES = {
    "meta": "apimachinery/pkg/apis/meta/v1",
    "v1": "api/core/v1",
    "admissionregistration.k8s.io/v1": "api/admissionregistration/v1",
    "apiextensions.k8s.io/v1": "apiextensions-apiserver/pkg/apis/apiextensions/v1",
    "apidiscovery.k8s.io/v2": "api/apidiscovery/v2",
    "apidiscovery.k8s.io/v2beta1": "api/apidiscovery/v2beta1",
    "apiregistration.k8s.io/v1": "kube-aggregator/pkg/apis/apiregistration/v1",
    "apps/v1": "api/apps/v1",
    "authentication.k8s.io/v1": "api/authentication/v1",
    "authorization.k8s.io/v1": "api/authorization/v1",
    "autoscaling/v1": "api/autoscaling/v1",
    "autoscaling/v2": "api/autoscaling/v2",
    "batch/v1": "api/batch/v1",
    "certificates.k8s.io/v1": "api/certificates/v1",
    "coordination.k8s.io/v1": "api/coordination/v1",
    "discovery.k8s.io/v1": "api/discovery/v1",
    "events.k8s.io/v1": "api/events/v1",
    "flowcontrol.apiserver.k8s.io/v1": "api/flowcontrol/v1",
    "metrics.k8s.io/v1beta1": "metrics/pkg/apis/metrics/v1beta1",
    "networking.k8s.io/v1": "api/networking/v1",
    "node.k8s.io/v1": "api/node/v1",
    "policy/v1": "api/policy/v1",
    "rbac.authorization.k8s.io/v1": "api/rbac/v1",
    "resource.k8s.io/v1": "api/resource/v1",
    "scheduling.k8s.io/v1": "api/scheduling/v1",
    "scheduling.k8s.io/v1alpha3": "api/scheduling/v1alpha3",
    "storage.k8s.io/v1": "api/storage/v1",
    "storagemigration.k8s.io/v1": "api/storagemigration/v1",
}
"""Section of the table (an apiVersion, or `meta`) and the Go package, below k8s.io, that it is read from."""

SCALARS = {
    "string": "s",
    "bool": "b",
    "[]byte": "x",
    "float64": "d",
    **dict.fromkeys(("int", "int32", "int64", "uint32", "uint64", "uint8"), "i"),
}
SPECIAL = {
    "meta:Time": "T",
    "meta:MicroTime": "U",
    "meta:Duration": "D",
    "meta:FieldsV1": "R",
    "resource:Quantity": "Q",
    "intstr:IntOrString": "O",
    "runtime:RawExtension": "R",
    "apiextensions.k8s.io/v1:JSON": "R",
    "apiextensions.k8s.io/v1:JSONSchemaPropsOrArray": "A",
    "apiextensions.k8s.io/v1:JSONSchemaPropsOrBool": "B",
    "apiextensions.k8s.io/v1:JSONSchemaPropsOrStringArray": "C",
}
"""Types with a JSON form of their own."""

OUTSIDE = {
    "k8s.io/apimachinery/pkg/api/resource": "resource",
    "k8s.io/apimachinery/pkg/util/intstr": "intstr",
    "k8s.io/apimachinery/pkg/runtime": "runtime",
    "k8s.io/apimachinery/pkg/types": "types",
}
SECTIONS = {f"k8s.io/{path}": section for section, path in PACKAGES.items()} | OUTSIDE

STRUCT = re.compile(r"^type (\w+) struct \{\n(.*?)^\}", re.MULTILINE | re.DOTALL)
EMPTY = re.compile(r"^type (\w+) struct ?\{\s*\}", re.MULTILINE)
NAMED = re.compile(r"^\t?(?:type )?(\w+) (=? ?(?:\*|\[\]|map\[[\w.]+\])*[\w.]+)$", re.MULTILINE)
IMPORT = re.compile(r'^\s*(?:import )?(?:(\w+) )?"(k8s\.io/[\w./-]+)"$', re.MULTILINE)
FIELD = re.compile(r"^\t(?:(\w+) +)?([\w.*\[\]]+) +`(?=.*protobuf:)(.*)`", re.MULTILINE)
JSON_TAG = re.compile(r'json:"([^"]*)"')
PROTOBUF_TAG = re.compile(r'protobuf:"(\w+),(\d+),(\w+)')


class Package:
    """One Go package: its structs' bodies and its other named types."""

    def __init__(self, section: str, folder: Path) -> None:
        self.section = section
        self.structs: dict[str, str] = {}
        self.named: dict[str, str] = {}
        self.imports: dict[str, str] = {}
        for file in sorted(folder.glob("*.go")):
            if file.name.startswith(("generated", "zz_generated")) or file.name.endswith("_test.go"):
                continue
            text = re.sub(r"/\*.*?\*/", "", file.read_text(), flags=re.DOTALL)
            text = re.sub(r"^\s*//.*\n", "", text, flags=re.MULTILINE)
            self.structs |= dict(STRUCT.findall(text)) | dict.fromkeys(EMPTY.findall(text), "")
            self.named |= {name: kind.removeprefix("=").strip() for name, kind in NAMED.findall(STRUCT.sub("", text))}
            for alias, path in IMPORT.findall(text):
                self.imports[alias or path.rpartition("/")[2]] = path


class Table:
    """All packages, and the lines made from them."""

    def __init__(self, root: Path, version: str) -> None:
        self.packages = {}
        for section, path in PACKAGES.items():
            module, _, inner = path.partition("/")
            self.packages[section] = Package(section, root / f"{module}@{version}" / inner)

    def lines(self) -> list[str]:
        """The table, one message a line."""
        out = []
        for section, package in self.packages.items():
            out.append(f"[{section}]")
            for name in sorted(package.structs.keys() | package.named.keys()):
                fields = self._message(package, name)
                if fields or not package.structs.get(name, "x").strip():
                    out.append(" ".join((name, *fields)))
        return out

    def _message(self, package: Package, name: str) -> list[str]:
        if f"{package.section}:{name}" in SPECIAL:
            return []
        if name in package.structs:
            return [self._field(package, *found) for found in FIELD.findall(package.structs[name])]
        target = package.named[name]
        if target.startswith("[]"):  # a named list is a message with one field
            return [f"items=1*{self._type(package, target[2:], package.section)}"]
        section, _, other = self._qualify(package, target).partition(":")
        owner = self.packages.get(section)
        return self._message(owner, other) if owner and other in owner.structs and owner is not package else []

    def _field(self, package: Package, name: str, go_type: str, tags: str) -> str:
        json_name, *options = (JSON_TAG.findall(tags) or [""])[0].split(",")
        _, number, label = PROTOBUF_TAG.findall(tags)[0]
        inline = "inline" in options or (not json_name and not name)
        home = package.section
        pointer = go_type.startswith("*")
        go_type = go_type.removeprefix("*")
        package, go_type = self._unfold(package, go_type, repeated=label == "rep")
        if go_type.startswith("map["):
            kind = "%" + self._type(package, go_type.partition("]")[2], home)
        elif go_type.startswith("[]") and (go_type != "[]byte" or label == "rep"):  # some tags of lists say "opt"
            kind = "*" + self._type(package, go_type[2:].removeprefix("*"), home)
        else:
            kind = self._type(package, go_type, home)
        flags = "?" * pointer + "~" * ("omitempty" in options) + "0" * ("omitzero" in options)
        return f"{'^' if inline else json_name}={number}{kind}{';' + flags if flags else ''}"

    def _unfold(self, package: Package, go_type: str, *, repeated: bool) -> tuple[Package, str]:
        """A named map, or a named list that the tag says is repeated, as what it stands for, and where."""
        section, _, name = self._qualify(package, go_type).partition(":")
        owner = self.packages.get(section, package)
        target = owner.named.get(name, "")
        if target.startswith("map[") or (repeated and target.startswith("[]")):
            return owner, target
        return package, go_type

    def _type(self, package: Package, go_type: str, home: str) -> str:
        if go_type in SCALARS:
            return SCALARS[go_type]
        qualified = self._qualify(package, go_type)
        if qualified in SPECIAL:
            return SPECIAL[qualified]
        section, _, name = qualified.partition(":")
        owner = self.packages.get(section)
        if section == "types":
            return "s"  # UID and its like
        if owner is None:
            raise LookupError(f"{package.section} uses {go_type}: name its package in PACKAGES")
        if name not in owner.structs and not owner.named[name].startswith("[]"):
            return self._type(owner, owner.named[name], home)
        return f"@{name}" if section == home else f"@{qualified}"

    def _qualify(self, package: Package, go_type: str) -> str:
        alias, _, name = go_type.rpartition(".")
        section = SECTIONS.get(package.imports.get(alias, ""), "") if alias else package.section
        return f"{section}:{name}"


if __name__ == "__main__":
    OUT.write_text("\n".join(Table(Path(sys.argv[1]), sys.argv[2]).lines()) + "\n")
    print(OUT, OUT.stat().st_size)
