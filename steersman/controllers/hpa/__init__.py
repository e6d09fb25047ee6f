"""HorizontalPodAutoscaler: as many replicas as its metrics ask for, through any kind's scale subresource.

Owns the autoscalers' status and the size of what they name; it never touches a pod. `metrics` asks the metrics APIs,
`replicas` turns usage into a number, `rules` keeps that number steady. Looked at each 15 seconds, as the original does,
or as `horizontal-pod-autoscaler-sync-period` says.
Source: kubernetes' pkg/controller/podautoscaler; KEP-853, KEP-4951; texts are the original's.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from typing import Any

from steersman.api.errors import ApiError
from steersman.api.labels import Selector, parse
from steersman.api.resource import PODS, Object, Resource
from steersman.client.client import Client
from steersman.client.controller import DONE, Context, Controller, For, Key, Result
from steersman.client.discovery import discover
from steersman.client.metrics import Metrics, exponential
from steersman.controllers.hpa.metrics import Unable, propose, reported
from steersman.controllers.hpa.replicas import Proposal, Settings
from steersman.controllers.hpa.rules import History, normalize
from steersman.lib.clock import rfc3339
from steersman.lib.metrics import Value

HPAS = Resource("autoscaling", "v2", "horizontalpodautoscalers", "HorizontalPodAutoscaler")
_TRIES = 5
_METRICS = "horizontal_pod_autoscaler_controller"
_SECONDS = exponential(0.001, 2, 15)
_REASONS = {
    "Resource": "FailedGetResourceMetric",
    "ContainerResource": "FailedGetContainerResourceMetric",
    "Pods": "FailedGetPodsMetric",
    "Object": "FailedGetObjectMetric",
    "External": "FailedGetExternalMetric",
}
_DISABLED = "scaling is disabled since the replica count of the target is zero"


class Trouble(Exception):
    """Why nothing can be done this time. The status says it."""


@dataclass
class Look:
    """One look at one autoscaler: its status to be, and when it is."""

    context: Context
    scaler: Object
    key: Key
    now: float
    history: History
    status: Object
    settings: Settings
    before: int = 0  # the target's size

    def condition(self, type: str, status: str, reason: str, message: str) -> None:
        """Set one condition; its transition time changes only with its status."""
        conditions = self.status.setdefault("conditions", [])
        new = {"type": type, "status": status, "reason": reason, "message": message}
        for position, old in enumerate(conditions):
            if old["type"] == type:
                stamp = old.get("lastTransitionTime") if old["status"] == status else None
                conditions[position] = {**new, "lastTransitionTime": stamp or rfc3339(self.now)}
                return
        conditions.append({**new, "lastTransitionTime": rfc3339(self.now)})

    def warn(self, reason: str, message: str) -> None:
        """A warning event about the autoscaler."""
        self.context.recorder.event(self.scaler, "Warning", reason, message)


async def reconcile(context: Context, key: Key) -> Result:
    """Look at one autoscaler: at most once each period, whatever happens."""
    scaler = context.informer(HPAS).get(*key)
    if scaler is None or scaler["metadata"].get("deletionTimestamp"):
        context.memory.pop(key, None)
        wanted = context.metrics.gauge(f"{_METRICS}_desired_replicas", "Wanted replicas.", ("namespace", "hpa_name"))
        wanted.forget(*key)
        return DONE
    now = context.clock.now()
    history = context.memory.setdefault(key, History())
    mark = scaler["metadata"]["uid"], scaler["metadata"].get("generation")
    if history.mark == mark and now < history.due:
        return Result(history.due - now)
    if history.mark and history.mark[0] != mark[0]:
        history = context.memory[key] = History()
    settings = Settings.of(context.config)
    history.mark, history.due = mark, now + settings.period
    before = scaler.get("status") or {}
    status = {**before, "conditions": [dict(each) for each in before.get("conditions") or ()]}
    look = Look(context, scaler, key, now, history, status, settings)
    began, wrong = context.clock.monotonic(), "none"
    try:
        await _scale(look)
    except Trouble:
        wrong = "internal"  # the condition and the event say it
    finally:
        _count(look, context.clock.monotonic() - began, wrong)
        history.due = context.clock.now() + settings.period
    look.status.setdefault("desiredReplicas", 0)
    if look.status != before:
        try:
            await context.client.update(HPAS, {**scaler, "status": look.status}, subresource="status")
        except ApiError as error:
            look.warn("FailedUpdateStatus", error.message)
            raise
    return Result(settings.period)


def _count(look: Look, seconds: float, error: str) -> None:
    before, after = look.before, look.status.get("desiredReplicas", 0)
    action = "none" if error != "none" or after == before else "scale_up" if after > before else "scale_down"
    metrics, labels = look.context.metrics, ("action", "error")
    family = metrics.counter(f"{_METRICS}_reconciliations_total", "Looks at autoscalers.", labels)
    family.labels(action, error).inc()
    name = f"{_METRICS}_reconciliation_duration_seconds"
    metrics.histogram(name, "Their seconds.", labels, _SECONDS).labels(action, error).observe(seconds)
    if error == "none":
        wanted = metrics.gauge(f"{_METRICS}_desired_replicas", "Wanted replicas.", ("namespace", "hpa_name"))
        wanted.labels(*look.key).set(after)
    informer = look.context.informer(HPAS)
    metrics.ask(_METRICS, lambda: _there(metrics).set(len(informer.list())))


def _there(metrics: Metrics) -> Value:
    return metrics.gauge(f"{_METRICS}_num_horizontal_pod_autoscalers", "Autoscalers.").labels()


def _count_metric(look: Look, kind: str, wanted: int | None, seconds: float) -> None:
    """One metric was asked for; `wanted` is what it proposes, None where it cannot be had."""
    before = int((look.scaler.get("status") or {}).get("currentReplicas") or 0)
    action = "none" if wanted is None or wanted == before else "scale_up" if wanted > before else "scale_down"
    found, labels = (action, "internal" if wanted is None else "none", kind), ("action", "error", "metric_type")
    metrics, name = look.context.metrics, f"{_METRICS}_metric_computation"
    metrics.counter(f"{name}_total", "Metrics computed.", labels).labels(*found).inc()
    metrics.histogram(f"{name}_duration_seconds", "Their seconds.", labels, _SECONDS).labels(*found).observe(seconds)


async def _scale(look: Look) -> None:
    """Measure, decide, and set the target's size."""
    spec, client = look.scaler["spec"], look.context.client
    resource, scale = await _target(look)
    current = int((scale.get("spec") or {}).get("replicas") or 0)
    look.before = current
    look.history.begin(current, look.now)
    least, most = int(spec.get("minReplicas", 1)), int(spec["maxReplicas"])
    desired, why, measured = current, "", []
    if current == 0:
        look.condition("ScalingActive", "False", "ScalingDisabled", _DISABLED)
    elif current > most:
        desired, why = most, "Current number of replicas above Spec.MaxReplicas"
    elif current < least:
        desired, why = least, "Current number of replicas below Spec.MinReplicas"
    else:
        try:
            proposal, measured = await _measure(look, scale, current)
        finally:
            look.status["currentReplicas"] = current
        why = "All metrics below target" if proposal.replicas < current else f"{proposal.metric} above target"
        decision = normalize(
            spec.get("behavior"),
            look.history,
            current,
            proposal.replicas,
            least,
            most,
            look.now,
            look.settings.down_window,
        )
        look.condition("AbleToScale", "True", *decision.able)
        look.condition("ScalingLimited", *decision.limited)
        desired = decision.replicas
    look.status["currentReplicas"] = current
    if measured:
        look.status["currentMetrics"] = measured
    else:
        look.status.pop("currentMetrics", None)
    if desired != current:
        await _resize(look, client, resource, scale, desired, why)
        look.history.scaled(spec.get("behavior"), current, desired, look.now)
        look.status["lastScaleTime"] = rfc3339(look.now)
    look.status["desiredReplicas"] = desired


