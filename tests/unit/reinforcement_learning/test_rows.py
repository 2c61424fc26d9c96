import base64
import io
import json
import math
import pickle
from pathlib import Path

import datasets
import pyarrow
import pyarrow.parquet
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from PIL import Image

from agent.images import ImageFile
from agent.messages import messages_from_rows
from agent.recipes import RecipeError
from reinforcement_learning.dropped import read_dropped, write_dropped
from reinforcement_learning.row_errors import RowError
from reinforcement_learning.row_files import RowStore, file_checksum, read_groups
from reinforcement_learning.rows import RowOptions, accepted_answers, read_row
from tests.conftest import png

PNG = png()


@pytest.fixture(autouse=True)
def own_cache(tmp_path, monkeypatch):
    monkeypatch.setenv("DEEPEYES_CACHE", str(tmp_path / "cache"))


def row(**changes):
    return {
        "data_source": "perception",
        "prompt": [{"role": "user", "content": "<image>What colour?"}],
        "images": [{"bytes": PNG, "path": None}],
        "reward_model": {"ground_truth": "red", "style": "rule"},
        "extra_info": {"index": "7", "question": "What colour?"},
        **changes,
    }


def read(tmp_path="/data", roots=(), **changes):
    return read_row(
        row(**changes), file=f"{tmp_path}/a.parquet", row=3, options=RowOptions(image_roots=tuple(map(str, roots)))
    )


def stored(tmp_path, rows, name="a.parquet", **write):
    path = tmp_path / name
    pyarrow.parquet.write_table(pyarrow.Table.from_pylist(rows), path, **write)
    return RowStore(path, RowOptions())


def pil(data=PNG):
    return Image.open(io.BytesIO(data))


@pytest.mark.parametrize(
    "image",
    [
        {"bytes": PNG, "path": None},
        {"bytes": PNG, "path": "gone.png"},
        {"bytes": None, "path": "img/a.png"},
        {"bytes": b"", "path": "img/a.png"},
        {"path": "img/a.png"},
        "img/a.png",
        "rooted.png",
        PNG,
        bytearray(PNG),
        f"data:image/png;base64,{base64.b64encode(PNG).decode()}",
        pil(),
    ],
    ids=lambda value: type(value).__name__,
)
def test_an_image_is_read_in_every_form(tmp_path, image):
    (tmp_path / "img").mkdir()
    (tmp_path / "img/a.png").write_bytes(PNG)
    (tmp_path / "root").mkdir()
    (tmp_path / "root/rooted.png").write_bytes(PNG)
    for images in ([image], image):
        (data,) = read(tmp_path, [tmp_path / "root"], images=images).images
        assert ImageFile(data).pil().getpixel((0, 0)) == (200, 30, 30)
    absolute = read(tmp_path, images=[str(tmp_path / "img/a.png")])
    assert absolute.images == (PNG,)


@pytest.mark.parametrize(
    ("images", "kind", "said"),
    [
        ([None], "image is null", "null"),
        ([{"bytes": None, "path": None}], "image is null", "image 1 of 1"),
        ([{"bytes": b"", "path": ""}], "image is null", ""),
        ([b""], "image is empty", ""),
        ([{"bytes": None, "path": "img/gone.jpg"}], "image is missing", "/data/img/gone.jpg, /elsewhere/img/gone.jpg"),
        (["/nowhere/a.png"], "image is missing", "run.image_roots"),
        (["/data\0x"], "image cannot be read", ""),
        (["http://host/a.png"], "image is an address", "download it"),
        (["data:image/png;base64,@@"], "image is no base64", ""),
        ([7], "image has a wrong type", "int"),
        (None, "placeholders differ from images", "1 <image> for 0 image(s)"),
        ([], "placeholders differ from images", ""),
        ([PNG, PNG], "placeholders differ from images", "1 <image> for 2 image(s)"),
    ],
)
def test_an_image_that_is_not_there_is_named_by_file_and_row(images, kind, said):
    with pytest.raises(RowError) as caught:
        read(roots=["/elsewhere"], images=images)
    assert caught.value.kind == kind
    assert said in str(caught.value)
    assert str(caught.value).startswith(f"/data/a.parquet, row 3: {kind}: ")


