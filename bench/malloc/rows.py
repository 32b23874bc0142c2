"""The rows of the tables: our workloads, and real programs with what they work on.

A row has a name, a story for the page, missing(), which tells why it cannot run, prepare(), which
writes its inputs, always the same ones, and run(), which measures it once under an allocator.
"""

import os
import random
import re
import shutil
import socket
import subprocess
import threading
import time

from launching import BINARIES, HERE, INPUTS, TIMEOUT_SECONDS, Failure, Run, environment, fields

IDLE_SECONDS = 1

# ---------------------------------------------------------------------------- workloads

WORKLOADS = (
    "one_size",
    "mixed_in_order",
    "mixed_random",
    "vectors",
    "trees",
    "growing",
    "heavy_tail",
    "medium",
    "large",
    "zeroed",
    "server",
    "producer_consumer",
    "thread_churn",
    "thread_pool",
    "drift",
    "peak_drop",
    "handover",
    "false_sharing_active",
    "false_sharing_passive",
    "tiny_process",
)


class Workload:
    def __init__(self, name, scale_percent, threads):
        self.name = name
        self.arguments = [str(scale_percent), str(threads)]
        with open(os.path.join(HERE, f"{name}.c"), encoding="utf-8") as source:
            self.story = re.search(r" - (.*)", source.read())[1]

    def missing(self):
        built = os.path.join(BINARIES, self.name)
        is_built = os.access(built, os.X_OK)
        return None if is_built else "it is not built: `make bench-malloc` builds it"

    def prepare(self):
        pass

    def run(self, allocator):
        """Once for time and memory, and once more for single calls."""
        binary = os.path.join(BINARIES, self.name)
        printed, measured = Run(allocator, [binary, *self.arguments], subprocess.PIPE).end()
        measured.update(fields(printed))
        measured["peak_bytes"] -= measured["table_bytes"]
        printed, _ = Run(allocator, [f"{binary}.calls", *self.arguments], subprocess.PIPE).end()
        return measured | fields(printed)


# ---------------------------------------------------------------------------- programs


class Program:
    """A program's command line; what `prepare` writes is there before."""

    def __init__(self, name, command, story, prepare=lambda: None):
        self.name = name
        self.command = command
        self.story = story
        self.prepare = prepare

    def missing(self):
        return None if shutil.which(self.command[0]) else f"{self.command[0]} is not installed"

    def run(self, allocator):
        return Run(allocator, self.command).end()[1]


class Redis(Program):
    """The server is what is measured; its client is this program, which has the requests ready and
    does not look at the replies."""

    requests = b""
    end_request = ("ECHO", "done")
    end_reply = b"$4\r\ndone\r\n"

    def __init__(self):
        self.socket_path = os.path.join(INPUTS, "redis.socket")
        options = ["--port", "0", "--save", "", "--unixsocket", self.socket_path]
        command = ["redis-server", *options]
        super().__init__("redis", command, "sets, appends, lists and hashes, deleted at random")
        self.prepare = self.write_requests

    def write_requests(self):
        chosen = random.Random(1)
        requests = []
        for _ in range(250000):
            key = f"key:{chosen.randrange(40000)}"
            value = "x" * int(8 * 2 ** (7 * chosen.random() ** 2))
            requests.append(
                chosen.choice(
                    (
                        ("SET", f"s{key}", value),
                        ("SET", f"s{key}", value),
                        ("APPEND", f"s{key}", value),
                        ("RPUSH", f"l{key}", value),
                        ("HSET", f"h{key}", value[:16], value),
                        ("DEL", f"s{key}", f"l{key}"),
                    )
                )
            )
        requests.append(self.end_request)
        self.requests = b"".join(map(self.encoded, requests))

    @staticmethod
    def encoded(words):
        text = "".join(f"${len(word)}\r\n{word}\r\n" for word in words)
        return f"*{len(words)}\r\n{text}".encode()

    def connected(self):
        for _ in range(1000):
            client = socket.socket(socket.AF_UNIX)
            try:
                client.connect(self.socket_path)
                return client
            except OSError:
                client.close()
                time.sleep(0.01)
        raise Failure("the server does not answer")

    def replies(self, client):
        """All up to the reply to the end request."""
        read = bytearray()
        while not read.endswith(self.end_reply):
            piece = client.recv(1 << 16)
            if not piece:
                raise Failure("the server has gone")
            read += piece
        return read.decode()

    def converse(self, client):
        client.settimeout(TIMEOUT_SECONDS)
        sender = threading.Thread(target=client.sendall, args=(self.requests,))
        start = time.monotonic_ns()
        sender.start()
        self.replies(client)
        wall_ns = time.monotonic_ns() - start
        sender.join()
        time.sleep(IDLE_SECONDS)
        client.sendall(self.encoded(("INFO", "memory")) + self.encoded(self.end_request))
        resident = re.search(r"used_memory_rss:(\d+)", self.replies(client))
        client.sendall(self.encoded(("SHUTDOWN", "NOSAVE")))
        return {"wall_ns": wall_ns, "after_bytes": int(resident[1])}

    def run(self, allocator):
        if os.path.exists(self.socket_path):
            os.remove(self.socket_path)
        run = Run(allocator, self.command)
        try:
            with self.connected() as client:
                conversed = self.converse(client)
        except (Failure, OSError) as failure:
            run.kill()
            raise Failure(str(failure)) from None
        return run.end()[1] | conversed


