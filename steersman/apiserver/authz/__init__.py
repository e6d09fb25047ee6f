"""Authorizers: RBAC and what nodes may do. They say yes, or why not; they change nothing."""
