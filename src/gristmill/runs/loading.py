"""How each export is loaded, in Markdown, for its card."""

from __future__ import annotations

from gristmill.models.renderer import Renderer


def folder(dtype: str) -> str:
    return f"""```python
from transformers import AutoModelForCausalLM, AutoTokenizer

tokenizer = AutoTokenizer.from_pretrained("FOLDER")
model = AutoModelForCausalLM.from_pretrained("FOLDER", dtype="{dtype}")
```

In a recipe: `{{provider: local, model: FOLDER}}`."""


def adapter(base: str, dtype: str, *, new: bool) -> str:
    grow = (
        "base.resize_token_embeddings(len(tokenizer))  # the adapter holds the rows of the new tokens\n" if new else ""
    )
    return f"""Over its base, `{base}`:

```python
from peft import PeftModel
from transformers import AutoModelForCausalLM, AutoTokenizer

tokenizer = AutoTokenizer.from_pretrained("FOLDER")
base = AutoModelForCausalLM.from_pretrained("{base}", dtype="{dtype}")
{grow}model = PeftModel.from_pretrained(base, "FOLDER")
```"""


def gguf(file: str, name: str, *, with_modelfile: bool) -> str:
    ollama = f"ollama create {name} -f Modelfile && ollama run {name}"
    without = "Its chat template cannot be said in Ollama's language, so there is no Modelfile."
    return f"""With llama.cpp:

```sh
llama-server -m {file}
```

{"With Ollama, in this folder:" if with_modelfile else without}
""" + (f"\n```sh\n{ollama}\n```" if with_modelfile else "")


def lora_gguf(file: str, base: str, sha256: str) -> str:
    return f"""With llama.cpp, over a GGUF of its base (`{base}`, sha256 `{sha256}`), in any quantisation:

```sh
llama-server -m BASE.gguf --lora {file}
```"""


def tokenizer(stage: str, run: str, renderer: Renderer) -> str:
    """The whole card of a tokenizer."""
    vocabulary = renderer.vocabulary
    special = ", ".join(f"`{token}`" for token in vocabulary.control)
    return f"""---
library_name: transformers
tags:
- gristmill
---

# The tokenizer of {run}: {stage}

{vocabulary.tokenizer.get_vocab_size()} tokens; control tokens: {special}.

```python
from transformers import AutoTokenizer

tokenizer = AutoTokenizer.from_pretrained("FOLDER")
```

`tokenizer.json` is the whole; `vocab.json` and `merges.txt` (byte-level BPE), `special_tokens_map.json` and
`chat_template.jinja` are the same for other tools. In a recipe: `{{kind: ingest.chunk, tokenizer: FOLDER}}`.
"""
