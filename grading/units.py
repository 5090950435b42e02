"""A small table of units: enough to tell 5 m = 500 cm from 3 m and 3 s.

A unit is a scale and a map of base dimensions to exponents. Unknown nouns (`5 apples`) are dimensions of their own.
Angles in degrees are not converted to radians. Temperatures in °C or °F are not converted: they have offsets.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from fractions import Fraction

MAX_UNIT_CHARS = 60
MAX_UNIT_EXPONENT = 9


@dataclass(frozen=True, slots=True)
class Unit:
    """Scale to the base units, and the exponent of each dimension (sorted, none zero)."""

    scale: Fraction
    dimensions: tuple[tuple[str, int], ...]


def _scaled(dimensions: dict[str, int], **names: str | int) -> dict[str, Unit]:
    table: dict[str, Unit] = {}
    for spelling, factor in names.items():
        table[spelling] = Unit(Fraction(factor), tuple(sorted(dimensions.items())))
    return table


_LENGTH, _MASS, _TIME = {"m": 1}, {"kg": 1}, {"s": 1}
_FORCE = {"kg": 1, "m": 1, "s": -2}
_ENERGY, _POWER = {"kg": 1, "m": 2, "s": -2}, {"kg": 1, "m": 2, "s": -3}

_UNITS: dict[str, Unit] = {
    **_scaled(_LENGTH, m=1, km=1000, dm="0.1", cm="0.01", mm="0.001", nm="1e-9", um="1e-6"),
    **_scaled(_LENGTH, ft="0.3048", inch="0.0254", yd="0.9144", mi="1609.344"),
    **_scaled(_MASS, kg=1, g="0.001", mg="1e-6", t=1000, lb="0.45359237", oz="0.028349523125"),
    **_scaled(_TIME, s=1, ms="0.001", us="1e-6", ns="1e-9", min=60, h=3600, day=86400, week=604800, year=31557600),
    **_scaled({"month": 1}, month=1),
    **_scaled({"m": 3}, L="0.001", l="0.001", mL="1e-6", ml="1e-6", cc="1e-6", gallon="0.003785411784"),
    **_scaled(_FORCE, N=1, kN=1000),
    **_scaled(_ENERGY, J=1, kJ=1000, MJ=10**6, cal="4.184", kcal=4184, kWh=3600000, Wh=3600),
    **_scaled({"eV": 1}, eV=1, keV=1000, MeV=10**6),
    **_scaled(_POWER, W=1, kW=1000, MW=10**6),
    **_scaled({"kg": 1, "m": -1, "s": -2}, Pa=1, kPa=1000, MPa=10**6, bar=10**5, atm=101325),
    **_scaled({"s": -1}, Hz=1, kHz=1000, MHz=10**6, GHz=10**9),
    **_scaled({"A": 1}, A=1, mA="0.001"),
    **_scaled({"V": 1}, V=1, mV="0.001", kV=1000),
    **_scaled({"ohm": 1}, ohm=1, kohm=1000),
    **_scaled({"C": 1}, C=1),
    **_scaled({"K": 1}, K=1),
    **_scaled({"degC": 1}, degC=1),
    **_scaled({"degF": 1}, degF=1),
    **_scaled({"mol": 1}, mol=1, mmol="0.001"),
    **_scaled({"deg": 1}, deg=1),
    **_scaled({"rad": 1}, rad=1),
    **_scaled({"byte": 1}, byte=1, bit="0.125"),
    **_scaled({"dollar": 1}, dollar=1, cent="0.01"),
    **_scaled({"euro": 1}, euro=1),
    **_scaled({"pound": 1}, poundsterling=1),
    **_scaled({"yen": 1}, yen=1),
    **_scaled({"rupee": 1}, rupee=1),
    **_scaled({"turn": 1}, rpm=1),
}
_SYNONYMS = {
    "meter": "m", "metre": "m", "kilometer": "km", "kilometre": "km", "centimeter": "cm", "centimetre": "cm",
    "millimeter": "mm", "millimetre": "mm", "foot": "ft", "feet": "ft", "inches": "inch", "in": "inch", "yard": "yd",
    "mile": "mi", "gram": "g", "kilogram": "kg", "milligram": "mg", "tonne": "t", "lbs": "lb", "ounce": "oz",
    "pound": "lb", "second": "s", "sec": "s", "minute": "min", "mins": "min", "hour": "h", "hr": "h", "hrs": "h",
    "millisecond": "ms", "yr": "year", "liter": "L", "litre": "L", "milliliter": "ml", "millilitre": "ml",
    "newton": "N", "joule": "J", "watt": "W", "pascal": "Pa", "hertz": "Hz", "ampere": "A", "amp": "A", "volt": "V",
    "coulomb": "C", "kelvin": "K", "mole": "mol", "degree": "deg", "radian": "rad", "celsius": "degC",
    "fahrenheit": "degF", "usd": "dollar", "$": "dollar", "€": "euro", "eur": "euro", "£": "poundsterling",
    "gbp": "poundsterling", "¥": "yen", "₹": "rupee", "¢": "cent", "Ω": "ohm", "mph": "mi/h", "kph": "km/h",
    "kmh": "km/h", "sqft": "ft^2", "gal": "gallon", "electronvolt": "eV",
}  # fmt: skip

CURRENCY_SIGNS = "$€£¥₹"
_FACTOR = re.compile(
    r"\s*([*/]?)\s*(?:(square|sq|cubic|per)\.?\s+)?([A-Za-zΩ°$€£¥₹¢]+)\.?\s*(?:\^\s*\{?\s*(-?\d)\s*\}?|([²³]))?",
    re.IGNORECASE,
)


def parse_unit(text: str) -> Unit | None:
    """The unit that all of `text` writes (`m/s`, `km / h`, `cm^2`, `square feet`, `apples`), or None."""
    text = text.strip().replace("\\", "")
    if not text or len(text) > MAX_UNIT_CHARS:
        return None
    scale, dimensions = Fraction(1), dict[str, int]()
    position, dividing = 0, False
    while position < len(text):
        match = _FACTOR.match(text, position)
        if match is None:
            return None
        position = match.end()
        operator, word, name, exponent_text, superscript = match.groups()
        word = (word or "").lower()
        if name.lower() == "per" or word == "per":
            dividing = True
            if name.lower() == "per":
                continue
        factor = _lookup(name)
        if factor is None:
            return None
        exponent = int(exponent_text or {"²": 2, "³": 3}.get(superscript or "", 1))
        exponent *= {"square": 2, "sq": 2, "cubic": 3}.get(word, 1)
        if not 0 < abs(exponent) <= MAX_UNIT_EXPONENT:
            return None
        if operator == "/" or dividing:
            exponent = -exponent
        scale *= factor.scale**exponent
        for dimension, power in factor.dimensions:
            dimensions[dimension] = dimensions.get(dimension, 0) + power * exponent
    return Unit(scale, tuple(sorted((d, p) for d, p in dimensions.items() if p)))


def is_known_unit(text: str) -> bool:
    """Whether `text` is one spelling in the table (not an unknown noun)."""
    text = text.strip()
    return text in _UNITS or text in _SYNONYMS or _singular(text.lower()) in _SYNONYMS or text.lower() in _SYNONYMS


def _lookup(name: str) -> Unit | None:
    if name in _UNITS:
        return _UNITS[name]
    lowered = name.lower()
    for spelling in (name, lowered, _singular(lowered)):
        target = _SYNONYMS.get(spelling)
        if target is not None:
            return _UNITS[target] if target in _UNITS else parse_unit(target)
        if len(spelling) > 1 and spelling in _UNITS:
            return _UNITS[spelling]
    if len(name) < 3:
        return None
    return Unit(Fraction(1), ((_singular(lowered), 1),))


def _singular(word: str) -> str:
    if len(word) > 3 and word.endswith("ies"):
        return word[:-3] + "y"
    if len(word) > 3 and word.endswith("s") and not word.endswith("ss"):
        return word[:-1]
    return word
