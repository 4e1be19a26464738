# SPDX-License-Identifier: MIT
"""The setting of a benchmark, shared by the programs here: machine and command, programs, working directory."""
import contextlib
import datetime
import os
import platform
import shlex
import sys
import tempfile

TESTS = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
FIXTURES = os.path.join(TESTS, "fixtures")


def cpu_name():
    with open("/proc/cpuinfo") as info:
        names = [line.split(":", 1)[1].strip() for line in info if line.startswith("model name")]
    return names[0] if names else platform.machine()


def origin():
    """Returns two lines with machine, load and command.  Call it before the work starts, because it reads the load."""
    machine = f"{cpu_name()}, {os.cpu_count()} cores, {platform.system()} {platform.release()}"
    load = f"load average at the start {os.getloadavg()[0]:.1f}"
    return f"{machine}, {load}, {datetime.date.today()}\n{shlex.join([os.path.basename(sys.argv[0])] + sys.argv[1:])}\n"


def program(given, build, name):
    """Returns the path of a program: the given one, or the one in the build directory."""
    path = given or os.path.join(build, name)
    if not os.access(path, os.X_OK):
        sys.exit(f"{os.path.basename(sys.argv[0])}: no program {path}; build it, or use --build DIR")
    return os.path.abspath(path)


@contextlib.contextmanager
def working_directory(given):
    """Yields the given directory, whose contents are kept, or a temporary one."""
    if given:
        os.makedirs(given, exist_ok=True)
        yield os.path.abspath(given)
        return
    with tempfile.TemporaryDirectory(prefix="wcx-bench-") as path:
        yield path


def markdown_table(head, rows):
    lines = [head, ["---"] * len(head)] + rows
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


def text_table(head, rows):
    widths = [max(len(line[i]) for line in [head] + rows) for i in range(len(head))]
    return "\n".join("  ".join(cell.ljust(width) for cell, width in zip(line, widths)).rstrip() for line in [head] + rows)
