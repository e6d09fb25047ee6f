"""Pod specs, for Pod and for every kind with a template: defaults, and validation part by part."""
