"""Asking the metrics APIs: resource, custom and external metrics, and what each metric of an autoscaler proposes.

Owns those requests and the MetricStatus values. Called by the autoscaler. Whoever serves the metrics is somebody else:
an aggregated API server. Source: kubernetes' pkg/controller/podautoscaler/metrics, the metrics.k8s.io APIs.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from urllib.parse import quote

from steersman.api import labels
from steersman.api.errors import ApiError
from steersman.api.labels import Selector, from_object
from steersman.api.quantity import BINARY_SI, Quantity, milli
from steersman.api.resource import Object, Resource
from steersman.client.client import Client, target
from steersman.controllers.hpa.replicas import (
    USUAL,
    Proposal,
    Sample,
    Settings,
    Tolerance,
    Unable,
    by_average,
    by_ratio,
    by_share,
    by_utilization,
    group,
    requests_of,
)
from steersman.lib.clock import parse_rfc3339

_PODS = "/apis/metrics.k8s.io/v1beta1/namespaces/{}/pods"
_GROUP = "custom.metrics.k8s.io"
_KNOWN = ("v1beta1", "v1beta2")  # of that group; what is asked for is spelt the same in both
_CUSTOM = "/apis/custom.metrics.k8s.io/{}/namespaces/{}/{}"
_EXTERNAL = "/apis/external.metrics.k8s.io/v1beta1/namespaces/{}/{}"
_NOT_SERVED = "the server could not find the requested resource"
_NO_TARGET = "neither a value target nor an average value target was set"


ResourceOf = Callable[[Object], Awaitable[Resource]]
"""The resource of a reference's kind. Raises ApiError when none is served."""


def reported(metric: Object, text: str) -> str:
    """What a metric's failure is called where all metrics are summed up."""
    kind = metric["type"]
    if kind == "Resource":
        return f"failed to get {metric['resource']['name']} resource metric value: {text}"
    if kind == "ContainerResource":
        return f"failed to get {metric['containerResource']['container']} container metric value: {text}"
    if kind == "Pods":
        return f"failed to get pods metric value: {text}"
    if kind not in ("Object", "External") or text.endswith(_NO_TARGET):
        return text
    source = metric[kind.lower()]
    name, average = source["metric"]["name"], source["target"].get("averageValue") is not None
    if kind == "Object":
        return f"failed to get object metric value: {f'failed to get {name} object metric: ' if average else ''}{text}"
    one = f"{name} external metric" if average else f"external metric {name}"
    return f"failed to get {name} external metric value: failed to get {one}: {text}"


def tolerance_of(scaler: Object, usual: float = 0.1) -> Tolerance:
    """The autoscaler's own tolerances, the usual one where it has none."""
    behavior = scaler["spec"].get("behavior") or {}
    up, down = ((behavior.get(key) or {}).get("tolerance") for key in ("scaleUp", "scaleDown"))
    return Tolerance(*(usual if each is None else milli(str(each)) / 1000 for each in (up, down)))


async def propose(
    client: Client,
    scaler: Object,
    metric: Object,
    pods: Sequence[Object],
    selector: Selector,
    current: int,
    running: int,
    now: float,
    resource_of: ResourceOf,
    settings: Settings = USUAL,
) -> Proposal:
    """What one metric asks for. Raises Unable; `reported` is the longer form of its text."""
    kind, namespace, tolerance = (
        metric["type"],
        scaler["metadata"]["namespace"],
        tolerance_of(scaler, settings.tolerance),
    )
    if kind in ("Resource", "ContainerResource"):
        return await _resource(client, namespace, metric, pods, selector, current, tolerance, now, settings)
    if kind == "Pods":
        return await _pods(client, namespace, metric["pods"], pods, selector, current, tolerance, now)
    if kind == "Object":
        return await _object(client, namespace, metric["object"], pods, current, running, tolerance, resource_of)
    if kind == "External":
        return await _external(client, namespace, metric["external"], pods, current, running, tolerance)
    raise Unable(f'unknown metric source type "{kind}"')


