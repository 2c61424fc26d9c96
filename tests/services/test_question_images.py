"""`image_1` in both back-ends has the pixels that the model is shown, at full resolution, and is an image like any other."""

import hashlib
import io

import pytest
from PIL import Image

from agent.images import ImageFile
from code_sandbox.client import SandboxClient
from tests.pictures import pictures

pytestmark = pytest.mark.services

KINDS = pictures(213, 140)
USES = (
    "image_{0}.crop((1, 1, 9, 9)).save('a.png')", "image_{0}.resize((9, 9)).save('a.png')", "image_{0}.copy().save('a.png')",
    "image_{0}.rotate(45).save('a.png')", "image_{0}.convert('L').save('a.png')", "image_{0}.convert('RGBA').save('a.png')",
    "image_{0}.save('a.jpg')", "image_{0}.thumbnail((50, 50))",
)  # fmt: skip


async def test_an_image_of_any_kind_has_the_pixels_that_the_model_is_shown_and_can_be_used(any_sandbox_url):
    async with SandboxClient(any_sandbox_url) as client:
        session = await client.open([picture.data for picture in KINDS.values()])
        await session.execute("import hashlib")
        for number, picture in enumerate(KINDS.values(), start=1):
            expected = ImageFile(picture.data).pil()
            told = await session.execute(
                f"print(image_{number}.size, image_{number}.mode, image_{number}.info, dict(image_{number}.getexif()), "
                f"hashlib.sha256(image_{number}.tobytes()).hexdigest())"
            )
            digest = hashlib.sha256(expected.tobytes()).hexdigest()
            assert told.stdout == f"(213, 140) RGB {{}} {{}} {digest}\n"
            shown = await session.execute(f"image_{number}")
            with Image.open(io.BytesIO(shown.images[0].data)) as image:
                assert image.convert("RGB").tobytes() == expected.tobytes()
            used = await session.execute("\n".join(USES).format(number))
            assert (used.status, used.stderr) == ("ok", "")
        await session.close()


@pytest.mark.parametrize(
    ("code", "shown"),
    [
        ("Image.new('RGBA', (40, 40))", 255),
        ("Image.new('LA', (40, 40))", 255),
        ("Image.fromarray(np.full((40, 40), 30000, np.uint16))", 117),
        ("Image.fromarray(np.full((40, 40), 0.5, np.float32))", 128),
        ("Image.fromarray(np.full((40, 40), 7, np.int32))", 7),
    ],
)
async def test_what_code_shows_is_on_white_and_of_8_bits(any_sandbox_url, code, shown):
    async with SandboxClient(any_sandbox_url) as client:
        session = await client.open([])
        await session.execute("import numpy as np\nfrom PIL import Image")
        (image,) = (await session.execute(code)).images
        assert ImageFile(image.data).pil().getpixel((20, 20)) == (shown,) * 3
        await session.close()
