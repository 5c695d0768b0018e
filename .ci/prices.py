"""Writes src/gristmill/llm/prices.json: what models cost, from the price table that the package litellm carries (MIT).

    pip download --no-deps litellm -d FOLDER && python .ci/prices.py FOLDER/litellm-*.whl

Facts alone are taken, of text models at the addresses below. Left out: models that are switched off by the day of the
table, models whose price is given as nothing (trials), prices for other things than text, priority and off-peak prices.
"""

from __future__ import annotations

import json
import re
import sys
import time
import zipfile
from pathlib import Path
from typing import Any

TARGET = Path(__file__).parents[1] / "src" / "gristmill" / "llm" / "prices.json"
MEMBER = "litellm/model_prices_and_context_window_backup.json"
HOSTS = {  # litellm's name of a provider -> its address, and what litellm writes before its models
    "openai": ("api.openai.com", ""),
    "text-completion-openai": ("api.openai.com", ""),
    "anthropic": ("api.anthropic.com", ""),
    "deepseek": ("api.deepseek.com", "deepseek/"),
    "mistral": ("api.mistral.ai", "mistral/"),
    "groq": ("api.groq.com", "groq/"),
    "together_ai": ("api.together.xyz", "together_ai/"),
    "fireworks_ai": ("api.fireworks.ai", "fireworks_ai/"),
    "gemini": ("generativelanguage.googleapis.com", "gemini/"),
    "xai": ("api.x.ai", "xai/"),
    "cerebras": ("api.cerebras.ai", "cerebras/"),
}
MODES = ("chat", "completion", "embedding")
NAMES = {  # ours -> litellm's
    "input": "input_cost_per_token",
    "output": "output_cost_per_token",
    "cached_input": "cache_read_input_token_cost",
    "cache_write": "cache_creation_input_token_cost",
}
# What is billed by more than tokens of text.
OTHER = re.compile(r"audio|search|research|image|realtime|transcri|tts|computer-use")
ABOVE = re.compile(r"input_cost_per_token_above_(\d+)k_tokens")


def prices(entry: dict[str, Any], suffix: str = "") -> dict[str, float]:
    """$ for a million tokens. What a provider does not name costs as much as input."""
    found = {ours: entry.get(theirs + suffix) for ours, theirs in NAMES.items()}
    found["output"] = max(found["output"] or 0, entry.get(f"output_cost_per_reasoning_token{suffix}") or 0)
    return {name: round(value * 1e6, 6) for name, value in found.items() if value or name in ("input", "output")}


def model(entry: dict[str, Any]) -> dict[str, Any] | None:
    if entry.get("input_cost_per_token") is None or not any(prices(entry).values()):
        return None
    made: dict[str, Any] = prices(entry)
    if batch := batch_share(entry):
        made["batch"] = batch
    above = [int(hit[1]) for name in entry if (hit := ABOVE.fullmatch(name))]
    if above:
        made["above"] = {"tokens": min(above) * 1000, **prices(entry, f"_above_{min(above)}k_tokens")}
    return made


def batch_share(entry: dict[str, Any]) -> float | None:
    """What a batch costs of the full price; where input and output differ, the dearer share."""
    pairs = [(entry.get(f"{NAMES[n]}_batches"), entry.get(NAMES[n])) for n in ("input", "output")]
    shares = [batch / full for batch, full in pairs if batch is not None and full]
    return round(max(shares), 4) if shares else None


def main(wheel: Path) -> None:
    with zipfile.ZipFile(wheel) as archive:
        table = json.loads(archive.read(MEMBER))
    today = time.strftime("%Y-%m-%d")
    hosts: dict[str, dict[str, Any]] = {host: {} for host, _ in HOSTS.values()}
    for name, entry in table.items():
        host, prefix = HOSTS.get(entry.get("litellm_provider"), ("", ""))
        gone = str(entry.get("deprecation_date") or "9999") < today
        if not host or entry.get("mode") not in MODES or gone or OTHER.search(name) or not name.startswith(prefix):
            continue
        if made := model(entry):
            hosts[host][name.removeprefix(prefix)] = made
    version = wheel.name.split("-")[1]
    head = {"version": today, "source": f"litellm {version}, {MEMBER}", "unit": "US dollars for a million tokens"}
    lines = [f"{json.dumps(key)}: {json.dumps(value)}" for key, value in head.items()]
    for host, models in hosts.items():
        rows = ",\n".join(f"{json.dumps(name)}: {json.dumps(made)}" for name, made in sorted(models.items()))
        lines.append(f"{json.dumps(host)}: {{\n{rows}\n}}")
    TARGET.write_text("{\n" + ",\n".join(lines) + "\n}\n")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
