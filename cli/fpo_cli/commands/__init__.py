"""One file per command: its settings, its help, and how its result is shown.

A command calls the function of `fpo` that does the work, which loads what it needs; here nothing
is loaded before a command runs. `fpo_cli.main` lists the commands.
"""
