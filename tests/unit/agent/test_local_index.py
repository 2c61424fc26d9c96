"""Building a local index from each kind of source, and asking it."""

import bz2
import gzip
import json
import subprocess
import sys

import pytest

from agent.search.corpus import CorpusError, plain_wikitext, read_corpus
from agent.search.providers import local
from tests.conftest import ROOT

PAGES = [
    {"title": "Red panda", "text": "A small mammal of the Himalaya, called 小熊猫 in Chinese.", "link": "p:1"},
    {"title": "Panda", "text": "A bear that eats bamboo in China.", "link": "p:2"},
    {"title": "Eiffel Tower", "text": "A tower in Paris, Åland-blue at night.", "link": "p:3"},
]
DUMP = """<mediawiki xmlns="http://www.mediawiki.org/xml/export-0.11/"><siteinfo><base>https://wiki.test/wiki/Main_Page</base></siteinfo>
<page><title>Red panda</title><ns>0</ns><revision><text>'''Red panda''' is a [[mammal|small mammal]].&lt;ref&gt;x&lt;/ref&gt; {{Infobox|{{a}}}}
== Range ==
[[File:x.jpg|thumb|a [[b]]]] [[Himalaya]] &amp;amp; more</text></revision></page>
<page><title>Panda, red</title><ns>0</ns><redirect title="Red panda"/><revision><text>#REDIRECT [[Red panda]]</text></revision></page>
<page><title>Talk:Red panda</title><ns>1</ns><revision><text>chatter</text></revision></page>
</mediawiki>"""


@pytest.fixture
def pages(tmp_path):
    path = tmp_path / "pages.jsonl"
    path.write_text("".join(json.dumps(page) + "\n" for page in PAGES))
    return path


def ask(path, **settings):
    return local.Provider(local.Settings(path=path, **settings))


@pytest.mark.parametrize("built", [False, True])
async def test_the_best_page_comes_first_and_a_query_is_only_words(pages, tmp_path, built):
    path = pages
    if built:
        path = tmp_path / "index"
        assert local.build_index(pages, path) == 3
    provider = ask(path)
    hits = await provider.search("where do RED pandas live?", max_hits=2)
    assert [hit.link for hit in hits] == ["p:1", "p:2"]
    assert [hit.link for hit in await provider.search("小熊猫在哪里", max_hits=5)] == ["p:1"]
    assert [hit.link for hit in await provider.search("åland", max_hits=5)] == ["p:3"]
    for query in ('") OR DROP TABLE -- * NEAR(', "title:(", "+-!{}[]^~?:\\/", "AND OR NOT", "...", "\x00", "x" * 10_000):
        assert await provider.search(query, max_hits=2) == []


async def test_equal_questions_have_equal_answers_and_pages_can_be_opened(pages):
    first, second = ask(pages), ask(pages)
    assert await first.search("a", max_hits=3) == await second.search("a", max_hits=3)
    assert (await first.open_page("p:2")).text == PAGES[1]["text"]
    assert (await first.open_page("p:9")).problem


async def test_found_words_are_marked_on_request_and_snippets_are_short(tmp_path):
    path = tmp_path / "long.jsonl"
    text = "filler é. " * 500 + "The panda eats bamboo. " + "more. " * 500
    path.write_text(json.dumps({"title": "T", "text": text}))
    (hit,) = await ask(path, highlight="**", snippet_chars=80).search("pandas bamboo", max_hits=1)
    assert "**panda** eats **bamboo**" in hit.snippet
    assert len(hit.snippet) < 120
    (hit,) = await ask(path, snippet_chars=80).search("T", max_hits=1)
    assert hit.snippet.startswith("filler"), "found by its title, it shows how it begins"


