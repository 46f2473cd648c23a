"""Faults planted in files, and processes killed or set against each other: see faults.py."""
