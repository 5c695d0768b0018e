"""The report of a run: one self-contained HTML file, rebuilt from the run's folder alone."""

from gristmill.runs.report.page import write_report

__all__ = ["write_report"]
