"""6. Every way out over a network."""

from collections.abc import AsyncIterator

from code_sandbox.attacks.suite import AttackOutcome, Attempt, Target, report

_TCP = """
import socket
for host, port in (("127.0.0.1", 6379), ("127.0.0.1", 8000), ("169.254.169.254", 80), ("1.1.1.1", 443), ("8.8.8.8", 53)):
    try:
        socket.create_connection((host, port), 1)
        breach(host, port)
    except ConnectionRefusedError as answered:
        breach(host, port, answered)
    except OSError as refused:
        print(refused)
"""
_FAMILIES = """
import socket
for family, kind, address in (
    (socket.AF_INET, socket.SOCK_DGRAM, ("127.0.0.1", 53)), (socket.AF_INET6, socket.SOCK_STREAM, ("::1", 80)),
    (socket.AF_INET6, socket.SOCK_DGRAM, ("::1", 53)), (socket.AF_VSOCK, socket.SOCK_STREAM, (2, 1)),
):
    try:
        with socket.socket(family, kind) as way:
            way.settimeout(1)
            way.connect(address)
            way.send(b"x")
            breach(family, kind)
    except ConnectionRefusedError as answered:
        breach(family, answered)
    except OSError as refused:
        print(refused)
"""
_RAW = """
import socket
for family, kind, protocol in ((socket.AF_INET, socket.SOCK_RAW, 1), (socket.AF_PACKET, socket.SOCK_RAW, 3), (socket.AF_NETLINK, socket.SOCK_RAW, 0)):
    try:
        socket.socket(family, kind, protocol)
        breach(family)
    except OSError as refused:
        print(refused)
"""
_NAMES = """
import socket
try:
    breach(socket.getaddrinfo("example.com", 80))
except OSError as refused:
    print(refused)
"""
_RING = """
import ctypes
libc = ctypes.CDLL(None, use_errno=True)
if libc.syscall(425, 8, ctypes.create_string_buffer(256)) >= 0:
    breach("io_uring")
"""
_HTTP = """
import urllib.request
try:
    breach(urllib.request.urlopen("http://127.0.0.1:8000/health", timeout=2).status)
except OSError as refused:
    print(refused)
"""
ATTEMPTS = (
    Attempt("TCP", _TCP, timeout_s=15),
    Attempt("UDP, IPv6, vsock", _FAMILIES, timeout_s=15),
    Attempt("raw, packet, netlink", _RAW),
    Attempt("name resolution", _NAMES, timeout_s=15),
    Attempt("io_uring", _RING),
    Attempt("urllib", _HTTP),
)

_LISTEN = """
import socket
try:
    listener = socket.socket(socket.AF_UNIX)
    listener.bind("\\0deepeyes-attack")
    listener.listen()
except OSError as refused:
    print(refused)
"""
_CONNECT = """
import socket
try:
    socket.socket(socket.AF_UNIX).connect("\\0deepeyes-attack")
    print("BREACH", "abstract Unix socket of another session")
except OSError as refused:
    print(refused)
"""


async def attempts(target: Target) -> AsyncIterator[AttackOutcome]:
    """Two sessions that try to speak to each other."""
    one, other = await target.session(), await target.session()
    await one.execute(_LISTEN)
    result = await other.execute(_CONNECT)
    wrong = result.stdout.strip() if "BREACH" in result.stdout else await target.harm()
    yield AttackOutcome(__name__.rsplit(".", 1)[1], "abstract Unix socket", 1, report(result), wrong)
    await one.close()
    await other.close()
