"""The words that tell what stands beside them, in the languages of the countries served.

Patterns for re2, where `\\b` knows ASCII alone: words that begin or end with another letter go without.
"""

from __future__ import annotations


def _any(*patterns: str) -> str:
    return f"(?i:{'|'.join(patterns)})"


NUMBERS = {
    "us": _any(r"\bssns?\b", "ssn_", "_ssn", "social security", "seguro social", r"\bsocial\b",
    "sozialversicherungs"),
    "uk": _any(r"\bnhs\b", "nhs[ _-]?n", "national health", r"\bninos?\b", "national insurance", r"\bnat\.? ins",
    r"\bni[ _-]?n"),
    "de": _any("steuer", r"\bidnr", r"\bid-nr", r"\btin\b", "identifikationsnummer", "tax[ _-]?(?:id|no|num)",
    "tin_"),
    "es": _any(r"\bdni\b", r"\bnie\b", r"\bnif\b"),
    "nl": _any(r"\bbsn", "_bsn", "burgerservice", r"\bsofi", "citizen service", "servicenummer"),
    "pl": _any("pesel"),
    "br": _any("cpf", "cadastro de pessoa", "contribuinte", "taxpayer"),
    "in": _any("aadh?aa?r", "adhaar", "adhar", r"\buid(?:ai)?\b", "आधार"),
    "card": _any(
        "card", "kart", "cart[aeã]", "tarjeta", r"\bcb\b", r"\bpan\b", "visa", "maestro", "amex", "卡", "カード",
    ),
    "phone": _any(
        # English
        r"\bphone", r"\btele?ph", r"\btel\b", r"\btelno", r"\bcell", r"\bmobile", r"\bfax", r"\bmy number",
        r"\bnumber's\b", "whats ?app",
        r"\bsms\b", r"\bcall",
        r"\bring\b", r"\bdial", r"\btext (?:me|him|her|us|them|to|it)", r"\breach (?:me|him|her|us|them)",
        "hotline", "helpline",
        "voicemail", r"\bcontact", r"\bphone", "_phone", "_tel", "landline", "pager", r"\bmob\b", r"\bph\b",
        # German, Dutch
        "telefon", "telefoon", r"\bhandy", r"\bmobil", "mobiel", "anruf", r"\bruf", r"\berreich", "durchwahl",
        "rückfragen", "meine nummer", "mijn nummer",
        "rückruf", r"\bbel\b",
        r"\bbelt\b", r"\bbellen", "gebeld", "bereikbaar", "toestel", r"\bgsm\b", "festnetz", r"\bwähl",
        "nebenstelle", "telnr",
        # French
        "téléph", "teleph", r"\btél", "portable", "joindre", "joignable", r"\bappel", "rappel", "contacter",
        "numéro de tel", "mon numéro", "nouveau numéro",
        # Spanish, Portuguese, Italian
        "tel[ée]f", "tfno", r"\btlf", "m[óo]vil", "celular", r"\bfijo\b", r"\bll[aá]m", "cellulare", "chiam",
        "telefon", r"\bfisso\b", r"\bfone",
        "telem[óo]vel", r"\blig(?:ar|ue|a|o|ação)\b", "contato", "contacto", "contatt", "recapit", "mio numero",
        "mi número", "meu número", "ramal",
        r"\bzap\b",
        # Polish
        "komórk", r"\bkom\.", "dzwo[nń]", "zadzwo", "numer to", "mój numer", "mój nowy numer", "telefonu", "infolini",
        # Hindi and English together
        "फ़ोन", "फोन", "मोबाइल", "नंबर", r"\bphone kar", r"\bcall kar",
        # Chinese and Japanese
        "电话", "電話", "手机", "手機", "携帯", "联系", "聯絡", "致电", "座机", "连絡先", "連絡先", "拨打",
        "ファックス", "传真",
    ),
}  # fmt: skip
"""Words that tell what a number beside them is."""

