"""Dates and times of day.

A date of which day and month may be exchanged has two readings, and a time without am or pm two halves of a day: a verdict
must hold in all of them. A year is a number.
"""

from __future__ import annotations

import functools
import re
from dataclasses import dataclass

_MAX_CHARS = 40
_MONTHS = {
    name: number
    for number, names in enumerate(
        (
            "january jan", "february feb", "march mar", "april apr", "may", "june jun", "july jul", "august aug",
            "september sep sept", "october oct", "november nov", "december dec",
        ),
        start=1,
    )
    for name in names.split()
}  # fmt: skip
_YEAR_FIRST = re.compile(r"([0-9]{4})(?P<sep>[-/.])([0-9]{1,2})(?P=sep)([0-9]{1,2})")
_CHINESE = re.compile(r"([0-9]{4}) ?年 ?([0-9]{1,2}) ?月 ?([0-9]{1,2}) ?[日号]")
_YEAR_LAST = re.compile(r"([0-9]{1,2})(?P<sep>[-/.])([0-9]{1,2})(?P=sep)([0-9]{4})")
_MONTH_FIRST = re.compile(r"([A-Za-z]{3,9})\.? ([0-9]{1,2})(?:st|nd|rd|th)?(?:,? ([0-9]{4}))?", re.IGNORECASE)
_DAY_FIRST = re.compile(r"(?:the )?([0-9]{1,2})(?:st|nd|rd|th)?(?: of)? ([A-Za-z]{3,9})(?:\.?,? ([0-9]{4}))?", re.IGNORECASE)
_MONTH_YEAR = re.compile(r"([A-Za-z]{3,9})\.?,? ([0-9]{4})")
_TIME = re.compile(
    r"([0-9]{1,2}):([0-9]{2})(?::([0-9]{2}))?(?: ?([ap])\.? ?m\.?)?|([0-9]{1,2}) ?([ap])\.? ?m\.?", re.IGNORECASE
)

Date = tuple[int, int, int]
"""Year, month, day; 0 for one that is not said."""


def date_rule(answer: str, gold: str, question: str) -> bool | None:
    """Decide between dates that say the same parts: day, month and year, or month and year, or month and day."""
    expected = read_date(gold)
    if not expected:
        return None
    given = read_date(answer)
    if not given or [part > 0 for part in next(iter(expected))] != [part > 0 for part in next(iter(given))]:
        return None
    if expected.isdisjoint(given):
        return False
    return True if expected == given and len(expected) == 1 else None


@functools.lru_cache(4096)
def read_date(text: str) -> frozenset[Date]:
    """All readings of a whole text as a date; none if it is no date."""
    if len(text) > _MAX_CHARS or len(text) < 5:
        return frozenset()
    readings: list[Date] = []
    if found := _YEAR_FIRST.fullmatch(text):
        readings = [(int(found[1]), int(found[3]), int(found[4]))]
    elif found := _CHINESE.fullmatch(text):
        readings = [(int(found[1]), int(found[2]), int(found[3]))]
    elif found := _YEAR_LAST.fullmatch(text):
        one, two, year = int(found[1]), int(found[3]), int(found[4])
        readings = [(year, one, two), (year, two, one)]
    elif found := _MONTH_FIRST.fullmatch(text):
        readings = [(int(found[3] or 0), _MONTHS.get(found[1].lower(), 99), int(found[2]))]
    elif found := _DAY_FIRST.fullmatch(text):
        readings = [(int(found[3] or 0), _MONTHS.get(found[2].lower(), 99), int(found[1]))]
    elif found := _MONTH_YEAR.fullmatch(text):
        readings = [(int(found[2]), _MONTHS.get(found[1].lower(), 99), 0)]
    whole_month = found is not None and found.re is _MONTH_YEAR
    return frozenset(reading for reading in readings if 1 <= reading[1] <= 12 and (whole_month or 1 <= reading[2] <= 31))


@dataclass(frozen=True, slots=True)
class Time:
    """A time of day as written."""

    hour: int
    minute: int
    second: int | None
    half: str
    """`a`, `p`, `24` for an hour that says its half, or nothing."""

    @property
    def of_day(self) -> int:
        """Minutes after midnight, as far as they are said."""
        hour = self.hour if self.half in ("", "24") else self.hour % 12 + 12 * (self.half == "p")
        return hour * 60 + self.minute


def time_rule(answer: str, gold: str, question: str) -> bool | None:
    """Decide between times of day; 3:00 may be 3:00 PM, 1:20 a ratio, and 21:19 a score."""
    expected = read_time(gold)
    if expected is None:
        return None
    given = read_time(answer)
    if given is None or (expected.second is None) != (given.second is None):
        return None
    same = expected.of_day == given.of_day and expected.second == given.second
    if same and bool(expected.half) == bool(given.half):
        return True
    twelve_hours_apart = expected.of_day % 720 == given.of_day % 720 and expected.second == given.second
    if twelve_hours_apart and not (expected.half and given.half):
        return None
    said = {expected.half, given.half} & {"a", "p"}
    in_proportion = expected.minute > 0 and expected.hour * given.minute == given.hour * expected.minute
    swapped = (expected.hour, expected.minute) == (given.minute, given.hour)
    if not said and (in_proportion or swapped or expected.second is not None):
        return None
    return False


@functools.lru_cache(4096)
def read_time(text: str) -> Time | None:
    """A whole text as a time of day; None if it is none."""
    if len(text) > 14 or not text or text[0] not in "0123456789":
        return None
    found = _TIME.fullmatch(text)
    if found is None:
        return None
    hour, half = int(found[1] or found[5]), (found[4] or found[6] or "").lower()
    minute, second = int(found[2] or 0), int(found[3]) if found[3] else None
    if minute > 59 or (second or 0) > 59 or hour > 23 or (half and not 1 <= hour <= 12):
        return None
    if not half and (hour > 12 or hour == 0):
        half = "24"
    return Time(hour, minute, second, half)
