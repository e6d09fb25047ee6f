"""Extenders: programs elsewhere that have a say in filtering, scoring, preemption and binding, by HTTP.

Owns the calls, and what of an answer is believed: only nodes and pods that were asked about. Called by the loop, which
waits for them as the original does. Source: kube-scheduler's extender.go and k8s.io/kube-scheduler/extender/v1, whose
fields have no JSON names of their own.
"""

from __future__ import annotations

import asyncio
import base64
import logging
import ssl
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import msgspec
import numpy as np

from steersman.api.resource import Object
from steersman.lib.http.client import Address, HttpClient, client_tls
from steersman.lib.http.messages import TooLong, read_at_most
from steersman.scheduler.columns import Columns, Mask
from steersman.scheduler.configuration.fields import ConfigurationError, seconds
from steersman.scheduler.framework import Plugin, Rejection, Scores
from steersman.scheduler.podinfo import PodInfo
from steersman.scheduler.preemption import Victims

log = logging.getLogger(__name__)

NAME = "Extenders"  # as which they show among the plugins
_TIMEOUT = 5.0  # seconds, where none is given
_MOST_BYTES = 64 * 1024 * 1024
_BEST_SCORE, _OUR_BEST = 10, 100
_JSON = [("content-type", "application/json")]


class ExtenderError(Exception):
    """An extender could not be asked, or its answer makes no sense; the text is for the event."""


@dataclass(frozen=True, slots=True)
class Filtered:
    """What an extender left of the nodes, and its words for the others."""

    nodes: frozenset[str]
    failed: Mapping[str, str] = field(default_factory=dict)
    hopeless: Mapping[str, str] = field(default_factory=dict)


