"""Processes that share a line: together they keep its limits, whoever comes, goes or is killed."""

from __future__ import annotations

import asyncio
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from gristmill.core.errors import StoreError
from gristmill.core.store import Store, open_store
from gristmill.llm.limits import shares as sharing
from gristmill.llm.limits.limiter import Limiter
from gristmill.llm.limits.shares import Shares

BEAT = 0.2  # seconds; the real one is 1


def start(store: Path, *, rpm: int, seconds: float) -> subprocess.Popen[str]:
    command = [sys.executable, "-m", "tests.llm.shares_child", str(store), str(rpm), str(BEAT), str(seconds)]
    return subprocess.Popen(command, stdout=subprocess.PIPE, text=True)


def said(process: subprocess.Popen[str]) -> list[tuple[float, int]]:
    out, _ = process.communicate(timeout=30)
    lines = [line.split() for line in out.splitlines()]
    return [(float(words[0]), int(words[1])) for words in lines if len(words) == 2]


def test_two_processes_together_keep_the_rate_and_a_killed_one_gives_its_share_back(tmp_path: Path) -> None:
    store = tmp_path / "store.db"
    open_store(store).close()
    first = start(store, rpm=1200, seconds=6)
    time.sleep(1.0)
    second = start(store, rpm=1200, seconds=30)
    time.sleep(3.0)
    second.kill()
    killed = time.time()
    ours, theirs = said(first), said(second)
    moments = sorted(at for at, _ in ours + theirs)
    for last, moment in enumerate(moments):  # never more than the rate: 20 a second, and one for where windows begin
        assert last - sum(at <= moment - 1 for at in moments[:last]) <= 21
    both = [at for at, _ in ours if theirs[0][0] + 0.5 < at < killed]
    assert 8 <= len(both) / (killed - theirs[0][0] - 0.5) <= 11
    assert 8 <= (len(theirs) - 5) / (killed - theirs[0][0] - 0.5) <= 12
    back = [at for at, limit in ours if at > killed and limit == 64]
    assert back and back[0] - killed <= 5 * BEAT + 0.8


async def test_alone_nobody_waits_and_a_beat_is_one_small_write(tmp_path: Path) -> None:
    store = open_store(tmp_path / "store.db")
    limiter, shares = Limiter(ceiling=64, start=64, rpm=60), Shares(store, beat=BEAT)
    began = time.monotonic()
    await shares.join("line", limiter)
    assert time.monotonic() - began < 0.5
    assert limiter.limit == 64
    assert limiter.try_enter(1)
    await asyncio.sleep(5.5 * BEAT)
    notes = store.notes("limits:line")
    assert len(notes) == 1
    assert 3 <= next(iter(notes.values()))["beat"] <= 6
    await shares.close()
    assert store.notes("limits:line") == {}
    store.close()


async def test_a_newcomer_sends_only_when_others_have_made_room(tmp_path: Path) -> None:
    store = open_store(tmp_path / "store.db")
    one, two = Limiter(ceiling=9, start=9), Limiter(ceiling=9, start=9)
    first, second = Shares(store, beat=BEAT), Shares(store, beat=BEAT)
    await first.join("line", one)
    joining = asyncio.create_task(second.join("line", two))
    await asyncio.sleep(0)
    while not joining.done():
        assert two.limit == 0 or one.limit == 4
        await asyncio.sleep(0.002)
    assert (one.limit, two.limit) == (4, 4)
    assert two.why == "as configured, shared with 1 more"
    await second.close()
    await asyncio.sleep(2 * BEAT)
    assert one.limit == 9
    await first.close()
    store.close()


async def test_who_sends_nothing_gives_its_part_up_and_gets_it_back(tmp_path: Path) -> None:
    store = open_store(tmp_path / "store.db")
    busy, idle = Limiter(ceiling=8, start=8), Limiter(ceiling=8, start=8)
    first, second = Shares(store, beat=BEAT), Shares(store, beat=BEAT)
    await asyncio.gather(first.join("line", busy), second.join("line", idle))
    assert busy.try_enter(1)  # and stays in flight
    async with asyncio.timeout(5):
        while busy.limit < 8:
            await asyncio.sleep(0.02)
    assert idle.limit == 0
    async with asyncio.timeout(5):
        await idle.enter(1)
    assert busy.limit == idle.limit == 4
    await first.close()
    await second.close()
    store.close()


async def test_a_note_of_a_process_long_dead_holds_nobody_up(tmp_path: Path) -> None:
    store = open_store(tmp_path / "store.db")
    await store.put_note("limits:line", "dead", {"beat": 7, "wants": True, "seen": {}})
    await asyncio.sleep(5 * BEAT + 0.1)
    limiter, shares = Limiter(ceiling=8, start=8), Shares(store, beat=BEAT)
    began = time.monotonic()
    await shares.join("line", limiter)
    assert time.monotonic() - began < BEAT
    assert limiter.limit == 8
    await shares.close()
    store.close()