@pytest.mark.parametrize(("suffix", "opener"), [("", open), (".gz", gzip.open), (".bz2", bz2.open)])
def test_json_lines_and_dumps_are_read_plain_and_compressed(tmp_path, suffix, opener):
    with opener(tmp_path / f"a.jsonl{suffix}", "wb") as file:
        file.write(json.dumps({"title": "T", "text": "x", "url": "u"}).encode() + b"\n\n")
    with opener(tmp_path / f"b.xml{suffix}", "wb") as file:
        file.write(DUMP.encode())
    lines, article = read_corpus(tmp_path)
    assert (lines.title, lines.snippet, lines.link) == ("T", "x", "u")
    assert (article.title, article.link) == ("Red panda", "https://wiki.test/wiki/Red_panda")
    assert article.snippet.split() == ["Red", "panda", "is", "a", "small", "mammal.", "Range", "Himalaya", "&", "more"]


def test_markdown_is_one_document_a_section(tmp_path):
    (tmp_path / "sub dir").mkdir()
    (tmp_path / "sub dir/guide.md").write_text(
        "intro\n# Guide\ntop\n## Set up\nrun it\n```\n# not a heading\n```\n### Detail\nmore\n"
    )
    found = [(page.title, page.link, page.snippet) for page in read_corpus(tmp_path)]
    assert found == [
        ("guide", "sub%20dir/guide.md", "intro"),
        ("Guide", "sub%20dir/guide.md", "top"),
        ("Guide: Set up", "sub%20dir/guide.md#set-up", "run it\n```\n# not a heading\n```\n### Detail\nmore"),
    ]


def test_wiki_markup_becomes_text():
    text = "{| class=x\n| cell\n|}<!-- c -->''it'' [http://x y] <math>a</math>[[Category:Z]]&nbsp;<br/>end"
    assert plain_wikitext(text).replace("\xa0", " ").split() == ["cell", "it", "y", "end"]


def test_an_interrupted_build_goes_on_where_it_stopped(pages, tmp_path):
    target = tmp_path / "index"

    class Killed(Exception):
        pass

    def kill(count):
        raise Killed

    with pytest.raises(Killed):
        local.build_index(pages, target, commit_every=2, on_progress=kill)
    with pytest.raises(ValueError, match="is not finished; run `deepeyes search index`"):
        ask(target)
    assert local.build_index(pages, target, commit_every=2) == 3
    assert ask(target)._searcher.num_docs == 3
    assert local.build_index(pages, target) == 3, "a finished index is left as it is"


def test_a_build_that_is_killed_goes_on_without_losing_or_repeating_a_document(tmp_path):
    source, target = tmp_path / "pages.jsonl", tmp_path / "index"
    with source.open("w") as lines:
        lines.writelines(
            json.dumps({"title": f"t{n}", "text": "panda " * 50, "link": f"l{n}"}) + "\n" for n in range(20_000)
        )
    code = (
        "import sys; from pathlib import Path; from agent.search.providers.local import build_index\n"
        "build_index(Path(sys.argv[1]), Path(sys.argv[2]), commit_every=1000, on_progress=lambda n: print(n, flush=True))"
    )
    command = [sys.executable, "-c", code, str(source), str(target)]
    with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "1000\n"
        process.kill()
    assert local.build_index(source, target) == 20_000
    provider = ask(target)
    assert provider._searcher.num_docs == 20_000
    assert provider._open_page("l19999").title == "t19999"


def test_a_page_that_cannot_be_read_is_left_out_by_name_and_the_others_are_indexed(pages, tmp_path):
    bad = ["{oops", "[1]", '{"title": "no text"}', '{"title": null, "text": null}']
    pages.write_text(pages.read_text() + "\n".join(bad) + "\n" + json.dumps(PAGES[0]))
    left_out = []
    assert local.build_index(pages, tmp_path / "index", skip=left_out.append) == 4
    assert [what.split(" ")[0].rpartition(":")[2] for what in left_out] == ["4", "5", "6", "7"]
    assert ask(tmp_path / "index")._searcher.num_docs == 4


def test_a_file_that_is_damaged_as_a_whole_is_an_error_in_words(tmp_path):
    (tmp_path / "x.xml").write_text("<mediawiki><page>")
    with pytest.raises(CorpusError, match="no MediaWiki dump"):
        list(read_corpus(tmp_path / "x.xml"))
    for name, pack in (("x.xml.gz", gzip.compress), ("y.xml.bz2", bz2.compress), ("z.jsonl.gz", gzip.compress)):
        text = DUMP if ".xml" in name else "".join(json.dumps({"title": str(n), "text": str(n) * 99}) + "\n" for n in range(99))
        (tmp_path / name).write_bytes(pack(text.encode())[:-30])
        with pytest.raises(CorpusError, match="is cut off or damaged behind .* pages"):
            list(read_corpus(tmp_path / name))


