"""What only the words beside it tell: dates of birth, and the numbers of passports and driving licences."""

from __future__ import annotations

import re
from collections.abc import Iterator

import re2

from proxy.redaction import tables
from proxy.redaction.detectors import licences
from proxy.redaction.scan import Scan

_MONTH = (
    r"(?:jan(?:uary|uar|vier|eiro|uari)?|feb(?:ruary|ruar|br?aio|rero|ruari)?|f[ée]v(?:rier|ereiro)?|mar(?:ch|s|zo|[cç]o)?|"
    r"m[aä]rz|maart|mrt|apr(?:il|ile)?|avr(?:il)?|abr(?:il)?|ma[iy]|mag(?:gio)?|maj|mei|mayo|maio|june?|juni|juin|giu(?:gno)?|"
    r"jun(?:io|ho)?|july?|juli|juil(?:let)?|lug(?:lio)?|jul(?:io|ho)?|aug(?:ust|ustus)?|ao[uû]t|ago(?:sto)?|"
    r"sep(?:t|tember|tembre|tiembre)?|set(?:tembre|embro)?|o[ck]t(?:ober|obre|ubre)?|ott(?:obre)?|out(?:ubro)?|"
    r"nov(?:ember|embre|iembre|embro)?|de[cz](?:ember|embre|embro)?|d[ée]c(?:embre)?|dic(?:embre|iembre)?|"
    r"stycznia|lutego|marca|kwietnia|maja|czerwca|lipca|sierpnia|wrze[sś]nia|pa[zź]dziernika|listopada|grudnia|"
    r"जनवरी|फ़?रवरी|मार्च|अप्रैल|मई|जून|जुलाई|अगस्त|सितंबर|सितम्बर|अक्टूबर|अक्तूबर|नवंबर|नवम्बर|दिसंबर|दिसम्बर|"
    r"i{1,3}|iv|vi{0,3}|ix|xi{0,2})\.?"
)
_DATE = re.compile(
    r"(?i)(?<![0-9A-Za-z./-])(?:"
    r"(?:19|20)[0-9]{2} ?[-./] ?(?:0?[1-9]|1[0-2]) ?[-./] ?(?:3[01]|[12][0-9]|0?[1-9])"
    r"|(?:3[01]|[12][0-9]|0?[1-9])(?: ?[-./] ?)(?:3[01]|[12][0-9]|0?[1-9])(?: ?[-./] ?)(?:(?:19|20)[0-9]{2}|'?[0-9]{2})"
    r"|(?:3[01]|[12][0-9]|0?[1-9])(?:st|nd|rd|th|er|º|°|ª|\.)?[ -](?:de |of )?"
    + _MONTH
    + r"[ ,-]{1,2}(?:de |del )?(?:(?:19|20)[0-9]{2}|'[0-9]{2})"
    r"|" + _MONTH + r" (?:3[01]|[12][0-9]|0?[1-9])(?:st|nd|rd|th)?,? (?:19|20)[0-9]{2}"
    r"|(?:大正|昭和|平成|令和) ?(?:[0-9]{1,2}|元) ?年 ?[01]?[0-9] ?月 ?[0-3]?[0-9] ?日"
    r"|(?:19|20)[0-9]{2} ?年 ?[01]?[0-9] ?月 ?[0-3]?[0-9] ?日"
    r"|(?:19|20)[0-9]{2}(?:0[1-9]|1[0-2])(?:0[1-9]|[12][0-9]|3[01])"
    r")(?![0-9]|(?!T[0-9])[A-Za-z]|[./-][0-9])"
)
_BEHIND = re.compile(
    r"(?i)^[ ,()]{0,3}(?:in [\w-]+ |à [\w-]+ )?(?:geboren|born|生まれ|出生|生\b|gebore|geb\.|urodzon|nac[ií]|nascid|"
    r"nat[oa]\b|is my (?:birth|dob))"
)
#: What may stand between a number and the word behind it: "D1234567 is my driving licence".
_BETWEEN = re.compile(r"[ ,(:–-]{0,3}(?:[^\W\d_]{1,12}[ ,(]{1,2}){0,4}")
_LISTED = re.compile(
    r"[,;/] ?(?:and |und |et |y |e |i |en |or )?| (?:and|und|et|y|e|i|en|oder|or|lub|ou|of|o|aur|&) |[、和と]"
)
#: The ways to write such numbers: with blanks only those of some country, else letters and digits in one piece.
_PART = re.compile(
    r"[A-Z]{2}[ -]?[0-9]{2}[ -]?(?:19|20)[0-9]{2} ?[0-9]{7}|[A-Z]{5}[ -][0-9]{6}[ -][A-Z0-9]{5}|"
    r"(?:[A-Z] ?)?[0-9]{3}(?:[ -][0-9]{3}){2,3}\b|[A-Z]?[0-9]{4,5}(?: [0-9]{4,5}){2}\b|"
    r"[0-9]{2,6}(?: [0-9]{2,6}){2,4}\b|[A-Z]{1,3} [0-9]{6,7}\b|[0-9]{2} ?[A-Z]{2} ?[0-9]{5}\b|"
    r"[A-Za-z0-9]+(?:[-/][A-Za-z0-9]+)*"
)
_DIGIT = re.compile("[0-9]")
_LICENCE = re.compile(f"(?i:{licences.PUBLISHED.pattern.removeprefix('(?i)')})|{_PART.pattern}")

