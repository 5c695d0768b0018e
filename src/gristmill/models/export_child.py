"""Asked by `export_gate`, in a process that has never seen the model: what transformers and peft read in a folder.

One JSON object on standard input; token ids as JSON on standard output, logits in the file it names. Only a base that
is a GGUF is loaded by our own code, since transformers needs minutes for that, and one that gets a score head.
"""

from __future__ import annotations

import os
import sys
import warnings
from pathlib import Path
from typing import Any

import orjson


def main() -> None:
    out = os.dup(1)
    os.dup2(2, 1)  # what libraries print must not mix with the answer
    asked = orjson.loads(sys.stdin.buffer.read())
    import torch
    from safetensors.torch import save_file
    from transformers import AutoTokenizer

    torch.set_num_threads(asked["threads"])
    tokenizer: Any = AutoTokenizer.from_pretrained(asked["folder"], local_files_only=True)
    ids = [tokenizer(text, add_special_tokens=False)["input_ids"] for text in asked["texts"]]
    model = _folder(asked["folder"]) if asked["mode"] == "folder" else _adapter(asked, tokenizer)
    model.eval()
    with torch.inference_mode():
        logits = [model(input_ids=torch.tensor([row])).logits for row in ids]
    flat = {str(at): row.reshape(-1, row.shape[-1]).float().contiguous() for at, row in enumerate(logits)}
    save_file(flat, asked["logits"])
    with os.fdopen(out, "wb") as file:
        file.write(orjson.dumps(ids))


def _folder(folder: str, dtype: str = "auto") -> Any:
    from transformers import AutoModelForCausalLM, AutoModelForSequenceClassification

    config = orjson.loads((Path(folder) / "config.json").read_bytes())
    scored = str((config.get("architectures") or [""])[0]).endswith("ForSequenceClassification")
    maker = AutoModelForSequenceClassification if scored else AutoModelForCausalLM
    return maker.from_pretrained(folder, dtype=dtype, local_files_only=True, use_safetensors=True)


def _adapter(asked: dict[str, Any], tokenizer: Any) -> Any:
    from peft import PeftModel

    from gristmill.models.load import load_model
    from gristmill.models.weights import Weights

    under = asked["base"]
    if under["form"] == "gguf" or under["labels"]:
        weights = Weights(Path(under["path"]), under["form"], under["sha256"])
        model: Any = load_model(weights, dtype=under["dtype"], head=under["labels"] or None)
    else:
        model = _folder(under["path"], under["dtype"])
    model = model.float()
    settings = orjson.loads((Path(asked["folder"]) / "adapter_config.json").read_bytes())
    if settings.get("trainable_token_indices"):
        model.resize_token_embeddings(len(tokenizer), mean_resizing=False)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return PeftModel.from_pretrained(model, asked["folder"])


if __name__ == "__main__":
    main()
