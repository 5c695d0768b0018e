"""A store keeps what it said it kept: across kills, processes and threads. Every test here holds on both kinds."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
import threading
import time
from itertools import count
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from gristmill.core.errors import GristmillError, InputError, StoreError
from gristmill.core.store import Charge, Hold, Spent, Store, open_store
from gristmill.core.store.base import MOST_BYTES, Commit

_examples = count()


async def put(store: Store, key: str, *, text: str = "x", charge: Charge | None = None) -> None:
    await store.put_response(key, {"text": text}, charge or Charge("r", "qa", "writer", tokens_in=3, tokens_out=5))


def digest(number: int) -> str:
    return f"{number:064x}"


async def test_a_response_comes_back_and_the_first_one_stays(store: Store) -> None:
    assert await store.response("k") is None
    await put(store, "k", text="first")
    await put(store, "k", text="second")
    await asyncio.gather(put(store, "l", text="first"), put(store, "l", text="second"))
    assert await store.response("k") == await store.response("l") == {"text": "first"}


async def test_every_charge_counts_and_sums_are_exact(store: Store) -> None:
    paid = Charge("a", "qa", "writer", 1, 3, 5, 2, 1, nano_usd=1_234_567_891)
    await asyncio.gather(
        *(put(store, f"a{n}", charge=paid) for n in range(700)),
        put(store, "a0", charge=paid),  # answered already: this one was paid too
        put(store, "b", charge=Charge("b", "qa", "writer", tokens_in=1)),
        store.charge(Charge("a", "exam", "judge", tokens_in=10, tokens_out=20, answered=False)),
    )
    await store.charge(Charge("a", "exam", "judge", calls=2, answered=False))
    by_stage = store.spent_by_stage("a")
    assert by_stage[("qa", "writer")] == Spent(701, 2103, 3505, 1402, 701, 701 * 1_234_567_891)
    assert by_stage[("exam", "judge")] == Spent(3, 10, 20, unanswered=3)
    assert store.spent("a") == Spent(704, 2113, 3525, 1402, 701, 701 * 1_234_567_891, 3)
    assert store.spent("a").usd == pytest.approx(865.432091591)
    assert store.spent("b") == Spent(1, 1)
    assert store.spent("none") == Spent() and store.spent_by_stage("none") == {}


async def test_a_hold_stays_until_it_is_cleared(store: Store) -> None:
    assert store.held("r") == Hold()
    await store.hold("r", 3, 4000, 5_000_000_000_000)
    await store.hold("r", 2, 3000, 4_000_000_000_000)
    assert store.held("r") == Hold(2, 3000, 4_000_000_000_000)
    await store.hold("r", 0, 0, 0)
    assert store.held("r") == Hold()


async def test_calls_come_in_the_order_asked_for_and_unknown_ones_are_left_out(store: Store) -> None:
    for key in "abc":
        await put(store, key, text=key)
    found = store.calls(["c", "nowhere", "a"])
    assert [(c["key"], c["text"], c["run"], c["stage"], c["role"]) for c in found] == [
        ("c", "c", "r", "qa", "writer"),
        ("a", "a", "r", "qa", "writer"),
    ]


async def test_everything_is_there_after_closing_and_opening_again(place: str) -> None:
    first = open_store(place)
    await first.put_result("k", b"\0value")
    first.keep_result("l", b"", status="rejected")
    first.close()
    first.close()
    second = open_store(place)
    assert second.results(["k", "l", "m"]) == {"k": b"\0value", "l": b""}
    assert second.kept(["k", "l", "m"]) == {"k": "given", "l": "rejected"}
    second.close()


@settings(max_examples=30, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    writes=st.lists(
        st.tuples(
            st.text(min_size=1, max_size=3, alphabet="abcé☃'\""),
            st.binary(max_size=40),
            st.sampled_from(["given", "rejected", "failed"]),
        )
    )
)
async def test_results_behave_like_a_dictionary(store: Store, writes: list) -> None:
    example = next(_examples)
    named = [(f"{example}{key}", value, status) for key, value, status in writes]
    for number, (key, value, status) in enumerate(named):
        store.keep_result(key, value, status=status)
        if number % 3 == 0:
            await store.flush()
    await store.flush()
    keys = [*(key for key, _, _ in named), "other"]
    assert store.results(keys) == {key: value for key, value, _ in named}
    assert store.kept(keys) == {key: status for key, _, status in named}


async def test_many_results_are_looked_up_at_once(store: Store) -> None:
    for n in range(20_000):
        store.keep_result(digest(n), b"v")
    await store.flush()
    keys = [digest(n) for n in range(100_000)]
    began = time.perf_counter()
    assert len(store.kept(keys)) == 20_000
    assert len(store.results(keys)) == 20_000
    assert time.perf_counter() - began < 5


async def test_threads_may_write_and_read(store: Store) -> None:
    def work(name: int) -> None:
        for n in range(50):
            asyncio.run(store.put_result(f"{name}-{n}", b"%d" % n))
            assert store.results([f"{name}-{n}"])

    threads = [threading.Thread(target=work, args=(n,)) for n in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        await asyncio.to_thread(thread.join)
    assert len(store.results([f"{t}-{n}" for t in range(4) for n in range(50)])) == 200


async def test_what_waits_for_company_is_held_up_by_nobody(store: Store) -> None:
    """A result that nobody waits for is written soon; more than fits waits for room, and all of it arrives."""
    store.keep_result("alone", b"v")
    end = time.monotonic() + 5
    while not store.kept(["alone"]):
        assert time.monotonic() < end
        await asyncio.sleep(0.01)
    for n in range(12):
        store.keep_result(f"large{n}", bytes(8 << 20))
    await store.flush()
    assert len(store.kept([f"large{n}" for n in range(12)])) == 12


async def test_more_than_fits_waits_for_room_and_the_loop_goes_on(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    commit, may_write, sizes = store._commit, threading.Event(), []

    def slow(part: Commit) -> None:
        sizes.append(part.size)
        assert may_write.wait(20)
        commit(part)

    monkeypatch.setattr(store, "_commit", slow)
    puts = [asyncio.create_task(store.put_result(f"large{n}", bytes(4 << 20))) for n in range(24)]
    tick = time.monotonic()
    while time.monotonic() < tick + 0.3:
        began = time.monotonic()
        await asyncio.sleep(0.01)
        assert time.monotonic() - began < 0.2
    may_write.set()
    await asyncio.gather(*puts)
    assert len(store.kept([f"large{n}" for n in range(24)])) == 24
    assert max(sizes) <= MOST_BYTES + (4 << 20)


async def test_a_cancelled_writer_stops_nobody_else(store: Store) -> None:
    gone = asyncio.create_task(put(store, "gone"))
    await asyncio.sleep(0)
    gone.cancel()
    await put(store, "stays")
    assert await store.response("stays")


async def test_what_cannot_be_kept_is_an_error_for_the_one_who_hands_it_in(store: Store) -> None:
    with pytest.raises(TypeError):
        await put(store, "k", text=object())  # type: ignore[arg-type]
    with pytest.raises(TypeError):
        await store.put_result("k", object())  # type: ignore[arg-type]
    await put(store, "after")
    assert await store.response("after")


async def test_who_hands_in_what_was_paid_for_hears_nothing_of_lost_results(store: Store) -> None:
    """An answer that is refused because a result was lost would be paid for again, and one that costs would not be
    counted."""
    store.keep_result("k", "no bytes")  # type: ignore[arg-type]
    await asyncio.sleep(0.3)
    await put(store, "paid")
    await store.charge(Charge("r", "qa", "writer", answered=False))
    await store.hold("r", 1, 1, 1)
    await store.put_note("space", "name", {})
    assert await store.response("paid") and store.spent("r").calls == 2
    with pytest.raises(StoreError, match=r"cannot be (written|used)"):
        store.keep_result("l", b"v")
    await store.flush()
    assert store.kept(["k", "l"]) == {}


async def test_a_result_that_could_not_be_written_is_told_to_the_next_who_hands_in_one(store: Store) -> None:
    store.keep_result("k", "no bytes")  # type: ignore[arg-type]
    with pytest.raises(StoreError, match=r"cannot be (written|used)"):
        await store.flush()
    with pytest.raises(StoreError, match=r"cannot be (written|used)"):
        await store.put_result("l", b"v")
    await store.put_result("m", b"v")
    assert store.kept(["k", "l", "m"]) == {"m": "given"}


async def test_a_closed_store_says_so(place: str) -> None:
    store = open_store(place)
    store.close()
    for asked in (put(store, "k"), store.flush(), store.response("k")):
        with pytest.raises(GristmillError, match="closed"):
            await asked
    with pytest.raises(GristmillError, match="closed"):
        store.results(["k"])


async def test_notes_are_shared_and_say_when_they_were_written(place: str, store: Store) -> None:
    other = open_store(place)
    await asyncio.gather(store.put_note("limits", "one", {"share": 4}), other.put_note("limits", "two", {"share": 5}))
    await store.put_note("batches", "one", {"id": "b"})
    await store.put_note("limits", "one", {"share": 6})
    found = other.notes("limits")
    assert {name: note["share"] for name, note in found.items()} == {"one": 6, "two": 5}
    assert all(abs(note["at"] - time.time()) < 60 and -1 < note["age"] < 60 for note in found.values())
    await other.put_note("limits", "two", None)
    assert set(store.notes("limits")) == {"one"}
    other.close()


def test_a_file_is_hashed_once_until_it_changes(store: Store, tmp_path: Path) -> None:
    path = tmp_path / "weights.gguf"
    path.write_bytes(b"one")
    long_ago = time.time() - 3600
    os.utime(path, (long_ago, long_ago))
    first = store.file_hash(path)
    path.write_bytes(b"two")
    assert store.file_hash(path) != first
    os.utime(path, (long_ago, long_ago))  # same size, time and inode: taken for the same file, without reading it
    assert store.file_hash(path) == first
    with pytest.raises(InputError, match="cannot read"):
        store.file_hash(tmp_path / "nothing")


def test_a_file_just_written_is_not_remembered(store: Store, tmp_path: Path) -> None:
    path = tmp_path / "document.txt"
    path.write_bytes(b"one")
    stat = path.stat()
    first = store.file_hash(path)
    path.write_bytes(b"two")
    os.utime(path, ns=(stat.st_atime_ns, stat.st_mtime_ns))
    assert store.file_hash(path) != first


WRITER = """
import asyncio, sys
from gristmill.core.store import Charge, open_store

