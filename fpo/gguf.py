"""A merged model as one GGUF file, by llama.cpp's own converter."""

import os
import shlex
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

from fpo.results import Result
from fpo.workflow import workflow
from fpo_core.config import ConvertGgufConfig
from fpo_core.errors import ModelError
from fpo_core.events import Sink, note

_SCRIPT = "convert_hf_to_gguf.py"


@dataclass(frozen=True)
class GgufResult(Result):
    """A file for llama.cpp, or the command that makes it where its converter is not installed."""

    out: Path
    command: str
    converted: bool


@workflow(ConvertGgufConfig)
def convert_gguf(config: ConvertGgufConfig, sink: Sink) -> GgufResult:
    """Hand a model folder, such as a merged one, to llama.cpp's converter, if it is installed.

    It is looked for in `llama_cpp`, in $LLAMA_CPP and on the PATH. Raises ModelError for an
    adapter, which must be merged first, and where the converter fails.
    """
    source, out = Path(config.source).expanduser(), Path(config.out).expanduser()
    if not (source / "config.json").is_file():
        why = (
            "is an adapter: merge it first"
            if (source / "adapter_config.json").is_file()
            else ("holds no config.json: give the folder of a model")
        )
        raise ModelError(f"{source.absolute()} {why}")
    script = _converter(config.llama_cpp)
    arguments = [str(source), "--outfile", str(out), "--outtype", config.outtype]
    shown = shlex.join(["python", str(script or f"llama.cpp/{_SCRIPT}"), *arguments])
    if script is None:
        return GgufResult(out, shown, converted=False)
    note(sink, shown)
    ran = subprocess.run([sys.executable, str(script), *arguments], stdout=sys.stderr, check=False)
    if ran.returncode or not out.is_file():
        raise ModelError(
            f"llama.cpp's converter ended with {ran.returncode} and wrote no {out}: see its lines "
            "above"
        )
    return GgufResult(out, shown, converted=True)


def _converter(folder: str | None) -> Path | None:
    for place in (folder, os.environ.get("LLAMA_CPP")):
        if place and (script := Path(place).expanduser() / _SCRIPT).is_file():
            return script
    installed = shutil.which(_SCRIPT)
    return None if installed is None else Path(installed)
