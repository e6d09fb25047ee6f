"""Patches: JSON, merge, strategic merge and server-side apply; and who manages which field."""