def test_usual_forms_of_corpora_are_read(tmp_path):
    (tmp_path / "a.jsonl").write_text(json.dumps({"id": "7", "contents": '"Red panda"\nA small mammal.'}) + "\n")
    (tmp_path / "b.json").write_text(json.dumps([{"title": None, "text": "x", "url": None}, {"title": "T", "text": "y", "link": "l"}]))
    (tmp_path / "c.txt").write_text("plain")
    found = [(page.title, page.link, page.snippet) for page in read_corpus(tmp_path)]
    assert found == [("Red panda", "7", "A small mammal."), ("", "", "x"), ("T", "l", "y"), ("c", "c.txt", "plain")]


@pytest.mark.parametrize(("value", "word"), [(None, "None"), (float("nan"), "nan"), (False, "False"), ({"a": 1}, "a")])
async def test_a_field_without_a_value_is_no_word(tmp_path, value, word):
    path = tmp_path / "pages.jsonl"
    path.write_text(json.dumps({"title": value, "text": "x"}) + "\n")
    assert await ask(path).search(word, max_hits=3) == []


async def test_a_list_of_sentences_is_their_text_and_half_a_surrogate_stops_no_index(tmp_path):
    path = tmp_path / "pages.jsonl"
    path.write_text(json.dumps({"title": "T", "text": ["One.", " Two."]}) + '\n{"title": "U", "text": "half \\ud83d"}\n')
    assert {hit.snippet for hit in await ask(path).search("one half", max_hits=3)} == {"One. Two.", "half ?"}


@pytest.mark.parametrize(
    ("title", "query"),
    [(title, title) for title in ("दिल्ली", "भारत की राजधानी", "กรุงเทพ", "ঢাকা", "முதல்", "İstanbul", "مُحَمَّد", "עִבְרִית", "ភ្នំពេញ", "Ελλάδα")]
    + [
        ("Müller Zürich", "muller zurich"), ("İstanbul", "istanbul"), ("Straße", "strasse"), ("مُحَمَّد", "محمد"), ("محمد", "مُحَمَّد"),
        ("עִבְרִית", "עברית"), ("Ελλάδα", "ΕΛΛΑΔΑ"), ("Πρώτος", "πρωτοσ"), ("Ёлка", "елка"), ("ﾊﾝｶｸ", "ハンカク"), ("क़िला", "किला"),
        ("العربية", "العربيه"), ("أحمد", "احمد"), ("کتاب\u200cها", "كتابها"), ("서울특별시는 대한민국의 수도이다", "서울의 수도"), ("Cafe\u0301", "Café"), ("Café", "CAFE\u0301"), ("AND", "and"),
    ],
)  # fmt: skip
@pytest.mark.parametrize("built", [False, True])
async def test_a_title_of_any_script_is_found_as_people_write_it(tmp_path, title, query, built):
    path = tmp_path / "pages.jsonl"
    others = [{"title": "Something else", "text": f"filler {n}", "link": str(n)} for n in range(5)]
    path.write_text("".join(json.dumps(page) + "\n" for page in [*others, {"title": title, "text": "here", "link": "found"}]))
    if built:
        local.build_index(path, tmp_path / "index")
        path = tmp_path / "index"
    assert [hit.link for hit in await ask(path).search(query, max_hits=1)] == ["found"]


def test_what_templates_and_tables_say_is_kept():
    text = """{{Infobox settlement
| name = Alabama
| image_flag = flag.svg
| population_total = {{formatnum:5024279}}
| area_total_km2 = 135765<ref name="a">b</ref>
| established_date = {{Start date|1819|12|14}}
}}
At {{convert|1300|mi|km}}, or {{cvt|5|to|10|km}}, {{lang|zh|阿拉巴马}}, {{val|1.5|u=kg}}, {{unknown|42}}.{{cite web|title=In 1999}}
{| class="wikitable" style="x"
! Year !! style="width:1em" | Pop.
|-
| 1800 || align=right | 1,250
|}"""
    found = plain_wikitext(text)
    for said in (
        "population total: 5024279", "area total km2: 135765", "established date: 1819-12-14", "1300 mi", "5 to 10 km", "阿拉巴马",
        "1.5 kg", "42.", "Year | Pop.", "1800 | 1,250",
    ):  # fmt: skip
        assert said in found, said
    for gone in ("flag.svg", "1999", "align", "width", "{", "}"):
        assert gone not in found, gone


