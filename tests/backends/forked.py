"""What torchrun does, for one import in place of one in each process: `… forked N MODULE ARGUMENT`.

Imports a module of `tests.backends`, forks N processes that run its `main`, and waits for all; then
again, where another N, module and argument follow.
"""

import importlib
import os
import sys

from tests.ports import free_port


def main() -> None:
    """Be the launcher, or return as one of the processes."""
    failed, words = False, sys.argv[1:]
    for at in range(0, len(words), 3):
        size, name, argument = words[at : at + 3]
        module = importlib.import_module(f"tests.backends.{name}")
        os.environ.update(WORLD_SIZE=size, MASTER_ADDR="127.0.0.1", MASTER_PORT=str(free_port()))
        children = []
        for rank in map(str, range(int(size))):
            child = os.fork()
            if not child:
                os.environ.update(RANK=rank, LOCAL_RANK=rank)
                sys.argv = [name, argument]
                module.main()
                return
            children.append(child)
        failed = any([os.waitpid(child, 0)[1] for child in children]) or failed
    sys.exit(failed)


if __name__ == "__main__":
    main()
