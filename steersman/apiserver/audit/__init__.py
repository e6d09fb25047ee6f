"""Audit: who asked for what, and what came of it. `policy` chooses, `trail` writes the event, `sinks` keep it."""
