"""One training in a process of its own: `one_run.py FOLDER MODEL CONFIG [STEP]`. Kills itself, without warning,
once STEP is reported; the kill test runs it again to the end."""

from __future__ import annotations

import json
import os
import signal
import sys
from pathlib import Path
from typing import Any

from conftest import PassOf, config_of, make_samples

from gristmill.train.run import run

if __name__ == "__main__":
    folder, model, settings = Path(sys.argv[1]), Path(sys.argv[2]), json.loads(sys.argv[3])
    die_at = int(sys.argv[4]) if len(sys.argv) > 4 else None

    def die(values: dict[str, Any]) -> None:
        if die_at is not None and values.get("step") == die_at:
            os.kill(os.getpid(), signal.SIGKILL)

    context = PassOf(folder, model, folder / "cache", on_metric=die)
    list(run(config_of(**settings), make_samples(20), context))
    resumed = [m["resumed_step"] for m in context.metrics if "resumed_step" in m]
    sys.stdout.write(json.dumps({"resumed": resumed, "losses": context.losses}))
