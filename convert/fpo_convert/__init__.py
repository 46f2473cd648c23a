"""Converters of published checkpoints; the entry points are in `fpo_convert.sae`."""
