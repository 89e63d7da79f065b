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
    r"\bborn\b", "birth", r"\bd[./ ]? ?o[./ ]? ?b\b", "_dob", "dob_", r"\bbday", r"\bb-?day\b",
    # German, Dutch
    r"\bgeb\.", r"\bgeb\b", "geboren", "geburts", r"\bgeburt\b", "geboorte", r"\bgebore\b", "zur welt",
    "verjaardag", r"\bgebdat",
    # French, Spanish
    r"\bn[ée]e? (?:le|en|à|au) ", r"\bn[ée]\(e\)", r"\bn[ée]\.?e?s? le\b", "naissance", "natif",
    "date_naiss", r"\bddn\b",
    "nacid[oa]", "nacimiento", "nac[ií] (?:el|en)", "naci[oó] el", "fecha[_ ]de[_ ]nac", r"\bf\. ?nac",
    r"\bf(?:echa|ec|\.)?[_ ]?nac", "cumplea",
    # Italian, Portuguese
    r"\bnat[oa] (?:il|a|in|l)", r"\bnat[oa]\b", "nascit", "nascid[oa]", "nascimento", r"\bnasci", r"\bnasceu\b",
    "anivers[áa]rio", "compleann", r"\bd(?:ata|t|\.)?[_ ]?nasc",
    # Polish
    "urodz", r"\bur\.", "urodzin", r"\bdata[_ ]ur",
    # Hindi, Chinese, Japanese
    r"\bjanm", "जन्म", "जनम", "पैदा", "出生", "生于", "生於", "生日", "生年月日", "誕生日", "生まれ",
)  # fmt: skip
"""Words beside which a date is one of birth."""

PASSPORT = _any(
    "passport", r"\bppt?[ _-]?(?:no|num|nr|#)", "reisepa(?:ss|ß)", "pa(?:ss|ß)nummer", r"\bpa(?:ss|ß)[ _-]?n(?:r|o|um)",
    r"\bpa(?:ss|ß):", "passeport", "pasaporte", "passaport[eo]", r"\bpass(?:ap)?\.? n[.°º]",
    "paspoort", "paszpor", "护照", "護照", "旅券", "パスポート", "पासपोर्ट", "paasport", r"\btravel document",
    r"\bmrz\b", "document de voyage", "documento di viaggio", "documento de viaj", "dokument podróży", "reisdocument",
    "reisedokument",
)  # fmt: skip
"""Words beside which a number is one of a passport."""

LICENCE = _any(
    # English
    r"driv(?:ing|er)s?['’]?s?['’]?[ _-]*(?:photo ?card[ _-]*)?lic(?:en[cs]|\b|_|[#.])", "driver['’]?s?[ _-]*id",
    "driv(?:ing|er)s?[ _-]*permit", "drv[ _-]?lic", r"\bdriver (?:number|no\b)", "motor lic", r"\bdvla\b",
    r"(?:\b|_)dln\b", r"(?:\b|_)dl(?:[ _-]?(?:no|num|#|nr|id\b)|\b|_)", r"\bd/l\b", r"\bd\.l\.",
    r"lic[ _.-]*(?:no\b|num|nr|#)", "licen[cs]e",
    # German, Dutch
    "f(?:ü|u|ue)hrerschein", "fahrerlaubnis", "fahrausweis", "f(?:ü|ue)hrerausweis", "rijbewij", "rijvaardigheidsbew",
    # French, Spanish
    "permis de condu", r"\bpermis\b", "permis_", "_permis", r"\bpermiso de (?:conduc|circ)",
    r"\bpermiso\b", "permiso_cond",
    "carn[eé]t?s? (?:de )?conduc", "carn[eé]t_", r"\bcarn[eé]t?\b",
    r"licencia (?:(?:federal|nacional) )?(?:de|para) (?:conduc|manej)",
    "licencia_", r"\blicencia\b",
    # Italian, Portuguese
    r"\bpatent[ei] di guida", r"\bpatent[ei]\b", "patente_", "_patente",
    "carteira (?:nacional )?de (?:motorista|habilita)", r"(?:\b|_)cnh(?:\b|_)",
    "habilitaç", "habilitacao", "carta de (?:motorista|condu)", "t[ií]tulo de condu", r"\bcarteira de condu",
    # Polish
    "praw[oaeu]m?[ _-]*jazdy", r"\bprawk[oaiu]",
    # Hindi, Chinese, Japanese
    "ड्राइविंग", "ड्राइविग", "डीएल", "लाइसेंस", "驾驶证", "驾照", "駕照", "驾驶执照", "駕駛執照", "行驶证",
    "運転免許", "免許証", "免許",
)  # fmt: skip
"""Words beside which a number may be one of a driving licence; see `detectors.licences` for which need no more."""

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
