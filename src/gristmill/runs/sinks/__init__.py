"""Trackers beside a run's own files: TensorBoard, MLflow, Weights & Biases, and what other packages bring."""

from gristmill.runs.sinks.kinds import check_sink, sinks
from gristmill.runs.sinks.sink import About, Point, Sink, SinkConfig, SinkKind

__all__ = ["About", "Point", "Sink", "SinkConfig", "SinkKind", "check_sink", "sinks"]
