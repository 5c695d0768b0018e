"""Our training loop beside TRL's SFTTrainer at its best and transformers' Trainer, on the same tokens
(`make bench-train`; REPS, STEPS and THREADS for fewer or more; `DEVICE=cuda` for a GPU).

Every repetition of every trainer is a process of its own; they take turns, so that what else the machine does falls on
all of them. Counted are real tokens, without padding, a second of the process's CPU time: on a machine that others use
too, that is what can be compared. Seconds of wall time stand beside it. On CUDA, seconds of wall time count.

For TRL's LoRA the better of its two forms counts, frozen weights in bf16 or rounded in each pass; adapters are fp32
for everybody.
"""

from __future__ import annotations

import json
import os
import statistics
import subprocess
import sys
from collections.abc import Iterable
from typing import Any

from bench.machine import machine
from bench.peers import ROOT
from bench.table import keep, table
from bench.train_peers.work import SHAPES, Job

REPETITIONS, STEPS = int(os.environ.get("REPS", "3")), int(os.environ.get("STEPS", "3"))
THREADS = int(os.environ.get("THREADS", "1"))
GATES = {False: 1.5, True: 1.6}  # ours / TRL, full and LoRA
CUDA_GATE = 1.2
PEAKS = {"H100": 989e12, "H200": 989e12, "A100": 312e12, "L40S": 362e12, "4090": 165e12}
"""bf16 FLOP a second, dense, by the makers' sheets."""

Told = dict[str, Any]
Name = tuple[str, bool, str, str]  # trainer, lora, form, shape


def main() -> None:
    device = os.environ.get("DEVICE", "cpu")
    if device == "cuda" and not _has_cuda():
        print("no CUDA device here: nothing is measured")
        return
    jobs = list(_cuda_jobs() if device == "cuda" else _cpu_jobs())
    told: dict[Name, list[Told]] = {}
    for repetition in range(REPETITIONS):
        for job in jobs:
            one = run(job)
            told.setdefault((job.trainer, job.lora, job.form, job.shape), []).append(one)
            print(f"{repetition + 1}/{REPETITIONS} {_words(one)}", flush=True)
    page = _cuda_page(told) if device == "cuda" else _cpu_page(told)
    print(page)
    keep("training" if device == "cpu" else "training on a GPU", page)


def _cpu_jobs() -> Iterable[Job]:
    for lora, forms in ((False, ("",)), (True, ("bf16", "autocast"))):
        yield Job("ours", lora, steps=STEPS, threads=THREADS)
        for form in forms:
            yield Job("trl_sft", lora, form, steps=STEPS, threads=THREADS)
        yield Job("hf_trainer", lora, steps=STEPS, threads=THREADS)


def _cuda_jobs() -> Iterable[Job]:
    """Batches of 64 rows, so that neither is held up by launching kernels; more steps, because they are short."""
    for shape in SHAPES:
        for lora in (False, True):
            for trainer, form in (("ours", ""), ("trl_sft", "bf16" if lora else "")):
                yield Job(trainer, lora, form, shape, "cuda", batch=64 * 1024, steps=10, threads=8)


def run(job: Job) -> Told:
    """One repetition in its own process."""
    threads = str(job.threads)
    quiet = {"OMP_NUM_THREADS": threads, "OMP_WAIT_POLICY": "PASSIVE", "TOKENIZERS_PARALLELISM": "false"}
    offline = {"HF_HUB_OFFLINE": "1", "PYTHONWARNINGS": "ignore", "PYTHONPATH": str(ROOT)}
    command = [sys.executable, "-m", f"bench.train_peers.{job.trainer}", job.write()]
    done = subprocess.run(
        command,
        env={**os.environ, **quiet, **offline},
        cwd=ROOT,
        capture_output=True,
        text=True,
    )
    if done.returncode:
        sys.exit(f"{job.trainer} failed:\n{done.stderr[-3000:]}")
    told: Told = json.loads(done.stdout.splitlines()[-1])
    return told


def _words(told: Told) -> str:
    what = f"{told['trainer']} {'LoRA' if told['lora'] else 'full'} {told['form']}".strip()
    rates = f"{told['tokens'] / told['busy']:.0f} tokens a CPU-second, {told['tokens'] / told['seconds']:.0f} a second"
    return f"{what}: {rates}, {told['memory'] / 1e9:.2f} GB"


