"""The vocabulary: kinds, schemas, defaults, validation, patches. Pure functions on JSON objects, no I/O."""
