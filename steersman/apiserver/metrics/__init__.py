"""metrics.k8s.io: what nodes and pods use now, as a metrics server tells it.

`usage` turns two looks at the kubelets into rates, `collector` does the looking when somebody asks, `resource` answers
as an API. It is an extension server that needs no process: the aggregator hands requests to it as it would to another.
"""
