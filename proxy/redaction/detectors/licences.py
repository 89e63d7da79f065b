"""The ways in which countries write the numbers of driving licences, and which words need to be borne out by them."""

from __future__ import annotations

import re

#: No group of digits goes on behind what is written in groups.
_LAST = "(?![ -][0-9]{3})"
#: What nothing else looks like.
_SINGULAR = (
    # The United Kingdom: name, decade, month (50 more for women), day, year, initials, check; and the card's issue.
    r"[A-Z][A-Z9]{4}[ -]?[0-9](?:[05][1-9]|[16][0-2])(?:0[1-9]|[12][0-9]|3[01])[0-9][ -]?[A-Z][A-Z9][A-Z0-9][A-Z]{2}"
    r"(?: [0-9]{2}(?![0-9]))?",
    r"[A-Z][A-Z9]{4}[ -]?[0-9]{6}[ -]?[A-Z0-9]{5}",  # the same, with a day that there is not
    r"U1[0-9A-Z]{7}[A-Z]",  # Italy
    r"WDL[0-9A-Z]{8}[A-Z]",  # Washington
    r"[0-9]{5}/[0-9]{2}/[0-9]{4}",  # Poland
    r"[A-Z]{2}[ -]?[0-9]{2}[A-Z]?[ /-]?(?:19|20)[0-9]{2}[ -]?[0-9]{7}",  # India: state, office, year, number
    r"[A-Z][0-9]{3}[ -][0-9]{3}[ -][0-9]{2}[ -][0-9]{3}[ -][0-9]",  # Florida
)
#: What has a letter or two in its place.
_LETTERED = (
    r"[A-Z]{2}[0-9]{7}[A-Z]",  # Italy, until 2013
    r"[A-Z][0-9A-Z]{8}[0-9X][0-9]",  # Germany: authority, number, check digit, copy
    r"[0-9]{2}[A-Z]{2}[0-9]{5}",  # France, since 2013
    r"[A-Z]{2}[ -]?[0-9]{13}",  # India, without its groups
    # The United States and Canada, in the groups that their cards show.
    rf"[A-Z][ -]?[0-9]{{3}}(?:[ -][0-9]{{3}}){{3}}{_LAST}",
    rf"[A-Z][0-9]{{3}}[ -][0-9]{{4}}[ -][0-9]{{4}}(?:[ -][0-9]{{2}})?{_LAST}",
    rf"[A-Z][0-9]{{4}}[ -][0-9]{{5}}[ -][0-9]{{5}}{_LAST}|[A-Z][0-9]{{4}}[ -][0-9]{{6}}[ -][0-9]{{2}}{_LAST}",
    r"[A-Z][0-9]{2}[ -][0-9]{2}[ -][0-9]{4}|[A-Z]{1,2}[0-9]{6,14}|[A-Z]{2} [0-9]{6}",
    r"[A-Z]{1,2}-[0-9]{5,7} [0-9]",  # Portugal
    r"[0-9]{2}[A-Z]{3}[0-9]{5}|[0-9]{3}[A-Z]{2}[0-9]{4}|[A-Z]{3}[0-9]{6}|[A-Z]{2}[0-9]{6}[A-Z]",
    r"NHL[0-9]{8}|[A-Z*]{7}[0-9]{3}[A-Z0-9]{2}",
)
#: What many other numbers look like too.
_PLAIN = (
    rf"[0-9]{{2}}(?:[ .-][0-9]{{2}}){{2}}[ .-][0-9]{{6}}{_LAST}",  # France, until 2013
    rf"[0-9]{{4}}(?:[ -][0-9]{{4}}){{2}}{_LAST}|[0-9]{{2}} [0-9]{{3}} [0-9]{{3}}{_LAST}",
    rf"[0-9]{{3}}(?:[ .-][0-9]{{3}}){{2,3}}(?:[ .-][0-9]{{1,2}})?{_LAST}|[0-9]{{2}}-[0-9]{{3}}-[0-9]{{4}}",
    rf"[0-9]{{4}}-[0-9]{{2}}-[0-9]{{4}}|[0-9]{{4,5}}(?:[ .][0-9]{{3}}){{2}}{_LAST}|[0-9]{{9,10}}[ /-][0-9]{{1,2}}",
    r"[0-9]{17}[0-9X]|[0-9]{8}-?[A-Z]|[0-9]{7,12}",  # China and Spain have the number of the identity card
)


def _whole(*forms: str) -> re.Pattern[str]:
    # Words are passed over quickly: all forms have a digit behind at most nine letters.
    return re.compile(f"(?i)(?<![A-Za-z0-9])(?=[A-Z*]{{0,9}}[ -]?[0-9])(?:{'|'.join(forms)})(?![A-Za-z0-9])")


SINGULAR = _whole(*_SINGULAR)
"""Numbers of a form that nothing else has."""
LETTERED = _whole(*_SINGULAR, *_LETTERED)
"""Numbers of a form that has letters, too."""
PUBLISHED = _whole(*_SINGULAR, *_LETTERED, *_PLAIN)
"""Numbers of any published form."""

