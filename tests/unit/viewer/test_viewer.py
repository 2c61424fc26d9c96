"""The index and the API behind `deepeyes view`; the page itself is looked at in tests/services/test_viewer_page.py."""

import html
import json
import re
import shutil
from pathlib import Path

import pytest
from fastapi.testclient import TestClient
from hypothesis import given
from hypothesis import strategies as st

from agent.episode import Episode, StopReason, Turn, run_episode
from agent.image_library import open_library
from agent.images import ImageFile
from agent.messages import Message
from agent.policy import Reply
from agent.protocol import parse_action
from agent.record_images import RecordImages
from agent.records import Rollout, RolloutFacts
from agent.testing import EchoTool, ScriptedPolicy
from agent.trajectory import TrajectoryWriter, forget_after
from tests.conftest import ROOT, png
from viewer.app import make_app
from viewer.entrance import open_entrance
from viewer.episode import describe
from viewer.index import EpisodeIndex, find_records
from viewer.pieces import pieces
from viewer.static_page import episode_card, write_episodes_page

CALL = '<think>t</think><tool_call>{"name": "echo", "arguments": {"a": "<b>"}}</tool_call>'


async def write(directory: Path, count: int, *, first: int = 0, answer: str = "red", shared: bool = False) -> None:
    writer = TrajectoryWriter(directory, shared=shared)
    for number in range(first, first + count):
        replies = [
            Reply(text=CALL, finish="stop", token_ids=(5, 6), logprobs=(-0.5, -1.0), num_tokens=2, context_ids=(9, 7, 7, 7))
        ]
        policy = ScriptedPolicy(*replies[number % 2 :], f"<answer>{answer}</answer>")
        opening = (Message("system", "s"), Message("user", "<image>\nq?", (ImageFile(png()),)))
        episode = await run_episode(opening, policy=policy, tools={"echo": EchoTool()})
        writer.write(
            episode,
            RolloutFacts(
                step=number // 10,
                category=("small", "large")[number % 2],
                item_id=f"i{number:03}",
                reward=number / 100,
                gold="red_1",
            ),
        )


@pytest.fixture
async def run(tmp_path):
    await write(tmp_path / "run", 40)
    return tmp_path / "run"


def test_the_list_is_filtered_sorted_and_paged(run):
    index = EpisodeIndex(run)

    def count(**filters):
        return index.page(filters).total

    assert count() == 40
    assert count(step="1") == 10
    assert count(step="1", category="small") == 5
    assert (count(tool="echo"), count(tool="none")) == (20, 20)
    assert count(stop_reason="failed") == 0
    assert count(min_reward="0.1", max_reward="0.19") == 10
    assert (count(text="i00"), count(text="%"), count(text="d_1")) == (10, 0, 40)
    page = index.page({}, sort="reward", descending=True, offset=5, limit=2)
    assert (page.total, [row.item_id for row in page.rows]) == (40, ["i034", "i033"])
    assert index.facets()["tool"] == [("echo", 20)]
    with pytest.raises(ValueError, match="no column 'x; DROP'"):
        index.page({}, sort="x; DROP")


async def test_what_is_appended_appears_and_half_a_line_waits(run):
    index = EpisodeIndex(run)
    await write(run, 5, first=40)
    with (run / "episodes.jsonl").open("ab") as file:
        file.write(b'{"version": 2, "epi')
    assert index.refresh() == 45
    index.close()
    assert EpisodeIndex(run).page({"step": "4"}).total == 5


async def test_an_index_of_other_records_is_made_anew(run):
    EpisodeIndex(run).close()
    (run / "episodes.jsonl").unlink()
    await write(run, 3, first=7)
    assert [row.item_id for row in EpisodeIndex(run).page({}).rows] == ["i007", "i008", "i009"]


def test_a_broken_index_or_a_read_only_folder_is_no_obstacle(run, monkeypatch, tmp_path):
    (run / "episodes.index.sqlite").write_bytes(b"not a database, " * 100)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    assert EpisodeIndex(run).page({}).total == 40


def test_grades_of_an_evaluation_are_shown_with_its_episodes(run):
    rows = [{"item_id": "i003", "correct": True, "score": 1.0}, {"item_id": "i004", "correct": None, "score": None}]
    (run / "scores.jsonl").write_text("".join(json.dumps(row | {"sample": 0}) + "\n" for row in rows))
    found = {row.item_id: row.score for row in EpisodeIndex(run).page({}).rows}
    assert (found["i003"], found["i004"], found["i005"]) == (1.0, None, None)


