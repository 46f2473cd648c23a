"""The terminal: options, progress, messages."""
