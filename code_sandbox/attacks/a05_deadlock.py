"""5. Cells that wait for ever."""

from code_sandbox.attacks.suite import Attempt

_PIPE = "import os\nreader, writer = os.pipe()\nos.read(reader, 1)"
_CHILD = "import subprocess\nsubprocess.run(['sleep', '600'])"
_THREAD = "import threading\nthread = threading.Thread(target=threading.Event().wait)\nthread.start()\nthread.join()"
_CASES = (
    ("sleep", "import time\ntime.sleep(10**6)"),
    ("a lock taken twice", "import threading\nlock = threading.Lock()\nlock.acquire()\nlock.acquire()"),
    ("a pipe that nobody writes to", _PIPE),
    ("a child that does not end", _CHILD),
    ("a thread that does not end", _THREAD),
)
ATTEMPTS = (
    *(Attempt(name, code, timeout_s=1.5, reported=("timeout",), late_s=2.5) for name, code in _CASES),
    Attempt("input()", "input('?')", timeout_s=1.5, reported=("StdinNotImplementedError",)),
)
