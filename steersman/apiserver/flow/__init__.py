"""API Priority and Fairness: which requests go first, which wait, which are turned away."""
