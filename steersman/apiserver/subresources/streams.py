"""log, exec, attach and portforward: requests about a pod that its node's kubelet answers.

Owns the choice of where to, and the checks of options; `tunnel` passes bytes as they are, upgraded or not. It speaks no
stream protocol itself: the kubelet does. Source: LogLocation in pkg/registry/core/pod/strategy.go.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from typing import Any, Protocol
from urllib.parse import urlencode

from steersman.api import errors
from steersman.api.errors import ApiError
from steersman.api.resource import Object
from steersman.api.schema.scalars import as_time
from steersman.api.validation import forbidden, invalid
from steersman.apiserver.call import Call
from steersman.apiserver.subresources import websocket
from steersman.apiserver.subresources.own import connecting
from steersman.apiserver.subresources.tunnel import relay, tunnel
from steersman.lib.http.messages import Answer, Response, Stream, Transport, Upgrade

LOGS = "logs"  # in a server's extras: how many were asked of kubelets, by what is asked of their certificates


class Dialer(Protocol):
    """How the API server reaches kubelets and pods."""

    def kubelet(self, node: Object) -> Transport:
        """A transport to a node's kubelet, as the API server's client identity. Raises ApiError."""
        ...

    def address(self, scheme: str, host: str, port: int) -> Transport:
        """A transport to any address of the cluster network."""
        ...


def dialer(call: Call) -> Dialer:
    """The way to nodes and pods. Raises ApiError when there is none."""
    found: Dialer | None = call.services.extras.get("dialer")
    if found is None:
        raise errors.internal("this API server has no way to reach nodes")
    return found


def _pod(call: Call) -> Object:
    return call.storage.get(call.kind, call.info.namespace, call.info.name).obj()


def _kubelet(call: Call, pod: Object) -> Transport:
    node = (pod.get("spec") or {}).get("nodeName")
    if not node:
        raise errors.bad_request(f"pod {call.info.name} does not have a host assigned")
    kind = call.services.registry.find("", "nodes")
    assert kind is not None
    found = call.storage.find(kind, "", node)
    if found is None:
        raise errors.not_found("", "pods", node)  # the original's words: it is a pod's log that is looked for
    return dialer(call).kubelet(found.obj())


def _container(call: Call, pod: Object) -> str:
    """The container that is asked for; a pod with one needs no name. Raises ApiError in the original's words."""
    spec, wanted = pod["spec"], call.query.get("container")
    regular = [c["name"] for c in spec.get("containers", ())]
    others = {
        "init": [c["name"] for c in spec.get("initContainers") or ()],
        "ephemeral": [c["name"] for c in spec.get("ephemeralContainers") or ()],
    }
    if wanted:
        if wanted not in regular and not any(wanted in names for names in others.values()):
            raise errors.bad_request(f"container {wanted} is not valid for pod {pod['metadata']['name']}")
        return wanted
    if len(regular) == 1:
        return str(regular[0])
    text = f"a container name must be specified for pod {pod['metadata']['name']}, choose one of: [{' '.join(regular)}]"
    for word, names in others.items():
        if names:
            text += f" or one of the {word} containers: [{' '.join(names)}]"
    raise errors.bad_request(text)


async def log(server: Any, call: Call) -> Answer:
    """GET pods/NAME/log."""
    query = {
        key: call.query.get(key)
        for key in (
            "follow",
            "previous",
            "sinceSeconds",
            "sinceTime",
            "timestamps",
            "tailLines",
            "limitBytes",
            "stream",
        )
        if call.query.has(key)
    }
    _check_log_options(query, call.info.name)
    pod = _pod(call)
    container = _container(call, pod)
    if not (pod.get("spec") or {}).get("nodeName"):
        return Response(204, [("cache-control", "no-cache, private")])  # nothing has been said yet
    call.services.extras.setdefault(LOGS, Counter())["enforce_tls"] += 1
    kubelet = _kubelet(call, pod)
    target = f"/containerLogs/{call.info.namespace}/{call.info.name}/{container}"
    answer = await relay(kubelet, "GET", f"{target}?{urlencode(query)}" if query else target, [], b"")
    if not isinstance(answer, Upgrade) and answer.status >= 400:
        raise _said(call, answer)
    if websocket.wanted(call.request):
        return websocket.over_websocket(call.request, answer, greets=True)
    return answer