#: Words that stand for other things as well; all else in `telling.LICENCE` says what it is.
_VAGUE = re.compile(
    r"(?i)(?:licen[cs]e|lic[ _.-]*(?:no|num|nr|#)|_?dl\w?.{0,4}|d/l|d\.l\.|_?permis_?|permiso|carn[eé]ts?_?|licencia_?|"
    r"_?patent[ei]_?|लाइसेंस)"
)
#: Before one of these words: whose or what sort of licence it is.
_SORT = re.compile(
    r"(?i)(?:software|product|program\w*|windows|office|server|apps?|medical|medicine|nurs\w*|teach\w*|business|trad\w+|"
    r"fish\w*|hunt\w*|gun|firearms?|weapons?|tv|television|liquor|alcohol|pilot\w*|dog|marriage|broadcast\w*|import|export|"
    r"radio|operat\w*|build\w*|construction|bar|estate|contract\w*|vehicle|site|enterprise|source|commons|gpl|mit|apache|"
    r"bsd|professional|gam\w+|pharmac\w*|volume|perpetual|trial|library|music|photo|image|font|data|saas|"
    r"adobe|oracle|microsoft|sap|antivirus|plugin|tool|patient|work|oder|kanzlei|europ\w+|esercizio|"
    r"mg|g|[0-9]+)"
)
#: Behind it: what else it may be the beginning of.
_OF = re.compile(
    r"(?i)(?:s|d|e|es)?[ _-]*(?:keys?|plates?|agreement|servers?|files?|fees?|terms?|types?|text|header|manager|code|"
    r"holders?|count|url|term|seats?|models?|pool|activation|serial|version|"
    r"d[ue] (?:construire|s[ée]jour|travail|chass\w*|p[êe]che|am[ée]nager|d[ée]molir|port|feu|louer|bateau)|"
    r"de (?:obras?|resid\w*|trabajo|armas?|caza|pesca|edific\w*|"
    r"construc\w*|software|actividad|apertura|funciona\w*|importa\w*|identidad|vacuna\w*|socio|estudiant\w*|bibliot\w*|"
    r"inven\w*|vehicul\w*|veh[íi]culo)|d['’](?:invention|am[ée]nager|exploit\w*)|(?:edilizi|nautic|europe)\w+|"
    r"europ\w+|internacional de patente)(?![a-z])"
)
_BEFORE = re.compile(r"([A-Za-z0-9]+)[ _/'’\"-]{1,3}$")
_NUMBERED = re.compile(r"(?i)\bno\b|\bnum|n[úu]m|\bnr|\bn\.|n[°º]|№|#|\bid\b|[:=：(]|号|番号|नंबर|संख्या")
_NUMBER_OF = re.compile(
    r"(?i)(?:num[eé]ro|n[uú]mer\w*|nummer|numbers?|no\.|n[°º])[ ]{1,2}(?:[^\W\d_]{1,6}[ ]){0,3}$|"
    r"\b(?:my|his|her|their|your|mon|son|sa|ma|votre|mi|su|mia|sua|tua|meu|minha|mój|moje)[ ]$"
)


def told(text: str, start: int, end: int, token: re.Match[str], column: bool = False) -> bool:
    """Tell whether a word at `text[start:end]` makes a token beside it, or below it, a number of a driving licence."""
    if not _VAGUE.fullmatch(text, start, end):
        return True
    sort = _BEFORE.search(text, max(0, start - 24), start)
    if (sort and _SORT.fullmatch(sort[1])) or _OF.match(text, end, end + 32):
        return False
    value = token[0].upper()
    if LETTERED.fullmatch(value):
        # Numbers of patents begin with the office that granted them.
        return not value.startswith(("EP", "US", "WO", "CN", "JP")) or value[2:3].isalpha()
    if column:
        heading = text[max(0, start - 12) : end + 12]
        return _NUMBERED.search(heading) is not None and PUBLISHED.fullmatch(value) is not None
    if text[start:end] == "DL" and 0 < token.start() - end <= 2:
        return PUBLISHED.fullmatch(value) is not None
    if token.start() < end or (text[end : end + 1] == "s" and not text[end + 1 : end + 2].isalpha()):
        return False
    named = _NUMBERED.search(text, end - 3, token.start()) or _NUMBER_OF.search(text, max(0, start - 32), start)
    near = named is not None and token.start() - end <= 24 and PUBLISHED.fullmatch(value) is not None
    return near or brazilian(value)


def brazilian(digits: str) -> bool:
    """Tell whether 11 digits have the two check digits of a CNH."""
    if len(digits) != 11 or not digits.isdigit() or len(set(digits)) == 1:
        return False
    numbers = list(map(int, digits))
    first = sum(number * weight for number, weight in zip(numbers, range(9, 0, -1), strict=False)) % 11
    second = sum(number * weight for number, weight in zip(numbers, range(1, 10), strict=False)) % 11
    # A first digit of ten is written 0 and taken off the second.
    less = 2 if first > 9 else 0
    first = 0 if first > 9 else first
    second = 0 if second > 9 else second - less + (11 if second - less < 0 else 0)
    return numbers[9:] == [first, second]
