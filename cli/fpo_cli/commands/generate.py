"""`fpo generate`: completions of a prompt, or of a file of prompts."""

import dataclasses
import sys
from contextlib import ExitStack
from typing import TYPE_CHECKING

import fpo
from fpo_cli.console.command import command
from fpo_cli.console.ui import Ui
from fpo_core.config import GenerateConfig

if TYPE_CHECKING:
    from fpo_core.events import Event


@command("generate")
def generate(config: GenerateConfig, ui: Ui) -> "fpo.Result":
    """Let a model answer a prompt, or every prompt of a file, with or without an adapter.

    A prompt is a user message in the tokenizer's own chat template, where it has one. A single
    answer is shown as it is sampled. Answers to --prompts go to --out, batch by batch; stopped,
    the same command goes on.
    """
    if config.prompts is not None:
        return _answer_file(config, ui)
    if config.prompt == "-":
        # The newline that echo and editors end a text with is not part of the question.
        config = dataclasses.replace(config, prompt=sys.stdin.read().removesuffix("\n"))
    streams = config.samples == 1 and not ui.json
    with ExitStack() as stack:
        display = stack.enter_context(ui.progress())

        def show(event: "Event") -> None:
            if event.kind == "text" and streams:
                stack.close()  # from here on the answer is the progress
                ui.piece(event.values["text"])
            elif event.kind != "progress" or not streams:
                display(event)

        result = fpo.generate(config, sink=show)
    if streams:
        ui.say()
    else:
        ui.say("\n\n".join(result.texts))
    count = sum(completion.tokens for completion in result.completions)
    ui.note(f"{count} tokens, {result.tokens_per_second:.3g} tokens/s")
    return result


def _answer_file(config: GenerateConfig, ui: Ui) -> "fpo.AnswerFile":
    result = ui.run(fpo.answer_prompts, config)
    ui.say(f"{result.answers} answers in {result.out}, {result.generated} of them new")
    return result
