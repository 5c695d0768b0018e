"""Training data on disk: what is written is read, whatever the number of threads; nothing is rendered twice."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from tests.train.stream_child import write_table, write_tokenizer

from gristmill.core.errors import Cancelled, InputError
from gristmill.core.records import Message, Sample
from gristmill.models.renderer import Renderer
from gristmill.models.weights import locate
from gristmill.train.data import Examples, ExampleWriter, write_beside
from gristmill.train.kinds import KtoConfig
from gristmill.train.objective import objective_of
from gristmill.train.packing import Example, Tokens
from gristmill.train.prepare import Data, Preparation

Make = Callable[..., Any]

TOKENS = st.lists(st.tuples(st.integers(0, 2**31 - 1), st.booleans()), min_size=1, max_size=9).map(
    lambda pairs: Tokens(np.array([i for i, _ in pairs], np.int64), np.array([m for _, m in pairs], np.bool_))
)
GROUPS = st.lists(TOKENS, min_size=1, max_size=3).map(tuple)


def same(one: Example, other: Example) -> bool:
    def plain(example: Example) -> Any:
        parts = (example.sequences, example.beside)
        return example.values, [[(t.ids.tolist(), t.mask.tolist(), t.ids.dtype) for t in part] for part in parts]

    return bool(plain(one) == plain(other))


@settings(deadline=None, max_examples=50, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(GROUPS, max_size=6), st.integers(0, 2), st.booleans())
def test_what_is_written_is_read(
    tmp_path: Path, groups: list[tuple[Tokens, ...]], values: int, looked_beside: bool
) -> None:
    folder = tmp_path / str(len(list(tmp_path.iterdir())))
    given_ = [
        Example(group, (0.5 + at,) * values, group[::-1] if looked_beside else ()) for at, group in enumerate(groups)
    ]
    with ExampleWriter(folder) as writer:
        for at, example in enumerate(given_):
            writer.add(Example(example.sequences, example.values), size=at / 3)
    if looked_beside:
        write_beside(folder, given_)
    examples = Examples(folder)
    assert len(examples) == len(given_)
    assert all(same(one, other) for one, other in zip(examples, given_, strict=True))
    assert examples.lengths.tolist() == [len(example) for example in given_]
    assert examples.sizes.tolist() == [at / 3 for at in range(len(given_))]
    assert [len(e) for e in examples[1:]] == [len(e) for e in given_[1:]]
    assert not given_ or same(examples[-1], given_[-1])
    assert examples.damage() == "" and Examples(folder).digest == examples.digest
    with pytest.raises(IndexError):
        examples[len(given_)]


@pytest.fixture(scope="session")
def renderer(model_folder: Path) -> Renderer:
    return Renderer.load(locate(str(model_folder), base=Path("/")))


@pytest.fixture
def prepare(renderer: Renderer, context: Make, config: Make) -> Make:
    """Prepares samples in the folder of a named context. Gives the data, and how many samples were rendered."""

    def run(given: Iterable[Any], name: str = "one", **changes: Any) -> tuple[Data, int, Any]:
        stopping = changes.pop("stopping", None)
        settings_ = changes.pop("settings", None) or config(**changes)
        objective = objective_of(settings_)
        ctx, rendered, examples = context(name), [], objective.examples
        if stopping:
            ctx.stopping = lambda: len(rendered) >= stopping

        def counted(sample: Sample, renderer: Renderer) -> list[Example]:
            rendered.append(sample.id)
            return examples(sample, renderer)

        objective.examples = counted
        data = Preparation(settings_, objective, renderer, ctx).data(given, ctx.folder / "data")
        return data, len(rendered), ctx

    return run


def files_of(data: Data) -> dict[str, bytes]:
    return {str(p.relative_to(data.folder)): p.read_bytes() for p in data.folder.rglob("*") if p.is_file()}


def test_any_number_of_threads_gives_the_same_bytes(prepare: Make, samples: Make) -> None:
    given_ = [s.marked(split="validation") if at % 7 == 3 else s for at, s in enumerate(samples(300))]
    given_[11] = Sample(form="chat", kind="qa", messages=(Message(role="user", content="?"),))
    one, *others = (files_of(prepare(given_, str(workers), workers=workers)[0]) for workers in (1, 2, 5))
    assert all(other == one for other in others)
    assert one["train/ids.bin"] and one["validation/ids.bin"] and one["dropped.ndjson"]


def test_a_resume_renders_nothing_and_other_samples_or_settings_everything(prepare: Make, samples: Make) -> None:
    given_ = samples(12)
    data, rendered, _ = prepare(given_)
    assert rendered == len(given_) == data.report["samples"]
    again, rendered, _ = prepare(given_)
    assert rendered == 0
    assert (again.train.digest, again.report) == (data.train.digest, data.report)
    assert prepare(given_, save_every=9)[1] == 0  # how often it saves does not change what is learned
    assert prepare(given_, context=64)[1] == len(given_)
    more, rendered, _ = prepare([*given_, samples(1, texts=0, seed=8)[0]], context=64)
    assert rendered == len(given_) + 1
    assert more.train.digest != data.train.digest


@pytest.mark.parametrize("name", ["train/ids.bin", "train/mask.bin", "validation/firsts.bin", "dropped.ndjson"])
def test_what_is_damaged_is_rendered_again_and_said(prepare: Make, samples: Make, name: str) -> None:
    given_ = [*samples(12), samples(1)[0].marked(split="validation")]
    data, rendered, _ = prepare(given_)
    path, whole = data.folder / name, files_of(data)
    found = bytearray(path.read_bytes()) or bytearray(b"x")
    found[len(found) // 2] ^= 4
    path.write_bytes(found)
    again, twice, ctx = prepare(given_)
    assert twice == rendered
    assert [m["rendered_again"] for m in ctx.metrics] == [name.rpartition("/")[2]]
    assert files_of(again) == whole
    (again.folder / "index.json").write_bytes(b"{")
    assert prepare(given_)[1] == rendered


def test_stopped_half_way_nothing_half_done_is_left(prepare: Make, samples: Make, tmp_path: Path) -> None:
    many = [sample for seed in range(60) for sample in samples(24, texts=30, seed=seed)]
    with pytest.raises(Cancelled, match="turned into tokens"):
        prepare(many, stopping=1)
    assert list((tmp_path / "one").iterdir()) == []
    left = tmp_path / "one" / ".data.tmp"  # as a killed process leaves it
    (left / "train").mkdir(parents=True)
    assert prepare(many[:5])[0].report["samples"] == 5
    assert not left.exists()


def test_drops_stream_with_their_reasons(prepare: Make, samples: Make) -> None:
    bad = Sample(form="rating", kind="qa", messages=(Message(role="user", content="?"),), desirable=True)
    silent = Sample(form="text", kind="passage", text="Orvale.", train=False)
    data, _, _ = prepare([bad, *samples(3), silent.marked(split="validation"), silent.marked(split="test")])
    assert [(d.record, d.reason) for d in data.dropped()] == [
        (bad, "a rating sample"),
        (silent.marked(split="validation"), "nothing to train on"),
    ]
    assert data.report["dropped"] == {"a rating sample": 1}
    assert data.report["validation"]["dropped"] == {"nothing to train on": 1}


def test_what_stands_beside_is_written_too(prepare: Make, renderer: Renderer) -> None:
    rated = [
        Sample(
            form="rating",
            kind="qa",
            messages=(
                Message(role="user", content=f"How high is tower {i}?"),
                Message(role="assistant", content=f"{i} feet.", train=True),
            ),
            desirable=i % 2 == 0,
        )
        for i in range(5)
    ]
    config = KtoConfig(kind="train.kto", model="student", context=128)
    data, _, _ = prepare(rated, settings=config)
    objective = objective_of(config)
    plain = [example for sample in rated for example in objective.examples(sample, renderer)]
    expected = list(objective.beside(plain))
    assert all(example.beside for example in expected)
    assert all(same(one, other) for one, other in zip(data.train, expected, strict=True))


def test_records_are_read_as_they_are_needed(renderer: Renderer, context: Make, config: Make) -> None:
    """Of those read ahead of the files there are never more than some batches."""
    ctx, settings_ = context(), config()
    done, ahead = [0.0], [0.0]
    ctx.progress = lambda count, total, **_: done.append(count)

    def records() -> Iterator[Sample]:
        for at in range(1500):
            ahead.append(at - done[-1])
            yield Sample(form="text", kind="passage", text=f"{at} mills of Orvale. " * 60)

    class Given:
        digest = "of these"

        def __len__(self) -> int:
            return 1500

        def __iter__(self) -> Iterator[Sample]:
            return records()

    data = Preparation(settings_, objective_of(settings_), renderer, ctx).data(Given(), ctx.folder / "data")
    assert data.report["samples"] == done[-1] == 1500
    assert 0 < max(ahead) < 700


def test_all_dropped_is_an_error_that_counts_the_reasons(prepare: Make, samples: Make) -> None:
    silent = Sample(form="text", kind="passage", text="Orvale.", train=False)
    with pytest.raises(InputError, match=r"no sample to train on: nothing to train on \(2\)"):
        prepare([silent, silent.marked(note=1)])
    with pytest.raises(InputError, match="no sample is marked for validation"):
        prepare(samples(3), eval_every=2)


def peaks(model_folder: Path, tmp_path: Path, *megabytes: int) -> list[int]:
    """Peak memory, in MB, after each of several sizes of data have been read, rendered and read back."""
    shutil.copytree(model_folder, tmp_path / "model")
    write_tokenizer(tmp_path / "model")
    for size in megabytes:
        write_table(tmp_path / f"{size}.parquet", size)
    child = Path(__file__).with_name("stream_child.py")
    command = [sys.executable, child, tmp_path, *map(str, megabytes)]
    done = subprocess.run(command, capture_output=True, text=True, env={**os.environ, "OMP_NUM_THREADS": "1"})
    assert done.returncode == 0, done.stderr
    return [int(number) for number in done.stdout.split()]


@pytest.mark.slow
def test_more_data_takes_no_more_memory(model_folder: Path, tmp_path: Path) -> None:
    """30 MB of text after 10. Measured: 25 to 29 MB more, until allocators have what they want, and none from there on
    (50 MB take as much as 30). Were it held, as rows, samples or texts, another 20 MB would come on top."""
    few, many = peaks(model_folder, tmp_path, 10, 30)
    assert many - few < 38


RUN = """
import atexit, sys
from pathlib import Path
from gristmill.cli import main
atexit.register(lambda: print(*[row for row in open("/proc/self/status") if "VmHWM" in row], file=sys.stderr))
main()
"""
"""The command line, saying at its end how much memory it took at most: VmHWM: … kB."""


@pytest.mark.slow
def test_a_run_trains_on_a_table_larger_than_what_it_may_take(model_folder: Path, tmp_path: Path) -> None:
    """The streaming recipe, as the command line runs it: 250 MB of text in one row group against 10 MB. Were the rows,
    the samples or the texts held anywhere, 240 MB or more would come on top; 60 MB took 18 MB more than 10 MB."""
    shutil.copytree(model_folder, tmp_path / "model")
    write_tokenizer(tmp_path / "model")
    recipe = Path(__file__).parents[2] / "recipes/streaming.yaml"
    peaks = []
    for megabytes in (10, 250):
        table = tmp_path / f"{megabytes}.parquet"
        write_table(table, megabytes)
        sets = {
            "models.student.model": tmp_path / "model",
            "stages.texts.paths": f'["{table}"]',
            **{f"stages.tune.{key}": value for key, value in {"context": 256, "tokens": 3000, "threads": 1}.items()},
            "stages.tune.eval_every": "null",
        }
        given_ = [f"--set={key}={value}" for key, value in sets.items()]
        command = [sys.executable, "-c", RUN, "run", recipe, "--workspace", tmp_path / f"ws{megabytes}", *given_]
        done = subprocess.run(command, capture_output=True, text=True, env={**os.environ, "OMP_NUM_THREADS": "1"})
        assert done.returncode == 0, done.stdout + done.stderr
        peaks.append(int(done.stderr.split()[-2]) >> 10)
    assert peaks[1] - peaks[0] < 100
