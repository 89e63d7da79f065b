"""What networks know things by: e-mail addresses, IP addresses, and credentials within addresses of the web."""

from __future__ import annotations

import ipaddress
import re

from proxy.redaction.scan import Scan

SIX = r"(?:[0-9a-fA-F]{1,4}:){7}[0-9a-fA-F]|::[0-9a-fA-F]|[0-9a-fA-F]{1,4}::"
"""Where an IPv6 address is, or may be near."""
FOUR = r"[0-9]{1,3}\.[0-9]{1,3}\.[0-9]{1,3}\.[0-9]{1,3}"

_V4 = re.compile(r"(?:(?<![A-Za-z0-9_.])|(?<=IP))(?:[0-9]{1,3}\.){3}[0-9]{1,3}(?![A-Za-z0-9_]|\.[0-9])")
_V6 = re.compile(r"[0-9a-fA-F:]*[0-9a-fA-F:.]*")
_VERSIONED = re.compile(
    r"(?i)(?:\bv(?:er(?:si[oóãò]n\w*)?|\.)?|version\w*|versi[eoó]\w*|release|rev(?:ision)?|build|driver|chrome|firefox|"
    r"firmware|update|upgrade|section|clause|chapter|abschnitt|kapitel|art(?:icle|ikel|\.)?|appendix|annex|table|figure|"
    r"§|版本|バージョン|vers[aã]o|wersj\w*|wydani\w*|patch|sdk|kernel|python|java|node|macos|ios|android|windows|"
    r"release[ _]notes|upgrad\w+ (?:to|from)|paragraph|item|numeral|apartado|sección|rozdzia\w*|第)"
    r"[ :=\"'#–-]{0,3}(?:to |from |number |no\.? |is |=> )?[\"'v]{0,2}$"
)
_VERSION = re.compile(
    r"(?i)\bversi\w*|\brelease|\bbuild\b|firmware|\bdriver\b|版本|バージョン|\bwersj\w*|\bversão|\bv[0-9]"
)
_ROW = re.compile(r"[ ,/–-]{0,3}(?:and|or|to|und|oder|auf|bis|et|ou|à|y|o|a|e|i|en|naar|do|na|->|→)?[ ,]{0,2}")
_HOST = re.compile(r"(?i)\bip|\bhost|\bserver|\baddr|ping|\bfrom\b|\bnode\b|://|adres|服务器|アドレス")
_LOCAL = re.compile(r"[A-Za-z0-9!#$%&'*+/=?^_`{|}~.\-\u00c0-\u024f]+")
_DOMAIN = re.compile(
    r"(?:(?:[A-Za-z0-9\u00c0-\u024f](?:[A-Za-z0-9\u00c0-\u024f-]{0,61}[A-Za-z0-9\u00c0-\u024f])?|"
    # a label of another script
    r"[\u0370-\u1fff\u3041-\u3096\u30a1-\u30fa\u30fc\u3400-\u9fff\uac00-\ud7a3]{1,40})\.)+(?:[A-Za-z\u00c0-\u024f]{2,24}|xn--[a-z0-9-]{2,59})(?![A-Za-z0-9])"
)
_SCHEME = re.compile(r"\b([A-Za-z][A-Za-z0-9+.\-]{1,30})://([^\s/?#\"'`<>]{0,256})$")
_WEB = frozenset(
    "http https ftp ftps sftp rtsp rtsps smtp smtps imap imaps pop3 pop3s ws wss git ssh svn socks socks4 socks5 "
    "socks5h scp ldap ldaps dav davs git+https git+http git+ssh svn+ssh webdav smb nfs telnet vnc rdp rtmp rtmps "
    "mqtt mqtts sip sips xmpp irc ircs".split()
)
PLACEHOLDER = re.compile(
    r"(?i)[<>{}\[\]*…]|\$[({A-Z_]|%[(A-Z]|^(?:x+|\.+|-+|_+)$|x{5}|your|example|sample|change_?me|placeholder|dummy|redacted|insert|replace|foobar|"
    r"[-_](?:here|hier|aqui|ici|qui)$|^(?:tu|deine?|ihre?|votre|sua|su|twoj|jouw|la_tua|il_tuo|mein|my)[-_]|"
    r"^(?:user(?:name)?|pass(?:word)?|token|secret|login|pwd|pw|key|api_?key|none|null|true|false|string|undefined|"
    r"test|foo|bar|name)$"
)
"""What stands where a secret would: a variable, a hint in brackets, a row of crosses."""


