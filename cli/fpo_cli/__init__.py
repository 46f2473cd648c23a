"""The command line `fpo`."""
