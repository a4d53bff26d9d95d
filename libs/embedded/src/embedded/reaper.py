"""Ends the child processes of a parent that died without doing so itself (kill -9).

The parent runs this file as a process of its own and writes one line per child: `+ PID SIGNAL` when one
starts, `- PID` when one has ended. When the pipe closes, whatever is left is signalled, then killed.
Not PR_SET_PDEATHSIG: it fires when the *thread* that started the child ends, and exists on Linux only.
Standard library only: it runs under `python -I -S`.
"""

import os
import signal
import sys
import time

GRACE = 5.0


def main() -> None:
    for ignored in (signal.SIGINT, signal.SIGHUP, signal.SIGTERM):
        signal.signal(ignored, signal.SIG_IGN)
    alive: dict[int, int] = {}
    for line in sys.stdin:
        sign, pid, *number = line.split()
        if sign == "+":
            alive[int(pid)] = int(number[0])
        else:
            alive.pop(int(pid), None)
    for pid, number_ in alive.items():
        send(pid, number_)
    end = time.monotonic() + GRACE
    while alive and time.monotonic() < end:
        alive = {pid: number_ for pid, number_ in alive.items() if send(pid, 0)}
        time.sleep(0.05)
    for pid in alive:
        send(pid, signal.SIGKILL)


def send(pid: int, number: int) -> bool:
    """Signals the process group of the child; False when there is none any more."""
    try:
        os.killpg(pid, number)
    except OSError:
        return False
    return True


if __name__ == "__main__":
    main()
