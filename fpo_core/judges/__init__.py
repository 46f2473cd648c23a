"""Judges of completions: rules, classifiers, endpoints, and the win rates that they give."""
