"""How a worker talks to its parent: lines of JSON over a pipe, and the pipe's other end."""

from __future__ import annotations

import json
import os
import signal
import threading
from typing import Any


class Channel:
    """The worker's end: which stage it is in, then one result."""

    def __init__(self, descriptor: int):
        self.descriptor = descriptor
        os.set_inheritable(descriptor, False)  # the user's own subprocesses must not hold it

    def stage(self, name: str) -> None:
        self._send({"stage": name})

    def result(self, **fields: Any) -> None:
        self._send({"result": fields})

    def _send(self, message: dict[str, Any]) -> None:
        data = (json.dumps(message) + "\n").encode()
        while data:
            data = data[os.write(self.descriptor, data) :]


def die_with_parent(descriptor: int) -> None:
    """End this process group as soon as the parent closes its end, however it ended."""

    def watch() -> None:
        os.read(descriptor, 1)
        os.killpg(0, signal.SIGKILL)

    os.set_inheritable(descriptor, False)
    threading.Thread(target=watch, daemon=True, name="hlo-lab parent watch").start()