REACH = 44
"""How far behind its word a date may begin, in characters."""
FARTHEST = 60
"""The same for a number."""


def inspect_birth(scan: Scan, start: int, end: int) -> None:
    """Look for a date beside a word of birth at `text[start:end]`."""
    text = scan.text
    end = _word(text, end)
    columns = list(tables.column(text, start, end))
    for begin, stop in columns:
        if _DATE.fullmatch(text, begin, stop):
            scan.add(begin, stop, "birth_date", 3)
    if columns:
        return
    date = _DATE.search(text, end, min(len(text), end + REACH + 30))
    if date and date.start() - end <= REACH and not _stops(text[end : date.start()]):
        scan.add(date.start(), date.end(), "birth_date", 3)
        return
    dates = list(_DATE.finditer(text, max(0, start - 44), start))
    if dates and _BEHIND.match(text[dates[-1].end() : end + 2]):
        scan.add(dates[-1].start(), dates[-1].end(), "birth_date", 3)


def inspect_number(scan: Scan, start: int, end: int, kind: str) -> None:
    """Look for the number of a passport or a driving licence beside a word of it at `text[start:end]`."""
    text = scan.text
    licence = kind == "driving_licence"
    tell = end  # where what the word is ends; what follows may be the rest of a longer one
    end = _word(text, end)
    columns = list(tables.column(text, start, end))
    for begin, stop in columns:
        cell = _PART.fullmatch(text, begin, stop) or licences.PUBLISHED.fullmatch(text, begin, stop)
        if cell and _accepted(cell[0], kind) and (not licence or licences.told(text, start, tell, cell, column=True)):
            scan.add(begin, stop, kind, 3)
    if columns:
        return
    blocked, since = False, end
    for token in _tokens(text, end, min(len(text), end + FARTHEST + 24), licence):
        between = text[end + 2 : token.start()]
        if token.start() - end > FARTHEST or (_SENTENCE.search(between) and not _NUMBER.search(between)):
            break
        others = _BESIDE_LICENCES if licence else _BESIDE_PASSPORTS
        blocked = blocked or others.search(text[since : token.start()]) is not None
        since = token.end()
        if blocked and not (licence and licences.SINGULAR.fullmatch(token[0])):
            continue
        if _number(text, token, kind) and (not licence or licences.told(text, start, tell, token)):
            scan.add(token.start(), token.end(), kind, 3)
            _others(scan, token.end(), kind)
            return
    tokens = list(_tokens(text, max(0, start - 44), start, licence))
    if tokens and _number(text, tokens[-1], kind) and _BETWEEN.fullmatch(text, tokens[-1].end(), start):
        if not licence or licences.told(text, start, tell, tokens[-1]):
            scan.add(tokens[-1].start(), tokens[-1].end(), kind, 3)


def _tokens(text: str, start: int, end: int, licence: bool) -> Iterator[re.Match[str]]:
    """Yield what may be a number within `text[start:end]`: pieces that have a digit."""
    if _DIGIT.search(text, start, end):
        pieces = (_LICENCE if licence else _PART).finditer(text, start, end)
        yield from (piece for piece in pieces if _DIGIT.search(piece[0]))


def _others(scan: Scan, end: int, kind: str) -> None:
    """Add the numbers that are listed behind one that ends here: "A1234567 and B1234567"."""
    text = scan.text
    while between := _LISTED.match(text, end):
        token = _PART.match(text, between.end())
        if token is None or not _number(text, token, kind):
            return
        scan.add(token.start(), token.end(), kind, 3)
        end = token.end()


def _number(text: str, token: re.Match[str], kind: str) -> bool:
    """Tell whether a token stands alone, is no date, and has what numbers of this kind have."""
    before, behind = (
        text[token.start() - 1 : token.start()] if token.start() else "",
        text[token.end() : token.end() + 1],
    )
    if before.isascii() and before and (before.isalnum() or before in "@_.+€$£"):
        return False
    if behind.isascii() and (behind.isalnum() or behind == "@"):
        return False
    if _DATE.match(text, token.start()) or _SPACED_DATE.fullmatch(token[0]):
        return False
    return _accepted(token[0], kind)


def _word(text: str, end: int) -> int:
    """Return where the word ends that `text[:end]` ends within."""
    while end < len(text) and text[end].isascii() and text[end].isalpha():
        end += 1
    return end


