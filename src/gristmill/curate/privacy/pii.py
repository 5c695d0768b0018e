"""Personal data by rules: what has a shape of its own, proven by its check digits where it has any.

Names of people and postal addresses have no shape: what finds them by guessing takes towns for people. Not personal are
reserved example domains (RFC 2606), addresses of private networks, and four numbers behind the word `version`.
"""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass

from gristmill.core.records import Record, Sample
from gristmill.core.stage import StepContext
from gristmill.curate.privacy import checksums
from gristmill.curate.privacy.findings import Find, Finding, treat
from gristmill.curate.privacy.stages import PiiConfig

_EXAMPLE = re.compile(r"@(?:.*\.)?(?:example\.(?:com|org|net)|example|test|invalid|localhost)\Z", re.IGNORECASE)
_VERSION = re.compile(r"(?:\b(?:versions?|release|build|section|chapter|paragraph)|\bv|§)[.:]?\s*\Z", re.IGNORECASE)
_TAX = re.compile(r"(?:steuer|id-?nr|idnr|tax|tin)[^\n]{0,30}\Z", re.IGNORECASE)
_CALLS = re.compile(
    r"(?:\b(?:tel|telephone|phone|mobile|cell|fax|call|telefon|handy|mobil|téléphone|teléfono|telefono)\b)[^\n\d]{0,15}\Z",
    re.IGNORECASE,
)


@dataclass(frozen=True)
class Rule:
    """A shape, and what must hold of a match besides: of the value, and of the text before it."""

    kind: str
    shape: re.Pattern[str]
    valid: Callable[[str], bool] = lambda _: True
    after: re.Pattern[str] | None = None
    never_after: re.Pattern[str] | None = None

    def find(self, text: str) -> Iterator[Finding]:
        for hit in self.shape.finditer(text):
            before = text[max(0, hit.start() - 40) : hit.start()]
            if self.after and not self.after.search(before):
                continue
            if self.never_after and self.never_after.search(before):
                continue
            if self.valid(hit[0]):
                yield Finding(self.kind, hit.start(), hit.end())


def _shape(pattern: str, flags: int = 0) -> re.Pattern[str]:
    return re.compile(pattern, flags)


def _international(text: str) -> bool:
    """E.164: up to fifteen digits; and a real number has no fewer than eight."""
    digits = checksums.digits_of(text).removeprefix("00" if text.startswith("00") else "")
    return 8 <= len(digits) <= 15


def _public(text: str) -> bool:
    try:
        return ipaddress.ip_address(text).is_global
    except ValueError:
        return False


def _ibans(text: str) -> Iterator[Finding]:
    """As long as the country's are: the words behind one may be capitals too."""
    for hit in _IBAN.finditer(text):
        many, end = checksums.IBAN_LENGTH.get(hit[0][:2], 0), hit.start()
        while many and _IN_IBAN.fullmatch(text, max(0, end - 1), end + 1):
            many -= text[end] != " "
            end += 1
        whole = text[hit.start() : end]
        if whole and not many and not text[end : end + 1].isalnum() and checksums.iban(whole):
            yield Finding("iban", hit.start(), end)


_IBAN = _shape(r"\b[A-Z]{2}\d{2}")
_IN_IBAN = _shape(r".?[A-Z0-9]|[^ ] ", re.DOTALL)  # the last sign and this one: a space stands alone
_DAY = r"(?:\d{1,2}[./-]\d{1,2}[./-](?:19|20)\d\d|(?:19|20)\d\d-\d\d-\d\d)"
_BIRTH = (
    r"born on|born|date of birth|birth ?date|d\.?o\.?b\.?|geboren am|geburtsdatum|geb\.|née? le|date de naissance|"
    r"nacid[oa] el|fecha de nacimiento|nat[oa] il|data di nascita|geboren op|geboortedatum"
)
RULES = (
    Rule("card", _shape(r"(?<![\w.,-])\d(?:[ -]?\d){12,18}(?![\w-])"), checksums.card),
    Rule("national_id", _shape(r"(?<![\w-])(?!000|666|9)\d{3}-(?!00)\d\d-(?!0000)\d{4}(?![\w-])")),
    Rule("national_id", _shape(r"\b(?!BG|GB|NK|KN|NT|TN|ZZ)[A-CEGHJ-PR-TW-Z][A-CEGHJ-NPR-TW-Z](?: ?\d\d){3} ?[A-D]\b")),
    Rule("national_id", _shape(r"\b(?:\d{8}|[XYZ]\d{7})[A-HJ-NP-TV-Z]\b"), checksums.dni),
    Rule("national_id", _shape(
        r"(?<!\w)[12] ?\d\d ?(?:0[1-9]|1[0-2]|[2-9]\d) ?(?:\d\d|2[AB]) ?\d{3} ?\d{3} ?\d\d(?!\w)"), checksums.nir),
    Rule("national_id", _shape(r"\b[A-Z]{6}\d\d[A-EHLMPRST]\d\d[A-Z]\d{3}[A-Z]\b"), checksums.fiscal_code),
    Rule("national_id", _shape(r"(?<!\w)\d{3}\.\d{3}\.\d{3}-\d\d(?!\w)"), checksums.cpf),
    Rule("national_id", _shape(r"(?<!\w)\d{2} ?\d{3} ?\d{3} ?\d{3}(?!\w)"), checksums.tax_number, after=_TAX),
    Rule("email", _shape(r"(?<![\w.+-])[\w.+-]+@(?:[^\W_](?:[\w-]*[^\W_])?\.)+[^\W\d_]{2,24}\b"),
         lambda text: not _EXAMPLE.search(text)),
    Rule("ip", _shape(r"(?<![\w.])(?:\d{1,3}\.){3}\d{1,3}(?![\w]|\.\d)"), _public, never_after=_VERSION),
    Rule("ip", _shape(r"(?<![\w:])(?:[0-9A-Fa-f]{1,4}:){2,7}(?::|[0-9A-Fa-f]{1,4})[0-9A-Fa-f:]*(?![\w:])"), _public),
    Rule("phone", _shape(r"(?<![\w.,/+-])(?<!\d )(?:\+|00)[1-9](?:[ ()./-]{0,2}\d){6,14}(?![\w-])"), _international),
    Rule("phone", _shape(r"(?<![\w.,/-])(?:\([2-9]\d\d\) ?|[2-9]\d\d[-. ])[2-9]\d\d[-. ]\d{4}(?![\w-])")),
    Rule("phone", _shape(r"(?<![\w.,/+-])\(?0?\d(?:[ ()./-]{0,2}\d){5,13}(?![\w-])"), after=_CALLS),
    Rule("birth_date", _shape(rf"(?<=[\s:]){_DAY}(?!\d)"), after=_shape(rf"(?:\b(?:{_BIRTH}))[:\s]*\Z", re.IGNORECASE)),
)  # fmt: skip
"""Where two overlap, the first of them is meant."""


def finder(config: PiiConfig) -> Find:
    allowed = {value for value in config.allow if not value.startswith("@")}
    domains = tuple(value for value in config.allow if value.startswith("@"))

    def find(text: str) -> Iterator[Finding]:
        found = _ibans(text) if "iban" in config.find else iter(())
        for each in (*found, *(each for rule in RULES if rule.kind in config.find for each in rule.find(text))):
            value = text[each.start : each.end]
            if value not in allowed and not (domains and value.endswith(domains)):
                yield each

    return find


async def run(config: PiiConfig, record: Sample, ctx: StepContext) -> list[Record]:
    return treat(record, finder(config), config.action, "personal data", ctx)
