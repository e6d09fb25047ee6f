"""The container engine: images, registries, builds, sandboxes and containers. It knows no Kubernetes word."""
