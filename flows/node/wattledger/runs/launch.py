"""`wattledger run -- COMMAND`: runs a command unchanged, and records it."""

from __future__ import annotations

import os
import resource
import signal
from collections.abc import Sequence
from contextlib import suppress

from wattledger.process import print_to_stderr
from wattledger.runs.active import BEAT_S
from wattledger.runs.environment import RUN_ID
from wattledger.runs.session import Options, Session, find_project

NOT_FOUND, NOT_RUNNABLE = 127, 126

_FORWARDED = {
    number
    for name in ("SIGINT", "SIGTERM", "SIGHUP", "SIGQUIT", "SIGUSR1", "SIGUSR2", "SIGALRM")
    if (number := getattr(signal, name, None)) is not None
}
"""Signals that are passed on. Those of job control (stop, continue) reach the whole group anyway."""

_FROM_TERMINAL = 128
"""si_code of a signal that the kernel sent: Ctrl-C reaches the command without our help."""


def launch_command(command: Sequence[str], options: Options) -> int:
    """Run a command with our stdin, stdout, stderr and signals; returns its exit code.

    If it died by a signal, this process dies by the same one.
    """
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {*_FORWARDED, signal.SIGCHLD})
    session = Session(find_project(options, os.environ), print_to_stderr)
    run_id = session.begin(command, os.environ, os.getpid())
    try:
        pid = os.posix_spawnp(
            command[0],
            list(command),
            {**os.environ, RUN_ID: run_id},
            setsigmask=before,
        )
    except OSError as error:
        print_to_stderr(f"cannot run {command[0]!r}: {error.strerror}")
        code = NOT_FOUND if isinstance(error, FileNotFoundError) else NOT_RUNNABLE
        session.end(code)
        return code
    with suppress(OSError, ValueError):
        session.record_process(pid)
    status = _pass_signals_until_end(pid, session)
    if os.WIFSIGNALED(status):
        number = os.WTERMSIG(status)
        session.end(128 + number, by="signal")
        _die_by(number)
    code = os.waitstatus_to_exitcode(status)
    session.end(code)
    return code


def _pass_signals_until_end(pid: int, session: Session) -> int:
    """Pass signals on until the command ends; returns its wait status."""
    while True:
        ended_pid, status = os.waitpid(pid, os.WNOHANG)
        if ended_pid == pid:
            return status
        if hasattr(signal, "sigtimedwait"):
            info = signal.sigtimedwait({*_FORWARDED, signal.SIGCHLD}, BEAT_S)
            if info is None:
                session.beat()
                continue
            number, code = info.si_signo, info.si_code
        else:
            number = signal.sigwait({*_FORWARDED, signal.SIGCHLD})
            code = _FROM_TERMINAL if number in (signal.SIGINT, signal.SIGQUIT) else 0
        if number != signal.SIGCHLD and code != _FROM_TERMINAL:
            with suppress(ProcessLookupError):
                os.kill(pid, number)


def _die_by(number: int) -> None:
    # The command has left its core dump, if any; ours would hide it.
    with suppress(ValueError, OSError):
        resource.setrlimit(resource.RLIMIT_CORE, (0, resource.getrlimit(resource.RLIMIT_CORE)[1]))
    if number not in (signal.SIGKILL, signal.SIGSTOP):
        signal.signal(number, signal.SIG_DFL)
    os.kill(os.getpid(), number)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, {number})
