"""Keys and tokens that are told by the shapes that their issuers publish, and private keys."""

from __future__ import annotations

import re

from proxy.redaction.scan import Scan

#: What a key begins with, and the whole of it. Sources: the issuers' documentation of their formats.
_SHAPES: tuple[tuple[str, str], ...] = (
    ("AKIA|ASIA|ABIA|ACCA", r"(?:AKIA|ASIA|ABIA|ACCA)[A-Z2-7]{16}"),  # AWS
    ("AIza", r"AIza[0-9A-Za-z_-]{35}"),  # Google Cloud
    ("GOCSPX-", r"GOCSPX-[0-9A-Za-z_-]{24,40}"),
    (r"ya29\.", r"ya29\.[0-9A-Za-z_-]{20,}"),
    ("gh[pousr]_", r"gh[pousr]_[0-9A-Za-z]{30,255}"),  # GitHub
    ("github_pat_", r"github_pat_[0-9A-Za-z_]{40,255}"),
    (
        "gl(?:pat|dt|rt|cbt|ptt|ft|imt|soat|agent|oas|ffct)-",
        r"gl(?:pat|dt|rt|cbt|ptt|ft|imt|soat|agent|oas|ffct)-[0-9A-Za-z_.-]{20,300}",
    ),
    ("xox[abeoprs]", r"xox[abeoprs](?:\.xox[a-z])?-[0-9A-Za-z-]{10,250}"),  # Slack
    ("xapp-", r"xapp-[0-9]-[0-9A-Za-z-]{20,250}"),
    (r"hooks\.slack\.com/", r"(?:https://)?hooks\.slack\.com/(?:services|workflows|triggers)/[0-9A-Za-z+/_-]{20,200}"),
    (
        r"discord(?:app)?\.com/api",
        r"(?:https://)?(?:[a-z]+\.)?discord(?:app)?\.com/api/(?:v[0-9]+/)?webhooks/[0-9]{15,22}/[0-9A-Za-z_-]{40,100}",
    ),
    (r"\.webhook\.office\.com", r"https://[0-9a-z-]+\.webhook\.office\.com/webhookb2/[0-9A-Za-z@/-]{60,300}"),
    ("[sr]k_(?:live|test)_", r"[sr]k_(?:live|test)_[0-9A-Za-z]{16,255}"),  # Stripe, whose pk_ are public
    ("whsec_", r"whsec_[0-9A-Za-z+/=]{24,100}"),
    ("sk-ant-", r"sk-ant-(?:[a-z0-9]{3,12}-)?[0-9A-Za-z_-]{60,200}"),  # Anthropic
    ("sk-or-", r"sk-or-v1-[0-9a-f]{64}"),  # OpenRouter
    (
        "sk-",
        r"sk-(?:[a-z]{2,12}-)?(?:[0-9A-Za-z_-]{20,300}T3BlbkFJ[0-9A-Za-z_-]{16,300}|[0-9A-Za-z]{32,64}|[0-9A-Za-z_-]{48,300})",
    ),  # OpenAI and its like
    ("hf_", r"hf_[0-9A-Za-z]{30,50}"),  # Hugging Face
    ("gsk_", r"gsk_[0-9A-Za-z]{40,80}"),  # Groq
    ("xai-", r"xai-[0-9A-Za-z]{60,100}"),
    ("pplx-", r"pplx-[0-9A-Za-z]{40,80}"),
    ("r8_", r"r8_[0-9A-Za-z]{37,40}"),  # Replicate
    ("nvapi-", r"nvapi-[0-9A-Za-z_-]{60,80}"),
    ("npm_", r"npm_[0-9A-Za-z]{36}"),
    ("pypi-", r"pypi-[0-9A-Za-z_-]{60,300}"),
    (r"SG\.", r"SG\.[0-9A-Za-z_-]{16,24}\.[0-9A-Za-z_-]{38,48}"),  # SendGrid
    ("key-", r"key-[0-9a-f]{32}"),  # Mailgun
    ("dop_v1_|doo_v1_|dor_v1_", r"do[opr]_v1_[0-9a-f]{64}"),  # DigitalOcean
    ("shp(?:at|ca|pa|ss)_", r"shp(?:at|ca|pa|ss)_[0-9a-fA-F]{32}"),  # Shopify
    ("sq0(?:atp|csp)-|EAAA", r"(?:sq0(?:atp|csp)-[0-9A-Za-z_-]{22,43}|EAAA[0-9A-Za-z_-]{60})"),  # Square
    ("lin_api_", r"lin_api_[0-9A-Za-z]{40}"),
    ("ntn_|secret_", r"(?:ntn_|secret_)[0-9A-Za-z]{43,50}"),  # Notion
    ("dckr_pat_", r"dckr_pat_[0-9A-Za-z_-]{27}"),
    ("glsa_|glc_", r"(?:glsa_[0-9A-Za-z]{32}_[0-9A-Fa-f]{8}|glc_[0-9A-Za-z+/=]{32,})"),  # Grafana
    ("hv[sb]\\.", r"hv[sb]\.[0-9A-Za-z_-]{24,200}"),  # Vault
    ("ATATT3|ATCTT3", r"AT[AC]TT3[0-9A-Za-z_=-]{100,300}"),  # Atlassian
    ("PMAK-", r"PMAK-[0-9a-f]{24}-[0-9a-f]{34}"),  # Postman
    ("dapi", r"dapi[0-9a-f]{32}(?:-[0-9])?"),  # Databricks
    ("AGE-SECRET-KEY-", r"AGE-SECRET-KEY-1[0-9A-Z]{58}"),
    ("tskey-", r"tskey-[a-z]+-[0-9A-Za-z]+-[0-9A-Za-z]{20,}"),  # Tailscale
    ("NRAK-", r"NRAK-[0-9A-Z]{27}"),  # New Relic
    ("sntr[yu]s_", r"sntr[yu]s_[0-9A-Za-z+/=_-]{40,300}"),  # Sentry
    ("pul-", r"pul-[0-9a-f]{40}"),  # Pulumi
    ("figd_", r"figd_[0-9A-Za-z_-]{40,60}"),
    ("AAAA[A-Za-z0-9_-]{7}:", r"AAAA[A-Za-z0-9_-]{7}:[A-Za-z0-9_-]{140}"),  # Firebase
    (
        "eyJ",
        r"eyJ[0-9A-Za-z_-]{8,}\.(?:eyJ)?[0-9A-Za-z_-]{4,}\.[0-9A-Za-z_-]{16,}(?:\.[0-9A-Za-z_-]{8,}\.[0-9A-Za-z_-]{8,})?",
    ),
)

