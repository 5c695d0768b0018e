"""Secrets by how they look: issuers' prefixes, key blocks, signed tokens, and values that are called a password.

None are placeholders (`<your key>`, `${KEY}`, `changeme`, an issuer's documented EXAMPLE), hashes and ids: what is said
to be a secret must also look random.
"""

from __future__ import annotations

import base64
import binascii
import math
import re
from collections import Counter
from collections.abc import Iterator

import orjson

from gristmill.core.records import Record, Sample
from gristmill.core.stage import StepContext
from gristmill.curate.privacy.findings import Find, Finding, treat
from gristmill.curate.privacy.stages import SecretsConfig

_ISSUED = re.compile(
    r"(?<![A-Za-z0-9_])(?:"
    r"(?:AKIA|ASIA)[A-Z2-7]{16}"  # AWS
    r"|gh[pousr]_[A-Za-z0-9]{36}|github_pat_[A-Za-z0-9_]{60,90}|gl(?:pat|dt|rt)-[\w-]{20,}"
    r"|xox[abeprs]-[\w-]{20,}|sk_live_[A-Za-z0-9]{16,}|rk_live_[A-Za-z0-9]{16,}|whsec_[A-Za-z0-9+/=]{24,}"
    r"|AIza[\w-]{35}|ya29\.[\w-]{30,}|GOCSPX-[\w-]{20,}"
    r"|sk-ant-[a-z]+\d\d-[\w-]{40,}|sk-(?:proj|svcacct|admin)-[\w-]{32,}|sk-[A-Za-z0-9]{40,}"
    r"|hf_[A-Za-z0-9]{30,}|npm_[A-Za-z0-9]{36}|pypi-AgEI[\w-]{40,}|SG\.[\w-]{20,}\.[\w-]{40,}"
    r"|shp(?:at|ca|pa|ss)_[a-fA-F0-9]{32}|do[op]_v1_[a-f0-9]{64}|AGE-SECRET-KEY-1[0-9A-Z]{58}"
    r"|\d{8,10}:AA[\w-]{33}"
    r")(?![A-Za-z0-9_])"
)
_BLOCK = re.compile(
    r"-----BEGIN ([A-Z ]*)PRIVATE KEY((?: BLOCK)?)-----.*?(?:-----END \1PRIVATE KEY\2-----|\Z)", re.DOTALL
)
_SIGNED = re.compile(r"\beyJ[\w-]{8,}\.eyJ[\w-]{4,}\.[\w-]{16,}")
_SENT = re.compile(r"\b(?:Bearer|Basic)\s+([\w.~+/=-]{16,})")
_ADDRESS = re.compile(r"\b[a-z][a-z0-9+.-]{1,20}://[^\s:/@\"']*:([^\s/@\"']{3,})@[^\s\"']")
_CALLED = re.compile(
    r"(?:pass(?:word|wd|phrase)|pwd|secret|token|api[_-]?key|access[_-]?key|auth[_-]?key|credential)\w{0,20}[\"']?\s*"
    r"(?::=|=>|[:=])\s*(?:\"([^\"\s]{8,})\"|'([^'\s]{8,})'|([^\s\"'<>{}()\[\],;]{12,}))",
    re.IGNORECASE,
)
_PLACEHOLDER = re.compile(
    r"example|changeme|change[_-]me|placeholder|redacted|dummy|sample|your|xxxx|\*{3,}|\.{3,}|^<|>$|^\$[A-Z_]+$|^\$\(|\{\{|\$\{|%\(|"
    r"environ|getenv|process\.env|^env:|secrets\.|vault:",
    re.IGNORECASE,
)
_TURNS = re.compile(r"[a-z](?=[A-Z])|[A-Z](?=[A-Z][a-z])")
TURNS = 3
"""Changes of case from which letters alone look random."""
LEAST_BITS = 2.8
"""Entropy a character (Shannon, of its own letters) from which a value of twelve or more looks random."""


def _random(value: str) -> bool:
    """Letters and digits, or both cases, mixed, and hardly one of them twice."""
    mixed = any(c.isdigit() for c in value) and any(c.isalpha() for c in value)
    if _PLACEHOLDER.search(value) or not (mixed or len(_TURNS.findall(value)) >= TURNS):
        return False
    shares = [count / len(value) for count in Counter(value).values()]
    return -sum(share * math.log2(share) for share in shares) >= min(LEAST_BITS, math.log2(len(value)) - 0.8)


def _is_signed(text: str) -> bool:
    """A JSON Web Token: its header is JSON and names its algorithm (RFC 7519)."""
    head = text.partition(".")[0]
    try:
        header = orjson.loads(base64.urlsafe_b64decode(head + "=" * (-len(head) % 4)))
    except (binascii.Error, ValueError):
        return False
    return isinstance(header, dict) and "alg" in header


def found_in(text: str) -> Iterator[Finding]:
    """The longest first: what is called a token is often one of an issuer's."""
    for hit in _BLOCK.finditer(text):
        yield Finding("private_key", hit.start(), hit.end())
    for hit in _SIGNED.finditer(text):
        if _is_signed(hit[0]):
            yield Finding("token", hit.start(), hit.end())
    for hit in _ISSUED.finditer(text):
        if not hit[0].endswith("EXAMPLE"):
            yield Finding("token", hit.start(), hit.end())
    for hit in _ADDRESS.finditer(text):
        if not _PLACEHOLDER.search(hit[1]) and hit[1].lower() not in ("password", "pass", "secret"):
            yield Finding("url_password", *hit.span(1))
    for hit in _SENT.finditer(text):
        if _random(hit[1]):
            yield Finding("token", *hit.span(1))
    for hit in _CALLED.finditer(text):
        group = hit.lastindex or 0
        if _random(hit[group]):
            yield Finding("password", *hit.span(group))


def finder(config: SecretsConfig) -> Find:
    allowed = set(config.allow)

    def find(text: str) -> Iterator[Finding]:
        for each in found_in(text):
            if each.kind in config.find and text[each.start : each.end] not in allowed:
                yield each

    return find


async def run(config: SecretsConfig, record: Sample, ctx: StepContext) -> list[Record]:
    return treat(record, finder(config), config.action, "secret", ctx)
