"""Model folders: where they are, what they are, their weights."""
