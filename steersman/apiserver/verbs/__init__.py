"""The verbs: one file each, the same steps for every kind."""
