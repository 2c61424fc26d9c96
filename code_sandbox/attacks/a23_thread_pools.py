"""23. Libraries whose threads do not survive a fork, or are one per core in every session."""

from code_sandbox.attacks.suite import Attempt

_WORK = """
import threading
def threads():
    try:
        return int([line for line in open("/proc/self/status") if line.startswith("Threads")][0].split()[1])
    except OSError:
        return threading.active_count()
before = threads()
import numpy, cv2, scipy.linalg, scipy.ndimage, pandas, skimage.filters
x = numpy.random.rand(400, 400)
for _ in range(3):
    x @ x
    numpy.linalg.svd(x[:100, :100])
    scipy.linalg.inv(x)
    cv2.GaussianBlur(x, (9, 9), 0)
    cv2.resize((x * 255).astype("uint8"), (900, 900), interpolation=cv2.INTER_CUBIC)
    skimage.filters.sobel(x)
    scipy.ndimage.gaussian_filter(x, 2)
pandas.DataFrame(x).describe()
if threads() > before + 2:
    breach(threads() - before, "threads")
"""
_POOL = """
import concurrent.futures, multiprocessing
with concurrent.futures.ThreadPoolExecutor(4) as pool:
    assert list(pool.map(lambda n: n * n, range(50))) == [n * n for n in range(50)]
context = multiprocessing.get_context("fork")
with context.Pool(2) as pool:
    assert pool.map(abs, range(-20, 0)) == list(range(20, 0, -1))
"""
ATTEMPTS = (
    Attempt("BLAS, OpenCV, SciPy, pandas, scikit-image", _WORK, timeout_s=40, reported=("ok",)),
    Attempt("pools of one's own", _POOL, level=2, timeout_s=20, reported=("ok",)),
)
