# Writes a core with some bytes changed: in the heap's own tables, or, now and then, anywhere.
#
#     mutate.py CORE OUT SEED
import random
import struct
import sys

PT_LOAD = 1
ROOT_MAGIC = b"HMM: heap root\n\0"
ROOT_SELF_AT = 48
ROOT_POINTERS_AT = 56  # arena, threads, woken, shards, process, created
ROOT_BYTES = 128
TABLE_POINTER_AT = 16  # in the arena

core = bytearray(open(sys.argv[1], "rb").read())
generator = random.Random(int(sys.argv[3]))


def segments():
    start, = struct.unpack_from("<Q", core, 32)
    count, = struct.unpack_from("<H", core, 56)
    for i in range(count):
        kind, _, offset, address, _, held, _, _ = struct.unpack_from("<IIQQQQQQ", core, start + 56 * i)
        if kind == PT_LOAD and held:
            yield address, offset, held


def place(address):
    for start, offset, held in segments():
        if start <= address < start + held:
            return address - start + offset
    return None


# The root itself stays whole: that another version is refused is another test.
# Pages of files may hold another copy, whose pointers lead nowhere.
root = core.find(ROOT_MAGIC)
while place(struct.unpack_from("<Q", core, root + ROOT_SELF_AT)[0]) != root:
    root = core.find(ROOT_MAGIC, root + 1)
pointers = struct.unpack_from("<6Q", core, root + ROOT_POINTERS_AT)
ranges = []
for pointer, length in zip(pointers, (256, 64, 1024, 4096, 64, 8)):
    at = place(pointer)
    if at is not None:
        ranges.append((at, length))
table, = struct.unpack_from("<Q", core, place(pointers[0]) + TABLE_POINTER_AT)
if place(table):
    # Descriptors of granules, and what lies above them: bit sets and threads.
    ranges += [(place(table), 32 << 10)] * 3
    for start, offset, held in segments():
        if table < start < table + (1 << 32):
            ranges.append((offset, min(held, 64 << 10)))

for _ in range(generator.choice([1, 4, 64])):
    start, length = generator.choice(ranges)
    at = start + generator.randrange(length)
    if generator.random() < 0.1:
        at = generator.randrange(len(core))
    if at < len(core) and not root <= at < root + ROOT_BYTES:
        core[at] = generator.choice([0, 0xFF, core[at] ^ 1 << generator.randrange(8), generator.randrange(256)])
open(sys.argv[2], "wb").write(core)
