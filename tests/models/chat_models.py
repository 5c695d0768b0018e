"""Small real tokenizers for tests: the embedded model's vocabulary under other chat templates, as HF folders."""

from __future__ import annotations

import json
from pathlib import Path

from gristmill.models.renderer import Renderer
from gristmill.models.weights import Weights, locate

SMOL = "smollm2-135m-instruct"

QWEN = """{%- if messages[0]['role'] == 'system' %}
    {{- '<|im_start|>system\\n' + messages[0]['content'] + '<|im_end|>\\n' }}
{%- else %}
    {{- '<|im_start|>system\\nYou are Qwen, created by Alibaba Cloud. You are a helpful assistant.<|im_end|>\\n' }}
{%- endif %}
{%- for message in messages %}
    {%- if (message.role == "user") or (message.role == "system" and not loop.first) or (message.role == "assistant") %}
        {{- '<|im_start|>' + message.role + '\\n' + message.content + '<|im_end|>' + '\\n' }}
    {%- endif %}
{%- endfor %}
{%- if add_generation_prompt %}
    {{- '<|im_start|>assistant\\n' }}
{%- endif %}
"""

TRIMMING = """{% for message in messages %}{{ '<|im_start|>' + message['role'] + '\\n\\n' + message['content'] | trim \
+ '<|im_end|>' }}{% endfor %}{% if add_generation_prompt %}{{ '<|im_start|>assistant\\n\\n' }}{% endif %}"""

SYSTEM_IN_USER = """{% set first = '' %}{% if messages[0].role == 'system' %}\
{% set first = messages[0].content + '\\n' %}{% set messages = messages[1:] %}{% endif %}\
{% for m in messages %}{{ '<|im_start|>' + m.role + '\\n' }}\
{% if loop.first %}{{ first }}{% endif %}{{ m.content + '<|im_end|>\\n' }}{% endfor %}\
{% if add_generation_prompt %}{{ '<|im_start|>assistant\\n' }}{% endif %}"""


def smol() -> Weights:
    return locate(SMOL, base=Path())


def with_template(folder: Path, template: str) -> Weights:
    """An HF folder (tokenizer and config; no tensors that matter) of the embedded vocabulary under this template."""
    folder.mkdir(parents=True, exist_ok=True)
    Renderer.load(smol()).save_tokenizer(folder)
    (folder / "chat_template.jinja").write_text(template, "utf-8")
    (folder / "config.json").write_text(json.dumps({"model_type": "llama", "max_position_embeddings": 512}))
    (folder / "model.safetensors").write_bytes(b"")
    return locate(str(folder), base=Path())
