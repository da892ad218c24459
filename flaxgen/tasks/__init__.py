"""How models learn: one file, one objective, each a `protocols.Task`."""
