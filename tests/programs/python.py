"""Containers, text, threads and forks: what a Python service does all day, with one right answer."""

import collections
import hashlib
import json
import os
import queue
import random
import re
import subprocess
import sys
import threading
import zlib

WORKERS = 4


def digest(value):
    return hashlib.sha256(json.dumps(value, sort_keys=True).encode()).hexdigest()[:16]


def containers():
    table = {f"key{i * 7919 % 5003}": [i, str(i) * (i % 9)] for i in range(6000)}
    for i in range(0, 5003, 3):
        table.pop(f"key{i}", None)
    text = json.dumps(table, sort_keys=True)
    assert json.loads(text) == table
    print("containers", len(table), len(text), digest(table))
    tree = None
    for i in range(3000):
        tree = (i, tree)
    pairs = sorted((hash((i, i * i)) % 1009, bytes([i % 256]) * (i % 300)) for i in range(2500))
    print("tuples", tree[0], len(pairs), sum(len(blob) for _, blob in pairs))


def strings():
    source = random.Random(42)
    words = ["".join(source.choices("abcdef", k=source.randint(2, 9))) for _ in range(4000)]
    text = " ".join(words)
    found = re.findall(r"\b(\w)(\w*?)(\w)\b", text)
    swapped = re.sub(r"\b(\w)(\w*)\b", lambda match: match[2] + match[1].upper(), text)
    common = collections.Counter(words).most_common(3)
    print("strings", len(found), digest(swapped), sorted(common))


def threads():
    """Objects are made in one thread and dropped in another; the sum does not depend on the order."""
    tasks, results = queue.Queue(maxsize=16), queue.Queue()

    def worker():
        while (task := tasks.get()) is not None:
            number, blob = task
            packed = zlib.compress(blob * 20)
            parsed = json.loads(json.dumps({"n": number, "s": [blob.hex()[:40]] * 20}))
            results.put((number, zlib.crc32(zlib.decompress(packed)), parsed))

    crew = [threading.Thread(target=worker) for _ in range(WORKERS)]
    for thread in crew:
        thread.start()
    for number in range(500):
        tasks.put((number, bytes([number % 251]) * (number * 3)))
    for _ in crew:
        tasks.put(None)
    for thread in crew:
        thread.join()
    print("threads", digest(sorted(results.get() for _ in range(500))))


def forks():
    """Children are forked while other threads allocate, and they allocate in their turn."""
    stop = threading.Event()

    def churn():
        while not stop.is_set():
            zlib.decompress(zlib.compress(os.urandom(20000) + bytes(20000)))

    crew = [threading.Thread(target=churn) for _ in range(2)]
    for thread in crew:
        thread.start()
    statuses = []
    for number in range(6):
        child = os.fork()
        if child == 0:
            kept = [str(i) * (number + 1) for i in range(1000)]
            os._exit(len(json.dumps(kept)) % 100 + 1)
        statuses.append(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
    stop.set()
    for thread in crew:
        thread.join()
    command = [sys.executable, "-S", "-c", "print(sum(len(str(i)) for i in range(9999)))"]
    answer = subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()
    print("forks", statuses, answer)


containers()
strings()
threads()
forks()
print("finished")
