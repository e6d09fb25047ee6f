"""Admission: one file per plugin, asked in the order of `chain.DEFAULT`."""