def _said(call: Call, answer: Response | Stream) -> ApiError:
    """The kubelet's refusal as an API error. Source: GenericHttpResponseChecker in registry/generic/rest."""
    body = answer.body if isinstance(answer, Response) else b""
    text = (body if isinstance(body, bytes) else b"".join(body)).decode(errors="replace")
    if answer.status == 500:
        return errors.internal(text)
    if answer.status == 400:
        return errors.bad_request(text)
    details = {"name": call.info.name, "kind": "pods/log"}
    words = "the server could not find the requested resource" if answer.status == 404 else text
    reason = {401: "Unauthorized", 403: "Forbidden", 404: "NotFound", 429: "TooManyRequests"}.get(answer.status, "")
    return ApiError(answer.status, reason, f"{words} ( pods/log {call.info.name})", details)


_NUMBERS = (("tailLines", 0), ("limitBytes", 1), ("sinceSeconds", 1))


def _check_log_options(query: Mapping[str, str], name: str) -> None:
    """Source: ValidatePodLogOptions in pkg/apis/core/validation; `stream` waits for a feature that is off."""
    numbers = {key: _number(query[key]) for key, _ in _NUMBERS if query.get(key)}
    moment = query.get("sinceTime")
    if moment:
        try:
            as_time(moment)
        except ValueError as error:
            raise errors.bad_request(str(error)) from None
    problems = []
    for key, least in _NUMBERS[:2]:
        if numbers.get(key, least) < least:
            problems.append(invalid(key, numbers[key], f"must be greater than {'or equal to ' if not least else ''}0"))
    if "sinceSeconds" in numbers and moment:
        problems.append(forbidden("[]", "at most one of `sinceTime` or `sinceSeconds` may be specified"))
    elif numbers.get("sinceSeconds", 1) < 1:
        problems.append(invalid("sinceSeconds", numbers["sinceSeconds"], "must be greater than 0"))
    if "stream" in query:
        problems.append(forbidden("stream", "may not be specified"))
    if problems:
        raise errors.invalid("", "PodLogOptions", name, problems)


def _number(value: str) -> int:
    if not value.lstrip("-").isdecimal():
        raise errors.bad_request(f'strconv.ParseInt: parsing "{value}": invalid syntax')
    return int(value)


async def exec_(server: Any, call: Call) -> Answer:
    """GET or POST pods/NAME/exec."""
    return await _stream(call, "exec", {"command": call.query.all("command")})


async def attach(server: Any, call: Call) -> Answer:
    """GET or POST pods/NAME/attach."""
    return await _stream(call, "attach", {})


async def _stream(call: Call, what: str, more: dict[str, list[str]]) -> Answer:
    await connecting(call)
    pod = _pod(call)
    container = _container(call, pod)
    kubelet = _kubelet(call, pod)
    flags = {"stdin": "input", "stdout": "output", "stderr": "error", "tty": "tty"}
    query = [(name, "1") for key, name in flags.items() if call.query.flag(key)]
    if not any(name in ("input", "output", "error") for name, _ in query):
        raise errors.bad_request("you must specify at least one of stdin, stdout, stderr")
    query += [(key, value) for key, values in more.items() for value in values]
    target = f"/{what}/{call.info.namespace}/{call.info.name}/{container}?{urlencode(query)}"
    return await tunnel(kubelet, call.request, target)


async def port_forward(server: Any, call: Call) -> Answer:
    """GET or POST pods/NAME/portforward."""
    for port in call.query.all("ports"):
        if not port.replace(",", "").isdecimal():
            text = f'strconv.ParseUint: parsing "{port}": invalid syntax'
            raise errors.bad_request(f"cannot convert to []int32: {text}")
    await connecting(call)
    pod = _pod(call)
    kubelet = _kubelet(call, pod)
    ports = [("port", port) for port in call.query.all("ports") for port in port.split(",")]
    target = f"/portForward/{call.info.namespace}/{pod['metadata']['name']}"
    return await tunnel(kubelet, call.request, f"{target}?{urlencode(ports)}" if ports else target)