def _stops(between: str) -> bool:
    """Tell whether what stands between word and date parts them: another date's word, or the end of the sentence."""
    return "\n\n" in between or _SENTENCE.search(between[2:]) is not None or _EVENT.search(between) is not None


_SENTENCE = re.compile(r"(?<!at)(?<!\bKl)(?<!\b[Nn][ro])[.!?。][ \n]+[A-Z]|[。！？]|\n\n")
#: In a sentence of its own the number is called one.
_NUMBER = re.compile(r"(?i)(?:n[uú]m\w*|\bnr|\bno|n[°º]|№|号|番号)[^.!?]{0,16}$")
_EVENT = re.compile(
    r"\b(?:meeting|exam|due|expir|valid|since|seit|enrol|hired|joined|moved|died|gest|signed|"
    r"issued|starts?|ends?|deadline|termin|zog|trat|arriv|appointment|invoice|rechnung|factur|fattur|order|launch|found|releas|publish|built|gegründ|rates?\b|"
    r"updat|deliver|registry|zimmer|ab\b)"
)


_SPACED_DATE = re.compile(
    r"[0-3]?[0-9] [01]?[0-9] (?:19|20)[0-9]{2}|(?:19|20)[0-9]{2} [01]?[0-9] [0-3]?[0-9]|"
    r"(?:19|20)[0-9]{2}[/-](?:19|20)?[0-9]{2}"
)
_PASSPORTS = r"pass?e?port|pasz|pasap|reisepa|paspoort|护照|護照|旅券|パスポート|पासपोर्ट"
_LICENCES = r"driv\w+ lic|licen[cs]e|führersch|permis\b|permiso de|patente|rijbew|praw\w+ jazd|\bcnh\b|驾|免許|ड्राइविंग"
#: What another number between a word and a number would be called.
_ANOTHER = (
    r"\border|bestell|auftrag|command\w+ n|\bpedido|\bordine|zamówi|encomenda|订单|注文|ऑर्डर|invoice|"
    r"rechnung|factur|fattur|fatura|faktur|发票|請求|\bphone|\btele?[fp]|\btél|\btel\b|\bcall\b|\bmobil|\bhandy|"
    r"\banruf|\bappel|\bllam|\bchiam|zadzwo|celular|电话|電話|手机|फ़ोन|फोन|\bref(?:erence|erenz|\b)|\bcase\b|"
    r"ticket|aktenz|vorgang|dossier|expedient|\bpratica|\bsprawy|\bprocesso|\bzaak|booking|buchung|réserv|reserva|"
    r"prenotaz|rezerwac|boeking|予約|预订|(?:customer|client|kunden|klant)[ -]?(?:n|id)|\baccount|\bkonto|"
    r"\bcompte\b|\bcuenta|\bconto\b|rekening|\bconta\b|口座|账号|\bpolicy|police n|póliza|polizza|polis|apólice|"
    r"\bplate|kennzeich|immatric|matr[íi]cul|\btarga|kenteken|rejestracyj|\bplaca|车牌|ナンバー|\bserial|serien|"
    r"\bversion|software|\bssn\b|social sec|\bnino?\b|national ins|\bpesel|\bbsn\b|\bcpf\b|\brg\b|\bdni\b|\bnie\b|"
    r"\bnif\b|aadha?ar|\bpan\b|\biban|\bcard\b|\bkarten?n|\bvin\b|\bisbn|\bsku\b|tracking|sendung|parcel|\bcolis|"
    r"\bpaket|\bfine of|\bamount|\bbetrag|\bzip\b|\bplz\b|\bfax\b|\bpostcode|\bchassis|\bengine|身份证|"
    r"マイナンバー|codice fiscale|partita iva|\bnhs\b|steuer|receipt|quittung|\brecibo|ricevuta|paragon|\bbuild\b|"
    r"\.js\b|transaction|\bstock\b|industrial|"
    r"\bamende|\bmulta\b|bu(?:ß|ss)geld|\bboete|\bmandat\b"
)
#: By the linear engine, for each is asked about every number.
_BESIDE_LICENCES = re2.compile(f"(?i){_PASSPORTS}|{_ANOTHER}")
_BESIDE_PASSPORTS = re2.compile(f"(?i){_LICENCES}|{_ANOTHER}")


def _accepted(token: str, kind: str) -> bool:
    plain = re.sub("[-/. ]", "", token)
    digits = sum(map(str.isdigit, plain))
    if not plain.isupper() and not plain.isdigit() and not (plain.islower() and digits >= 5):
        return False
    if kind == "passport":
        return 6 <= len(plain) <= 10 and digits >= 2 and "-" not in token and "/" not in token
    if licences.SINGULAR.fullmatch(token):
        return True
    return 7 <= len(plain) <= 20 and digits >= 4 and not _DATE.fullmatch(token)
