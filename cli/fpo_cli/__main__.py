"""`python -m fpo_cli`."""

from fpo_cli.main import main

main()
