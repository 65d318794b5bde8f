"""Handle Ctrl-C, and the signal of a cancelled workflow, while paid requests are under way."""

import asyncio
import signal
from collections.abc import Callable


class interrupted:
    """The first time `stop` is called, the second time the process ends at once."""

    def __init__(self, stop: Callable[[], None]) -> None:
        self._stop, self._loop = stop, asyncio.get_running_loop()

    def _first(self) -> None:
        self.__exit__()
        self._stop()

    def __enter__(self) -> None:
        for number in (signal.SIGINT, signal.SIGTERM):
            try:
                self._loop.add_signal_handler(number, self._first)
            except (NotImplementedError, RuntimeError, ValueError):  # Windows, or not the main thread
                return

    def __exit__(self, *_: object) -> None:
        for number in (signal.SIGINT, signal.SIGTERM):
            try:
                self._loop.remove_signal_handler(number)
            except (NotImplementedError, RuntimeError, ValueError):
                return
