"""exec, attach, port-forward and logs: what a client of the kubelet's HTTPS server sees while a connection lasts."""
