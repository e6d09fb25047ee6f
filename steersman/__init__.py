"""Steersman: Kubernetes, with the container engine under it.

The layers, top down: testing, cli, cluster, the components (apiserver, controllers, scheduler, kubelet, proxy,
dns), client | store | engine, api | wire, lib. See docs/ARCHITECTURE.md. Importing this module does nothing.
"""

__version__ = "0.1.0"
