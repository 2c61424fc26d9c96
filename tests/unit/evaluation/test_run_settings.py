"""Settings of a run: all are recorded, shown and compared one by one; a run of other settings is not gone on with."""

import json

import pytest

from agent.settings import OLD_NAMES, AgentSettings
from evaluation.analysis.compare import compare_runs
from evaluation.benchmarks import load_benchmark
from evaluation.reports.leaderboard import conflicts, read_entry
from evaluation.reports.run_page import carried, write_run_report
from evaluation.run import main as run_main
from evaluation.run import parse, settings_for
from evaluation.runs.files import RunMismatch
from evaluation.runs.folder import open_run
from evaluation.runs.provenance import read_provenance
from evaluation.runs.summary import read_summary
from evaluation.smoke.lookalikes import write_lookalike
from tests.conftest import ROOT
from tests.other_settings import OTHER_VALUES
from tests.recorded_runs import episode, make_run

COMPARED = [name for name in AgentSettings.model_fields if name not in AgentSettings.PLACES]


@pytest.fixture(scope="module")
def plain(tmp_path_factory):
    directory = tmp_path_factory.mktemp("runs") / "plain"
    make_run(directory, lambda item, _: episode(item.gold))
    return directory


@pytest.mark.parametrize("name", [*COMPARED, "temperature", "top_p"])
def test_each_setting_in_which_two_runs_differ_is_named_and_no_other(plain, tmp_path, name):
    value = OTHER_VALUES.get(name, 0.5)
    make_run(tmp_path / "other", lambda item, _: episode(item.gold), **{name: value})
    warnings = [warning.partition(":")[0] for warning in compare_runs(plain, tmp_path / "other").warnings]
    changed_wording = name in ("prompt", "python_timeout_s")
    assert warnings == [name] + ["prompt_sha256"] * changed_wording
    notes = conflicts([read_entry(plain), read_entry(tmp_path / "other")])
    assert [note.split(" differs")[0] for note in notes] == [f"vstar: {name}"]


def test_where_and_how_much_at_once_is_no_difference(plain, tmp_path):
    places = {name: OTHER_VALUES[name] for name in AgentSettings.PLACES}
    make_run(tmp_path / "other", lambda item, _: episode(item.gold), **places)
    assert compare_runs(plain, tmp_path / "other").warnings == ()
    assert not places.keys() & json.loads((tmp_path / "other/run.json").read_text())["settings"].keys()


def test_a_run_compared_with_itself_without_tools_is_no_warning(plain, tmp_path):
    make_run(tmp_path / "off", lambda item, _: episode(item.gold), mode="think")
    assert compare_runs(plain, tmp_path / "off").warnings == ()


def test_the_report_lists_every_setting_under_its_name(plain):
    rows = dict(carried(read_provenance(plain), read_summary(plain)))
    assert set(COMPARED) <= rows.keys()
    assert rows["image_max_pixels"] == str(AgentSettings().image_max_pixels)
    assert (rows["max_observation_images"], rows["max_calls"]) == ("10", '{"image_search": 1}')


def test_the_report_says_what_was_in_force_in_a_mode_without_tools(tmp_path):
    make_run(tmp_path / "off", lambda item, _: episode(item.gold), mode="direct", primer="<think>")
    rows = dict(carried(read_provenance(tmp_path / "off"), read_summary(tmp_path / "off")))
    assert (rows["prompt"], rows["tools"], rows["primer"]) == ("direct", "none", "none")


# ---- going on with a run ----


def reopen(directory, **changed):
    data = directory.parent / "data/VStarBench.tsv"
    before = read_provenance(directory).settings
    settings = type(before).model_validate(before.model_dump() | changed)
    return open_run(directory, settings, load_benchmark("vstar"), data)


@pytest.fixture
def run(tmp_path):
    make_run(tmp_path / "run", lambda item, _: episode(item.gold))
    return tmp_path / "run"


@pytest.mark.parametrize("name", COMPARED)
def test_a_run_is_not_gone_on_with_under_another_setting(run, name):
    assert reopen(run) == 12
    with pytest.raises(RunMismatch, match=f"holds another run .*{name}: "):
        reopen(run, **{name: OTHER_VALUES[name]})


def test_a_run_goes_on_with_other_servers(run):
    assert reopen(run, **{name: OTHER_VALUES[name] for name in AgentSettings.PLACES}) == 12


def rewritten(directory, change):
    """As before records had versions: the settings beside the rest."""
    path = directory / "run.json"
    saved = json.loads(path.read_text())
    del saved["version"]
    record = saved.pop("settings") | saved
    change(record)
    path.write_text(json.dumps(record))


@pytest.mark.parametrize(("old", "new"), [pair for pair in OLD_NAMES.items() if pair[1] not in AgentSettings.PLACES])
def test_a_run_of_before_a_setting_was_renamed_is_shown_and_scored_but_not_gone_on_with(run, old, new):
    def change(record):
        record[old] = OTHER_VALUES[new]
        del record[new]

    rewritten(run, change)
    assert getattr(read_provenance(run).settings, new) == OTHER_VALUES[new]
    run_main(["--out", str(run), "--stage", "score", "--profile", "deepeyesv2-fork"])
    write_run_report(run, run / "report.html")
    with pytest.raises(RunMismatch, match=f"can be scored and looked at; .*{old} is called {new} now"):
        reopen(run)


def test_a_run_of_before_a_setting_was_recorded_has_its_default(run, plain):
    rewritten(run, lambda record: record.pop("max_observation_images"))
    assert read_provenance(run).settings.max_observation_images == 10
    assert compare_runs(run, plain).warnings == ()
    run_main(["--out", str(run), "--stage", "report"])


def test_an_old_name_in_todays_record_is_refused_with_the_new_one(run):
    path = run / "run.json"
    path.write_text(path.read_text().replace('"image_max_pixels"', '"max_pixels"'))
    with pytest.raises(RunMismatch, match="max_pixels is called image_max_pixels now"):
        read_provenance(run)


def test_the_published_evaluation_is_one_option_away(tmp_path):

    data = write_lookalike("vstar", tmp_path)
    options = parse(
        ["--out", "x", "--model", "m", "--settings", str(ROOT / "evaluation/recipes/published.yaml"), "--max-turns", "5"]
    )
    found = settings_for(options.asked, "vstar", data)
    assert (found.primer, found.image_max_pixels, found.python_timeout_s, found.max_turns) == ("", None, 60, 5)
    ours = settings_for(parse(["--out", "x", "--model", "m"]).asked, "vstar", data)
    assert (ours.primer, ours.tools, ours.prompt) == ("<think>", ("python",), "deepeyesv2_code")
    served_elsewhere = parse(["--out", "x", "--model", "m", "--dialect", "openai"])
    assert settings_for(served_elsewhere.asked, "vstar", data).primer == "", "such a server cannot go on with a reply"


@pytest.mark.parametrize(
    ("model", "primer"),
    [
        ("Qwen/Qwen2.5-VL-7B-Instruct", "<think>"),
        ("Qwen/Qwen3-VL-8B-Instruct", "<think>"),
        ("Qwen/Qwen3-VL-8B-Thinking", ""),
        ("policy", "<think>"),
    ],
)
def test_a_model_whose_template_begins_its_replies_is_given_no_other_beginning(tmp_path, model, primer):
    found = parse(["--out", "x", "--model", model])
    assert settings_for(found.asked, "vstar", tmp_path).primer == primer
