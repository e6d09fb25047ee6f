"""Authenticators: one file each. They say who asks; what they may do is `authz`'s."""
