"""A program on a pseudo-terminal, and what a person sees there."""

import fcntl
import os
import pty
import re
import select
import signal
import struct
import subprocess
import sys
import termios
import time
from collections.abc import Sequence

_CODES = re.compile(r"\x1b\[(\??[\d;]*)([A-Za-z])|([\r\n])|([^\x1b\r\n]+)")


class Screen:
    """A terminal that wraps its lines anew when its width changes, as most do."""

    def __init__(self, width: int) -> None:
        self.width = width
        self._lines: list[list[str]] = [[]]
        self._line = self._place = 0

    def feed(self, text: str) -> None:
        """Show what a program wrote."""
        for number, code, control, words in _CODES.findall(text):
            if words:
                self._write(words)
            elif control == "\r":
                self._place -= self._place % self.width
            elif control == "\n":
                self._line, self._place = self._line + 1, 0
                self._lines += [[]] * (self._line >= len(self._lines))
            elif code == "A":
                self._up(int(number or 1))
            elif code == "K":
                assert number == "2"
                start = self._place - self._place % self.width
                row = self._lines[self._line]
                row[start : start + self.width] = " " * len(row[start : start + self.width])
            else:
                assert code in "mhl", code

    def rows(self) -> list[str]:
        """The rows that hold something, top to bottom."""
        texts = ["".join(line).rstrip() for line in self._lines]
        starts = [(text, i) for text in texts for i in range(0, len(text), self.width)]
        return [text[i : i + self.width] for text, i in starts]

    def _write(self, words: str) -> None:
        line = self._lines[self._line]
        line += " " * (self._place - len(line))
        line[self._place : self._place + len(words)] = words
        self._place += len(words)

    def _up(self, rows: int) -> None:
        for _ in range(rows):
            if self._place >= self.width:
                self._place -= self.width
                continue
            self._line -= 1
            full = len(self._lines[self._line]) // self.width * self.width
            self._place = full + self._place


class Terminal:
    """A Python program that runs on a pseudo-terminal of some width."""

    def __init__(self, code: str, width: int, *arguments: str) -> None:
        self._leader, follower = pty.openpty()
        settings = termios.tcgetattr(follower)
        settings[3] &= ~termios.ECHO
        termios.tcsetattr(follower, termios.TCSANOW, settings)
        self.screen = Screen(width)
        self.resize(width)
        command = [sys.executable, "-c", code, *arguments]
        # COLUMNS, which other tests or a user's shell may set, would win over the terminal's width.
        environment = {k: v for k, v in os.environ.items() if k not in ("COLUMNS", "LINES")}
        environment |= {"TERM": "xterm-256color", "PYTHONUNBUFFERED": "1"}
        self._deadline = time.monotonic() + 120
        self._process = subprocess.Popen(
            command, stdin=follower, stdout=follower, stderr=follower, env=environment
        )
        os.close(follower)

    def resize(self, width: int) -> None:
        """Change the width, as dragging a window's border does."""
        fcntl.ioctl(self._leader, termios.TIOCSWINSZ, struct.pack("HHHH", 24, width, 0, 0))
        self.screen.width = width

    def until(self, words: str) -> Sequence[str]:
        """The rows of the screen once some row holds `words`."""
        while not any(words in row for row in self.screen.rows()):
            self.read()
        return self.screen.rows()

    def type(self, text: str) -> None:
        """Press keys."""
        os.write(self._leader, text.encode())

    def end(self) -> Sequence[str]:
        """The rows that are left when the program has ended."""
        try:
            while True:
                self.read()
        except EOFError:
            pass
        finally:
            self._process.send_signal(signal.SIGTERM)
            self._process.wait()
            os.close(self._leader)
        return self.screen.rows()

    def read(self) -> None:
        """Wait for more output; EOFError at its end."""
        assert time.monotonic() < self._deadline, self.screen.rows()
        assert select.select([self._leader], [], [], 60)[0], self.screen.rows()
        try:
            read = os.read(self._leader, 65536)
        except OSError:  # Linux's way to say that the other side is closed
            raise EOFError from None
        if not read:
            raise EOFError
        self.screen.feed(read.decode())
