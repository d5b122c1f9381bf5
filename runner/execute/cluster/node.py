"""What runs on a node: the shard's program, and how it ended. Needs nothing of this project there,
so that a node which has none of it says so in the shard's log.
"""

from __future__ import annotations

import os
import signal
import subprocess
import threading
from collections.abc import Sequence

LEFT_TO_END_S = 20.0


def run_on_node(arguments: Sequence[str], python_path: str, log: str, ended: str) -> None:
    """Until the program ends; the file `ended` tells its exit code.

    Interrupted, it interrupts the program and waits for it a while. Killed, it takes it along.
    """
    environment = {
        **os.environ,
        "PYTHONPATH": python_path,
        "VNNCOMP_RUNNER_PARENT": str(os.getpid()),
    }
    if threading.current_thread() is threading.main_thread():
        # submitit's own handler passes it over.
        signal.signal(signal.SIGTERM, signal.default_int_handler)
    with open(log, "ab") as output:
        process = subprocess.Popen(
            arguments,
            env=environment,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=output,
        )
    try:
        code = process.wait()
    except BaseException:
        process.send_signal(signal.SIGTERM)
        process.wait(LEFT_TO_END_S)
        raise
    draft = f"{ended}.draft"
    with open(draft, "w") as file:
        file.write(str(code))
    os.replace(draft, ended)


def with_setup(arguments: Sequence[str], setup: Sequence[str]) -> list[str]:
    """The same program, after these lines of a shell."""
    if not setup:
        return list(arguments)
    return ["bash", "-c", "\n".join([*setup, 'exec "$@"']), "setup", *arguments]
