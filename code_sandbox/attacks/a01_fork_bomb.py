"""1. Processes and threads without end."""

from code_sandbox.attacks.suite import Attempt

_FORKS = """
import os, time
count = 0
try:
    while count < 2000:
        if os.fork() == 0:
            time.sleep(3)
            os._exit(0)
        count += 1
except OSError as refused:
    print("refused after", count, refused)
if count > 500:
    breach(count, "processes")
"""
_SPREADING = """
import os, time
deadline = time.time() + 2
while time.time() < deadline:
    try:
        os.fork()
    except OSError:
        time.sleep(0.01)
"""
_THREADS = """
import threading, time
count = 0
try:
    while count < 2000:
        threading.Thread(target=time.sleep, args=(1,), daemon=True).start()
        count += 1
except RuntimeError as refused:
    print("refused after", count, refused)
if count > 500:
    breach(count, "threads")
"""
_POOL = """
import multiprocessing
context = multiprocessing.get_context("fork")
started = []
try:
    for _ in range(600):
        started.append(context.Process(target=__import__("time").sleep, args=(1,)))
        started[-1].start()
    breach(len(started), "workers")
except OSError as refused:
    print("refused after", len(started), refused)
"""
ATTEMPTS = (
    Attempt("os.fork in a loop", _FORKS, level=2, timeout_s=30),
    Attempt("children that fork children", _SPREADING, level=2, timeout_s=8, unbounded=True),
    Attempt("threads in a loop", _THREADS, level=2, timeout_s=20),
    Attempt("multiprocessing", _POOL, level=2, timeout_s=30),
)
