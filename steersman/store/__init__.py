"""Keys, bytes and revisions: one interface, several implementations. It never decodes a value."""
