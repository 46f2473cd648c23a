"""`python -m fpo_cli`, and where the script `fpo` starts."""

import sys
from typing import NoReturn


def start() -> NoReturn:
    """The command line; Ctrl-C is an interruption while its modules are loaded too."""
    try:
        from fpo_cli.main import main

        main()
    except KeyboardInterrupt:
        print("fpo: interrupted", file=sys.stderr)
        sys.exit(130)


if __name__ == "__main__":
    start()
