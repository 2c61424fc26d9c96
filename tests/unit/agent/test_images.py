import io
import random
import zlib
from concurrent.futures import ThreadPoolExecutor

import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image
from PIL import ImageFile as PillowFile

from agent.images import ImageFile, ImageRule, UnreadableImage, observation_size, smart_resize
from tests.conftest import png
from tests.pictures import QUARTERS, QWEN2_VL_RULE, drawn, encoded, pictures, quarters_of, turned

KINDS = pictures(84, 56)
RULES = {
    "Qwen2.5-VL": QWEN2_VL_RULE,
    "Qwen2.5-VL, as trained here": QWEN2_VL_RULE.limited(1_003_520),
    "Qwen3-VL": ImageRule(32, 65_536, 16_777_216),
    "Qwen3-VL, as trained here": ImageRule(32, 65_536, 1_003_520),
    "the tiny model": QWEN2_VL_RULE.limited(12_544),
    "one size only": QWEN2_VL_RULE.limited(3136),
    "hardly two sizes": ImageRule(32, 65_536, 70_000),
}


@pytest.fixture
def decoded(monkeypatch):
    """Names of the formats that were decoded."""
    found = []
    load = PillowFile.ImageFile.load

    def counting(self):
        if self.tile:
            found.append(self.format)
        return load(self)

    monkeypatch.setattr(PillowFile.ImageFile, "load", counting)
    return found


def near(found, expected, tolerance):
    return all(
        abs(a - b) <= tolerance for one, other in zip(found, expected, strict=True) for a, b in zip(one, other, strict=True)
    )


@pytest.mark.parametrize("kind", KINDS)
def test_an_image_of_any_kind_is_upright_rgb_on_white_whatever_its_file_says(kind):
    picture = KINDS[kind]
    image = ImageFile(picture.data)
    pixels = image.pil()
    assert (pixels.mode, pixels.size, image.size, pixels.info) == ("RGB", (84, 56), (84, 56), {})
    assert near(quarters_of(pixels), picture.quarters, picture.tolerance), quarters_of(pixels)
    upright = image.upright()
    assert upright.pil().tobytes() == pixels.tobytes()
    assert upright.mime in ("image/png", "image/jpeg", "image/webp")
    assert image.data_uri() == upright.data_uri()


@pytest.mark.parametrize("kind", KINDS)
def test_what_is_shown_of_an_image_can_be_read_by_anybody_in_one_way_only(kind):
    shown = QWEN2_VL_RULE.apply(ImageFile(KINDS[kind].data))
    with Image.open(io.BytesIO(shown.data)) as read:
        assert (read.mode, read.size) == ("RGB", (84, 56))
        assert "transparency" not in read.info
        assert read.getexif().get(0x0112, 1) == 1
        assert read.convert("RGB").tobytes() == ImageFile(KINDS[kind].data).pil().tobytes()


@pytest.mark.parametrize("kind", ["jpeg turned 1", "png", "mpo"])
def test_a_file_that_needs_nothing_keeps_its_bytes_and_is_not_decoded(kind, decoded):
    image = ImageFile(KINDS[kind].data)
    assert QWEN2_VL_RULE.apply(image) is image
    assert image.upright() is image
    assert decoded == []


def test_every_other_kind_becomes_a_png_without_loss():
    kept = {kind for kind, picture in KINDS.items() if ImageFile(picture.data).upright().data == picture.data}
    assert kept == {"jpeg turned 1", "png", "mpo"}
    assert {ImageFile(KINDS[kind].data).upright().mime for kind in KINDS.keys() - kept} == {"image/png"}


def test_a_still_webp_without_alpha_is_kept():
    image = ImageFile(encoded(drawn(84, 56), "WEBP", lossless=True))
    assert (image.upright(), image.mime) == (image, "image/webp")


