"""Rows as data sets write them, read as prompt, chosen and rejected: columns, messages, `Pair`."""
