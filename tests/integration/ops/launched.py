"""What launchers launch in their tests: a driver that does what the study's id says."""

import argparse
import os
from pathlib import Path
import signal
import subprocess
import sys
import time


def main() -> int:
    """Exit 0, exit 7, or wait for SIGTERM with a child, as `--study` says."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--study", required=True)
    parser.add_argument("--epoch", type=int, required=True)
    options = parser.parse_args()
    told = sorted(name for name in os.environ if name.startswith("MUTRANSFER_"))
    print(f"{options.study} at epoch {options.epoch} with {' '.join(told)}", flush=True)  # noqa: T201 - its log
    if "crash" in options.study:
        return 7
    if "wait" in options.study:
        child = subprocess.Popen(["sleep", "600"])
        signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
        Path(os.environ["MUTRANSFER_STORAGE"], options.study).write_text(f"{os.getpid()} {child.pid}")
        time.sleep(600)
    return 0


if __name__ == "__main__":
    sys.exit(main())