async def _resource(
    client: Client,
    namespace: str,
    metric: Object,
    pods: Sequence[Object],
    selector: Selector,
    current: int,
    tolerance: Tolerance,
    now: float,
    settings: Settings,
) -> Proposal:
    part = "containerResource" if metric["type"] == "ContainerResource" else "resource"
    source = metric[part]
    name, container, wanted = source["name"], source.get("container", ""), source["target"]
    average = wanted.get("averageValue")
    if average is None and wanted.get("averageUtilization") is None:
        text = "neither an average utilization target nor an average value (usage) target was set"
        raise Unable(f"invalid resource metric source: {text}")
    what = "usage" if average is not None else "utilization"
    try:
        groups = group(pods, await _samples(client, namespace, selector, name, container), name, now, settings)
        if average is not None:
            replicas, usage = by_average(groups, current, milli(str(average)), tolerance)
            now_is: Object = {"averageValue": _amount(usage, name)}
            label = f"{name} resource"
        else:
            requests = requests_of(pods, container, name)
            percent = int(wanted["averageUtilization"])
            replicas, is_percent, usage = by_utilization(groups, requests, current, percent, tolerance)
            now_is = {"averageUtilization": is_percent, "averageValue": _amount(usage, name)}
            label = f"{name} {'container ' if container else ''}resource utilization (percentage of request)"
    except Unable as error:
        raise Unable(f"failed to get {name} {what}: {error}") from None
    status = {"name": name, **({"container": container} if container else {}), "current": now_is}
    return Proposal(replicas, label, {"type": metric["type"], part: status})


async def _samples(
    client: Client, namespace: str, selector: Selector, resource: str, container: str
) -> dict[str, Sample]:
    try:
        found = await _fetch(client, target(_PODS.format(quote(namespace)), {"labelSelector": str(selector)}), "pods")
    except ApiError as error:
        text = f"unable to fetch metrics from resource metrics API: {error.message}"
        raise Unable(f"unable to get metrics for resource {resource}: {text}") from None
    if not found:
        text = "no metrics returned from resource metrics API"
        raise Unable(f"unable to get metrics for resource {resource}: {text}")
    out: dict[str, Sample] = {}
    for each in found:
        parts = [one for one in each.get("containers") or () if container in ("", one["name"])]
        usages = [(one.get("usage") or {}).get(resource) for one in parts]
        if usages and None not in usages:
            out[each["metadata"]["name"]] = Sample(sum(milli(str(one)) for one in usages), *_when(each))
    return out


async def _pods(
    client: Client,
    namespace: str,
    source: Object,
    pods: Sequence[Object],
    selector: Selector,
    current: int,
    tolerance: Tolerance,
    now: float,
) -> Proposal:
    name, wanted = source["metric"]["name"], milli(str(source["target"]["averageValue"]))
    query = {"labelSelector": str(selector), "metricLabelSelector": _metric_selector(source)}
    try:
        found = await _custom(client, namespace, f"pods/%2A/{quote(name)}", query, name)
        if not found:
            raise Unable("no metrics returned from custom metrics API")
    except Unable as error:
        raise Unable(f"unable to get metric {name}: {error}") from None
    samples = {each["describedObject"]["name"]: Sample(milli(str(each["value"])), *_when(each)) for each in found}
    replicas, usage = by_average(group(pods, samples, "", now), current, wanted, tolerance)
    status = {"metric": source["metric"], "current": {"averageValue": _amount(usage)}}
    return Proposal(replicas, f"pods metric {name}", {"type": "Pods", "pods": status})


async def _object(
    client: Client,
    namespace: str,
    source: Object,
    pods: Sequence[Object],
    current: int,
    running: int,
    tolerance: Tolerance,
    resource_of: ResourceOf,
    settings: Settings = USUAL,
) -> Proposal:
    name, described, wanted = source["metric"]["name"], source["describedObject"], source["target"]
    query = {"metricLabelSelector": _metric_selector(source)}
    try:
        where = await _place(described, resource_of)
        found = await _custom(client, namespace, f"{where}/{quote(name)}", query, name)
        if len(found) != 1:
            many = f"the custom metrics API server returned {len(found)} results when we asked for exactly one"
            raise Unable(f"unable to fetch metrics from custom metrics API: {many}")
    except Unable as error:  # the original's words, in the original's order
        text = f"unable to get metric {name}: {described['kind']} on {namespace} {described['name']}/{error}"
        raise Unable(text) from None
    total = milli(str(found[0]["value"]))
    average = "value" not in wanted and wanted.get("averageValue") is not None
    replicas, now_is = _one_total(total, wanted, pods, current, running, tolerance, "object")
    status = {"metric": source["metric"], "describedObject": described, "current": now_is}
    label = (
        f"external metric {name}({labels.in_go(source['metric'].get('selector'))})"
        if average
        else f"{described['kind']} metric {name}"
    )
    return Proposal(replicas, label, {"type": "Object", "object": status})


async def _place(described: Object, resource_of: ResourceOf) -> str:
    """Where the metrics of an object are: of a namespace, its own only, whatever it is called. Raises Unable."""
    group, kind = described.get("apiVersion", "").rpartition("/")[0], described["kind"]
    if (group, kind) == ("", "Namespace"):
        return "metrics"
    try:
        resource = await resource_of(described)
    except ApiError as error:
        shown = f"{kind}.{group}" if group else kind
        text = f"unable to map kind {shown} to resource: {error.message}"
        raise Unable(f"unable to fetch metrics from custom metrics API: {text}") from None
    return f"{resource.plural}{f'.{group}' if group else ''}/{quote(described['name'])}"