async def _target(look: Look) -> tuple[Resource, Object]:
    """What is scaled, and its Scale. Raises Trouble."""
    reference = look.scaler["spec"]["scaleTargetRef"]
    try:
        resource = await _resource(look.context, reference)
        scale = await look.context.client.get(resource, reference["name"], look.key.namespace, subresource="scale")
    except ApiError as error:
        look.warn("FailedGetScale", error.message)
        text = f"the HPA controller was unable to get the target's current scale: {error.message}"
        look.condition("AbleToScale", "False", "FailedGetScale", text)
        raise Trouble from None
    text = "the HPA controller was able to get the target's current scale"
    look.condition("AbleToScale", "True", "SucceededGetScale", text)
    return resource, scale


async def _resource(context: Context, reference: Object) -> Resource:
    """The resource of a reference's kind. Raises ApiError when none is served."""
    group, kind = reference.get("apiVersion", "").rpartition("/")[0], reference["kind"]
    known: dict[tuple[str, str], Resource] = context.memory.setdefault("kinds", {})
    if (group, kind) not in known:
        served = (each.resource for each in (await discover(context.client)).resources)
        known.update(((each.group, each.kind), each) for each in served if "/" not in each.plural)
    found = known.get((group, kind))
    if found is None:
        where = f' in group "{group}"' if group else ""
        raise ApiError(404, "NotFound", f'no matches for kind "{kind}"{where}')
    return found