BIRTH = _any(
    r"\bborn\b", "birth", r"\bd\.? ?o\.? ?b\b", "_dob", "dob_", r"\bbday",
    r"\bgeb\.", r"\bgeb\b", "geboren", "geburts", "geboorte", r"\bgebore\b",
    r"\bn[ée]e? (?:le|en|à|au) ", r"\bn[ée]\(e\)", "naissance", "natif",
    "nacid[oa]", "nacimiento", "nac[ií] el", "fecha de nac", r"\bf\. ?nac", "cumplea",
    r"\bnat[oa] (?:il|a|in|l)", r"\bnat[oa]\b", "nascit", "nascid[oa]", "nascimento", r"\bnasci", "anivers[áa]rio",
    "compleann",
    "urodz", r"\bur\.", "urodzin", r"\bjanm", "जन्म", "出生", "生于", "生於", "生日", "生年月日", "誕生日", "生まれ",
)  # fmt: skip
"""Words beside which a date is one of birth."""

PASSPORT = _any(
    "passport", "reisepa(?:ss|ß)", "pa(?:ss|ß)nummer", r"\bpa(?:ss|ß)[ -]?n(?:r|o|um)", "passeport", "pasaporte",
    "passaport[eo]",
    "paspoort", "paszport", "护照", "護照", "旅券", "パスポート", "पासपोर्ट",
)  # fmt: skip
"""Words beside which a number is one of a passport."""

LICENCE = _any(
    "driv(?:ing|er)['’]?s?['’]?[ _-]*lic(?:en[cs]|\\b)", "driver['’]?s?[ _-]*id",
    r"\blicen[cs]e[ _-]*(?:no|num|#|plate)",
    "driving ?licen",
    "driverslicen", "driverlicen", "driv(?:ing|er)[ _-]*permit", r"\bmy licen[cs]e\b",
    r'[",;\t]licen[cs]e[",;\t\n]',
    r"\bdvla\b", r"\bdl[ _-]?(?:no|num|#|nr)", r"\bdl\b",
    "f(?:ü|u|ue)hrerschein", "fahrerlaubnis", "permis de cond", "num[ée]ro de permis", "n° de permis",
    r"\bpermis (?:b|n|no|nr|num\w*|:)", "permiso de conduc",
    "carn[eé]t? de conduc",
    "licencia de (?:conduc|manej)", r"\bpatente\b", "carteira (?:nacional )?de (?:motorista|habilita)", r"\bcnh\b",
    "habilitaç", "carta de motorista", r"numero (?:della )?patente",
    "prawo jazdy", "prawa jazdy", "prawem jazdy", "rijbewijs", "carta de condu", "ड्राइविंग", "驾驶证", "驾照",
    "駕照", "運転免許",
    "免許証", "免許",
)  # fmt: skip
"""Words beside which a number is one of a driving licence."""

SECRETS = _any(
    "passw", "passphrase", "passcode", r"\bpwd", "_pwd", "secret", "token", "credential",
    "api[ _-]?key", "api[ _-]schl", "api[ _-]?sleutel", "x-api-",
    "(?:access|account|private|signing|encryption|master|subscription|auth|app|storage|shared|client|deploy|licen[cs]e|service|"
    "webhook|ssh|session|admin|root|hmac|jwt|server|consumer|functions?|cipher|aes|crypto|security|sas|bot)[ _-]?key",
    "key[ _-]?pass", "authorization", "bearer", r"\bbasic ", "_auth", "[?&;](?:sig|key|code|auth)=",
    # German, Dutch
    "kennwort", "passwort", "schl(?:ü|u|ue)ssel", "zugangsdaten", "wachtwoord", "sleutel",
    # French
    "mot[ _]de[ _]passe", r"\bmdp\b", "jeton", "cl(?:é|e)[ _](?:api|secr|priv|d)",
    # Spanish, Portuguese, Italian
    "contrase(?:ñ|n)a", r"\bclave\b", "senha", "chave[ _]", "parola[ _](?:d|chiave)", "chiave[ _]", "credenzial",
    # Polish
    "has(?:ł|l)o", "klucz",
    "密码", "密碼", "密钥", "密鑰", "口令", "令牌", "秘钥", "パスワード", "暗証", "キー", "トークン",
    "シークレット", "पासवर्ड",
)  # fmt: skip
"""Words behind which a secret may stand."""

PASSWORDS = (
    "pass", "pwd", "kennwort", "wachtwoord", "mdp", "mot de", "mot_de", "contrase", "clave", "senha", "parola",
    "has", "密码", "密碼", "口令",
    "パスワード", "暗証", "पासवर्ड",
)  # fmt: skip
"""How those of them begin, or go on, behind which people put what they made up themselves."""
