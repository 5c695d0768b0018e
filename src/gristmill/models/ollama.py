"""A Modelfile for Ollama: the GGUF beside it, its template in Go's template language, and where to stop.

Ollama does not run Jinja. A template that writes every role in one fixed way (ChatML and its like) is said in Go; the
structure comes from `ChatTemplate.layout`, and what Go would write is compared with what the template writes before it
is used. Another template has no Modelfile: a wrong one would be worse. Not tried with Ollama itself.
"""

from __future__ import annotations

from gristmill.core.records import Message
from gristmill.models.renderer import Renderer

ROLES = ("system", "user", "assistant")
_TALKS = ("u", "su", "uau", "suau", "uauau")
_ROLE = {"s": "system", "u": "user", "a": "assistant"}


def modelfile(renderer: Renderer, gguf: str) -> str | None:
    """The Modelfile of a GGUF in the same folder; None where its template cannot be said in Go."""
    lines = [f"FROM ./{gguf}"]
    if renderer.chats:
        found = _structure(renderer)
        if found is None:
            return None
        lines.append(f'TEMPLATE """{_go(*found)}"""')
    names = {at: token for token, at in renderer.vocabulary.tokenizer.get_vocab(with_added_tokens=True).items()}
    lines += [f'PARAMETER stop "{names[at]}"' for at in sorted(renderer.stop_ids)]
    return "\n".join(lines) + "\n"


def _structure(renderer: Renderer) -> tuple[str, dict[str, tuple[str, str]], str] | None:
    """What begins a talk without a system message, what stands around each role's content, what asks for an answer."""

    def said(roles: str) -> str:
        talk = [Message(role=_ROLE[r], content=f"\x00{at}\x00") for at, r in enumerate(roles)]
        return renderer.chat(talk, generate=True).text

    def around(text: str, at: int) -> tuple[str, str]:
        before, _, after = text.partition(f"\x00{at}\x00")
        return before, after

    both = said("su")
    system, rest = around(both, 0)
    between, ask = around(rest, 1)
    turns = around(around(said("suau"), 1)[1], 2)[0], around(around(said("suau"), 2)[1], 3)[0]
    # turns: end of user and begin of assistant, end of assistant and begin of user. Where one ends and the other begins
    # is free, as long as it is the same for all: best before a control token.
    marks = tuple(renderer.vocabulary.control)
    cuts = sorted(range(len(between), -1, -1), key=lambda cut: not between[cut:].startswith(marks))
    for cut in cuts:
        ends, user = between[:cut], between[cut:]
        if not (turns[0].startswith(ends) and turns[1].startswith(ends) and turns[1].endswith(user)):
            continue
        assistant = turns[0][len(ends) :]
        around_role = {"system": (system, ends), "user": (user, ends), "assistant": (assistant, ends)}
        generate = ask.removeprefix(ends)
        begin = said("u").partition(user + "\x000\x00")[0]
        if all(_written(begin, around_role, generate, roles) == said(roles) for roles in _TALKS):
            return begin, around_role, generate
    return None


def _written(begin: str, around: dict[str, tuple[str, str]], generate: str, roles: str) -> str:
    """What the Go template below writes for a talk."""
    text = "" if roles.startswith("s") else begin
    for at, role in enumerate(roles):
        before, after = around[_ROLE[role]]
        text += f"{before}\x00{at}\x00{after}"
    return text + generate


def _go(begin: str, around: dict[str, tuple[str, str]], generate: str) -> str:
    opening = f'{{{{ if ne (index .Messages 0).Role "system" }}}}{begin}{{{{ end }}}}' if begin else ""
    cases = "".join(
        f'{{{{ {"else " if at else ""}if eq .Role "{role}" }}}}{around[role][0]}{{{{ .Content }}}}{around[role][1]}'
        for at, role in enumerate(ROLES)
    )
    return f"{opening}{{{{ range .Messages }}}}{cases}{{{{ end }}}}{{{{ end }}}}{generate}"