@pytest.mark.parametrize(
    ("markup", "said"),
    [
        ("{{date|21|mars|1977}}", "21 mars 1977"), ("{{start date|2022|May|6}}", "2022 May 6"), ("{{birth date|1946|8|14}}", "1946-08-14"),
        ("{{convert|6|ft|2|in|m}}", "6 ft 2 in"), ("{{convert|5|km|mi|1}}", "5 km"), ("{{height|ft=6|in=2}}", "ft: 6, in: 2"),
        ("{{duration|m=3|s=45}}", "m: 3, s: 45"), ("{{lang-zh|s=北京}}", "s: 北京"), ("{{quote|text=Seven|author=X}}", "Seven, author: X"),
        ("{{US Census population|1820=127901|1830=309527}}", "1820: 127901, 1830: 309527"),
        ("{{as of|2010|4|1|alt=as of the census}}", "as of the census"), ("10<sup>6</sup> and 1<sup>st</sup>", "10^6 and 1st"),
        ("6.02{{e|23}}", "6.02×10^23"), ("{{val|1.5|e=6|u=m}}", "1.5×10^6 m"), ("{{cleanup|date=May 2020|reason=x}}", ""),
    ],
)  # fmt: skip
def test_what_a_template_says_keeps_its_numbers(markup, said):
    assert plain_wikitext(markup) == said


@pytest.mark.parametrize("text", ["#REDIRECT [[Alabama]]", "#redirect[[A]]", "  #WEITERLEITUNG [[A]]", "#重定向 [[A]]", "#REDIRECT: [[A]]", "\ufeff#REDIRECT [[A]]", "&lt;!-- c --&gt;#REDIRECT [[A]]", "#पुनर्प्रेषित [[A]]", "#เปลี่ยนทาง [[A]]"])
def test_a_page_that_only_leads_to_another_is_left_out(tmp_path, text):
    (tmp_path / "d.xml").write_text(f"<mediawiki><page><title>T</title><revision><text>{text}</text></revision></page></mediawiki>")
    assert list(read_corpus(tmp_path)) == []
    (tmp_path / "d.xml").write_text("<mediawiki><page><title>T</title><revision><text>#[[A]] is one\n#[[B]]</text></revision></page></mediawiki>")
    assert len(list(read_corpus(tmp_path))) == 1


def test_what_is_no_index_is_refused_with_advice(pages, tmp_path):
    with pytest.raises(FileNotFoundError, match="no search index at"):
        ask(tmp_path / "none")
    (tmp_path / "folder").mkdir()
    with pytest.raises(ValueError, match="is no index; make one with"):
        ask(tmp_path / "folder")
    (tmp_path / "old.sqlite").write_text("")
    with pytest.raises(ValueError, match="older kind"):
        ask(tmp_path / "old.sqlite")
    (tmp_path / "folder/file").write_text("precious")
    with pytest.raises(ValueError, match="is no index; give another folder"):
        local.build_index(pages, tmp_path / "folder")
    local.build_index(pages, tmp_path / "index")
    (tmp_path / "other.jsonl").write_text(pages.read_text())
    with pytest.raises(ValueError, match=r"is an index of pages\.jsonl"):
        local.build_index(tmp_path / "other.jsonl", tmp_path / "index")
    with pytest.raises(CorpusError, match="nothing to index"):
        list(read_corpus(tmp_path / "folder"))
    about = tmp_path / "index/deepeyes-index.json"
    about.write_text(about.read_text().replace('"version": 2', '"version": 9'))
    with pytest.raises(ValueError, match="version 9"):
        ask(tmp_path / "index")
