"""8. The registry, and through it other sessions."""

from code_sandbox.attacks.suite import Attempt

_IMPORT = """
import gc, sys
for name, module in list(sys.modules.items()):
    if name.startswith("redis") or name.startswith("code_sandbox.server.store") or name.startswith("code_sandbox.client"):
        breach(name, "is loaded")
for thing in gc.get_objects():
    if type(thing).__module__.startswith(("redis.", "code_sandbox.server.settings")):
        breach(type(thing))
"""
_CLIENT = """
try:
    import redis
except ImportError:
    redis = None
if redis:
    for port in (6379, 6380, 16379, 26379, 36379):
        try:
            breach(redis.Redis("127.0.0.1", port, socket_timeout=1, socket_connect_timeout=1).keys("*"))
        except Exception as refused:
            print(type(refused).__name__)
"""
_SOCKETS = """
import glob, socket
for path in ["/run/redis/redis.sock", "/var/run/redis/redis-server.sock", "//tmp/redis.sock", *glob.glob("//tmp/**/*.sock", recursive=True), *glob.glob("/run/**/*.sock", recursive=True), "/var/run/docker.sock", "/run/containerd/containerd.sock"]:
    try:
        socket.socket(socket.AF_UNIX).connect(path)
        breach(path)
    except OSError as refused:
        print(refused)
"""
ATTEMPTS = (
    Attempt("what is loaded", _IMPORT),
    Attempt("redis-py", _CLIENT, timeout_s=20),
    Attempt("Unix sockets", _SOCKETS, timeout_s=20),
)
