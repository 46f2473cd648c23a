"""One file per published format: each reads a checkpoint into a `Source`."""
