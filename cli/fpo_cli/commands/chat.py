"""`fpo chat`: talk to a model, and see what an adapter changed."""

import contextlib
import sys
from typing import TYPE_CHECKING

import fpo
from fpo_cli.console.command import command
from fpo_cli.console.ui import Ui
from fpo_core.config import ChatConfig
from fpo_core.errors import FpoError

if TYPE_CHECKING:
    from fpo_core.events import Event

HELP = """/compare [TEXT]  both models' answers to TEXT, or to the last message, side by side
/features        what the autoencoder saw in the last answer
/reset           forget the conversation
/help            these lines
/quit            end, as Ctrl-D does; Ctrl-C breaks an answer off"""


@command("chat")
def chat(config: ChatConfig, ui: Ui) -> "fpo.Conversation":
    """Talk to a model in the terminal; the answer is shown as it is sampled.

    /compare shows the answer of the adapter beside that of the bare model, or of --other-adapter;
    /features the top features of the last answer (with --sae); /reset begins anew; /help lists all.
    """
    conversation = ui.run(fpo.chat, config)
    ui.note(f"{' and '.join(conversation.names)}; /help lists commands, Ctrl-D ends")
    session = _Session(conversation, ui)
    while (line := _line(ui)) is not None:
        if line.strip() == "/quit":
            break
        try:
            session.take(line.strip())
        except FpoError as error:
            ui.warn(str(error))
        except KeyboardInterrupt:
            ui.note("\nbroken off")
    return conversation


def _line(ui: Ui) -> str | None:
    """What a person types, or the next line of a pipe; None at the end."""
    with contextlib.suppress(ImportError):
        import readline  # noqa: F401  # editing and history for input()
    typed = sys.stdin.isatty() and not ui.json
    try:
        if typed:
            ui.say()
        return input("› " if typed else "")
    except (EOFError, KeyboardInterrupt):
        return None


class _Session:
    def __init__(self, conversation: "fpo.Conversation", ui: Ui) -> None:
        self._conversation, self._ui = conversation, ui

    def take(self, line: str) -> None:
        """A command, or a message to answer."""
        word, _, rest = line.partition(" ")
        commands = {
            "/reset": self._reset,
            "/compare": lambda: self._compare(rest.strip() or None),
            "/features": self._features,
            "/help": lambda: self._ui.say(HELP),
        }
        if not line:
            return
        if word in commands:
            commands[word]()
        elif line.startswith("/"):
            self._ui.warn(f"{word} is no command: /help lists them")
        else:
            self._conversation.reply(line, self._stream)
            self._ui.say()

    def _stream(self, event: "Event") -> None:
        if event.kind == "text":
            self._ui.piece(event.values["text"])

    def _reset(self) -> None:
        self._conversation.reset()
        self._ui.note("a new conversation")

    def _compare(self, text: str | None) -> None:
        replies = self._conversation.compare(lambda _: None, text)
        self._ui.beside([(reply.model, reply.text) for reply in replies])

    def _features(self) -> None:
        from fpo.results import Table

        rows = [
            (str(f.index), f"{f.mean:.3g}", f"{f.peak:.3g}", " ".join(map(repr, f.promotes)))
            for f in self._conversation.features()
        ]
        self._ui.table(Table(("feature", "mean", "peak", "promotes"), rows))
