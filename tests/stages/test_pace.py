"""The pace of extraction: rates, waiting, and which step is named."""

from __future__ import annotations

import time
from collections.abc import Iterator

from wsi_mil.stages.pace import STEPS, Stopwatch, pace, told_pace


def told(waited_s: float, **seconds: float) -> tuple[list[tuple[str, str, str]], str]:
    return told_pace([(1000, pace(seconds, wall_s=10.0, waited_s=waited_s, threads=2))])


def test_a_step_that_waits_names_what_it_waits_for() -> None:
    rows, why = told(4.0, fetch=1.0, decode=16.0, transform=2.0, encode=5.0)
    assert rows == [
        ("fetch", "5%", "2,000"),
        ("decode", "80%", "125"),
        ("transform", "10%", "1,000"),
        ("encode", "50%", "200"),
    ]
    assert why.startswith("100 tiles/s")
    assert "waited 40%" in why
    assert "most of it for decode" in why


def test_reading_that_keeps_up_is_not_blamed() -> None:
    _, why = told(0.2, decode=6.0, encode=9.0, measure=0.5)
    assert "reading kept up" in why
    assert "encode takes the time" in why


def test_hands_that_encode_side_by_side_count() -> None:
    one = pace({"encode": 16.0, "write": 1.0}, wall_s=10.0, waited_s=0.0, threads=1, hands=2)
    rows, _ = told_pace([(1000, one)])
    assert rows == [("encode", "80%", "125"), ("write", "10%", "1,000")]


def test_slides_are_added_up() -> None:
    one = pace({"encode": 2.0}, wall_s=4.0, waited_s=0.0, threads=1)
    rows, why = told_pace([(100, one), (300, one)])
    assert rows == [("encode", "50%", "100")]
    assert why.startswith("50 tiles/s")
    assert told_pace([]) == ([], "")


def test_the_stopwatch_parts_work_from_waiting() -> None:
    def slowly() -> Iterator[int]:
        for number in range(3):
            time.sleep(0.02)
            yield number

    watch, seen = Stopwatch(), []
    for number in watch.waits(slowly()):
        with watch("encode"):
            time.sleep(0.01)
        seen.append(number)
    assert seen == [0, 1, 2]
    assert watch.waited_s >= 0.05
    assert watch.seconds["encode"] >= 0.03
    assert set(watch.seconds) <= set(STEPS)