def write_c_source():
    """Functions of the sort that are in programs."""
    chosen = random.Random(1)
    with open(os.path.join(INPUTS, "functions.c"), "w", encoding="ascii") as source:
        source.write("struct item { int kind, count; struct item *next; double weight; };\n")
        for index in range(200):
            limit, factor = chosen.randrange(3, 90), chosen.randrange(2, 9)
            source.write(f"static int pick_{index}(int kind)\n{{\n    switch (kind % {limit}) {{\n")
            for case in range(chosen.randrange(2, 8)):
                source.write(f"    case {case}: return kind * {chosen.randrange(99)} + {case};\n")
            source.write(
                f"    default: return {limit};\n    }}\n}}\n"
                f"double sum_{index}(const struct item *item, int least)\n{{\n    double sum = 0;\n"
                f"    for (; item; item = item->next) {{\n        if (item->count > least) {{\n"
                f"            sum += item->weight * {factor} + pick_{index}(item->kind);\n"
                f"        }} else {{\n            least -= item->count % {limit};\n        }}\n"
                f"    }}\n    return sum;\n}}\n"
            )


def write_git_history():
    """Four hundred commits to a hundred files."""
    chosen = random.Random(1)
    folder = os.path.join(INPUTS, "history.git")
    shutil.rmtree(folder, ignore_errors=True)
    files = [[f"line {line} of file {index}" for line in range(200)] for index in range(100)]
    stream = []
    for commit in range(400):
        date = 1600000000 + commit * 3600
        stream.append(f"commit refs/heads/main\ncommitter A <a@example.org> {date} +0000\n")
        stream.append(f"data <<END\nchange {commit}\nEND\n")
        for index in chosen.sample(range(100), 100 if commit == 0 else 8):
            for line in chosen.sample(range(200), 12):
                files[index][line] = f"line {line} changed by {commit}: {chosen.randrange(1000)}"
            text = "\n".join(files[index])
            stream.append(f"M 644 inline folder{index % 10}/file{index}.txt\n")
            stream.append(f"data <<END\n{text}\nEND\n")
        stream.append("\n")
    quiet = {"env": environment(), "check": True, "stdout": subprocess.DEVNULL}
    subprocess.run(["git", "init", "--quiet", "--bare", "-b", "main", folder], **quiet)
    importer = ["git", "-C", folder, "fast-import", "--quiet"]
    subprocess.run(importer, input="".join(stream).encode(), **quiet)


def script(name):
    return os.path.join(HERE, "programs", name)


def programs():
    # A python3 that comes first on the PATH may be a script that chooses between several.
    python = "/usr/bin/python3" if os.access("/usr/bin/python3", os.X_OK) else "python3"
    lua = next((name for name in ("lua5.4", "lua5.3", "lua") if shutil.which(name)), "lua5.4")
    to_assembly = ["-O1", "-S", "-o", "/dev/null"]
    return [
        Program("python", [python, script("python.py")], "objects, dictionaries and JSON"),
        Program("perl", ["perl", script("perl.pl")], "lines split, counted and sorted"),
        Program("lua", [lua, script("lua.lua")], "small tables, closures and strings"),
        Program("bash", ["bash", script("bash.sh")], "arrays, functions and strings"),
        Program(
            "sqlite",
            ["sqlite3", "-batch", ":memory:", f".read '{script('sqlite.sql')}'"],
            "tables in memory: joins, groups and changes",
        ),
        Program(
            "gcc", ["gcc", *to_assembly, "functions.c"], "four hundred C functions", write_c_source
        ),
        Program("g++", ["g++", "-std=c++17", *to_assembly, script("cxx.cc")], "C++ with templates"),
        Program(
            "git",
            ["git", "-C", "history.git", "log", "-p", "--stat", "-M"],
            "the log of 400 commits, with changes",
            write_git_history,
        ),
        Redis(),
    ]
