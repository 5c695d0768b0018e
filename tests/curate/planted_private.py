"""Personal data and secrets that are none: made by the rules that real ones follow, check digits included.

Prefixes are put together from halves, so that no scan of this repository takes a generator for a leak.
"""

from __future__ import annotations

import base64
import json
import random
import string
import zlib
from collections.abc import Callable

LETTERS, ALNUM = string.ascii_uppercase, string.ascii_letters + string.digits
MAILS = "{a}.{b}@{c}-harbour.net;{a}{n}@post.{c}.co.uk;{b}_{a}@{c}.de;{a}+island@mail.{c}.info;{A}.{B}@{C}.museum"
Make = Callable[[random.Random], str]


def pick(rng: random.Random, alphabet: str, length: int) -> str:
    return "".join(rng.choices(alphabet, k=length))


def digits(rng: random.Random, length: int) -> str:
    return pick(rng, "123456789", 1) + pick(rng, string.digits, length - 1)


def luhn(body: str) -> str:
    total = sum(sum(divmod(int(d) * 2, 10)) if at % 2 == 0 else int(d) for at, d in enumerate(reversed(body)))
    return str(-total % 10)


def mail(rng: random.Random) -> str:
    words = [pick(rng, "bdfgklmnrst", 1) + pick(rng, "aeiou", 1) + pick(rng, "lmnrst", 2) + "o" for _ in range(3)]
    a, b, c = words
    return rng.choice(MAILS.split(";")).format(
        a=a, b=b, c=c, n=rng.randint(1, 99), A=a.title(), B=b.title(), C=c.title()
    )


def phone(rng: random.Random) -> str:
    d = lambda n: digits(rng, n)  # noqa: E731
    shape = rng.randrange(7)
    return [
        f"+49 {d(3)} {d(7)}",
        f"+44 20 {d(4)} {d(4)}",
        f"+33 {d(1)} {d(2)} {d(2)} {d(2)} {d(2)}",
        f"({rng.randint(201, 989)}) {rng.randint(200, 999)}-{d(4)}",
        f"+1 {rng.randint(201, 989)}-{rng.randint(200, 999)}-{d(4)}",
        f"0049-{d(3)}-{d(6)}",
        f"+39 0{d(1)} {d(4)} {d(4)}",
    ][shape]


def iban(rng: random.Random) -> str:
    country, body = rng.choice(
        [("DE", digits(rng, 18)), ("AT", digits(rng, 16)), ("GB", pick(rng, LETTERS, 4) + digits(rng, 14)),
         ("FR", digits(rng, 23)), ("NL", pick(rng, LETTERS, 4) + digits(rng, 10)), ("ES", digits(rng, 20))]
    )  # fmt: skip
    check = 98 - int("".join(str(int(c, 36)) for c in f"{body}{country}00")) % 97
    plain = f"{country}{check:02}{body}"
    return plain if rng.random() < 0.4 else " ".join(plain[i : i + 4] for i in range(0, len(plain), 4))


def card(rng: random.Random) -> str:
    prefix, length = rng.choice([("4", 16), ("51", 16), ("55", 16), ("34", 15), ("37", 15), ("6011", 16), ("2221", 16)])
    body = prefix + pick(rng, string.digits, length - 1 - len(prefix))
    number = body + luhn(body)
    joint = rng.choice(["", " ", "-"])
    cuts = (4, 10) if length == 15 else (4, 8, 12)
    return joint.join(number[i:j] for i, j in zip((0, *cuts), (*cuts, length), strict=True))


def social_security(rng: random.Random) -> str:
    return f"{rng.choice([*range(1, 666), *range(667, 900)]):03}-{rng.randint(1, 99):02}-{rng.randint(1, 9999):04}"


def insurance_number(rng: random.Random) -> str:
    """United Kingdom: two letters, six digits, a letter."""
    middle = " ".join(pick(rng, string.digits, 2) for _ in range(3))
    return f"{pick(rng, 'ABCEGHJK', 2)} {middle} {pick(rng, 'ABCD', 1)}"


def dni(rng: random.Random) -> str:
    """Spain: eight digits and the letter that their rest by 23 stands for."""
    number = digits(rng, 8)
    return number + ("TRWAGMYFPDXB" + "NJZSQVHLCKE")[int(number) % 23]


def nir(rng: random.Random) -> str:
    """France: thirteen digits and 97 less their rest by 97."""
    body = f"{rng.randint(1, 2)}{rng.randint(30, 99)}{rng.randint(1, 12):02}{rng.randint(1, 95):02}{digits(rng, 6)}"
    return f"{body[0]} {body[1:3]} {body[3:5]} {body[5:7]} {body[7:10]} {body[10:]} {97 - int(body) % 97:02}"


def address(rng: random.Random) -> str:
    return ".".join(
        str(n) for n in (rng.choice([23, 51, 80, 93, 146, 185, 212]), *(rng.randint(1, 254) for _ in "abc"))
    )


def born(rng: random.Random) -> str:
    day, month, year = rng.randint(1, 28), rng.randint(1, 12), rng.randint(1930, 2005)
    return rng.choice(
        [
            f"born on {day:02}.{month:02}.{year}",
            f"date of birth: {year}-{month:02}-{day:02}",
            f"DOB {month:02}/{day:02}/{year}",
        ]
    )


PERSONAL: dict[str, Make] = {
    "mail": mail, "phone": phone, "iban": iban, "card": card, "social_security": social_security,
    "insurance_number": insurance_number, "dni": dni, "nir": nir, "address": address, "born": born,
}  # fmt: skip

