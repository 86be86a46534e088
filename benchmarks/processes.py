"""Servers in processes of their own, and what they cost: memory, processor time, files (Linux, /proc)."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parent.parent
TICK = os.sysconf("SC_CLK_TCK")
APP, STOCK = ("app.py",), ("-m", "benchmarks.stock")


@dataclass(frozen=True)
class Server:
    """A running server: its address, its process, and the folder that takes its log and its temporary files."""

    address: str
    process: subprocess.Popen
    folder: Path

    @property
    def alive(self) -> bool:
        """Whether the process still runs."""
        return self.process.poll() is None

    def memory(self) -> int:
        """Bytes in memory now (Rss of /proc/PID/smaps_rollup), children included."""
        return sum(_field(f"{pid}/smaps_rollup", "Rss") for pid in family(self.process.pid))

    def peak(self) -> int:
        """The most bytes in memory so far (VmHWM), children included."""
        return sum(_field(f"{pid}/status", "VmHWM") for pid in family(self.process.pid))

    def processor_seconds(self) -> float:
        """Processor time so far, children included."""
        return sum(_processor_seconds(pid) for pid in family(self.process.pid))

    def open_files(self) -> int:
        """How many file descriptors the process holds."""
        return len(list(Path(f"/proc/{self.process.pid}/fd").iterdir()))

    def files_left(self) -> list[Path]:
        """The temporary files that lie in its folder."""
        return [path for path in self.folder.rglob("*") if path.is_file() and path.name != "log"]

    def log(self) -> str:
        """What it has said beside its address."""
        return (self.folder / "log").read_text(errors="replace")


@contextmanager
def running(what: tuple[str, ...], *arguments: object, folder: Path) -> Iterator[Server]:
    """Run app.py (APP) or the stock app (STOCK) until the block ends.

    Raises:
        RuntimeError: it did not start; its own words are in the message.
    """
    process = launch(what, *arguments, folder=folder)
    try:
        yield Server(address_of(process, folder), process, folder)
    finally:
        stop(process)


def launch(what: tuple[str, ...], *arguments: object, folder: Path) -> subprocess.Popen:
    """Start a server; it takes a free port and has its temporary files in `folder`."""
    environment = {**os.environ, "TMPDIR": str(folder), "GRADIO_ANALYTICS_ENABLED": "False"}
    for name in ("GRADIO_TEMP_DIR", "GRADIO_SERVER_NAME", "GRADIO_SERVER_PORT", "MODEL_ID", "COMPARE_ID"):
        environment.pop(name, None)
    port = ("--port", "0") if what == APP else ()
    command = [sys.executable, *what, *port, *map(str, arguments)]
    with (folder / "log").open("w") as log:
        return subprocess.Popen(command, cwd=ROOT, env=environment, stdout=subprocess.PIPE, stderr=log, text=True)


def address_of(process: subprocess.Popen, folder: Path) -> str:
    """Wait until a server says where it is open, and return that.

    Raises:
        RuntimeError: it ended instead.
    """
    for line in process.stdout:
        if found := re.search(r"http://\S+", line):
            return found[0]
    raise RuntimeError(f"The server did not start: {(folder / 'log').read_text(errors='replace')}")


def stop(process: subprocess.Popen) -> int:
    """End a server as a container's end does; returns its exit code."""
    process.send_signal(signal.SIGTERM)
    try:
        return process.wait(20)
    except subprocess.TimeoutExpired:
        process.kill()
        return process.wait()
    finally:
        process.stdout.close()


def family(pid: int) -> list[int]:
    """A process and all that it has started, and they in turn."""
    found = [pid]
    for member in found:
        for children in Path(f"/proc/{member}/task").glob("*/children"):
            found += map(int, children.read_text().split())
    return found


def _field(name: str, field: str) -> int:
    """Return a field of a file in /proc, there in kB, in bytes."""
    try:
        text = Path("/proc", name).read_text()
    except FileNotFoundError:  # it has just ended
        return 0
    return int(re.search(rf"^{field}:\s+(\d+) kB", text, re.MULTILINE)[1]) * 1024


def _processor_seconds(pid: int) -> float:
    """User and system time of a process (proc(5), fields 14 and 15 of stat)."""
    try:
        after_name = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except FileNotFoundError:
        return 0.0
    return (int(after_name[11]) + int(after_name[12])) / TICK
