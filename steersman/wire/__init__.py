"""Sans-I/O codecs: bytes in, events out. No sockets, no event loop."""
