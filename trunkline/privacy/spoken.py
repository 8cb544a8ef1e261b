"""How digits and addresses are said, in English, Spanish and German. Words are folded (tokens.folded)."""

from typing import Literal, NamedTuple

Role = Literal["unit", "tens", "number", "zeros", "times", "zero_within", "gap"]


class Said(NamedTuple):
    role: Role
    digits: str = ""
    times: int = 0


_UNITS = {
    "0": "zero null cero",
    "1": "one eins ein uno una",
    "2": "two zwei zwo dos",
    "3": "three drei tres",
    "4": "four vier cuatro",
    "5": "five funf fuenf cinco",
    "6": "six sechs seis",
    "7": "seven sieben siete",
    "8": "eight acht ocho",
    "9": "nine niner neun nueve",
}
_TEENS = {
    "10": "ten zehn diez",
    "11": "eleven elf once",
    "12": "twelve zwolf zwoelf doce",
    "13": "thirteen dreizehn trece",
    "14": "fourteen vierzehn catorce",
    "15": "fifteen funfzehn fuenfzehn quince",
    "16": "sixteen sechzehn dieciseis",
    "17": "seventeen siebzehn diecisiete",
    "18": "eighteen achtzehn dieciocho",
    "19": "nineteen neunzehn diecinueve",
}
_TENS = {
    "20": "twenty zwanzig veinte",
    "30": "thirty dreissig treinta",
    "40": "forty fourty vierzig cuarenta",
    "50": "fifty funfzig fuenfzig cincuenta",
    "60": "sixty sechzig sesenta",
    "70": "seventy siebzig setenta",
    "80": "eighty achtzig ochenta",
    "90": "ninety neunzig noventa",
}
_TIMES = {2: "double doppel doppelt zweimal doble", 3: "triple treble dreifach dreimal", 4: "quadruple viermal"}
_ZEROS = {"00": "hundred hundert cien ciento", "000": "thousand tausend mil"}
_GAPS = """
    uh um uhm er erm eh hm hmm mm ah like okay ok right so well wait sorry then and next space dash hyphen minus slash
    plus comma for to too won ate
    ah ahm ehm oh und dann also moment entschuldigung warte strich bindestrich schragstrich leerzeichen plus komma
    y luego pues este perdon espera guion barra espacio mas coma
"""
"""May stand within a number: hesitations, separators, and what recognisers hear in the place of a digit (for, to)."""

_GERMAN = {"ein": 1, "zwei": 2, "drei": 3, "vier": 4, "funf": 5, "fuenf": 5, "sechs": 6, "sieben": 7, "acht": 8}
_GERMAN |= {"neun": 9}
_SPANISH = {"uno": 1, "un": 1, "dos": 2, "tres": 3, "cuatro": 4, "cinco": 5, "seis": 6, "siete": 7, "ocho": 8}
_SPANISH |= {"nueve": 9}


def _vocabulary() -> dict[str, Said]:
    said = {word: Said("gap") for word in _GAPS.split()}
    said |= {word: Said("unit", digit) for digit, words in _UNITS.items() for word in words.split()}
    said |= {word: Said("number", digits) for digits, words in _TEENS.items() for word in words.split()}
    said |= {word: Said("tens", digits) for digits, words in _TENS.items() for word in words.split()}
    said |= {word: Said("zeros", zeros) for zeros, words in _ZEROS.items() for word in words.split()}
    said |= {word: Said("times", times=times) for times, words in _TIMES.items() for word in words.split()}
    said |= {word: Said("zero_within", "0") for word in ("o", "oh")}
    for tens, words in _TENS.items():
        for ten in words.split():
            said |= {f"{unit}und{ten}": Said("number", f"{tens[0]}{n}") for unit, n in _GERMAN.items()}
    said |= {f"veinti{unit}": Said("number", f"2{n}") for unit, n in _SPANISH.items()}
    return said


NUMBERS = _vocabulary()
JOINS_TENS = frozenset(("y", "and"))
"""treinta y uno"""

AT = frozenset(("at", "arroba", "klammeraffe", "affenschwanz"))
DOT = frozenset(("dot", "punto", "punkt"))
_CONNECTORS = "underscore dash hyphen minus guion bajo unterstrich bindestrich strich plus period"
CONNECTORS = DOT | frozenset(_CONNECTORS.split())

INTRODUCTIONS = (
    ("my", "name", "is"),
    ("my", "name", "s"),
    ("name", "is"),
    ("mein", "name", "ist"),
    ("ich", "heisse"),
    ("me", "llamo"),
    ("mi", "nombre", "es"),
)
_NO_NAMES = """
    a an and the i im am is are was my me calling call from with at in on for to of but so here there not no yes please
    on file uh um er ehm ah ahm like well spelled that this it its what who you your
    und ich bin der die das von mit aus mein nicht ja nein bitte aber hier es was wer
    y yo soy de la el con mi no si por para pero aqui que quien
"""
NO_NAMES = frozenset(_NO_NAMES.split())