@pytest.mark.parametrize(
    ("gold", "answers"),
    [
        ("red", ("red",)),
        (" red\n", ("red",)),
        (7, ("7",)),
        (7.0, ("7",)),
        (0.1, ("0.1",)),
        (True, ("True",)),
        (["red", "crimson"], ("red", "crimson")),
        (["red", "red"], ("red",)),
        ([3, "three"], ("3", "three")),
        ({"target": ["red", "crimson"]}, ("red", "crimson")),
        ("None", ("None",)),
    ],
)
def test_a_gold_answer_is_a_text_a_number_or_several(gold, answers):
    assert read(reward_model={"ground_truth": gold}).gold == answers
    assert read(reward_model=json.dumps({"ground_truth": gold})).gold == answers


@pytest.mark.parametrize(
    ("reward_model", "kind"),
    [
        ({"ground_truth": None}, "gold is null"),
        ({"ground_truth": math.nan}, "gold is null"),
        ({"ground_truth": ["red", None]}, "gold is null"),
        ({"ground_truth": ""}, "gold is empty"),
        ({"ground_truth": " \n"}, "gold is empty"),
        ({"ground_truth": []}, "gold is empty"),
        ({"ground_truth": ["red", ""]}, "gold is empty"),
        ({"ground_truth": {"answer": "red"}}, "gold has a wrong type"),
        ({"ground_truth": b"red"}, "gold has a wrong type"),
        ({"ground_truth": [["red"]]}, "gold has a wrong type"),
        ({"ground_truth": math.inf}, "gold is no answer"),
        ({"style": "rule"}, "no gold answer"),
        (None, "no gold answer"),
        ("{", "reward_model is no JSON"),
        (7, "reward_model has a wrong type"),
    ],
)
def test_a_gold_answer_that_is_none_is_refused_by_name(reward_model, kind):
    with pytest.raises(RowError, match=r"a\.parquet, row 3: ") as caught:
        read(reward_model=reward_model)
    assert caught.value.kind == kind


@pytest.mark.parametrize(
    ("prompt", "contents"),
    [
        ([{"role": "user", "content": "<image>q"}], ["<image>q"]),
        ("<image>q", ["<image>q"]),
        ({"role": "user", "content": "<image>q"}, ["<image>q"]),
        (json.dumps([{"role": "user", "content": "<image>q"}]), ["<image>q"]),
        ([{"role": "user", "content": [{"type": "image"}, {"type": "text", "text": "q"}]}], ["<image>q"]),
        # As pyarrow hands over parts of one struct: every key, the unused ones null.
        (
            [
                {
                    "role": "user",
                    "content": [
                        {"type": "image", "text": None, "image": None},
                        {"type": "text", "text": "q", "image": None},
                    ],
                }
            ],
            ["<image>q"],
        ),
        ([{"role": "user", "content": [{"type": "image_url", "image_url": None}, "q"]}], ["<image>q"]),
        (
            [
                {"role": "system", "content": "s"},
                {"role": "user", "content": [{"type": "text", "text": "what is <image>?"}, {"type": "image"}]},
            ],
            ["s", "what is [image]?<image>"],
        ),
    ],
)
def test_a_prompt_is_messages_or_a_text_and_content_a_text_or_parts(prompt, contents):
    content = read(prompt=prompt)
    assert [message["content"] for message in content.messages] == contents
    assert len(messages_from_rows(content.messages, [ImageFile(data) for data in content.images])) == len(contents)


