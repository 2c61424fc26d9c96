"""2. Memory without end."""

from code_sandbox.attacks.suite import Attempt

_DECOMPRESSION = """
import io, struct, zlib
from PIL import Image
Image.MAX_IMAGE_PIXELS = None
def chunk(kind, data):
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))
size = 120_000
packer = zlib.compressobj(9)
rows = b"".join([packer.compress(bytes(size + 1)) for _ in range(2000)]) + packer.flush()
png = b"\\x89PNG\\r\\n\\x1a\\n" + chunk(b"IHDR", struct.pack(">IIBBBBB", size, size, 8, 0, 0, 0, 0)) + chunk(b"IDAT", rows) + chunk(b"IEND", b"")
Image.open(io.BytesIO(png)).load()
breach("14 gigapixels were allocated")
"""
_TOGETHER = """
import multiprocessing, time
def eat(done):
    data = bytearray(700 << 20)
    data[::4096] = b"x" * len(data[::4096])
    done.value = 1
    time.sleep(8)
context = multiprocessing.get_context("fork")
flags = [context.Value("i", 0) for _ in range(10)]
eaters = [context.Process(target=eat, args=(flag,)) for flag in flags]
for eater in eaters:
    eater.start()
time.sleep(8)
if all(eater.is_alive() for eater in eaters) and sum(flag.value for flag in flags) == 10:
    breach("ten processes hold 7 GB together")
"""
_REFUSED = ("MemoryError", "_ArrayMemoryError", "killed")
ATTEMPTS = (
    Attempt("bytearray", "x = bytearray(10**11)\nbreach(len(x))", reported=_REFUSED),
    Attempt("a long string", "x = ' ' * 10**10\nbreach(len(x))", reported=_REFUSED),
    Attempt("a large array", "import numpy\nx = numpy.ones((10**5, 10**5))\nbreach(x.shape)", reported=_REFUSED),
    Attempt("a list that grows", "x = []\nwhile True: x.append(bytes(10**8))", timeout_s=30, reported=_REFUSED),
    Attempt("a PNG that unpacks to 14 gigapixels", _DECOMPRESSION, timeout_s=30),
    Attempt("several processes together", _TOGETHER, timeout_s=25),
)
