"""Wiki markup as readable text: good enough to be found and read, not to be rendered. What templates say is kept."""

from __future__ import annotations

import html
import re

# No part may begin again before it ends: what is never closed would otherwise be looked through once for each beginning.
_GONE = re.compile(
    r"<!--(?:(?!<!--).)*?-->|<ref[^<>]*/>|<ref\b(?:(?!<ref\b).)*?</ref>|<(math|gallery|timeline)\b(?:(?!<\1\b).)*?</\1>",
    re.DOTALL,
)
_FILE = re.compile(r"\[\[(?:File|Image|Category|Datei|Fichier|文件|分类)\s*:(?:[^\[\]]|\[\[[^\[\]]*\]\])*\]\]")
_LINK = re.compile(r"\[\[(?:[^|\[\]]*\|)?([^\[\]|]*)\]\]")
_TEMPLATE = re.compile(r"\{\{([^{}]*)\}\}")
_TABLE = re.compile(r"\{\|((?:(?!\{\||\|\}).)*)\|\}", re.DOTALL)
_DEEPEST = 24
_SAYS_NOTHING = re.compile(
    r"cite\b|citation|cn$|fact$|sfn|refn|efn|note|r$|rp$|main|see also|further|about|redirect|hatnote|short description|use "
    r"|pp-|reflist|refbegin|refend|portal|authority control|defaultsort|commons|clear|toc|coord missing|dead link|webarchive"
    r"|update|who$|when$|by whom|clarify|better source|stub|#|flagicon|anchor|spaced|ipa|audio|listen|multiple image|nbsp",
    re.IGNORECASE,
)
_BOX = re.compile(r"(?:info|taxo|geo|species|automatic tax|chem|drug|protein)\w*\s?box|\w+box\b", re.IGNORECASE)
_BETWEEN = {
    "to": " to ", "-": "–", "–": "–", "and": " and ", "or": " or ", "x": " x ", "×": " × ", "by": " by ", "+/-": " ± ",
    "±": " ± ", "to(-)": " to ", "and(-)": " and ",
}  # fmt: skip
_BARE = re.compile(r"(?:image|logo|map|pushpin|module|embed|width|size|colou?r|style|class|align)\w*$", re.IGNORECASE)
"""Rows of boxes that are about how the box looks."""
_ABOUT_IT = re.compile(
    r"date|url|access.?date|archive\w*|reason|talk|section|df|mf|lc|sortable|abbr|sp|p|label|cat", re.IGNORECASE
)
"""What a template that has nothing but names says of itself, not to the reader."""
_POWERS = {"e": "×10^", "x10^": "×10^", "esp": "×10^", "10^": "10^", "sup": "^"}
_LAST_SHOWN = ("lang", "transl", "transliteration", "script", "native name", "color", "font color")
_FIRST_SHOWN = ("nowrap", "nobr", "small", "big", "abbr", "tooltip", "nobold", "ill", "interlanguage link")
_LISTS = ("ubl", "ubil", "unbulleted list", "plainlist", "plain list", "hlist", "flatlist", "flat list", "nihongo")


def plain_wikitext(text: str) -> str:
    """Readable text: templates as what they show, rows of boxes and tables on lines of their own."""
    text = _GONE.sub("", text)
    text = _FILE.sub("", text)
    for _ in range(_DEEPEST):  # from the inside out
        shorter = _TABLE.sub(lambda found: _table(found[1]), _TEMPLATE.sub(lambda found: _template(found[1]), text))
        if shorter == text:
            break
        text = shorter
    text = _FILE.sub("", text)
    text = _LINK.sub(r"\1", text)
    text = re.sub(r"\[https?://\S+ ([^\]]*)\]", r"\1", text)
    text = re.sub(r"(?<=\d)<sup>\s*([-+−–]?\d[^<]*)</sup>", r"^\1", text)  # 10^6 is no 106
    text = re.sub(r"'{2,}|</?[a-zA-Z][^>]*>", "", text)
    text = re.sub(r"^=+\s*(.*?)\s*=+\s*$", r"\1", text, flags=re.MULTILINE)
    return re.sub(r"\n{3,}", "\n\n", html.unescape(text)).strip()


def is_redirect(text: str) -> bool:
    """Whether a page only leads to another one, in whatever language its first word is."""
    return re.match(r"\ufeff?\s*(?:<!--.*?-->\s*)*#\s*[^\s\[\]:#*]+\s*:?\s*\[\[", text, re.DOTALL) is not None


