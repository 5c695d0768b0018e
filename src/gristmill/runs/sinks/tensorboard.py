"""TensorBoard's event files, by its own writer: one folder for each stage, so that every stage is a run of its board.

An attempt adds a file to the folder; the board joins them.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import orjson

from gristmill.runs.sinks.kinds import TensorboardConfig
from gristmill.runs.sinks.sink import About, Point


def open_sink(config: TensorboardConfig, about: About) -> Tensorboard:
    folder = about.base / config.folder / about.id if config.folder else about.folder
    folder.mkdir(parents=True, exist_ok=True)
    return Tensorboard(folder, about.recipe)


class Tensorboard:
    """Scalars by stage; words, and the recipe, as text."""

    def __init__(self, folder: Path, recipe: dict[str, Any]) -> None:
        self.folder = folder
        self.recipe = recipe
        self._writers: dict[str, Any] = {}

    def write(self, points: Sequence[Point]) -> None:
        from tensorboard.compat.proto.event_pb2 import Event
        from tensorboard.compat.proto.summary_pb2 import Summary

        for point in points:
            values = [Summary.Value(tag=name, simple_value=value) for name, value in point.numbers.items()]
            values += [_text(name, words) for name, words in point.words.items()]
            event = Event(wall_time=point.time, step=point.step or 0, summary=Summary(value=values))
            self._writer(point.stage, point.time).add_event(event)
        for writer in self._writers.values():
            writer.flush()

    def close(self, state: str, artifacts: Mapping[str, Path]) -> None:  # noqa: ARG002  (it shows curves, not files)
        for writer in self._writers.values():
            writer.close()

    def _writer(self, stage: str, time: float) -> Any:
        """The stage's file, opened at its first point, with the recipe in front."""
        from tensorboard.compat.proto.event_pb2 import Event
        from tensorboard.compat.proto.summary_pb2 import Summary
        from tensorboard.summary.writer.event_file_writer import EventFileWriter

        if stage not in self._writers:
            writer = self._writers[stage] = EventFileWriter(str(self.folder / stage), max_queue_size=1000)
            recipe = orjson.dumps(self.recipe, option=orjson.OPT_INDENT_2).decode()
            text = _text("recipe", "    " + recipe.replace("\n", "\n    "))  # code, in the board's Markdown
            writer.add_event(Event(wall_time=time, step=0, summary=Summary(value=[text])))
        return self._writers[stage]


def _text(name: str, words: str) -> Any:
    """A value that the board's text tab shows."""
    from tensorboard.compat.proto.summary_pb2 import Summary, SummaryMetadata
    from tensorboard.compat.proto.tensor_pb2 import TensorProto
    from tensorboard.compat.proto.tensor_shape_pb2 import TensorShapeProto
    from tensorboard.compat.proto.types_pb2 import DT_STRING

    shape = TensorShapeProto(dim=[TensorShapeProto.Dim(size=1)])
    tensor = TensorProto(dtype=DT_STRING, string_val=[words.encode()], tensor_shape=shape)
    plugin = SummaryMetadata.PluginData(plugin_name="text")
    return Summary.Value(tag=name, metadata=SummaryMetadata(plugin_data=plugin), tensor=tensor)
