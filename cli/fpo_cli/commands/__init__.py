"""One file per command; what a command needs is imported inside its function."""