class Extender:
    """One extender. Every call raises ExtenderError."""

    def __init__(self, config: Mapping[str, Any]) -> None:
        """Raises ConfigurationError for a URL or files that cannot be used."""
        self._config = config
        self.url = str(config.get("urlPrefix") or "")
        self.ignorable = bool(config.get("ignorable"))
        self.weight = int(config.get("weight") or 0)
        self.filters = bool(config.get("filterVerb"))
        self.scores = bool(config.get("prioritizeVerb"))
        self.preempts = bool(config.get("preemptVerb"))
        self.binds = bool(config.get("bindVerb"))
        self._by_name = bool(config.get("nodeCacheCapable"))
        self._managed = frozenset(each["name"] for each in config.get("managedResources") or ())
        self._timeout = seconds(config.get("httpTimeout") or "0") or _TIMEOUT
        parts = urlsplit(self.url if "//" in self.url else f"//{self.url}")
        secure = parts.scheme == "https" or bool(config.get("enableHTTPS"))
        try:
            port, tls = parts.port or (443 if secure else 80), _tls(config) if secure else None
        except (OSError, ValueError) as error:
            raise ConfigurationError(f"extender {self.url}: {error}") from error
        self._path = parts.path.rstrip("/")
        name = str((config.get("tlsConfig") or {}).get("serverName") or "")
        self._client = HttpClient(
            Address(parts.hostname or "", port, tls, server_name=name),
            connect_timeout=self._timeout,
            answer_timeout=None,
        )

    async def close(self) -> None:
        """Drop its connections."""
        await self._client.close()

    def interested(self, pod: PodInfo) -> bool:
        """Whether the pod asks for something that it manages, or it manages everything."""
        if not self._managed:
            return True
        spec = pod.pod["spec"]
        for container in (*(spec.get("containers") or ()), *(spec.get("initContainers") or ())):
            given = container.get("resources") or {}
            if not self._managed.isdisjoint({**(given.get("requests") or {}), **(given.get("limits") or {})}):
                return True
        return False

    async def filter(self, pod: PodInfo, nodes: Mapping[str, Object]) -> Filtered:
        """Which of the nodes it leaves."""
        result = _folded(await self._send("filterVerb", self._arguments(pod, nodes)), self.url)
        if error := result.get("error"):
            raise ExtenderError(str(error))
        names, listed = result.get("nodenames"), result.get("nodes")
        left: list[str] = []
        if self._by_name and names is not None:
            left = [str(each) for each in _list(names, self.url)]
        elif isinstance(listed, dict):
            items = _list(_folded(listed, self.url).get("items") or [], self.url)
            left = [str((each.get("metadata") or {}).get("name")) for each in items if isinstance(each, dict)]
        for name in left:
            if name not in nodes:
                claims = f'extender "{self.url}" claims a filtered node "{name}"'
                raise ExtenderError(f"{claims} which is not found in the input node list")
        failed, hopeless = result.get("failednodes") or {}, result.get("failedandunresolvablenodes") or {}
        return Filtered(frozenset(left), _words(failed, self.url), _words(hopeless, self.url))

    async def prioritize(self, pod: PodInfo, nodes: Mapping[str, Object]) -> dict[str, float]:
        """Its score of each node, weighted, in the scheduler's range. Nodes that were not asked about do not count."""
        answer = await self._send("prioritizeVerb", self._arguments(pod, nodes))
        out: dict[str, float] = {}
        for each in _list(answer if answer is not None else [], self.url):
            entry = _folded(each, self.url)
            name, score = entry.get("host"), entry.get("score", 0)
            if isinstance(score, bool) or not isinstance(score, int) or abs(score) >= 2**63:
                raise ExtenderError(f"json: cannot unmarshal number into Go struct field HostPriority.Score: {score}")
            if name in nodes:
                out[str(name)] = float(score) * self.weight * (_OUR_BEST // _BEST_SCORE)
        return out

    async def preempt(
        self, pod: PodInfo, candidates: Sequence[Victims], there: Mapping[str, Mapping[str, PodInfo]]
    ) -> list[Victims]:
        """The candidates that it agrees to; `there` are the pods of each node by uid."""
        if self._by_name:
            short = {
                each.node: {"Pods": [{"UID": one.uid} for one in each.pods], "NumPDBViolations": each.violations}
                for each in candidates
            }
            arguments = {"Pod": pod.pod, "NodeNameToVictims": None, "NodeNameToMetaVictims": short}
        else:
            whole = {
                each.node: {"Pods": [one.pod for one in each.pods], "NumPDBViolations": each.violations}
                for each in candidates
            }
            arguments = {"Pod": pod.pod, "NodeNameToVictims": whole, "NodeNameToMetaVictims": None}
        result = _folded(await self._send("preemptVerb", arguments), self.url).get("nodenametometavictims") or {}
        found = []
        for name, given in result.items() if isinstance(result, dict) else ():
            victims = self._victims(str(name), _folded(given or {}, self.url), there.get(str(name)))
            if victims.pods:
                found.append(victims)
            elif not self.ignorable:
                raise ExtenderError(f'expected at least one victim pod on node "{name}"')
        return found

    def _victims(self, node: str, given: Mapping[str, Any], there: Mapping[str, PodInfo] | None) -> Victims:
        if there is None:
            raise ExtenderError(f'nodeinfo not found for node name "{node}"')
        pods = []
        for each in _list(given.get("pods") or [], self.url):
            uid = str(_folded(each, self.url).get("uid"))
            if uid not in there:
                what = f"extender: {self.url} claims to preempt pod (UID: {uid}) on node: {node}"
                raise ExtenderError(f"{what}, but the pod is not found on that node")
            pods.append(there[uid])
        violations = given.get("numpdbviolations") or 0
        pods.sort(key=lambda one: -one.priority)
        return Victims(node, tuple(pods), violations if isinstance(violations, int) else 0)

    async def bind(self, pod: PodInfo, node: str) -> None:
        """Have it bind the pod."""
        arguments = {"PodName": pod.name, "PodNamespace": pod.namespace, "PodUID": pod.uid, "Node": node}
        if error := _folded(await self._send("bindVerb", arguments), self.url).get("error"):
            raise ExtenderError(str(error))

    def _arguments(self, pod: PodInfo, nodes: Mapping[str, Object]) -> Object:
        if self._by_name:
            return {"Pod": pod.pod, "Nodes": None, "NodeNames": list(nodes)}
        return {"Pod": pod.pod, "Nodes": {"metadata": {}, "items": list(nodes.values())}, "NodeNames": None}

    async def _send(self, verb: str, arguments: Object) -> Any:
        action = str(self._config[verb])
        shown = f"{self.url.rstrip('/')}/{action}"
        try:
            async with asyncio.timeout(self._timeout):
                answer = await self._client.request(
                    "POST", f"{self._path}/{action}", _JSON, msgspec.json.encode(arguments)
                )
                if answer.status != 200:
                    await answer.close()
                    raise ExtenderError(f"failed {action} with extender at URL {shown}, code {answer.status}")
                body = await read_at_most(answer, _MOST_BYTES)
        except TooLong:
            raise ExtenderError(f'Post "{shown}": the answer has more than {_MOST_BYTES} bytes') from None
        except TimeoutError:
            waiting = "context deadline exceeded (Client.Timeout exceeded while awaiting headers)"
            raise ExtenderError(f'Post "{shown}": {waiting}') from None
        except (OSError, ssl.SSLError) as error:
            raise ExtenderError(f'Post "{shown}": {error}') from error
        try:
            return msgspec.json.decode(body)
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
            raise ExtenderError(f"extender at URL {shown}: {error}") from error


def make_all(configs: Sequence[Mapping[str, Any]]) -> tuple[Extender, ...]:
    """The extenders of a configuration, in its order. Raises ConfigurationError."""
    return tuple(Extender(each) for each in configs)


def _tls(config: Mapping[str, Any]) -> ssl.SSLContext:
    """As the original: without a CA nothing is verified."""
    given = config.get("tlsConfig") or {}
    authority = _pem(given, "ca")
    context = client_tls(authority_data=authority)
    if given.get("insecure") or not authority:
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
    if given.get("certFile") and given.get("keyFile"):
        context.load_cert_chain(given["certFile"], given["keyFile"])
    return context


def _pem(given: Mapping[str, Any], what: str) -> str:
    if data := given.get(f"{what}Data"):
        return base64.b64decode(data).decode()
    return Path(given[f"{what}File"]).read_text() if given.get(f"{what}File") else ""


def _folded(answer: Any, url: str) -> dict[str, Any]:
    """An object with its names in lower case, as Go takes them in any case."""
    if answer is None:
        return {}
    if not isinstance(answer, dict):
        raise ExtenderError(f"extender {url}: the answer is not an object")
    return {str(key).lower(): value for key, value in answer.items()}


def _list(value: Any, url: str) -> list[Any]:
    if not isinstance(value, list):
        raise ExtenderError(f"extender {url}: the answer is not a list")
    return value


def _words(value: Any, url: str) -> dict[str, str]:
    if not isinstance(value, dict):
        raise ExtenderError(f"extender {url}: the answer is not an object")
    return {str(name): str(text) for name, text in value.items()}


class Extenders:
    """All of them, in the order of the configuration."""

    def __init__(self, extenders: Sequence[Extender]) -> None:
        self._all = extenders

    async def close(self) -> None:
        """Drop all connections."""
        for extender in self._all:
            await extender.close()

    def any(self, pod: PodInfo) -> bool:
        """Whether one of them has a say in where the pod goes."""
        return any((each.filters or each.scores) and each.interested(pod) for each in self._all)

    async def judge(self, pod: PodInfo, nodes: Mapping[str, Object]) -> Plugin:
        """What they say of the feasible nodes, as one more plugin for this pod. Raises ExtenderError."""
        failed: dict[str, tuple[str, bool]] = {}
        for extender in self._all:
            if not extender.filters or not nodes or not extender.interested(pod):
                continue
            try:
                said = await extender.filter(pod, nodes)
            except ExtenderError:
                if extender.ignorable:
                    continue
                raise
            failed |= {name: (text, True) for name, text in said.failed.items() if name in nodes}
            failed |= {name: (text, False) for name, text in said.hopeless.items() if name in nodes}
            gone = nodes.keys() - said.nodes - failed.keys()
            failed |= dict.fromkeys(gone, ("", False))  # not a word why
            nodes = {name: node for name, node in nodes.items() if name in said.nodes}
        scores: dict[str, float] = {}
        for extender in self._all if len(nodes) > 1 else ():
            if not extender.scores or not extender.interested(pod):
                continue
            try:
                for name, score in (await extender.prioritize(pod, nodes)).items():
                    scores[name] = scores.get(name, 0.0) + score
            except ExtenderError as error:
                log.warning("no score given by extender %s: %s", extender.url, error)
        return _plugin(frozenset(nodes), failed, scores)

    @property
    def preempting(self) -> bool:
        """Whether any of them has a say in preemption."""
        return any(extender.preempts for extender in self._all)

    async def preempt(
        self, pod: PodInfo, candidates: Sequence[Victims], there: Mapping[str, Mapping[str, PodInfo]]
    ) -> Sequence[Victims]:
        """The candidates that all of them agree to. Raises ExtenderError."""
        for extender in self._all:
            if not candidates or not extender.preempts or not extender.interested(pod):
                continue
            try:
                candidates = await extender.preempt(pod, candidates, there)
            except ExtenderError as error:
                if not extender.ignorable:
                    raise
                log.warning("extender %s has no say in preemption: %s", extender.url, error)
        return candidates

    def binders(self, pod: PodInfo) -> Sequence[Extender]:
        """Who would bind the pod; the next is asked where one fails that can be done without."""
        return [each for each in self._all if each.binds and each.interested(pod)]


def _plugin(left: frozenset[str], failed: Mapping[str, tuple[str, bool]], scores: Mapping[str, float]) -> Plugin:
    """Their say as masks over whatever rows the nodes have by now; nodes that were not asked about are refused."""

    def filter(columns: Columns, pod: PodInfo) -> Sequence[Rejection]:
        masks: dict[tuple[str, bool], Mask] = {}
        for name, row in columns.rows.items():
            if name not in left:
                why = failed.get(name, ("", False))
                masks.setdefault(why, np.zeros(len(columns.live), np.bool_))[row] = True
        return [Rejection(mask, text, resolvable) for (text, resolvable), mask in masks.items()]

    def score(columns: Columns, pod: PodInfo, feasible: Mask) -> Scores | None:
        out = np.zeros(len(feasible), np.float64)
        for name, value in scores.items():
            if (row := columns.rows.get(name)) is not None:
                out[row] = value
        return out

    return Plugin(NAME, filter=filter, score=score if scores else None)
