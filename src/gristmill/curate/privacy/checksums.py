"""Check digits, each by the public rule of the number that has it."""

from __future__ import annotations

import re

_IBAN_LENGTHS = """
    AD24 AE23 AL28 AT20 AZ28 BA20 BE16 BG22 BH22 BR29 BY28 CH21 CR22 CY28 CZ24 DE22 DK18 DO28 EE20 EG29 ES24 FI18 FO18
    FR27 GB22 GE22 GI23 GL18 GR27 GT28 HR21 HU28 IE22 IL23 IQ23 IS26 IT27 JO30 KW30 KZ20 LB28 LC32 LI21 LT20 LU20 LV21
    MC27 MD24 ME22 MK19 MR27 MT31 MU30 NL18 NO15 PK24 PL28 PS29 PT25 QA29 RO24 RS22 SA24 SE24 SI19 SK24 SM27 TN24 TR26
    UA29 VA22 VG24 XK20
    """
IBAN_LENGTH = {entry[:2]: int(entry[2:]) for entry in _IBAN_LENGTHS.split()}
"""Characters of an IBAN by country (ISO 13616 registry)."""

_CARDS = re.compile(
    r"4(?:\d{12}|\d{15}|\d{18})|5[1-5]\d{14}|(?:222[1-9]|22[3-9]\d|2[3-6]\d\d|27[01]\d|2720)\d{12}|3[47]\d{13}|"
    r"3(?:0[0-5]|[68]\d)\d{11}|6(?:011|4[4-9]\d|5\d\d)\d{12,15}|35(?:2[89]|[3-8]\d)\d{12}"
)
_DNI_LETTERS = "TRWAGMYFPDXB" + "NJZSQVHLCKE"
_FISCAL_ODD = (1, 0, 5, 7, 9, 13, 15, 17, 19, 21, 2, 4, 18, 20, 11, 3, 6, 8, 12, 14, 16, 10, 22, 25, 24, 23)


def digits_of(text: str) -> str:
    return re.sub(r"\D", "", text)


def luhn(number: str) -> bool:
    """ISO/IEC 7812: every second digit from the right doubled, the sum a multiple of ten."""
    total = 0
    for place, digit in enumerate(reversed(number)):
        total += sum(divmod(int(digit) * 2, 10)) if place % 2 else int(digit)
    return total % 10 == 0


def card(text: str) -> bool:
    """A payment card: an issuer's prefix and length, and Luhn's digit."""
    number = digits_of(text)
    return bool(_CARDS.fullmatch(number)) and luhn(number)


def iban(text: str) -> bool:
    """ISO 7064, mod 97-10: the country's length, and with the first four characters at the end the rest is 1. Check
    digits are 02 to 98: 00 has the rest of 97, and is none."""
    plain = text.replace(" ", "")
    if len(plain) != IBAN_LENGTH.get(plain[:2]) or not 2 <= int(plain[2:4]) <= 98:
        return False
    return int("".join(str(int(sign, 36)) for sign in plain[4:] + plain[:4])) % 97 == 1


def dni(text: str) -> bool:
    """Spain: the letter is that of the number's rest by 23; a foreigner's X, Y, Z stand for 0, 1, 2."""
    number = text[:-1].translate(str.maketrans("XYZ", "012"))
    return _DNI_LETTERS[int(number) % 23] == text[-1]


def nir(text: str) -> bool:
    """France: the last two digits are 97 less the rest by 97; Corsica's 2A and 2B count as 19 and 18."""
    plain = text.replace(" ", "").replace("2A", "19").replace("2B", "18")
    return 97 - int(plain[:13]) % 97 == int(plain[13:])


def fiscal_code(text: str) -> bool:
    """Italy: odd places by a table, even ones by value, the sum's rest by 26 as a letter."""
    values = [int(sign, 36) if sign.isdigit() else ord(sign) - ord("A") for sign in text[:-1]]
    total = sum(_FISCAL_ODD[value] if place % 2 == 0 else value for place, value in enumerate(values))
    return chr(ord("A") + total % 26) == text[-1]


def cpf(text: str) -> bool:
    """Brazil: two check digits, each the weighted sum's rest by 11."""
    number = [int(digit) for digit in digits_of(text)]
    for length in (9, 10):
        total = sum(digit * weight for digit, weight in zip(number, range(length + 1, 1, -1), strict=False))
        if total * 10 % 11 % 10 != number[length]:
            return False
    return len(set(number)) > 1


def tax_number(text: str) -> bool:
    """Germany (IdNr): eleven digits, the last by ISO 7064, mod 11,10."""
    number = digits_of(text)
    product = 10
    for digit in number[:10]:
        product = ((int(digit) + product) % 10 or 10) * 2 % 11
    return (11 - product) % 10 == int(number[10])