async def _measure(look: Look, scale: Object, current: int) -> tuple[Proposal, list[Any]]:
    """The highest of what the metrics propose, and their statuses. Raises Trouble."""
    selector = _selector(look, (scale.get("status") or {}).get("selector") or "")
    namespace, metrics = look.key.namespace, look.scaler["spec"].get("metrics") or []
    pods = [
        pod
        for pod in look.context.informer(PODS).list(namespace)
        if selector.matches(pod["metadata"].get("labels") or {})
    ]
    _ensure_unambiguous(look, str(selector), pods)
    best: Proposal | None = None
    failures: list[tuple[str, Object, str]] = []
    statuses: list[Any] = []
    running = int((scale.get("status") or {}).get("replicas") or 0)
    client, known = look.context.client, partial(_resource, look.context)
    clock = look.context.clock
    for metric in metrics:
        began = clock.monotonic()
        try:
            proposal = await propose(
                client, look.scaler, metric, pods, selector, current, running, look.now, known, look.settings
            )
        except Unable as error:
            _count_metric(look, metric["type"], None, clock.monotonic() - began)
            reason = _REASONS.get(metric["type"], "InvalidMetricSourceType")
            look.warn(reason, str(error))
            failures.append((reason, metric, str(error)))
            statuses.append({"type": ""})
            continue
        _count_metric(look, metric["type"], proposal.replicas, clock.monotonic() - began)
        statuses.append(proposal.status)
        if best is None or proposal.replicas > best.replicas:
            best = proposal
    if failures and (best is None or best.replicas < current):
        reason, metric, text = failures[0]
        look.condition("ScalingActive", "False", reason, f"the HPA was unable to compute the replica count: {text}")
        count = f"({len(failures)} invalid out of {len(metrics)})"
        whole = f"invalid metrics {count}, first error is: {reported(metric, text)}"
        look.warn("FailedComputeMetricsReplicas", whole)
        look.status["currentMetrics"] = statuses
        raise Trouble
    if best is None:
        raise Trouble
    text = f"the HPA was able to successfully calculate a replica count from {best.metric}"
    look.condition("ScalingActive", "True", "ValidMetricFound", text)
    return best, statuses


def _selector(look: Look, text: str) -> Selector:
    if not text:
        look.warn("SelectorRequired", "selector is required")
        message = "the HPA target's scale is missing a selector"
        look.condition("ScalingActive", "False", "InvalidSelector", message)
        look.warn("FailedComputeMetricsReplicas", "selector is required")
        raise Trouble
    try:
        parsed = parse(text)
    except (ApiError, ValueError) as error:
        message = f"couldn't convert selector into a corresponding internal selector object: {error}"
        look.warn("InvalidSelector", message)
        look.condition("ScalingActive", "False", "InvalidSelector", message)
        raise Trouble from None
    look.history.selector = parsed
    return parsed


def _ensure_unambiguous(look: Look, selector: str, pods: list[Object]) -> None:
    """Two autoscalers of the same pods would pull them to and fro. Raises Trouble."""
    rivals = []
    for scaler in look.context.informer(HPAS).list(look.key.namespace):
        name = scaler["metadata"]["name"]
        other = look.context.memory.get(Key(look.key.namespace, name))
        if name == look.key.name or other is None or other.selector is None:
            continue
        if any(other.selector.matches(pod["metadata"].get("labels") or {}) for pod in pods):
            rivals.append(name)
    if rivals:
        names = " ".join(f"{look.key.namespace}/{name}" for name in sorted([look.key.name, *rivals]))
        text = f"pods by selector {selector} are controlled by multiple HPAs: [{names}]"
        look.warn("AmbiguousSelector", text)
        look.condition("ScalingActive", "False", "AmbiguousSelector", text)
        look.warn("FailedComputeMetricsReplicas", text)
        raise Trouble


async def _resize(look: Look, client: Client, resource: Resource, scale: Object, desired: int, why: str) -> None:
    """Set the size, again when somebody else wrote in between. Raises Trouble."""
    name = look.scaler["spec"]["scaleTargetRef"]["name"]
    for left in reversed(range(_TRIES)):
        try:
            await client.update(
                resource, {**scale, "spec": {**scale["spec"], "replicas": desired}}, subresource="scale"
            )
            break
        except ApiError as error:
            if left and error.reason == "Conflict":
                scale = await client.get(resource, name, look.key.namespace, subresource="scale")
                continue
            look.warn("FailedRescale", f"New size: {desired}; reason: {why}; error: {error.message}")
            text = f"the HPA controller was unable to update the target scale: {error.message}"
            look.condition("AbleToScale", "False", "FailedUpdateScale", text)
            raise Trouble from None
    text = f"the HPA controller was able to update the target scale to {desired}"
    look.condition("AbleToScale", "True", "SucceededRescale", text)
    look.context.recorder.event(look.scaler, "Normal", "SuccessfulRescale", f"New size: {desired}; reason: {why}")


CONTROLLER = Controller(
    "horizontal-pod-autoscaler-controller",
    reconcile,
    (For(HPAS),),
    component="horizontal-pod-autoscaler",
    counts=_there,
    indexes={PODS: {}},
)