async def main(place, name, total):
    store = open_store(place)
    async def one(first):
        for n in range(first, total, 16):
            await store.put_response(f"{name}-{n}", {"text": "x" * 1500}, Charge(name, "s", "w"))
            sys.stdout.write(f"{name}-{n}\\n"); sys.stdout.flush()
            store.keep_result(f"{name}-{n}", b"result")
    await asyncio.gather(*(one(n) for n in range(16)))
    store.close()

asyncio.run(main(sys.argv[1], sys.argv[2], int(sys.argv[3])))
"""


def writer(place: str, name: str, total: int) -> subprocess.Popen[str]:
    command = [sys.executable, "-c", WRITER, place, name, str(total)]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def test_killed_at_any_moment_every_confirmed_write_is_there(place: str) -> None:
    for attempt in range(4):
        process = writer(place, f"try{attempt}", 10**9)
        assert process.stdout is not None
        confirmed = [process.stdout.readline().strip() for _ in range(200 + 150 * attempt)]
        process.send_signal(signal.SIGKILL)
        rest, _ = process.communicate()
        confirmed += rest.splitlines() if rest.endswith("\n") else rest.splitlines()[:-1]
        store = open_store(place)
        assert [c["key"] for c in store.calls(confirmed)] == confirmed
        assert len(confirmed) <= store.spent(f"try{attempt}").calls <= len(confirmed) + 32
        store.close()


def test_two_processes_share_a_store(place: str) -> None:
    both = [writer(place, name, 1500) for name in "ab"]
    for process in both:
        _, errors = process.communicate(timeout=60)
        assert process.returncode == 0, errors
    store = open_store(place)
    assert store.spent("a").calls == store.spent("b").calls == 1500
    assert len(store.kept([f"{name}-{n}" for name in "ab" for n in range(1500)])) == 3000
    store.close()