def test_a_run_is_found_below_a_folder_unless_there_are_several(run, tmp_path):
    assert find_records(tmp_path) == run
    (tmp_path / "other").mkdir()
    (tmp_path / "other/episodes.jsonl").write_text("")
    with pytest.raises(ValueError, match="several runs"):
        find_records(tmp_path)
    with pytest.raises(FileNotFoundError):
        find_records(tmp_path / "none")


def client(*directories, host="localhost"):
    return TestClient(make_app(directories), base_url=f"http://{host}")


def shown_episode(asked, row, run="run"):
    """What the page gets of a row of the list."""
    episode = asked.get(f"/api/runs/{run}/episodes?limit=1000").json()["rows"][row]["episode_id"]
    return asked.get(f"/api/runs/{run}/episode", params={"episode": episode}).json()


def test_an_episode_is_shown_with_its_pieces_and_its_tokens(run):
    with client(run) as asked:
        episode = shown_episode(asked, 0)
    assert episode["opening"][1]["parts"][1] == {"text": "\nq?"}
    assert episode["turns"][0]["action"] == {"tool": "echo", "arguments": {"a": "<b>"}}
    assert episode["tokens"] == [["9 ", 0, None, 1], ["7 ", 0, None, 3], ["5 ", 1, -0.5, 1], ["6 ", 1, -1.0, 1]]
    assert episode["rewards"] == {"reward": 0.0, "gold": "red_1"}


def test_tokens_are_shown_as_text_where_the_tokenizer_is_known(run, toy):
    with TestClient(make_app([run], tokenizer=toy / "models/base"), base_url="http://localhost") as asked:
        given = shown_episode(asked, 0)["tokens"]
    (run / "recipe.resolved.yaml").write_text(f"run: {{model: {toy / 'models/base'}}}")
    with client(run) as asked:
        assert shown_episode(asked, 0)["tokens"] == given
    assert [entry[1:] for entry in given] == [[0, None, 1], [0, None, 3], [1, -0.5, 1], [1, -1.0, 1]]
    assert not any(entry[0].strip().isdigit() and len(entry[0].strip()) > 1 for entry in given)
    with pytest.raises(FileNotFoundError, match="no tokenizer at"):
        make_app([run], tokenizer=run)


def test_code_goes_to_the_page_in_words_with_their_class_and_never_as_markup():
    code = "print('<script>')"
    (piece,) = [piece for piece in shown_pieces(f"<think>x</think><code>\n```python\n{code}\n```\n</code>") if piece["kind"] == "code"]
    assert "".join(text for _, text in piece["spans"]) == piece["text"] == code
    assert ("nb", "print") in piece["spans"]


def shown_pieces(text):
    turn = Turn(reply=Reply(text=text, finish="stop"), action=parse_action(text))
    return describe(Rollout(Episode(opening=(), turns=[turn], end=StopReason.ANSWERED)), None)["turns"][0]["pieces"]


FIRST, LAST = "<code>\n```python\nfirst()\n```\n</code>", "<code>\n```python\nlast()\n```\n</code>"


@pytest.mark.parametrize(
    "text",
    [
        f"<think>I will write <code> now. IMPORTANT: mind the scale.</think>\n{LAST}",
        f"<think>a</think>{FIRST} and then {LAST}",
        f"<think>a</think>{LAST}\nwhat stands behind it",
        "<think>a</think> so <answer>red</answer> or so",
        "no tags at all",
        "<think>a</think><think>b",
    ],
)
def test_all_that_the_model_wrote_is_shown(text):
    turn = Turn(reply=Reply(text=text, finish="stop"), action=parse_action(text))
    found = list(pieces(turn))
    assert "".join(piece.text for piece in found) == text
    assert [piece.text for piece in found if piece.kind == "code"] == (["last()"] if LAST in text else [])
    episode = Episode(opening=(), turns=[turn], end=StopReason.ANSWERED)
    shown = html.unescape(re.sub(r"</?(?:div|pre|strong|h3|article|span)[^>]*>", "", episode_card("title", episode)))
    assert "".join(text.split()) in "".join(shown.replace("Answer: ", "").split())


@given(st.text(alphabet="ab<>/`\n think code answer"))
def test_the_pieces_of_any_reply_are_all_of_it(text):
    turn = Turn(reply=Reply(text=text, finish="stop", primer="<think>"), action=parse_action("<think>" + text))
    assert "".join(piece.text for piece in pieces(turn)) == "<think>" + text


