"""One module per published format, each reading a checkpoint into a `Source`; see `registry`."""
