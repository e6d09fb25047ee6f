"""What a test needs of the product: an in-process cluster, builders, contract suites, faults."""
