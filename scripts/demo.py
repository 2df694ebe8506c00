"""`make demo`: start the embedded service, run a study on it, print its verdict, save a report.

The home (`.demo/`) is kept: a second demo asks the same questions, finds every trial known, and answers in seconds.
`rm -rf .demo` starts over. In a terminal the service stays up until Ctrl-C; without one it is stopped and the exit
status says how the study went. The service never outlives this process.
"""

import argparse
from collections.abc import Sequence
import ctypes
import os
from pathlib import Path
import signal
import socket
import subprocess
import sys
import time
from types import FrameType

REPOSITORY = Path(__file__).resolve().parent.parent
START_SECONDS = 180.0
STOP_SECONDS = 60.0
_PR_SET_PDEATHSIG = 1  # linux/prctl.h


def say(message: str) -> None:
    """Print one line at once, whether or not stdout is a terminal."""
    print(message, flush=True)


def choose_port(wanted: int) -> int:
    """`wanted` when it is free, else 0, by which the service picks a free one."""
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", wanted))
        except OSError:
            say(f"port {wanted} is in use: taking a free one")
            return 0
    return wanted


def _end_with_parent() -> None:
    """In the child: ask Linux for SIGTERM when the demo dies, however it dies."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGTERM)


class Service:
    """`mutransfer up` in a process group of its own, its output in `HOME/up.log`."""

    def __init__(self, home: Path, port: int) -> None:
        home.mkdir(parents=True, exist_ok=True)
        self.log = home / "up.log"
        command = [sys.executable, "-m", "service.cli", "up", "--home", str(home), "--port", str(port)]
        with self.log.open("wb") as log:
            self._process = subprocess.Popen(
                command,
                cwd=REPOSITORY,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,
                preexec_fn=_end_with_parent,
            )

    def wait_ready(self) -> str:
        """The URL of the `ready` line. Raises SystemExit with the end of the log when it does not come."""
        deadline = time.monotonic() + START_SECONDS
        while time.monotonic() < deadline:
            lines = self.log.read_text(errors="replace").splitlines()
            for line in lines:
                if line.startswith("ready "):
                    return line.split()[1]
            if self._process.poll() is not None:
                raise SystemExit("\n".join(["the service did not start:", *lines[-20:]]))
            time.sleep(0.1)
        raise SystemExit(f"the service was not ready after {START_SECONDS:.0f} s: see {self.log}")

    def wait(self) -> int:
        """Block until the service ends by itself."""
        return self._process.wait()

    def stop(self) -> None:
        """SIGTERM, which ends everything it started; SIGKILL to the group when that takes too long."""
        if self._process.poll() is None:
            self._process.terminate()
            try:
                self._process.wait(timeout=STOP_SECONDS)
            except subprocess.TimeoutExpired:
                say("the service did not stop in time: killing it")
                os.killpg(self._process.pid, signal.SIGKILL)
                self._process.wait()


def mutransfer(*arguments: str) -> int:
    """Run one command of the CLI in the foreground."""
    return subprocess.call([sys.executable, "-m", "service.cli", *arguments], cwd=REPOSITORY)


def run_study(url: str, study: Path, reports: Path) -> int:
    """Submit, watch, print the verdict, save the report. Returns the exit status of `mutransfer run`."""
    reports.mkdir(parents=True, exist_ok=True)
    report = reports / f"{study.stem}.html"
    status = mutransfer("run", str(study), "--url", url, "--report", str(report))
    if status == 0:
        say(f"report     {report.relative_to(REPOSITORY)}")
    return status


def _raise_exit(number: int, _frame: FrameType | None) -> None:
    raise SystemExit(128 + number)


def _stay(service: Service, url: str) -> None:
    say(f"\nThe dashboard stays up at {url} until Ctrl-C.")
    try:
        service.wait()
        raise SystemExit(f"the service ended: see {service.log}")
    except KeyboardInterrupt:
        say("\nstopping")


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the demo. Returns its exit status."""
    parser = argparse.ArgumentParser(prog="make demo", description=__doc__.partition("\n")[0])
    parser.add_argument("--home", type=Path, default=REPOSITORY / ".demo")
    parser.add_argument("--port", type=int, default=int(os.environ.get("DEMO_PORT") or 8400))
    parser.add_argument("--study", type=Path, default=REPOSITORY / "examples" / "quickstart.yaml")
    parser.add_argument("--reports", type=Path, default=REPOSITORY / "reports")
    options = parser.parse_args(arguments)
    for number in (signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, _raise_exit)
    service = Service(options.home, choose_port(options.port))
    try:
        url = service.wait_ready()
        say(f"dashboard  {url}")
        status = run_study(url, options.study, options.reports)
        if sys.stdin.isatty() and sys.stdout.isatty():
            _stay(service, url)
        return status
    except KeyboardInterrupt:
        return 130
    finally:
        service.stop()


if __name__ == "__main__":
    raise SystemExit(main())