def _arguments(body: str) -> tuple[str, list[str], dict[str, str]]:
    """(name, positional, named) of a template."""
    inside_links = _LINK.sub(lambda link: link[1], body)
    name, *parts = inside_links.split("|")
    given: list[str] = []
    named: dict[str, str] = {}
    for part in parts:
        key, equals, value = part.partition("=")
        if equals and re.fullmatch(r"\s*[\w .-]+\s*", key):
            if key.strip().isdecimal() and len(key.strip()) < 3:  # a year is no position
                given.append(value.strip())
            else:
                named[key.strip()] = value.strip()
        else:
            given.append(part.strip())
    return name.strip().lower().replace("_", " "), given, named


def _template(body: str) -> str:
    if (number := re.match(r"\s*formatnum\s*:\s*([^|]*)", body, re.IGNORECASE)) is not None:
        return number[1].strip()
    name, given, named = _arguments(body)
    if _BOX.match(name):
        rows = [(key.replace("_", " "), value) for key, value in named.items() if value and not _BARE.match(key)]
        return "\n" + "\n".join(f"{key}: {value}" for key, value in rows) + "\n"
    if (said := _number(name, given, named)) is not None:
        return said
    if name == "as of" and named.get("alt"):
        return named["alt"]
    if name in _LAST_SHOWN:
        return "".join(given[-1:])
    if given and (name.startswith("lang-") or name in _FIRST_SHOWN):
        return given[0]
    if name in _LISTS:
        return "; ".join(part.replace("*", "").strip() for part in given if part)
    if any(given) or _SAYS_NOTHING.match(name):
        return "" if _SAYS_NOTHING.match(name) else " ".join(part for part in given if part)
    told = [(key, value) for key, value in named.items() if value and not (_BARE.match(key) or _ABOUT_IT.fullmatch(key))]
    return ", ".join(value if key in ("text", "quote", "content") else f"{key}: {value}" for key, value in told)


def _number(name: str, given: list[str], named: dict[str, str]) -> str | None:
    """What a template of a number, a measure or a date shows; None for another one."""
    if name in ("convert", "cvt"):
        return _measure(given)
    if name in ("val", "gaps"):
        unit = named.get("u") or named.get("ul") or ""
        power = f"×10^{named['e']}" if named.get("e") else ""
        return f"{''.join(given[:1]) if name == 'val' else ''.join(given)}{power} {unit}".strip()
    if "date" in name and given and not name.startswith(("use ", "update")):
        return _date(given)
    if name in ("circa", "c."):
        return f"c. {' – '.join(given)}"
    if name in _POWERS:
        return _POWERS[name] + "".join(given[:1])
    if name in ("frac", "sfrac", "fraction"):
        return f"{given[0]} {given[1]}/{given[2]}" if len(given) > 2 else "/".join(given)
    return None


def _measure(given: list[str]) -> str:
    """`{{convert|5|to|10|km|mi}}` as "5 to 10 km", `{{convert|6|ft|2|in|m}}` as "6 ft 2 in"."""
    text, left = "", list(given)
    while left:
        text += left.pop(0)
        if left and left[0] in _BETWEEN:
            text += _BETWEEN[left.pop(0)]
            continue
        text += f" {left.pop(0)}" if left else ""
        if len(left) < 2 or not left[0][:1].isdecimal():
            break
        text += " "
    return text.strip()


def _date(given: list[str]) -> str:
    """Year, month and day as they are sorted, or as they are written where a month has a name."""
    parts = [part for part in given[:3] if part]
    if all(part.isdecimal() for part in parts):
        return "-".join(part.zfill(2) for part in parts)
    return " ".join(parts)


def _table(body: str) -> str:
    rows = []
    for row in re.split(r"\n\s*\|-[^\n]*", "\n" + body.partition("\n")[2]):
        cells = re.split(r"\n\s*[|!][+]?|\|\||!!", row)
        kept = [_cell(cell) for cell in cells]
        rows.append(" | ".join(cell for cell in kept if cell))
    return "\n" + "\n".join(row for row in rows if row) + "\n"


_LOOKS = re.compile(r"(?:\s*[\w-]+\s*=\s*(?:\"[^\"]*\"|'[^']*'|[^\s|\"']+))+\s*")
"""Attributes of a cell."""


def _cell(cell: str) -> str:
    attributes, bar, value = cell.partition("|")
    looks_so = bar and _LOOKS.fullmatch(attributes) is not None
    return " ".join((value if looks_so else cell).split())
