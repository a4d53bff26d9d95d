"""The warm process, `python -m registry.inspection.server FD`: imports all once, then forks a child for each job.

It has one thread, none of the service's secrets, and touches no job's data. For each job the parent passes two
sockets: one for the child to talk on, one that this process keeps. When the parent shuts the latter, the child is
killed; when the child has ended, its exit status is written there. When the parent goes, everything goes.
"""

import contextlib
import os
import select
import signal
import socket
import sys
import traceback

from registry.inspection import child


def serve(control: socket.socket) -> None:
    jobs: dict[int, socket.socket] = {}  # pid: the socket that tells of its life
    wake, woken = socket.socketpair()
    for end in (wake, woken):
        end.setblocking(False)
    signal.signal(signal.SIGCHLD, lambda *_: None)
    signal.set_wakeup_fd(woken.fileno(), warn_on_full_buffer=False)
    control.send(b"w")  # warm
    while True:
        ready = select.select([control, wake, *jobs.values()], [], [])[0]
        for pid, life in jobs.items():
            if life in ready:
                os.kill(pid, signal.SIGKILL)  # not reaped yet, so the number is still its own
        if wake in ready:
            wake.recv(4096)
        _reap(jobs)
        if control in ready and not _start(control, jobs, (wake, woken)):
            break
    for pid in jobs:
        os.kill(pid, signal.SIGKILL)


def _reap(jobs: dict[int, socket.socket]) -> None:
    for pid in list(jobs):
        done, status = os.waitpid(pid, os.WNOHANG)
        if done:
            # Nobody may ask any more.
            with jobs.pop(pid) as life, contextlib.suppress(OSError):
                life.send(str(os.waitstatus_to_exitcode(status)).encode())


def _start(control: socket.socket, jobs: dict[int, socket.socket], others: tuple[socket.socket, ...]) -> bool:
    """Forks. False: the parent has gone."""
    data, fds, _, _ = socket.recv_fds(control, 1, 2)
    if not data:
        return False
    link, life = (socket.socket(fileno=fd) for fd in fds)
    pid = os.fork()
    if pid == 0:
        code = 1
        try:
            signal.set_wakeup_fd(-1)
            signal.signal(signal.SIGCHLD, signal.SIG_DFL)
            for each in (control, life, *others, *jobs.values()):
                each.close()
            child.follow_parent()
            child.work(link)
            code = 0
        except MemoryError:
            code = child.OUT_OF_MEMORY
        except Exception:  # the service's log gets it; the service itself gets the exit code
            traceback.print_exc()
        finally:
            os._exit(code)
    link.close()
    jobs[pid] = life
    return True


if __name__ == "__main__":
    serve(socket.socket(fileno=int(sys.argv[1])))
