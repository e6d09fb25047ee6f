"""The controller manager: one file per controller, each a pure plan and a reconcile."""