@pytest.mark.parametrize(
    ("text", "kind", "taken"),
    [
        ("<answer>a</answer> or a", "answer", "a"),
        ("<think>x</think><answer> a\n</answer>\n\na ", "answer", "a"),
        (f"{LAST} last()", "code", "last()"),
        (CALL + " echo", "call", '{"name": "echo", "arguments": {"a": "<b>"}}'),
        ('<tool_call>{"name": "python", "arguments": {"code": "1\\n2"}}</tool_call>', "call", None),
    ],
)
def test_the_mark_stands_where_the_parser_has_read_and_not_at_the_same_words_behind(text, kind, taken):
    turn = Turn(reply=Reply(text=text, finish="stop"), action=parse_action(text))
    found = list(pieces(turn))
    (marked,) = [place for place, piece in enumerate(found) if piece.kind in ("code", "call", "answer")]
    assert found[marked].kind == kind
    assert taken is None or found[marked].text == taken
    assert "".join(piece.text for piece in found) == text
    assert found[marked + 1].text.lstrip().startswith(("</answer>", "```", "</tool_call>"))


def test_images_come_lazily_by_hash_and_nothing_else_is_served(run):
    sha256 = ImageFile(png()).sha256
    with client(run) as asked:
        answer = asked.get(f"/images/run/{sha256}")
        assert (answer.content, answer.headers["Content-Type"]) == (png(), "image/png")
        assert "immutable" in answer.headers["Cache-Control"]
        for path in (
            f"/images/run/{'0' * 64}",
            "/images/run/..%2Fepisodes.jsonl",
            f"/images/other/{sha256}",
            "/page.html",
            "/page.py",
            "/api/runs/run/episode?episode=99",
        ):
            assert asked.get(path).status_code in (404, 422), path
        assert asked.get("/api/runs/run/episodes?sort=nothing").status_code == 400


async def test_images_of_a_store_are_shown_and_a_store_that_is_not_there_is_named(tmp_path):
    store, image = open_library(tmp_path / "store"), ImageFile(png())
    images = RecordImages(tmp_path / "run", fanned=False, store=store.root)
    opening = (Message("user", "<image>q", (image,)),)
    episode = await run_episode(opening, policy=ScriptedPolicy("<answer>a</answer>"), tools={})
    TrajectoryWriter(tmp_path / "run", images=images).write(episode)
    with TestClient(make_app([tmp_path / "run"]), base_url="http://localhost") as client:
        assert client.get(f"/images/run/{image.sha256}").content == image.data
        store.root.rename(tmp_path / "away")
        refused = client.get(f"/images/run/{image.sha256}")
    assert refused.status_code == 404
    assert f"the store {store.root}, which is not there" in refused.json()["detail"]


def test_a_page_of_another_site_cannot_read_episodes(run):
    with client(run, host="evil.example") as asked:
        assert asked.get("/api/runs").status_code == 421
    with client(run) as asked:
        assert asked.get("/api/runs", headers={"Origin": "http://evil.example"}).status_code == 403
        assert asked.get("/api/runs", headers={"Sec-Fetch-Site": "cross-site"}).status_code == 403
    with client(run) as asked:
        assert "default-src 'self'" in asked.get("/").headers["Content-Security-Policy"]


def test_beyond_loopback_the_links_token_opens_the_viewer_and_a_cookie_keeps_it_open(run):
    with open_entrance("0.0.0.0", 0).listener as listener:
        assert listener.getsockname()[0] == "0.0.0.0"
    entrance = open_entrance("0.0.0.0", 0)
    entrance.listener.close()
    app = make_app([run], token=entrance.token, hosts=entrance.hosts, cookie="view")
    with TestClient(app, base_url="http://gpu-node-7:8765") as asked:
        assert asked.get("/api/runs").status_code == 401
        assert asked.get("/?token=wrong").status_code == 401
        page = asked.get("/?" + entrance.link.partition("?")[2])
        assert (page.status_code, str(page.url)) == (200, "http://gpu-node-7:8765/")
        assert asked.get("/api/runs").status_code == 200
    with TestClient(app, base_url="http://10.0.0.3") as asked:
        assert asked.get("/api/runs", headers={"Authorization": f"Bearer {entrance.token}"}).status_code == 200


def test_on_loopback_there_is_no_token_and_a_port_in_use_is_said_before_a_link():
    entrance = open_entrance("127.0.0.1", 0, ["viewer.lan"])
    with entrance.listener:
        assert (entrance.token, entrance.hosts, entrance.link) == ("", ("viewer.lan",), f"http://127.0.0.1:{entrance.port}/")
        with pytest.raises(OSError, match="stop what uses it, or give another --port"):
            open_entrance("127.0.0.1", entrance.port)


