"""How one key seals values: AES-CBC, AES-GCM, and XSalsa20 with Poly1305.

Owns the layout of sealed bytes, which is the original's: values can be read by either. Made by `cluster/encryption.py`;
imported only where encryption is configured. Source: apiserver's pkg/storage/value/encrypt.
"""

from __future__ import annotations

from collections.abc import Callable

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from steersman.store.sealed import CannotOpen

Entropy = Callable[[int], bytes]
"""As many random bytes as asked for, fit for cryptography."""

_BLOCK = 16
_GCM_NONCE = 12
_BOX_NONCE = 24
_SHORT = "the stored data was shorter than the required size"


class AesCbc:
    """An initialization vector, then blocks with PKCS#7 padding. It does not notice changed bytes: the others do."""

    def __init__(self, key: bytes, entropy: Entropy) -> None:
        self._key = algorithms.AES(key)
        self._entropy = entropy

    def seal(self, value: bytes, context: bytes) -> bytes:
        """`context` is not bound to the value."""
        vector = self._entropy(_BLOCK)
        pad = _BLOCK - len(value) % _BLOCK
        run = Cipher(self._key, modes.CBC(vector)).encryptor()
        return vector + run.update(value + bytes([pad]) * pad) + run.finalize()

    def open(self, sealed: bytes, context: bytes) -> tuple[bytes, bool]:
        """The value."""
        if len(sealed) < _BLOCK:
            raise CannotOpen(_SHORT)
        if len(sealed) % _BLOCK:
            raise CannotOpen("the stored data is not a multiple of the block size")
        run = Cipher(self._key, modes.CBC(sealed[:_BLOCK])).decryptor()
        padded = run.update(sealed[_BLOCK:]) + run.finalize()
        pad = padded[-1] if padded else 0
        if not 0 < pad <= len(padded):
            raise CannotOpen("invalid PKCS7 data (empty or not padded)")
        if padded[-pad:] != bytes([pad]) * pad:
            raise CannotOpen("invalid padding on input")
        return padded[:-pad], False


class AesGcm:
    """A nonce, then the value with its tag; the context is authenticated."""

    def __init__(self, key: bytes, entropy: Entropy) -> None:
        self._aead = AESGCM(key)
        self._entropy = entropy

    def seal(self, value: bytes, context: bytes) -> bytes:
        """With a random nonce: keys must be rotated before 2^32 writes (NIST SP 800-38D)."""
        nonce = self._entropy(_GCM_NONCE)
        return nonce + self._aead.encrypt(nonce, value, context)

    def open(self, sealed: bytes, context: bytes) -> tuple[bytes, bool]:
        """The value."""
        if len(sealed) < _GCM_NONCE:
            raise CannotOpen(_SHORT)
        try:
            return self._aead.decrypt(sealed[:_GCM_NONCE], sealed[_GCM_NONCE:], context), False
        except InvalidTag:
            raise CannotOpen("cipher: message authentication failed") from None


class Secretbox:
    """A nonce, then NaCl's secretbox; `context` is not bound to the value."""

    def __init__(self, key: bytes, entropy: Entropy) -> None:
        from nacl.exceptions import CryptoError
        from nacl.secret import SecretBox

        self._box = SecretBox(key)
        self._error = CryptoError
        self._entropy = entropy

    def seal(self, value: bytes, context: bytes) -> bytes:
        """With a random nonce, which is long enough never to be drawn twice."""
        return bytes(self._box.encrypt(value, self._entropy(_BOX_NONCE)))

    def open(self, sealed: bytes, context: bytes) -> tuple[bytes, bool]:
        """The value."""
        if len(sealed) < _BOX_NONCE:
            raise CannotOpen(_SHORT)
        try:
            return self._box.decrypt(sealed), False
        except (self._error, ValueError):
            raise CannotOpen("output array was not large enough for encryption") from None