PREFIXES = "|".join(prefix for prefix, _ in _SHAPES) + "|-----BEGIN|PuTTY-User-Key-File"
"""What a secret of a known shape begins with, or has near its beginning."""

_WHOLE = [(re.compile(prefix), re.compile(whole)) for prefix, whole in _SHAPES]
_PEM = re.compile(r"-----BEGIN (?:[A-Z0-9]+ ){0,4}PRIVATE KEY(?: BLOCK)?-----")
_PEM_END = re.compile(r"-----END (?:[A-Z0-9]+ ){0,4}PRIVATE KEY(?: BLOCK)?-----")
PEM_LONGEST = 16384
"""A private key that has not ended after so many characters is taken to end with its lines of base64."""
_KEY_BODY = re.compile(r"[A-Za-z0-9+/=]{16}")
_PEM_REST = re.compile(r"(?:[A-Za-z0-9+/=:,\- \r\n\\]|n)*")

_BOT = re.compile(r":[A-Za-z0-9_-]{33,37}(?![A-Za-z0-9_-])")
_AZURE = re.compile(
    r"[A-Za-z0-9_.-]{3}[0-9]Q~[A-Za-z0-9_.~-]{31,34}(?![A-Za-z0-9_~-])|[A-Za-z0-9_.~-]{4,6}Q~[A-Za-z0-9_.~-]{29,34}(?![A-Za-z0-9_~-])"
)


def inspect(scan: Scan, start: int) -> int:
    """Look at a prefix at `text[start:]`; return where the secret ends, or `start`."""
    text = scan.text
    if text.startswith(("-----BEGIN", "PuTTY"), start):
        return _private_key(scan, start)
    if start and text[start - 1].isascii() and text[start - 1].isalnum():
        # Within a word, unless an escape or a percent sign ends right before it.
        if not re.search(r"(?:%[0-9A-Fa-f]{2}|\\[nrt])$", text[max(0, start - 3) : start]):
            return start
    for prefix, whole in _WHOLE:
        if prefix.match(text, start):
            match = whole.match(text, start, start + 2048)
            if match is None and "/" in prefix.pattern:
                for back in (8, 12, 15):
                    match = match or (whole.match(text, start - back) if start >= back else None)
            if match is None and prefix.pattern.startswith("\\."):
                begin = text.rfind("https://", max(0, start - 80), start)
                match = whole.match(text, begin) if begin >= 0 else None
            if match and not _hollow(match[0]):
                begin = match.start() if not text.startswith("https://", match.start() - 8) else match.start() - 8
                scan.add(begin, match.end() - (match[0][-1] in ".-" and text[match.end() - 1] == "."), "secret", 0)
                return match.end()
    return start


def _private_key(scan: Scan, start: int) -> int:
    text = scan.text
    begin = _PEM.match(text, start, start + 80)
    if begin is None:
        return start
    end = _PEM_END.search(text, begin.end(), begin.end() + PEM_LONGEST)
    if end is None:
        rest = _PEM_REST.match(text, begin.end(), begin.end() + PEM_LONGEST)
        finish = rest.end() if rest else begin.end()
        while finish > begin.end() and text[finish - 1].isspace():
            finish -= 1
        if finish - begin.end() < 24:
            return start
    else:
        finish = end.end()
    if not _KEY_BODY.search(text, begin.end(), end.start() if end else finish):
        return start  # an ellipsis, or a word for a reader
    scan.add(start, finish, "secret", 0)
    return finish


def inspect_bot(scan: Scan, start: int, end: int) -> None:
    """Look at eight to ten digits: a bot's token may begin with them."""
    match = _BOT.match(scan.text, end)
    if match and 8 <= end - start <= 10 and not _hollow(match[0][1:]):
        scan.add(start, match.end(), "secret", 0)


def inspect_azure(scan: Scan, at: int) -> None:
    """Look around the `Q~` of a client secret."""
    for begin in range(max(0, at - 6), max(0, at - 2)):
        match = _AZURE.match(scan.text, begin)
        before = scan.text[begin - 1 : begin] if begin else ""
        if match and not (before.isalnum() or before in ("_", "-", "~")):
            scan.add(begin, match.end(), "secret", 1)
            return


def _hollow(value: str) -> bool:
    """Tell whether a key of the right shape is none: a row of one character, or a word for a reader."""
    if value.startswith("sk-") and not (re.search("[0-9]", value) and re.search("[A-Z]", value[3:]) or len(value) < 48):
        return True  # a class of a style sheet
    body = value.rsplit("_", 1)[-1].rsplit("-", 1)[-1] if len(value) < 80 else value
    return len(set(value[6:])) < 6 or bool(
        re.search(r"(?i)x{6}|your|example|replace|\.\.\.|0{10}|placeholder|insert", body)
    )