def test_an_image_is_scaled_from_its_own_pixels_once():
    photo = Image.effect_noise((613, 412), 80).convert("RGB")
    shown = QWEN2_VL_RULE.apply(ImageFile(turned(photo, 8, "PNG"))).pil()
    assert shown.size == (616, 420)
    assert shown.tobytes() == photo.resize((616, 420), Image.Resampling.BICUBIC).tobytes()


def test_all_who_show_an_image_at_a_time_have_one_copy_that_was_made_once(decoded):
    data = encoded(drawn(613, 412), "JPEG")
    with ThreadPoolExecutor(8) as pool:
        shown = list(pool.map(lambda _: QWEN2_VL_RULE.apply(ImageFile(bytes(bytearray(data)))), range(32)))
    assert decoded == ["JPEG"]
    assert len({id(image) for image in shown}) == 1
    other = QWEN2_VL_RULE.limited(100_000).apply(ImageFile(data))
    assert other.size != shown[0].size


@given(st.integers(0, 65_535), st.integers(0, 65_535))
def test_16_bits_keep_their_order_and_reach_from_black_to_white(first, second):
    image = Image.new("I;16", (2, 1), first)
    image.putpixel((1, 0), second)
    shown = [ImageFile(encoded(image, "PNG")).pil().getpixel((x, 0))[0] for x in (0, 1)]
    assert shown == [round(value * 255 / 65_535) for value in (first, second)]


@pytest.mark.parametrize(
    ("mode", "values", "shown"),
    [
        ("I", (0, 128), (0, 128)),
        ("I", (0, 70_000), (0, 255)),
        ("I", (-5, 5), (0, 255)),
        ("I", (-5, -5), (0, 0)),
        ("F", (0.0, 0.5), (0, 128)),
        ("F", (0.0, 200.4), (0, 200)),
        ("F", (0.0, 30_000.0), (0, 117)),
        ("F", (-1.0, 1.0), (0, 255)),
        ("F", (float("nan"), 1.0), (0, 255)),
        ("F", (float("inf"), 1e38), (0, 255)),
    ],
)
def test_deeper_images_are_scaled_by_what_their_values_are(mode, values, shown):
    image = Image.new(mode, (2, 1))
    for x, value in enumerate(values):
        image.putpixel((x, 0), value)
    pixels = ImageFile.from_pil(image).pil()
    assert tuple(pixels.getpixel((x, 0))[0] for x in (0, 1)) == shown


@pytest.mark.parametrize("mode", ["1", "L", "LA", "La", "P", "PA", "RGB", "RGBA", "RGBa", "RGBX", "CMYK", "YCbCr", "LAB", "HSV",
                                  "I", "F", "I;16", "I;16B", "I;16L"])  # fmt: skip
def test_pixels_of_every_mode_that_pillow_has_can_be_encoded(mode):
    image = ImageFile.from_pil(Image.new(mode, (5, 4)))
    assert (image.size, image.pil().mode, image.mime) == ((5, 4), "RGB", "image/png")


@pytest.mark.filterwarnings("ignore:Corrupt EXIF data")
def test_a_broken_exif_block_is_no_orientation():
    data = encoded(drawn(84, 56), "JPEG", quality=95, subsampling=0, exif=b"Exif\0\0II*\0\xff\xff\xff\xffbroken")
    assert ImageFile(data).size == (84, 56)
    assert near(quarters_of(ImageFile(data).pil()), QUARTERS, 3)


def test_a_png_is_asked_for_its_orientation_without_decoding_it(decoded):
    assert ImageFile(KINDS["png"].data).size == (84, 56)
    assert decoded == []
    assert ImageFile(KINDS["png turned 6 behind its pixels"].data).size == (84, 56)
    assert decoded == ["PNG"]


def hugging_face(rule, width, height):
    """What the processor of transformers makes of a size; None where it refuses."""
    from transformers.models.qwen2_vl.image_processing_qwen2_vl import smart_resize

    try:
        high, wide = smart_resize(height, width, rule.factor_px, rule.min_pixels, rule.max_pixels)
    except ValueError:
        return None
    return wide, high