@pytest.mark.parametrize("note", [{}, {"beat": "7", "wants": True, "seen": {}}, {"beat": 7, "wants": True, "seen": 3}])
async def test_a_note_that_nobody_can_read_stops_no_beat(tmp_path: Path, note: dict[str, Any]) -> None:
    store, limiter = open_store(tmp_path / "store.db"), Limiter(ceiling=8, start=8)
    shares = Shares(store, beat=BEAT)
    await shares.join("line", limiter)
    await store.put_note("limits:line", "of-another-version", note)
    await asyncio.sleep(6 * BEAT)  # who does not beat is muted after five
    assert limiter.limit == 8
    await shares.close()
    store.close()


async def test_what_was_learned_is_there_for_the_next_process(tmp_path: Path) -> None:
    store = open_store(tmp_path / "store.db")
    limiter, shares = Limiter(), Shares(store, beat=BEAT)
    await shares.join("line", limiter)
    limiter.recall({"level": 23, "refused_at": 31})
    await shares.close()
    later, shares = Limiter(), Shares(store, beat=BEAT)
    await shares.join("line", later)
    assert later.limit == 23
    given = Limiter(ceiling=8, start=8)
    await Shares(store, beat=BEAT).join("line", given)
    assert given.learned() == {}
    await shares.close()
    store.close()


SILENT = {"beat": 7, "wants": True, "seen": {}}


async def own_name(store: Store) -> list[str]:
    """Machine, process, its start, and a mark: what a note of this process goes by."""
    shares = Shares(store, beat=BEAT)
    await shares.join("names", Limiter())
    [name] = store.notes("limits:names")
    await shares.close()
    return name.split()


async def seconds_to_join(store: Store, name: str) -> float:
    await store.put_note("limits:line", name, SILENT)
    shares, began = Shares(store, beat=BEAT), time.monotonic()
    await shares.join("line", Limiter(ceiling=8, start=8))
    seconds = time.monotonic() - began
    await shares.close()
    return seconds


async def test_a_process_is_dead_when_its_number_is_free_or_anothers_and_only_where_that_can_be_seen(
    tmp_path: Path,
) -> None:
    store = open_store(tmp_path / "store.db")
    here, process, started, mark = await own_name(store)
    unreaped = subprocess.Popen(["true"])
    await asyncio.sleep(0.2)
    gone = [f"4194305 {started}", f"{process} {int(started) - 1}", f"{unreaped.pid} {started}"]
    for dead in gone:
        assert await seconds_to_join(store, f"{here} {dead} {mark}") < BEAT
    unreaped.wait()
    assert store.notes("limits:line") == {}, "and their notes are swept away"
    alive = [f"{here} {process} {started} {mark}", f"elsewhere 4194305 {started} {mark}", "of-another-kind"]
    assert min([await seconds_to_join(store, name) for name in alive]) >= 4 * BEAT
    assert set(store.notes("limits:line")) == set(alive), "they may come back"
    store.close()


async def test_notes_of_the_killed_do_not_pile_up(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    store = open_store(tmp_path / "store.db")
    monkeypatch.setattr(sharing, "FORGOTTEN", 7 * BEAT)
    for n in range(300):
        await store.put_note("limits:line", f"elsewhere {n} 1 x", SILENT)
    shares = Shares(store, beat=BEAT)
    await shares.join("line", Limiter())
    await asyncio.sleep(4 * BEAT)
    assert len(store.notes("limits:line")) == 1
    await shares.close()
    store.close()


async def test_a_store_that_is_away_holds_up_no_loop_and_nothing_is_sent_unheard(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Others take this process for dead meanwhile: it sends again when they have made room for it again."""
    store = open_store(tmp_path / "store.db")
    limiter, other = Limiter(ceiling=8, start=8), Limiter(ceiling=8, start=8)
    shares, others = Shares(store, beat=BEAT), Shares(open_store(tmp_path / "store.db"), beat=BEAT)
    await asyncio.gather(shares.join("line", limiter), others.join("line", other))
    assert limiter.try_enter(1) and other.try_enter(1)  # and stay in flight
    notes, away = store.notes, time.monotonic() + 9 * BEAT

    def slow(space: str) -> dict[str, Any]:
        time.sleep(max(0.0, away - time.monotonic()))
        return notes(space)

    monkeypatch.setattr(store, "notes", slow)
    seen = set()
    while time.monotonic() < away - BEAT / 2:
        began = time.monotonic()
        await asyncio.sleep(0.01)
        assert time.monotonic() - began < BEAT
        assert limiter.limit + other.limit <= 8
        seen.add((limiter.limit, other.limit))
    assert (0, 8) in seen
    async with asyncio.timeout(5):
        while limiter.limit != 4:
            await asyncio.sleep(0.01)
            assert limiter.limit + other.limit <= 8
    await shares.close()
    await others.close()
    store.close()


async def test_a_store_that_fails_stops_the_sending_until_it_is_back(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store, limiter = open_store(tmp_path / "store.db"), Limiter(ceiling=8, start=8)
    shares = Shares(store, beat=BEAT)
    await shares.join("line", limiter)

    def broken(space: str) -> dict[str, Any]:
        raise StoreError("away")

    with monkeypatch.context() as patched:
        patched.setattr(store, "notes", broken)
        await asyncio.sleep(2 * BEAT)
        assert limiter.limit == 0
    await asyncio.sleep(2 * BEAT)
    assert limiter.limit == 8
    await shares.close()
    store.close()
