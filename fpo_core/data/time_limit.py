"""A limit on the seconds of Python code that others wrote, such as a chat template.

    with time_limit(10.0):  # raises TimeoutError within
        ...

One thread watches; to enter and leave costs microseconds. What runs in C without a return to
Python, a regular expression say, ends before it is interrupted.
"""

import contextlib
import ctypes
import os
import threading
import time
from collections.abc import Iterator

_LOOKS = 0.25
"""Seconds between two looks at the time."""


class _Watch:
    """The blocks of this process that run under a limit, by thread."""

    def __init__(self) -> None:
        self.lock = threading.Lock()
        self.deadlines: dict[int, float] = {}
        self._process = 0

    def start(self) -> None:
        """Have a thread that watches; a forked process needs one of its own."""
        if self._process != os.getpid():
            self.__init__()
            self._process = os.getpid()
            threading.Thread(target=self._run, daemon=True).start()

    def _run(self) -> None:
        while True:
            time.sleep(_LOOKS)
            with self.lock:
                now = time.monotonic()
                for thread, deadline in list(self.deadlines.items()):
                    if deadline < now:
                        del self.deadlines[thread]
                        _raise_in(thread)


def _raise_in(thread: int) -> None:
    ctypes.pythonapi.PyThreadState_SetAsyncExc(
        ctypes.c_ulong(thread), ctypes.py_object(TimeoutError)
    )


_WATCH = _Watch()


@contextlib.contextmanager
def time_limit(seconds: float) -> Iterator[None]:
    """Raise TimeoutError in the body after so many seconds; not for blocks within each other."""
    _WATCH.start()
    thread = threading.get_ident()
    _WATCH.deadlines[thread] = time.monotonic() + seconds
    try:
        yield
    finally:
        # Under the lock: an exception that is on its way must arrive within this block.
        with _WATCH.lock:
            _WATCH.deadlines.pop(thread, None)