async def test_two_runs_are_put_side_by_side_by_item(run, tmp_path):
    await write(tmp_path / "two", 5, first=38, answer="blue")
    with client(run, tmp_path / "two") as asked:
        every, differing = (
            asked.get("/api/compare?limit=1000").json(),
            asked.get("/api/compare?differ=true&limit=1000").json(),
        )
    assert every["total"] == 43
    assert differing["total"] == 41, "all but the two items of both runs with equal rewards"
    pair = next(pair for pair in every["rows"] if pair["item_id"] == "i039")
    assert (pair["left"]["answer"], pair["right"]["answer"]) == ("red", "blue")
    with client(run) as asked:
        assert asked.get("/api/compare").status_code == 404
    with pytest.raises(ValueError, match="3 runs"):
        make_app([run] * 3)


async def test_the_files_of_several_processes_are_one_list_and_what_a_resume_forgot_is_gone(tmp_path):
    run = tmp_path / "rollouts"
    await write(run, 30)
    for first in (30, 40):
        await write(run, 10, first=first, shared=True)
    index = EpisodeIndex(run)
    assert index.page({}).total == 50
    assert find_records(tmp_path) == run
    number = index.page({"text": "i047"}).rows[0].id
    assert index.rollout(number).facts.item_id == "i047"
    await write(run, 5, first=50, shared=True)
    assert index.refresh() == 55
    assert forget_after(run, 3) == 15
    assert index.refresh() == 40
    assert {row.step for row in index.page({}).rows} == {0, 1, 2, 3}
    with client(run) as asked:
        assert asked.get("/api/runs").json()[0]["episodes"] == 40


# ---- recordings of before, and damaged ones ----


@pytest.mark.parametrize("version", ["version_2", "version_3"])
@pytest.mark.parametrize(("folder", "episodes"), [("rollouts", 10), ("chat", 1), ("evaluation", 10)])
def test_recordings_of_every_version_open_in_list_and_page(tmp_path, version, folder, episodes):
    shutil.copytree(ROOT / "tests/recorded" / version / folder, tmp_path / folder)
    with client(tmp_path / folder) as asked:
        listed = asked.get(f"/api/runs/{folder}/episodes").json()
        assert listed["total"] == episodes
        for row in listed["rows"]:
            shown = asked.get(f"/api/runs/{folder}/episode", params={"episode": row["episode_id"]}).json()
            assert shown["stop_reason"] == row["stop_reason"]
            for part in (part for message in shown["opening"] for part in message["parts"] if "image" in part):
                assert asked.get(f"/images/{folder}/{part['image']}").status_code == 200
    assert write_episodes_page(tmp_path / folder, tmp_path / "page.html", limit=99) == episodes


def test_facts_of_version_2_stand_in_todays_columns(tmp_path):
    shutil.copytree(ROOT / "tests/recorded/version_2/rollouts", tmp_path / "run")
    index = EpisodeIndex(tmp_path / "run")
    page = index.page({"category": "look", "step": "1"})
    assert [(row.item_id, row.sample, row.score, row.reward) for row in page.rows] == [
        ("perception-g1", 0, 0.0, 0.2), ("perception-g1", 1, 1.0, 1.0),
    ]  # fmt: skip
    assert (page.items, page.accuracy) == (1, 0.5)
    assert dict(index.facets()["category"]) == {"look": 4, "perception": 1, "search": 4, "vstar": 1}


async def test_a_damaged_line_is_left_out_and_what_follows_is_shown(run):
    path = run / "episodes.jsonl"
    lines = path.read_bytes().splitlines(keepends=True)
    path.write_bytes(b"".join([*lines[:3], lines[3][:100] + b"\n", *lines[4:]]))
    index = EpisodeIndex(run)
    assert index.page({}).total == 39
    (row,) = index.page({"text": "i004"}).rows
    assert index.rollout(row.id).facts.item_id == "i004"
    await write(run, 2, first=40)
    assert index.refresh() == 41


def test_scores_that_cannot_be_read_are_left_out_and_newer_ones_refused(run):
    rows = ['{"item_id": "i003", "correct": true, "score": 1.0}', "{", '{"item_id": 4}']
    (run / "scores.jsonl").write_text("\n".join(rows) + "\n")
    assert EpisodeIndex(run).page({}).items == 1
    (run / "scores.jsonl").write_text('{"version": 99, "item_id": "i003", "correct": true, "score": 1.0}\n')
    with pytest.raises(ValueError, match=r"scores\.jsonl has version 99"):
        EpisodeIndex(run)
