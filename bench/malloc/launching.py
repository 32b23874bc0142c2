"""Where everything is, and how one program runs under one allocator."""

import os
import re
import signal
import subprocess
import sys

HERE = os.path.dirname(os.path.abspath(__file__))
ROOT = os.path.dirname(os.path.dirname(HERE))
BUILD = os.path.realpath(os.environ.get("BUILD", os.path.join(ROOT, "build")))
DOCS = os.path.realpath(os.environ.get("DOCS", os.path.join(ROOT, "docs")))
BINARIES = os.path.join(BUILD, "bench", "malloc")
INPUTS = os.path.join(BINARIES, "inputs")
LAUNCH = os.path.join(BINARIES, "launch")

TIMEOUT_SECONDS = 120


class Failure(Exception):
    """A run that did not end well, and what it said."""


def note(text):
    print(f"run.py: {text}", file=sys.stderr)


def output_of(*command):
    """The first line that a command prints, or nothing where it fails."""
    try:
        done = subprocess.run(command, capture_output=True, text=True, check=True)
    except (OSError, subprocess.CalledProcessError):
        return ""
    return (done.stdout.splitlines() or [""])[0]


def environment():
    """Little of the user's: it could change what the programs do."""
    kept = {name: os.environ[name] for name in ("PATH", "HMM_OPTIONS") if name in os.environ}
    return kept | {
        "HOME": INPUTS,
        "LC_ALL": "C",
        "TZ": "UTC0",
        "PYTHONMALLOC": "malloc",
        "PYTHONHASHSEED": "0",
        "GIT_CONFIG_NOSYSTEM": "1",
        "GIT_PAGER": "cat",
    }


def fields(line):
    """What a line of NAME=NUMBER says."""
    return {name: int(number) for name, number in re.findall(r"(\S+)=(-?\d+)", line)}


class Run:
    """A program under an allocator, by way of launch.c."""

    def __init__(self, allocator, command, stdout=subprocess.DEVNULL):
        self.report, report = os.pipe()
        self.process = subprocess.Popen(
            [LAUNCH, str(report), allocator.preload, *command],
            pass_fds=[report],
            stdin=subprocess.DEVNULL,
            stdout=stdout,
            stderr=subprocess.PIPE,
            env=environment(),
            cwd=INPUTS,
            text=True,
            start_new_session=True,
        )
        os.close(report)

    def end(self):
        """Waits for the end: what the program printed, and what launch.c reports."""
        try:
            printed, complaint = self.process.communicate(timeout=TIMEOUT_SECONDS)
        except subprocess.TimeoutExpired:
            self.kill()
            raise Failure(f"takes more than {TIMEOUT_SECONDS} s") from None
        with os.fdopen(self.report) as report:
            measured = fields(report.read())
        if "cannot be preloaded" in complaint:
            raise Failure("the allocator cannot be preloaded")
        status = measured.pop("status", None)
        if status != 0:
            last_line = (complaint.strip().splitlines() or ["without a word"])[-1]
            raise Failure(f"status {status}: {last_line}")
        return printed, measured

    def kill(self):
        os.killpg(self.process.pid, signal.SIGKILL)
        self.process.communicate()
        os.close(self.report)
