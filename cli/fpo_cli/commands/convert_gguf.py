"""`fpo convert gguf`: a merged model for llama.cpp."""

import fpo
from fpo_cli.console.command import command
from fpo_cli.console.ui import Ui
from fpo_core.config import ConvertGgufConfig


@command("convert gguf", arguments=("source",))
def convert_gguf(config: ConvertGgufConfig, ui: Ui) -> "fpo.GgufResult":
    """Hand a merged model to llama.cpp's converter, or print the command that does.

    The converter is llama.cpp's convert_hf_to_gguf.py, in --llama-cpp, $LLAMA_CPP or on the PATH.
    """
    result = ui.run(fpo.convert_gguf, config)
    if result.converted:
        ui.say(f"{result.out}: {result.out.stat().st_size / 2**20:.1f} MiB for llama.cpp")
    else:
        ui.note("llama.cpp's converter is not here; where it is, this makes the file:")
        ui.say(result.command)
    return result
