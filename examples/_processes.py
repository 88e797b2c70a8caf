"""Processes on this machine that work together: where one is killed, all start anew."""

import contextlib
import socket
import subprocess
import time

POLL_SECONDS = 0.02


def run_together(commands, environment, log, timeout, restarts=0):
    """Runs commands side by side until all have ended well.

    None can go on without the others. When one is killed, all are, and start anew; when
    one ends with an error, that is the end.

    Args:
        commands: function that returns the commands, each a list; called at each start.
        environment: variables of all processes.
        log: path of a file for what they print.
        timeout: seconds, for all starts together.
        restarts: how often to start again, at most.

    Returns:
        How often they were started again.

    Raises:
        RuntimeError: an error of a process, they were killed too often, or took longer.
    """
    deadline = time.monotonic() + timeout
    for starts in range(restarts + 1):
        with _started(commands(), environment, log) as processes:
            status = _first_bad_status(processes, deadline)
        if status == 0:
            return starts
        if status > 0:
            break
    raise RuntimeError(f"A process ended badly. The last lines of {log}:\n{_tail(log)}")


@contextlib.contextmanager
def _started(commands, environment, log):
    """The processes; none is left when the context is."""
    processes = []
    with open(log, "ab") as file:
        streams = {"stdout": file, "stderr": subprocess.STDOUT}
        try:
            for command in commands:
                process = subprocess.Popen(command, env=environment, **streams)
                processes.append(process)
            yield processes
        finally:
            for process in processes:
                process.kill()
            for process in processes:
                process.wait()


def _first_bad_status(processes, deadline):
    """Of those that ended: negative if one was killed, 0 if all ended well."""
    while time.monotonic() < deadline:
        statuses = [process.poll() for process in processes]
        if any(statuses):
            return min(filter(None, statuses))
        if None not in statuses:
            return 0
        time.sleep(POLL_SECONDS)
    raise RuntimeError("The processes did not end in time.")


def _tail(log, lines=20):
    text = log.read_text(errors="replace")
    return "\n".join(text.splitlines()[-lines:])


def free_address():
    """Of this machine alone, with a port that nothing listens on."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return "{}:{}".format(*listener.getsockname())