def inspect_at(scan: Scan, at: int) -> None:
    """Look around an at sign at `text[at]`."""
    text = scan.text
    address = None
    if text.rfind("://", max(0, at - 270), at) >= 0:
        address = _SCHEME.search(text, max(0, at - 300), at)
    if address is not None:
        _credentials(scan, address, at)
        return
    local = _LOCAL.match(text[max(0, at - 65) : at][::-1])
    if local is None:
        return
    domain = _DOMAIN.match(text, at + 1, at + 256)
    if domain is None:
        return
    end = domain.end()
    spoken = local[0][::-1]
    # Of an assignment, a path or a word in quotes only what an address begins with; but a bounce is a+b=c@d.
    before, _, after = spoken.rpartition("=")
    if after and "+" not in before:
        spoken = after
    spoken = spoken.rpartition("/")[2].lstrip("!#$%&'*+/=?^`{|}~.-")
    if not spoken or spoken.endswith(".") or ".." in spoken:
        return
    start = at - len(spoken)
    # git and rsync: user@host:path
    if re.match(r":[A-Za-z~/.]", text[end : end + 2]):
        return
    if _FILE.search(domain[0]):
        return
    scan.add(start, end, "email", 4)


_FILE = re.compile(r"(?i)\.(?:png|jpe?g|gif|svg|webp|css|js|ts|py|json|md|html?)$")


def _credentials(scan: Scan, address: re.Match[str], at: int) -> None:
    scheme, inside = address[1].lower(), address[2]
    user, colon, password = inside.partition(":")
    start = address.start(2)
    if not inside or (colon and not password):
        return
    if PLACEHOLDER.search(password) or PLACEHOLDER.search(user) and (not colon or "$" in user or "<" in user):
        return
    if not colon and (len(user) < 16 or not re.search(r"[0-9]", user)):
        return  # a name alone opens nothing
    if scheme in _WEB:
        scan.add(start, at, "url_credentials", 2)
    else:
        # Of databases and queues: with an empty name the password alone is the secret.
        scan.add(start if user else start + 1, at, "secret", 2)


def inspect_v4(scan: Scan, start: int, end: int) -> None:
    """Look for IPv4 addresses in `text[start:end]`."""
    text = scan.text
    if text.count(".", start, end) < 3:
        return
    for match in _V4.finditer(text, start, min(end + 2, len(text))):
        try:
            address = ipaddress.IPv4Address(match[0])
        except ValueError:
            continue
        if address.is_loopback or address.is_unspecified or _mask(int(address)):
            continue
        before = text[max(0, match.start() - 40) : match.start()]
        # One of several versions in a row is like the one before it.
        version = (
            _ROW.fullmatch(text, scan.versions, match.start())
            or _VERSIONED.search(before)
            or _versionish(before, match[0])
        )
        if version or (address.is_global and _VERSION.search(before) and not _HOST.search(before)):
            scan.versions = match.end()
            continue
        scan.add(match.start(), match.end(), "ip", 4)


#: The time of day, which a log may part from what follows by two colons.
_CLOCK = re.compile(r"[0-2]?[0-9]:[0-5][0-9](?::[0-5][0-9])?::")


def _mask(number: int) -> bool:
    """Tell whether an address is a net mask (ones, then zeros), of which broadcast is one."""
    turned = number ^ 0xFFFFFFFF
    return turned & (turned + 1) == 0 and number >> 24 == 255


def _versionish(before: str, address: str) -> bool:
    return before.endswith(("/", "==", ">=", "<=", "~=", "^")) and not before.endswith("//") and address[0] != "1"


def inspect_v6(scan: Scan, start: int) -> None:
    """Look for an IPv6 address that `text[start:]` begins, or lies in the middle of."""
    text = scan.text
    begin = start
    while begin and start - begin < 45 and (text[begin - 1] in "0123456789abcdefABCDEF:"):
        begin -= 1
    if begin and (text[begin - 1].isalnum() or text[begin - 1] in "_."):
        return
    match = _V6.match(text, begin, begin + 45)
    assert match is not None
    end = match.end()
    while end > begin and text[end - 1] in ".:" and not text[:end].endswith("::"):
        end -= 1
    if text[end : end + 1].isalnum() or text[end : end + 1] == "_":
        return
    try:
        address = ipaddress.IPv6Address(text[begin:end])
    except ValueError:
        return
    if address.is_loopback or address.is_unspecified:
        return
    if _CLOCK.match(text, begin, end):
        return
    if sum(character.isdigit() for character in text[begin:end]) == 0:
        return  # `a::b` is a name in C++
    scan.add(begin, end, "ip", 4)
