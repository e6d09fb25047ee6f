"""The steer command: one file per subcommand."""
