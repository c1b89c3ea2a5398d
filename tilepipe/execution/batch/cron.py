"""Times of a batch, written as cron writes them: minute, hour, day of month, month, day of week.

Such a text is checked here and told to others in their own words: crontab, systemd (`OnCalendar`) and APScheduler, for
which day 0 is Monday and not Sunday. Times are those of the machine's clock on the wall.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from tilepipe.errors import UsageError

FIELDS = (("minute", 0, 59), ("hour", 0, 23), ("day of month", 1, 31), ("month", 1, 12), ("day of week", 0, 7))
"""Fields of a line, each with its lowest and highest number; days of the week begin and end with Sunday."""
MONTHS = ["jan", "feb", "mar", "apr", "may", "jun", "jul", "aug", "sep", "oct", "nov", "dec"]
DAYS = ["sun", "mon", "tue", "wed", "thu", "fri", "sat"]
WORDS = {
    "@hourly": "0 * * * *",
    "@daily": "0 0 * * *",
    "@midnight": "0 0 * * *",
    "@weekly": "0 0 * * 0",
    "@monthly": "0 0 1 * *",
    "@yearly": "0 0 1 1 *",
    "@annually": "0 0 1 1 *",
}
"""Words that stand for a whole line."""
_PART = re.compile(r"(?:(\*)|(\w+)(?:-(\w+))?)(?:/(\d+))?")


@dataclass(frozen=True)
class Cron:
    """Times in cron's words, checked."""

    text: str
    """The five fields as they were given, with one space between."""
    sets: tuple[tuple[int, ...] | None, ...]
    """Numbers of each field; None stands for all. Sunday is 0."""

    @classmethod
    def of(cls, text: str) -> Cron:
        """Read a text such as '0 2 * * *' or '@daily'. Raises `UsageError` that names the field that is wrong."""
        words = WORDS.get(text.strip().lower(), text).split()
        if len(words) != len(FIELDS):
            raise UsageError(
                f"{text!r} has {len(words)} fields, and times of a schedule have 5: minute, hour, day of month, month, "
                "day of week; every night at two is '0 2 * * *'"
            )
        found = tuple(_numbers(word, *field) for word, field in zip(words, FIELDS, strict=True))
        return cls(" ".join(words), found)

    def on_calendar(self) -> str:
        """Return the times as systemd's `OnCalendar`. Raises `UsageError` if systemd cannot say them in one line."""
        minutes, hours, days, months, weekdays = self.sets
        if days and weekdays:
            # Cron takes a day that either field names, systemd one that both name.
            raise UsageError(
                f"{self.text!r} names days of the month and of the week; systemd takes days that are both and cron "
                "days that are either, so give one of the two"
            )
        named = ",".join(DAYS[day].capitalize() for day in weekdays) + " " if weekdays else ""
        return f"{named}*-{_listed(months)}-{_listed(days)} {_listed(hours)}:{_listed(minutes)}:00"

    def apscheduler(self) -> dict[str, str]:
        """Return the keywords of APScheduler's `CronTrigger`. Raises `UsageError` as `on_calendar` does."""
        self.on_calendar()  # APScheduler takes days that both fields name, like systemd
        names = ("minute", "hour", "day", "month", "day_of_week")
        texts = ["*" if numbers is None else ",".join(map(str, numbers)) for numbers in self.sets]
        weekdays = self.sets[4]
        texts[4] = "*" if weekdays is None else ",".join(DAYS[day] for day in weekdays)
        return dict(zip(names, texts, strict=True))


def _numbers(word: str, name: str, low: int, high: int) -> tuple[int, ...] | None:
    """Return the numbers that a field names, in order; None for '*'."""
    if word == "*":
        return None
    found: set[int] = set()
    for part in word.split(","):
        match = _PART.fullmatch(part)
        if match is None:
            raise UsageError(f"the {name} {word!r} cannot be read; give numbers from {low} to {high}, '*' or ranges")
        star, first, last, step = match.groups()
        start = low if star else _number(first, name, low, high)
        # A step after one number goes on to the end.
        end = (7 - 1 if high == 7 else high) if star or (step and not last) else _number(last or first, name, low, high)
        if end < start or step == "0":
            raise UsageError(f"the {name} {word!r} holds nothing: {part} ends before it begins, or has no step")
        found |= set(range(start, end + 1, int(step or 1)))
    if high == 7:
        found = {day % 7 for day in found}
    return tuple(sorted(found))


def _number(word: str, name: str, low: int, high: int) -> int:
    names = {"month": MONTHS, "day of week": DAYS}.get(name, [])
    if word.lower()[:3] in names and len(word) >= 3:
        return names.index(word.lower()[:3]) + low
    if not word.isdigit() or not low <= int(word) <= high:
        raise UsageError(f"the {name} {word!r} is no number from {low} to {high}")
    return int(word)


def _listed(numbers: tuple[int, ...] | None) -> str:
    return "*" if numbers is None else ",".join(f"{number:02}" for number in numbers)
