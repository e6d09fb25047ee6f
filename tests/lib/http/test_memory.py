"""The allocator setting that TLS reads depend on."""

from __future__ import annotations

import resource

from steersman.lib.http.memory import keep_read_buffers


def test_large_buffers_are_reused_not_mapped_anew() -> None:
    assert keep_read_buffers()
    bytearray(b"x" * 262_144)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    for _ in range(200):
        bytearray(b"x" * 262_144)  # 64 pages each
    assert resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before < 200 * 64