def _median(told: list[Told], per: str) -> float:
    return statistics.median(one["tokens"] / one[per] for one in told)


def _memory(told: list[Told]) -> float:
    return statistics.median(one["memory"] for one in told)


def _cpu_page(told: dict[Name, list[Told]]) -> str:
    rows, gates = [], []
    for lora in (False, True):
        kind = "LoRA" if lora else "full"
        some = {name: each for name, each in told.items() if name[1] is lora}
        for name, each in some.items():
            spread = [one["tokens"] / one["busy"] for one in each]
            rates = f"{_median(each, 'busy'):.0f} ({min(spread):.0f} to {max(spread):.0f})"
            rows.append([kind, " ".join((name[0], name[2])).strip(), rates, f"{_median(each, 'seconds'):.0f}",
                         f"{_memory(each) / 1e9:.2f}"])  # fmt: skip
        trl = {name: each for name, each in some.items() if name[0] == "trl_sft"}
        best = max(trl.values(), key=lambda each: _median(each, "busy"))
        ours = next(each for name, each in some.items() if name[0] == "ours")
        ratio = _median(ours, "busy") / _median(best, "busy")
        gates.append(_gate(f"{kind}: ours / TRL, tokens a CPU-second", f"≥ {GATES[lora]} ×", f"{ratio:.2f} ×",
                           passed=ratio >= GATES[lora]))  # fmt: skip
        least = min(_memory(each) for each in trl.values())
        gates.append(_gate(f"{kind}: peak memory, ours / TRL's least", "< 1", f"{_memory(ours) / least:.2f}",
                           passed=_memory(ours) < least))  # fmt: skip
    said = (
        f"`make bench-train`, SmolLM2-135M's shape, one row of 1024 tokens a step, {THREADS} thread(s), {STEPS} steps "
        f"after a first, medians of {REPETITIONS} interleaved repetitions. {machine()}. {_versions()}."
    )
    head = ["", "trainer", "tokens a CPU-second", "tokens a second", "GB"]
    return f"{said}\n\n{table(head, rows)}\n\n{table(['gate', 'bound', 'measured', ''], gates)}"


def _cuda_page(told: dict[Name, list[Told]]) -> str:
    import torch

    device = torch.cuda.get_device_name()
    peak = next((flops for name, flops in PEAKS.items() if name in device), None)
    rows, gates = [], []
    for (trainer, lora, form, shape), each in told.items():
        rate = _median(each, "seconds")
        mfu = f"{rate * _flops(shape, lora=lora) / peak:.1%}" if peak else "peak not known"
        kind = "LoRA" if lora else "full"
        rows.append([shape, kind, f"{trainer} {form}".strip(), f"{rate:,.0f}", mfu, f"{_memory(each) / 1e9:.1f}"])
        if trainer == "ours":
            peer = next(v for k, v in told.items() if k[0] == "trl_sft" and (k[1], k[3]) == (lora, shape))
            ratio = rate / _median(peer, "seconds")
            gates.append(_gate(f"{shape}, {kind}: ours / TRL", f"≥ {CUDA_GATE} ×", f"{ratio:.2f} ×",
                               passed=ratio >= CUDA_GATE))  # fmt: skip
    said = f"`DEVICE=cuda make bench-train` on {device}, 64 rows of 1024 tokens a step. {_versions()}."
    head = ["shape", "", "trainer", "tokens a second", "MFU", "GB"]
    return f"{said}\n\n{table(head, rows)}\n\n{table(['gate', 'bound', 'measured', ''], gates)}"


def _flops(shape: str, *, lora: bool) -> float:
    """Of a token, forward and backward: 6 for each weight in a product (4 where it is frozen), attention left out."""
    s = SHAPES[shape]
    width, kv = s["hidden_size"], s["hidden_size"] // s["num_attention_heads"] * s["num_key_value_heads"]
    layer = 2 * width * width + 2 * width * kv + 3 * width * s["intermediate_size"]
    return (4 if lora else 6) * float(s["num_hidden_layers"] * layer + width * s["vocab_size"])


def _gate(what: str, bound: str, measured: str, *, passed: bool) -> list[str]:
    return [what, bound, measured, "pass" if passed else "FAIL"]


def _has_cuda() -> bool:
    import torch

    return torch.cuda.is_available()


def _versions() -> str:
    from importlib.metadata import version

    return ", ".join(f"{name} {version(name)}" for name in ("torch", "transformers", "trl", "peft", "accelerate"))
