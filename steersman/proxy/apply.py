"""Runs nftables text: in process through libnftables, else through the nft program.

Owns the library's context. One command text is one transaction. The context belongs to the network namespace of the
thread that made it. Called by `proxy`, by its own worker thread, one text at a time.
"""

from __future__ import annotations

import asyncio
import ctypes
import subprocess
import threading
from typing import Protocol


class NftablesError(Exception):
    """The kernel or the parser refused; nothing was changed. The text is nft's."""


class Applier(Protocol):
    """Runs one transaction at a time."""

    def run(self, text: str) -> str:
        """Run a text now, blocking; returns its output. Raises NftablesError, having changed nothing."""
        ...

    def close(self) -> None:
        """Let go of what it holds."""
        ...

    async def apply(self, text: str) -> None:
        """Raises NftablesError, having changed nothing."""
        ...


class LibraryApplier:
    """libnftables by ctypes: 0.1 to 1 ms where starting nft takes 10. Raises OSError when there is no library."""

    def __init__(self) -> None:
        library = ctypes.CDLL("libnftables.so.1", use_errno=True)
        library.nft_ctx_new.restype = ctypes.c_void_p
        library.nft_ctx_new.argtypes = [ctypes.c_uint32]
        library.nft_ctx_free.argtypes = [ctypes.c_void_p]
        library.nft_run_cmd_from_buffer.argtypes = [ctypes.c_void_p, ctypes.c_char_p]
        for name in ("nft_ctx_buffer_output", "nft_ctx_buffer_error"):
            getattr(library, name).argtypes = [ctypes.c_void_p]
        for name in ("nft_ctx_get_output_buffer", "nft_ctx_get_error_buffer"):
            getattr(library, name).argtypes = [ctypes.c_void_p]
            getattr(library, name).restype = ctypes.c_char_p
        self._library = library
        self._context = library.nft_ctx_new(0)
        if not self._context:
            raise OSError("libnftables cannot open a netlink socket")
        library.nft_ctx_buffer_output(self._context)
        library.nft_ctx_buffer_error(self._context)
        self._lock = asyncio.Lock()
        self._busy = threading.Lock()  # a cancelled `apply` leaves its thread at work

    def run(self, text: str) -> str:
        """Run a text now; returns its output. Raises NftablesError."""
        with self._busy:
            failed = self._library.nft_run_cmd_from_buffer(self._context, text.encode())
            output = self._library.nft_ctx_get_output_buffer(self._context) or b""
            errors = self._library.nft_ctx_get_error_buffer(self._context) or b""
        if failed:
            raise NftablesError(errors.decode(errors="replace").strip()[:4000] or "nftables refused the change")
        return str(output.decode(errors="replace"))

    async def apply(self, text: str) -> None:
        """Run a text; small ones on the spot, large ones in a thread."""
        async with self._lock:
            if len(text) < 20_000:
                self.run(text)
            else:
                await asyncio.to_thread(self.run, text)

    def close(self) -> None:
        """Free the context, once nothing uses it."""
        with self._busy:
            context, self._context = self._context, None
            if context:
                self._library.nft_ctx_free(context)


class ProgramApplier:
    """`nft -f -`, for machines without the library."""

    def __init__(self, *program: str) -> None:
        """`program`: the command line before its options, `nft` if empty."""
        self._program = program or ("nft",)

    async def apply(self, text: str) -> None:
        """Run a text."""
        await asyncio.to_thread(self.run, text)

    def close(self) -> None:
        """Nothing is held."""

    def run(self, text: str) -> str:
        """Run a text now; returns its output. Raises NftablesError."""
        try:
            done = subprocess.run(
                [*self._program, "-f", "-"], input=text, capture_output=True, text=True, check=False, timeout=60
            )
        except (OSError, subprocess.TimeoutExpired) as error:
            raise NftablesError(f"cannot run {' '.join(self._program)}: {error}") from error
        if done.returncode:
            raise NftablesError(done.stderr.strip()[:4000])
        return done.stdout


def best_applier() -> Applier:
    """The library where it is installed, else the program."""
    try:
        return LibraryApplier()
    except OSError:
        return ProgramApplier()
