"""The suite's plan, contamination, and several model servers as one."""

import ast
import io
import json
import re

import pytest
from PIL import Image, ImageDraw

from agent.recipes import RecipeError, shared_value
from evaluation import suite
from evaluation.analysis.contamination import ComparedText, check, image_hash, train_entries
from evaluation.run import settings_for
from evaluation.smoke.lookalikes import lookalike_names, write_lookalike
from evaluation.smoke.suite import main as smoke_main
from tests.conftest import ROOT, png

# ---- suite ----


def options(tmp_path, *more) -> suite.SuiteOptions:
    return suite.parse(["--out", str(tmp_path / "out"), "--data", str(tmp_path / "data"), *more])


def test_images_are_shown_as_in_training_unless_a_limit_is_given(tmp_path, capsys):
    def limit(*more):
        return settings_for(options(tmp_path, "--model", "m", *more).asked, "vstar", tmp_path).image_max_pixels

    assert limit() == shared_value("image_max_pixels")
    assert limit("--image-max-pixels", "none") is None
    assert limit("--image-max-pixels", "50000") == 50_000
    with pytest.raises(RecipeError, match="^image_max_pixels: Input should be a valid integer"):
        limit("--image-max-pixels", "much")
    with pytest.raises(SystemExit):
        limit("--max-pixels", "50000")
    assert "give --image-max-pixels 50000" in capsys.readouterr().err


def test_a_dry_run_says_what_would_be_asked_and_what_is_missing(tmp_path, capsys):
    write_lookalike("vstar", tmp_path / "data")
    given = options(tmp_path, "--suite", "perception", "--dry-run", "--model", "m", "--usd-per-million", "1", "2")
    assert suite.run_suite(given) == 0
    text = capsys.readouterr().out
    assert "vstar                  there            191" in text
    assert "chartqa                missing        2,500" in text
    assert "charxiv_reasoning" in text
    assert "needed, none given" in text
    assert not (tmp_path / "out").exists()


def test_missing_files_and_a_missing_model_are_said_before_anything_starts(tmp_path):
    with pytest.raises(ValueError, match="no file in .* for vstar; get them with `deepeyes data fetch vstar"):
        suite.run_suite(options(tmp_path, "--benchmarks", "vstar"))
    write_lookalike("vstar", tmp_path / "data")
    with pytest.raises(ValueError, match="--model is missing"):
        suite.run_suite(options(tmp_path, "--benchmarks", "vstar"))
    with pytest.raises(LookupError, match="no benchmark 'none'"):
        suite.run_suite(options(tmp_path, "--benchmarks", "none"))


def test_suites_hold_what_the_paper_evaluates():
    assert len(suite.names_of("all")) == 22
    assert set(suite.names_of("search")) == {"fvqa", "infoseek", "mmsearch", "simplevqa", "realx"}


# ---- contamination ----


def scene(seed, size=(200, 150), quality=None):
    image = Image.new("RGB", (200, 150), (230, 230, 230))
    draw = ImageDraw.Draw(image)
    for n in range(6):
        x, y = (seed * 37 + n * 53) % 160, (seed * 71 + n * 29) % 110
        draw.rectangle((x, y, x + 30, y + 25), fill=((seed * 50 + n * 40) % 256, n * 40, 90))
    image = image.resize(size)
    buffer = io.BytesIO()
    image.save(buffer, "JPEG" if quality else "PNG", **({"quality": quality} if quality else {}))
    return buffer.getvalue()


def test_an_image_is_found_at_another_size_and_compression_and_others_are_not():
    items = [ComparedText(str(n), f"question number {n}?", (scene(n),)) for n in range(20)]
    train = [ComparedText(f"t{n}", "something else entirely here", (scene(n, (640, 480), 40),)) for n in (3, 7, 105)]
    found = check(items, train)
    assert {(finding.item_id, finding.train) for finding in found} == {("3", "t3"), ("7", "t7")}


def test_a_question_is_found_in_other_case_and_inside_a_longer_one():
    items = [
        ComparedText("1", "What is the colour of the small car on the left?", ()),
        ComparedText("2", "Is the man wearing a hat today?", ()),
    ]
    train = [ComparedText("t", "Look. WHAT is the colour of the small car on the left? Answer shortly.", ())]
    assert [(f.item_id, f.kind, f.closeness) for f in check(items, train)] == [("1", "question", "100%")]


def test_one_colour_and_what_is_no_image_are_like_nothing():
    assert image_hash(png(50, 50)) is None
    assert image_hash(b"no image") is None


def test_both_forms_of_training_data_are_read(tmp_path):
    (tmp_path / "a.png").write_bytes(scene(1))
    sft = [{"messages": [{"role": "user", "content": "<image>What is it?"}], "images": ["a.png"]}]
    (tmp_path / "sft.json").write_text(json.dumps(sft))
    parquet = write_lookalike("fvqa", tmp_path)
    entries = list(train_entries([tmp_path / "sft.json", parquet]))
    assert len(entries) == 9
    assert entries[0].question.strip() == "What is it?"
    assert all(entry.images for entry in entries)


# ---- the command line ends where options begin ----


def test_no_function_but_a_parser_takes_what_argparse_made():
    """Options are typed once they were read: a misspelt one is found by the type checker, and not in the middle of a run."""
    allowed = {"add_model_options", "add_scoring_options", "model_options"}
    folders = ("evaluation", "deepeyes/chat", "deepeyes/quickstart")
    for path in [path for folder in folders for path in (ROOT / folder).rglob("*.py")]:
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef) and node.name not in allowed:
                taken = [ast.unparse(one.annotation) for one in node.args.args if one.annotation is not None]
                assert "argparse.Namespace" not in taken, f"{path}: {node.name}"
                assert node.returns is None or ast.unparse(node.returns) != "argparse.Namespace", f"{path}: {node.name}"


def test_bags_without_types_are_few_and_hold_what_others_define():
    """Rows of published files, replies of a judge, and records of before their rows had types."""
    found = [
        f"{path.relative_to(ROOT)}:{number}"
        for path in sorted((ROOT / "evaluation").rglob("*.py"))
        for number, line in enumerate(path.read_text().splitlines(), start=1)
        if re.search(r"\b(?:dict|Mapping)\[str, Any\]", line) and "arguments: Mapping[str, Any]" not in line
    ]
    assert len(found) <= 10, found


@pytest.mark.parametrize("given", [(), ("--benchmarks", "vstar, chartqa")])
def test_the_smoke_suite_asks_the_benchmarks_that_are_named(tmp_path, capsys, given):
    with pytest.raises(SystemExit) as ended:
        smoke_main(["--suite", "smoke", "--dry-run", "--out", str(tmp_path), *given])
    assert ended.value.code == 0
    asked = [line.split()[0] for line in capsys.readouterr().out.splitlines() if " there " in line]
    assert asked == (["vstar", "chartqa"] if given else lookalike_names())
