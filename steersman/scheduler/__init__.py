"""The scheduler: queue, columns over all nodes, plugins as masks and scores, binding."""