PERSONAL_LIKE: tuple[Make, ...] = (
    lambda rng: _no_card(rng),
    lambda rng: f"release 2.{rng.randint(10, 30)}.{rng.randint(0, 9)}.{rng.randint(1, 20)}",
    lambda rng: f"server 192.168.{rng.randint(0, 9)}.{rng.randint(2, 200)}",
    lambda rng: f"the years {rng.randint(1701, 1750)}-{rng.randint(1751, 1799)}",
    lambda rng: f"ISBN 978-3-16-{digits(rng, 6)}-{rng.randint(0, 9)}",
    lambda rng: f"{rng.randint(2, 9)},{digits(rng, 3)},{digits(rng, 3)} crowns",
    lambda rng: f"@{pick(rng, 'klmnaeo', 6)} and #{pick(rng, 'klmnaeo', 5)}",
    lambda rng: "someone@example.com",
    lambda rng: f"inventory number {digits(rng, 4)}-{digits(rng, 4)}-{digits(rng, 2)}",
    lambda rng: f"{rng.randint(40, 60)}.{digits(rng, 4)}° N, {rng.randint(3, 20)}.{digits(rng, 4)}° E",
    lambda rng: f"opened on {rng.randint(1, 28):02}.{rng.randint(1, 12):02}.{rng.randint(1900, 1999)} at 10:30",
    lambda rng: _no_iban(rng),
)


def _no_card(rng: random.Random) -> str:
    """Sixteen digits whose last is not the one that Luhn asks for."""
    body = "4" + pick(rng, string.digits, 14)
    return f"parcel {body}{(int(luhn(body)) + rng.randint(1, 9)) % 10}"


def _no_iban(rng: random.Random) -> str:
    """The length and letters of an IBAN with check digits that no IBAN has."""
    return f"shelf mark DE00{digits(rng, 18)}"


def github(rng: random.Random) -> str:
    """The last six characters are the CRC32 of the rest, in base 62."""
    body, alphabet = pick(rng, ALNUM, 30), string.digits + LETTERS + string.ascii_lowercase
    check, number = "", zlib.crc32(body.encode())
    for _ in range(6):
        number, rest = divmod(number, 62)
        check = alphabet[rest] + check
    return "gh" + rng.choice("pousr") + "_" + body + check


def token(rng: random.Random) -> str:
    part = lambda value: base64.urlsafe_b64encode(json.dumps(value).encode()).rstrip(b"=").decode()  # noqa: E731
    return ".".join([part({"alg": "HS256", "typ": "JWT"}), part({"sub": digits(rng, 8)}), pick(rng, ALNUM + "-_", 43)])


def key_block(rng: random.Random) -> str:
    kind = rng.choice(["RSA ", "EC ", "OPENSSH ", ""])
    lines = "\n".join(pick(rng, ALNUM + "+/", 64) for _ in range(3))
    return f"-----BEGIN {kind}PRIVATE" + f" KEY-----\n{lines}\n-----END {kind}PRIVATE" + " KEY-----"


SECRETS: dict[str, Make] = {
    "github": github,
    "token": token,
    "key_block": key_block,
    "aws": lambda rng: "AK" + "IA" + pick(rng, LETTERS + "234567", 16),
    "aws_secret": lambda rng: "aws_secret_" + "access_key = " + pick(rng, ALNUM + "/+", 40),
    "slack": lambda rng: "xo" + f"xb-{digits(rng, 12)}-{digits(rng, 12)}-{pick(rng, ALNUM, 24)}",
    "stripe": lambda rng: "sk_" + "live_" + pick(rng, ALNUM, 24),
    "google": lambda rng: "AI" + "za" + pick(rng, ALNUM + "-_", 35),
    "openai": lambda rng: "sk-" + "proj-" + pick(rng, ALNUM, 48),
    "anthropic": lambda rng: "sk-" + "ant-api03-" + pick(rng, ALNUM + "-_", 93),
    "hugging": lambda rng: "hf" + "_" + pick(rng, string.ascii_letters, 34),
    "gitlab": lambda rng: "gl" + "pat-" + pick(rng, ALNUM + "-_", 20),
    "address": lambda rng: f"postgres://keeper:{pick(rng, ALNUM, 14)}@db.{pick(rng, 'klmnaeo', 6)}.net:5432/mill",
    "assigned": lambda rng: rng.choice(["password", "api_key", "client_secret", "DB_PASSWORD"])
    + rng.choice([" = ", ": ", "="]) + '"' + pick(rng, ALNUM + "!$%", 18) + '"',
    "bearer": lambda rng: "Authorization: Bearer " + pick(rng, ALNUM, 40),
}  # fmt: skip

SECRET_LIKE: tuple[Make, ...] = (
    lambda rng: f"sha256 {pick(rng, '0123456789abcdef', 64)}",
    lambda rng: f"commit {pick(rng, '0123456789abcdef', 40)}",
    lambda rng: "id " + "-".join(pick(rng, "0123456789abcdef", n) for n in (8, 4, 4, 4, 12)),
    lambda rng: 'password = "<your password>"',
    lambda rng: "api_key: ${API_KEY}",
    lambda rng: 'api_key = os.environ["MILL_KEY"]',
    lambda rng: "AK" + "IA" + "IOSFODNN7" + "EXAMPLE",
    lambda rng: "the sk-learn and sk-image packages",
    lambda rng: "postgres://localhost:5432/mill",
    lambda rng: "The password is changed every month by the harbour master",
    lambda rng: "pass" + 'word = "changeme"',
    lambda rng: "-----BEGIN PUBLIC KEY-----\n" + pick(rng, ALNUM + "+/", 64) + "\n-----END PUBLIC KEY-----",
    lambda rng: f"data:image/png;base64,iVBORw0KGgo{pick(rng, ALNUM, 40)}",
)
