"""Waits until an engine answers on its address: `python -m appliance.system.probe ADDRESS PATH SECONDS PID`."""

import os
import sys
import time

from appliance.system.http import call

PAUSE = 0.05
"""Seconds between two looks."""


def main() -> int:
    """Return 0 once it is healthy, 1 when it is gone or too late."""
    address, path, seconds, pid = sys.argv[1:]
    deadline = time.monotonic() + float(seconds)
    while time.monotonic() < deadline:
        if call(address, path, timeout=5).status == 200:
            return 0
        if not _alive(int(pid)):
            return 1
        time.sleep(PAUSE)
    return 1


def _alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True


if __name__ == "__main__":
    sys.exit(main())
