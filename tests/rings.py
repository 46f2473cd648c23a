"""Two processes of MLX in a ring, as mlx.launch starts them: `python -m tests.rings COMMAND …`.

mlx.launch asks without a pause whether its processes could be written to, which takes a core of
them for as long as they run; where it is not what is tested, this stands for it.
"""

import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path

from tests.ports import free_port


def main() -> None:
    """Start both, and wait for both."""
    with tempfile.TemporaryDirectory() as folder:
        hosts = Path(folder) / "hosts.json"
        hosts.write_text(json.dumps([[f"127.0.0.1:{free_port()}"] for _ in range(2)]))
        places = os.environ | {"MLX_HOSTFILE": str(hosts)}
        processes = [
            subprocess.Popen(sys.argv[1:], env=places | {"MLX_RANK": str(rank)})
            for rank in range(2)
        ]
        sys.exit(any([process.wait() for process in processes]))


if __name__ == "__main__":
    main()
