"""Objects for tests, as short as their kinds allow."""

from __future__ import annotations

from typing import Any

from steersman.api.resource import Object


def template(image: str = "nginx:1", app: str = "web", **spec: Any) -> Object:
    return {
        "metadata": {"labels": {"app": app}},
        "spec": {"containers": [{"name": "c", "image": image}], **spec},
    }


def pod(name: str, labels: dict[str, str] | None = None, **spec: Any) -> Object:
    return {
        "metadata": {"name": name, "labels": labels or {"app": "web"}},
        "spec": {"containers": [{"name": "c", "image": "nginx:1"}], **spec},
    }


def replicaset(name: str = "rs", replicas: int = 2, app: str = "web", **spec: Any) -> Object:
    return {
        "metadata": {"name": name},
        "spec": {
            "replicas": replicas,
            "selector": {"matchLabels": {"app": app}},
            "template": template(app=app),
            **spec,
        },
    }


def deployment(name: str = "web", replicas: int = 2, image: str = "nginx:1", **spec: Any) -> Object:
    return {
        "metadata": {"name": name, "labels": {"app": "web"}},
        "spec": {
            "replicas": replicas,
            "selector": {"matchLabels": {"app": "web"}},
            "template": template(image),
            **spec,
        },
    }


def service(name: str = "web", selector: dict[str, str] | None = None, **spec: Any) -> Object:
    chosen = {"app": "web"} if selector is None else selector
    return {
        "metadata": {"name": name},
        "spec": {"ports": [{"port": 80}], **({"selector": chosen} if chosen else {}), **spec},
    }
