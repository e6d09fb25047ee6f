"""The API server: HTTP in, one pipeline for every verb, the store below, watches out."""
