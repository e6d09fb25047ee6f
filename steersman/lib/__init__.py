"""Parts that know no Kubernetes word: time, tasks, HTTP, metrics, failpoints."""
