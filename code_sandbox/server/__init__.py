"""The sandbox server: notebook sessions behind HTTP, registered in Redis. Linux only."""

import sys

if sys.platform != "linux":
    raise OSError(
        f"the sandbox server needs Linux, which keeps its sessions apart, and this is {sys.platform}: run it on Linux "
        "or in a container (code_sandbox/deploy/Dockerfile), and set CODE_SANDBOX_URL to it here"
    )