def test_a_part_may_bring_its_own_image_beside_those_of_the_row():
    other = png(9, 9)
    parts = [{"type": "image", "image": {"bytes": other, "path": None}}, {"type": "image"}, {"type": "text", "text": "q"}]
    assert read(prompt=[{"role": "user", "content": parts}]).images == (other, PNG)
    url = {"url": f"data:image/png;base64,{base64.b64encode(other).decode()}"}
    assert read(prompt=[{"role": "user", "content": [{"type": "image_url", "image_url": url}]}], images=None).images == (
        other,
    )


@pytest.mark.parametrize(
    ("prompt", "kind"),
    [
        (None, "no prompt"),
        ([], "no prompt"),
        ("", "no prompt"),
        (7, "no prompt"),
        (["q"], "message has a wrong type"),
        ([{"role": "human", "content": "q"}], "unknown role"),
        ([{"role": "user", "content": None}], "message has no text"),
        ([{"role": "user", "content": [{"type": "video"}]}], "unknown part"),
        ([{"role": "user", "content": "<image>q"}, {"role": "assistant", "content": "a"}], "prompt has no question"),
        ([{"role": "user", "content": "<image>what does <image> mean"}], "placeholders differ from images"),
    ],
)
def test_a_prompt_that_is_none_is_refused_by_name(prompt, kind):
    with pytest.raises(RowError, match=r"a\.parquet, row 3: ") as caught:
        read(prompt=prompt)
    assert caught.value.kind == kind


@pytest.mark.parametrize(
    ("extra", "item_id", "question"),
    [
        ({"index": "fvqa_1", "question": "q?"}, "fvqa_1", "q?"),
        ({"index": 7}, "7", "What colour?"),
        ({"index": 7.0, "question": None}, "7", "What colour?"),
        (json.dumps({"index": 7, "question": "q?"}), "7", "q?"),
        ([("index", "7"), ("question", "q?")], "7", "q?"),
        (None, "a:3", "What colour?"),
        ("", "a:3", "What colour?"),
    ],
)
def test_extra_info_is_a_struct_a_map_or_json(extra, item_id, question):
    content = read(extra_info=extra)
    assert (content.item_id, content.question) == (item_id, question)


json_values = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**60), 2**60) | st.floats() | st.text(max_size=20) | st.binary(max_size=20),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.sampled_from(["role", "content", "type", "text", "bytes", "path", "ground_truth", "index", "x"]),
            inner,
            max_size=4,
        )
    ),
    max_leaves=8,
)


@given(
    values=st.dictionaries(st.sampled_from(["data_source", "prompt", "images", "reward_model", "extra_info"]), json_values)
)
@example(values={"extra_info": [[["no name"], 1]]})
@settings(max_examples=400)
def test_whatever_stands_in_a_row_it_is_read_or_refused_with_file_and_row(values):
    content = None
    try:
        content = read(**values)
    except RowError as error:
        message = str(error)
    if content is None:
        assert message.startswith("/data/a.parquet, row 3: ")
        return
    assert content.gold
    assert all(answer.strip() for answer in content.gold)
    assert sum(message["content"].count("<image>") for message in content.messages) == len(content.images)


@given(answers=st.lists(st.text(min_size=1).filter(lambda text: text.strip()), min_size=1, max_size=4))
def test_each_answer_of_a_list_is_accepted(answers):
    assert set(accepted_answers(answers)) == {text.encode("utf-8", "replace").decode().strip() for text in answers}


def test_files_that_datasets_wrote_with_image_columns_are_read(tmp_path):
    features = datasets.Features(
        {
            "data_source": datasets.Value("string"),
            "prompt": [{"role": datasets.Value("string"), "content": datasets.Value("string")}],
            "images": [datasets.Image()],
            "reward_model": {"ground_truth": datasets.Value("string")},
            "extra_info": {"index": datasets.Value("int64")},
        }
    )
    values = row(reward_model={"ground_truth": "red"}, extra_info={"index": 1})
    data = datasets.Dataset.from_list([values, values], features=features)
    data.to_parquet(tmp_path / "hf.parquet")
    assert RowStore(tmp_path / "hf.parquet", RowOptions())[1].images == (PNG,)
    # The same rows as `datasets` hands them over: decoded.
    assert read_row(data[0], file="hf", row=0).images[0].startswith(b"\x89PNG")


