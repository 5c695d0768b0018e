"""What a model is: weights, tokenizer, chat template, loss mask, adapters, checkpoints, exports.

The room's invariant: the same messages are the same token ids everywhere (preview, training, export, exam, serving),
and weights are loaded only when they are whole and written only when they are provably the same model.
"""

import logging
import os

# Read when torch is imported, which nothing of ours does before this room: threads that spin while they wait for each
# other on busy cores made a step of a small model thirty times as slow.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

# peft imports bitsandbytes wherever it is installed, and on some CPUs that recommends a package on standard error.
logging.getLogger("bitsandbytes.backends.cpu.ops").setLevel(logging.ERROR)
