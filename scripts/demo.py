"""`make demo`: start the embedded service, run a study on it, print its verdict, save a report.

The home (`.demo/`) is kept: a second demo asks the same questions, finds every trial known, and answers in seconds.
`rm -rf .demo` starts over. In a terminal the service stays up until Ctrl-C; without one it is stopped and the exit
status says how the study went. The service never outlives this process.
"""

import argparse
from collections.abc import Sequence
import os
from pathlib import Path
import signal
import subprocess
import sys
import time
from types import FrameType

from mutransfer.errors import ConflictError
from service.ports import require_free
from service.processes import Child, end_all

REPOSITORY = Path(__file__).resolve().parent.parent
START_SECONDS = 180.0
STOP_SECONDS = 60.0
CLI = (sys.executable, "-m", "service.cli")


def say(message: str) -> None:
    """Print one line at once, whether or not stdout is a terminal."""
    print(message, flush=True)


def choose_port(wanted: int) -> int:
    """`wanted` when it is free, else 0, by which the service picks a free one."""
    try:
        return require_free("127.0.0.1", wanted)
    except ConflictError:
        say(f"port {wanted} is in use: taking a free one")
        return 0


def start(home: Path, port: int) -> tuple[Child, Path]:
    """Start `mutransfer up` in a session of its own; its output goes to the returned log file."""
    home.mkdir(parents=True, exist_ok=True)
    log = home / "up.log"
    with log.open("wb") as stream:
        return Child([*CLI, "up", "--home", str(home), "--port", str(port)], env=os.environ, log=stream), log


def wait_ready(service: Child, log: Path) -> str:
    """The URL of the `ready` line. Raises SystemExit with the end of the log when it does not come."""
    deadline = time.monotonic() + START_SECONDS
    while time.monotonic() < deadline:
        ended = service.poll() is not None
        lines = log.read_text(errors="replace").splitlines()
        for line in lines:
            if line.startswith("ready "):
                return line.split()[1]
        if ended:
            raise SystemExit("\n".join(["the service did not start:", *lines[-20:]]))
        time.sleep(0.1)
    raise SystemExit(f"the service was not ready after {START_SECONDS:.0f} s: see {log}")


def run_study(url: str, study: Path, report: Path) -> int:
    """Submit, watch, print the verdict, write the report into a folder. Returns the status of `mutransfer run`."""
    return subprocess.call([*CLI, "run", str(study), "--url", url, "--report", str(report)])


def stay(service: Child, url: str, log: Path, home: Path) -> None:
    """Keep serving until Ctrl-C. Raises SystemExit when the service ends by itself."""
    say(f"\nThe dashboard stays up at {url} until Ctrl-C.")
    say(f"In another terminal: export MUTRANSFER_HOME={home}; .venv/bin/mutransfer list")
    try:
        while service.poll() is None:
            time.sleep(0.5)
    except KeyboardInterrupt:
        say("\nstopping")
        return
    raise SystemExit(f"the service ended: see {log}")


def _raise_exit(number: int, _frame: FrameType | None) -> None:
    raise SystemExit(128 + number)


def _parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="make demo")
    parser.add_argument("--home", type=Path, default=REPOSITORY / ".demo")
    parser.add_argument("--port", type=int, default=int(os.environ.get("DEMO_PORT") or 8400))
    parser.add_argument("--study", type=Path, default=REPOSITORY / "examples" / "quickstart.yaml")
    parser.add_argument("--reports", type=Path, default=REPOSITORY / "reports")
    return parser.parse_args(arguments)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the demo. Returns its exit status."""
    options = _parse(arguments)
    for number in (signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, _raise_exit)
    service, log = start(options.home.resolve(), choose_port(options.port))
    try:
        url = wait_ready(service, log)
        say(f"dashboard  {url}")
        status = run_study(url, options.study, options.reports / options.study.stem)
        if sys.stdin.isatty() and sys.stdout.isatty():
            stay(service, url, log, options.home.resolve())
        return status
    except KeyboardInterrupt:
        return 130
    finally:
        end_all([service], grace_seconds=STOP_SECONDS)


if __name__ == "__main__":
    raise SystemExit(main())