def test_rows_of_a_store_are_those_of_the_file_in_its_order(tmp_path):
    rows = [row(extra_info={"index": number, "question": "q"}) for number in range(50)]
    store = stored(tmp_path, rows, row_group_size=7)
    assert [store[number].item_id for number in range(50)] == [str(number) for number in range(50)]
    assert [number for number, _ in read_groups(tmp_path / "a.parquet", [2, 7], ["extra_info"])] == [*range(14, 21), 49]
    assert len(list((tmp_path / "cache/store/rows").iterdir())) == 1


def test_a_set_that_was_not_prepared_is_at_first_use_and_it_is_said_once(tmp_path, caplog):
    rows = [row(extra_info={"index": number, "question": "q"}) for number in range(50)]
    store = stored(tmp_path, rows)
    (said,) = [one.getMessage() for one in caplog.records if "was not prepared" in one.getMessage()]
    assert "50 rows" in said
    assert str(tmp_path / "cache/store") in said
    assert "deepeyes data prepare rl" in said
    assert [path.read_bytes() for path in store.library.root.glob("images/*/*")] == [PNG]
    assert store.raw(7)["images"] == [ImageFile(PNG).sha256]
    assert store[7].images == (PNG,)
    assert sum(path.stat().st_size for path in (store.library.root / "rows").iterdir()) < 50 * 400
    caplog.clear()
    again = pickle.loads(pickle.dumps(RowStore(tmp_path / "a.parquet", RowOptions())))
    assert (again[7].images, caplog.records) == ((PNG,), [])


def test_an_image_that_is_none_is_the_same_fault_in_a_set_that_was_prepared_at_first_use(tmp_path):
    store = stored(tmp_path, [row(), row(images=[{"bytes": b"", "path": None}]), row(images=[{"bytes": None, "path": "x.png"}])])
    for number, kind in ((1, "image is null"), (2, "image is missing")):
        with pytest.raises(RowError, match=kind):
            _ = store[number]


def test_a_file_that_changed_is_read_again(tmp_path):
    assert stored(tmp_path, [row()])[0].gold == ("red",)
    assert stored(tmp_path, [row(reward_model={"ground_truth": "blue"})])[0].gold == ("blue",)


def test_a_checksum_is_that_of_the_content(tmp_path):
    path = tmp_path / "a"
    path.write_bytes(b"x")
    first = file_checksum(path)
    assert file_checksum(path) == first
    path.write_bytes(b"y2")
    assert file_checksum(path) != first


def test_a_file_that_is_no_parquet_is_named(tmp_path):
    (tmp_path / "a.parquet").write_bytes(b"PAR1 oops")
    with pytest.raises(RecipeError, match=r"a\.parquet is no readable parquet file"):
        RowStore(tmp_path / "a.parquet", RowOptions())


def test_without_room_for_the_copy_the_setting_is_named(tmp_path, monkeypatch):
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("DEEPEYES_CACHE", str(tmp_path / "file"))
    with pytest.raises((RecipeError, OSError), match="DEEPEYES_CACHE|Not a directory"):
        stored(tmp_path, [row()])


def test_dropped_rows_are_read_back_and_a_stale_file_is_removed(tmp_path):
    path = tmp_path / "run/dropped.jsonl"
    write_dropped(path, [RowError("gold is null", "d", file="/a", row=3), RowError("gold is null", "d", file="/b", row=0)])
    assert read_dropped(path) == {("/a", 3), ("/b", 0)}
    write_dropped(path, [])
    assert not path.exists()
    assert read_dropped(path) == set()
    Path(path).write_text("oops\n")
    with pytest.raises(RecipeError, match="line 1"):
        read_dropped(path)