@pytest.mark.parametrize("name", RULES)
def test_a_size_is_that_of_hugging_face_and_its_processor_leaves_it_alone(name):
    rule, rng = RULES[name], random.Random(1)
    sizes = [(1, 1), (27, 31), (97, 311), (120, 80), (512, 512), (613, 412), (1024, 768), (1920, 1080), (124, 2680),
             (3000, 10), (4000, 3000), (28, 112), (29, 5800), (28, 5600), (32, 6400), (14, 42), (70, 70), (42, 98)]  # fmt: skip
    sizes += [(round(2 ** rng.uniform(0, 13)), round(2 ** rng.uniform(0, 13))) for _ in range(200)]
    sizes += [(rng.randrange(32, 4500), rng.randrange(32, 4500)) for _ in range(350)]
    equal = 0
    for width, height in sizes:
        shown, once = rule.size(width, height), hugging_face(rule, width, height)
        assert hugging_face(rule, *shown) == shown == rule.size(*shown), (width, height)
        assert rule.num_tokens(width, height) == shown[0] * shown[1] // rule.factor_px**2
        if once is not None:
            limits = {"factor_px": rule.factor_px, "min_pixels": rule.min_pixels, "max_pixels": rule.max_pixels}
            assert smart_resize(width, height, **limits) == once, (width, height)
            # What Hugging Face itself would resize once more is settled; tiny sides are fitted before.
            if min(width, height) >= 32 and hugging_face(rule, *once) == once:
                assert shown == once, (width, height)
                equal += 1
    assert equal >= 300 or rule.max_pixels < 2 * rule.min_pixels


@given(st.integers(1, 9000), st.integers(1, 9000), st.sampled_from(sorted(RULES)))
def test_a_shown_size_is_within_the_limits_on_the_grid_and_as_it_is_when_shown_again(width, height, name):
    rule = RULES[name]
    wide, high = rule.size(width, height)
    assert wide % rule.factor_px == 0
    assert high % rule.factor_px == 0
    assert rule.min_pixels <= wide * high <= rule.max_pixels
    assert max(wide, high) <= 200 * min(wide, high)
    assert rule.size(wide, high) == (wide, high)
    assert rule.size(height, width) == (high, wide) or rule.max_pixels < 4 * rule.min_pixels


def test_the_rule_of_a_model_is_its_own_processors():
    from transformers.models.qwen2_vl.image_processing_qwen2_vl import Qwen2VLImageProcessor

    processor = Qwen2VLImageProcessor(min_pixels=3136, max_pixels=12_544)
    assert ImageRule.of_processor(processor) == RULES["the tiny model"]


def test_a_limit_that_no_image_can_keep_is_refused_with_its_name():
    with pytest.raises(ValueError, match="image_max_pixels is 1,000; models of this family are shown at least 3,136"):
        QWEN2_VL_RULE.limited(1000)
    with pytest.raises(ValueError, match="no image of whole 32x32 px patches"):
        ImageRule(32, 65_600, 66_000)
    assert QWEN2_VL_RULE.limited(None) == QWEN2_VL_RULE.limited(1 << 40) == QWEN2_VL_RULE


@pytest.mark.parametrize(
    ("size", "expected"),
    [
        ((100, 100), (100, 100)),
        ((1, 1), (32, 32)),
        ((10, 20), (32, 64)),
        ((2010, 10), (3216, 32)),
        ((3000, 10), (4800, 32)),
        ((32, 6400), (32, 6400)),
    ],
)
def test_extreme_shapes_follow_the_published_size_rule(size, expected):
    assert observation_size(*size) == expected


@given(st.integers(1, 5000), st.integers(1, 5000))
def test_no_fitted_image_has_a_side_under_32_px_or_an_aspect_over_200(width, height):
    shown = observation_size(width, height)
    assert min(shown) >= 32
    assert max(shown) / min(shown) <= 200