async def _external(
    client: Client,
    namespace: str,
    source: Object,
    pods: Sequence[Object],
    current: int,
    running: int,
    tolerance: Tolerance,
) -> Proposal:
    name, wanted = source["metric"]["name"], source["target"]
    path = target(_EXTERNAL.format(quote(namespace), quote(name)), {"labelSelector": _metric_selector(source)})
    try:
        found = await _fetch(client, path, name)
        if not found:
            raise Unable("no metrics returned from external metrics API")
    except (ApiError, Unable) as error:
        asked = isinstance(error, ApiError)
        text = f"unable to fetch metrics from external metrics API: {error.message}" if asked else str(error)
        raise Unable(
            f"unable to get external metric {namespace}/{name}/{labels.in_go(source['metric'].get('selector'))}: {text}"
        ) from None
    total = sum(milli(str(each["value"])) for each in found)
    replicas, now_is = _one_total(total, wanted, pods, current, running, tolerance, "external")
    status = {"metric": source["metric"], "current": now_is}
    label = f"external metric {name}({labels.in_go(source['metric'].get('selector'))})"
    return Proposal(replicas, label, {"type": "External", "external": status})


def _one_total(
    total: int, wanted: Object, pods: Sequence[Object], current: int, running: int, tolerance: Tolerance, kind: str
) -> tuple[int, Object]:
    """Replicas for a metric that is one number, and the number for the status."""
    if wanted.get("averageValue") is not None:
        replicas, share = by_share(total, milli(str(wanted["averageValue"])), running, tolerance)
        return replicas, {"averageValue": _amount(share)}
    if wanted.get("value") is None:
        raise Unable(f"invalid {kind} metric source: {_NO_TARGET}")
    return by_ratio(pods, current, total / milli(str(wanted["value"])), tolerance), {"value": _amount(total)}


async def _custom(client: Client, namespace: str, where: str, query: dict[str, str], name: str) -> list[Object]:
    """Values of custom metrics, in the version that their server prefers. Raises Unable."""
    try:
        version = await _version(client)
        return await _fetch(client, target(_CUSTOM.format(version, quote(namespace), where), query), name)
    except ApiError as error:
        raise Unable(f"unable to fetch metrics from custom metrics API: {error.message}") from None


async def _version(client: Client) -> str:
    """Raises ApiError when nobody serves custom metrics, or in no version that is known here."""
    try:
        group = await client.call("GET", f"/apis/{_GROUP}")
    except ApiError as error:
        if error.code != 404:
            raise
        raise ApiError(404, "NotFound", f"no custom metrics API ({_GROUP}) registered") from None
    served = [group.get("preferredVersion") or {}, *(group.get("versions") or ())]
    for each in served:
        if each.get("version") in _KNOWN:
            return str(each["version"])
    raise ApiError(404, "NotFound", "no known available metric versions found")


async def _fetch(client: Client, path: str, what: str) -> list[Object]:
    """A metrics list's items. Raises ApiError; in client-go's words when nobody serves the API at all."""
    try:
        items: list[Object] = (await client.call("GET", path)).get("items") or []
    except ApiError as error:
        if error.code != 404 or (error.reason and error.message != _NOT_SERVED):
            raise
        text = f"{_NOT_SERVED} (get {what}.{path.split('/')[2]})"
        raise ApiError(404, "NotFound", text) from None
    return items


def _when(each: Object) -> tuple[float, float]:
    """When a sample's window ended, and its length, in seconds."""
    window = each.get("window") or f"{each.get('windowSeconds') or 60}s"
    at = parse_rfc3339(each["timestamp"]) if each.get("timestamp") else 0.0
    return at, _seconds(str(window))


def _seconds(duration: str) -> float:
    """Go's `1m0s` and `30.5s`."""
    minutes, separator, rest = duration.rpartition("m")
    if separator and not rest.startswith("s"):
        return float(minutes or 0) * 60 + float(rest.removesuffix("s") or 0)
    return float(duration.removesuffix("s"))


def _metric_selector(source: Object) -> str:
    given = source["metric"].get("selector")
    return str(from_object(given)) if given else ""


def _amount(thousandths: int, resource: str = "") -> str:
    """A quantity as the metrics server writes it."""
    amount = Quantity(thousandths * 10**6)
    return str(Quantity(amount.nanos, BINARY_SI) if resource == "memory" else amount)
