"""The programs that we start: what they find in their environment, and who answers Ctrl-C."""

import os
import signal
import subprocess
import sys
import threading
from pathlib import Path

# Nothing phones home, and after set-up nothing needs the network.
SWITCHES = {
    "HF_HUB_OFFLINE": "1",
    "HF_HUB_DISABLE_TELEMETRY": "1",
    "TOKENIZERS_PARALLELISM": "false",
    "DVC_NO_ANALYTICS": "1",
    "GX_ANALYTICS_ENABLED": "false",
    "OLIVE_DISABLE_TELEMETRY": "1",
    "RAY_USAGE_STATS_ENABLED": "0",
}
# Freed memory is kept: training allocates the same sizes again and again (10% faster on glibc). A process
# reads this when it starts, so it holds for children alone.
ALLOCATOR = {"MALLOC_MMAP_THRESHOLD_": str(4 << 30), "MALLOC_TRIM_THRESHOLD_": str(8 << 30)}


def environment() -> dict[str, str]:
    """The variables that the command `slm` sets for itself and for all that it starts."""
    programs, path = str(Path(sys.executable).parent), os.environ.get("PATH", "")
    if path.split(os.pathsep)[0] != programs:  # stages and DVC call `python`: the one that runs this
        path = f"{programs}{os.pathsep}{path}"
    return {**SWITCHES, **ALLOCATOR, "PATH": path}


def run_child(*command: str, folder: Path = Path()) -> int:
    """Run a program to its end, its output shown, and return its exit code.

    Ctrl-C reaches it too, and it may have paid answers to save: this waits until it has ended.
    """
    child = subprocess.Popen(command, cwd=folder)
    in_main_thread = threading.current_thread() is threading.main_thread()
    before = signal.signal(signal.SIGTERM, lambda *_: child.terminate()) if in_main_thread else None
    interrupted = False
    try:
        while child.returncode is None:
            try:
                child.wait()
            except KeyboardInterrupt:
                interrupted = True
    finally:
        if in_main_thread:
            signal.signal(signal.SIGTERM, before)
    if interrupted:
        raise KeyboardInterrupt
    return child.returncode if child.returncode >= 0 else 128 - child.returncode
