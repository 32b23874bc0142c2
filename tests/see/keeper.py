# A big dictionary, some of it deleted again, and larger blocks; then it says so and waits, or ends at once
# with all of it still in place. No byte is zero, so that a core shows what was touched.
import os
import sys

# As many words as fill the dictionary's table: what is left of it would be zero.
words = {i: "word %d " % i * 3 for i in range(340000)}
for i in range(0, 340000, 3):
    del words[i]
pages = [b"p" * 20000 for _ in range(300)]
large = bytearray(b"L" * (16 << 20))
print("ready", flush=True)
if len(sys.argv) > 1:
    os._exit(0)
sys.stdin.read()