def header_of(width, height):
    """A PNG that claims a size and holds no pixels."""
    body = b"IHDR" + width.to_bytes(4, "big") + height.to_bytes(4, "big") + bytes([8, 2, 0, 0, 0])
    return b"\x89PNG\r\n\x1a\n" + (13).to_bytes(4, "big") + body + zlib.crc32(body).to_bytes(4, "big")


NOISE = Image.effect_noise((280, 224), 90).convert("RGB")
BROKEN = {
    "empty": b"",
    "text": b"not an image",
    "svg": b"<svg/>",
    "a header cut off": png()[:20],
    "zeros for a header": b"\x89PNG\r\n\x1a\n" + b"0" * 40,
    "no pixels": header_of(56, 56),
    "900 million pixels": header_of(30_000, 30_000),
    "png cut off": encoded(NOISE, "PNG")[:-3000],
    "png with a wrong bit": encoded(NOISE, "PNG")[:-3000] + b"\x55" + encoded(NOISE, "PNG")[-2999:],
    "jpeg cut off": encoded(NOISE, "JPEG")[:-3000],
    "progressive jpeg cut off": encoded(NOISE, "JPEG", progressive=True)[
        : len(encoded(NOISE, "JPEG", progressive=True)) // 2
    ],
    "webp cut off": encoded(NOISE, "WEBP", lossless=True)[:-3000],
    "gif cut off": encoded(NOISE.convert("P"), "GIF")[:2000],
    "tiff cut off": encoded(NOISE, "TIFF")[:-3000],
}


@pytest.mark.parametrize("kind", BROKEN)
def test_an_image_that_cannot_be_used_is_one_type_of_error_though_its_size_is_right(kind):
    image = ImageFile(BROKEN[kind])
    with pytest.raises(UnreadableImage):
        QWEN2_VL_RULE.apply(image)
    with pytest.raises(UnreadableImage):
        image.pil()
    with pytest.raises(UnreadableImage):
        image.data_uri()


def test_a_bomb_is_refused_by_its_size_before_it_is_decoded(decoded):
    data = encoded(Image.new("1", (14_000, 14_000)), "PNG")
    with pytest.raises(UnreadableImage, match="196000000 pixels|14000x14000"):
        QWEN2_VL_RULE.apply(ImageFile(data))
    assert decoded == []


@pytest.mark.parametrize("options", [{}, {"progressive": True}, {"subsampling": 0}])
def test_a_jpeg_that_is_kept_is_whole(options):
    data = encoded(NOISE, "JPEG", **options)
    rng = random.Random(0)
    for cut in [*range(len(data) - 40, len(data) + 1), *(rng.randrange(1, len(data)) for _ in range(40))]:
        image = ImageFile(data[:cut])
        try:
            with Image.open(io.BytesIO(data[:cut])) as read:
                read.load()
        except (OSError, SyntaxError):
            with pytest.raises(UnreadableImage):
                image.upright()
        else:
            assert image.upright() is image
    assert ImageFile(data + bytes(100)).upright().data == data + bytes(100)
    assert ImageFile(data + b"a trailer").upright().data == data + b"a trailer"


def test_a_png_whose_end_alone_is_missing_is_whole():
    data = encoded(NOISE, "PNG")[:-12]
    assert ImageFile(data).upright().data == data


def test_mime_and_data_uri_follow_the_content():
    assert ImageFile(encoded(drawn(4, 4), "JPEG")).mime == "image/jpeg"
    assert ImageFile(KINDS["mpo"].data).data_uri().startswith("data:image/jpeg;base64,/9j/")
    assert ImageFile(png()).data_uri().startswith("data:image/png;base64,iVBOR")
    assert ImageFile(KINDS["tiff"].data).data_uri().startswith("data:image/png;base64,iVBOR")


def test_equal_bytes_are_one_object_while_somebody_holds_it():
    first = ImageFile.shared(bytes(png()))
    assert ImageFile.shared(bytes(bytearray(png()))) is first
    assert ImageFile(png()) == first
