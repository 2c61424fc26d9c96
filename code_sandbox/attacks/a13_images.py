"""13. Pictures that are too many, too large, or none."""

import io

from PIL import Image

from code_sandbox.attacks.suite import Attempt
from code_sandbox.wire import DEFAULT_MAX_PIXELS, ExecuteResult

_MOST = 64


def _sound(result: ExecuteResult) -> str | None:
    if len(result.images) > _MOST:
        return f"{len(result.images)} images came back"
    for image in result.images:
        if image.width_px * image.height_px > DEFAULT_MAX_PIXELS:
            return f"an image of {image.width_px}x{image.height_px} came back"
        with Image.open(io.BytesIO(image.data), formats=["PNG", "JPEG"]) as opened:
            if opened.size != (image.width_px, image.height_px):
                return "an image is not of the size it says"
            opened.load()
    return None


_LARGE = "from PIL import Image\nImage.new('L', (30_000, 30_000))"
_MANY = """
import matplotlib.pyplot as plt
for _ in range(300):
    plt.figure(figsize=(0.3, 0.3))
plt.show()
"""
_DISPLAYS = "from PIL import Image\nfor _ in range(10_000): display(Image.new('RGB', (4, 4)))"
_FIGURE = "import matplotlib.pyplot as plt\nplt.figure(figsize=(200, 200), dpi=100)\nplt.plot([1])\nplt.show()"
_LIES = """
from IPython.display import Image as Raw, publish_display_data
publish_display_data({"image/png": b"\\x89PNG\\r\\n\\x1a\\n" + bytes(40)})
publish_display_data({"image/png": "not base64!"})
publish_display_data({"image/jpeg": b"\\xff\\xd8\\xff" + bytes(40)})
"""
_SVG = "from IPython.display import SVG\nSVG('<svg xmlns=\"http://www.w3.org/2000/svg\"><script>alert(1)</script></svg>')"
ATTEMPTS = tuple(
    Attempt(name, code, timeout_s=40, check=_sound)
    for name, code in (
        ("30,000 by 30,000", _LARGE),
        ("three hundred figures", _MANY),
        ("ten thousand pictures", _DISPLAYS),
        ("a figure of 400 megapixels", _FIGURE),
        ("one pixel high", "from PIL import Image\nImage.new('RGB', (60_000, 1))"),
        ("one pixel", "from PIL import Image\nImage.new('RGB', (1, 1))"),
        ("no pixel", "from PIL import Image\nImage.new('RGB', (0, 5))"),
        (
            "unusual modes",
            "from PIL import Image\nfor m in ('1','P','LA','CMYK','YCbCr','HSV','LAB','I;16','I','F'): display(Image.new(m, (30, 30)))",
        ),
        ("files that are none", _LIES),
        ("SVG with a script", _SVG),
    )
)
