"""Other API servers behind this one: groups that APIService objects send elsewhere.

`aggregator` follows the objects, `backend` hands requests on, `availability` says who can be asked, `remote` reads
what they serve, `automanaged` keeps the objects for what this server serves itself.
"""
