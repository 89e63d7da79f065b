"""Credentials that are given to programs on their command lines."""

from __future__ import annotations

import re

from proxy.redaction.detectors.addresses import PLACEHOLDER
from proxy.redaction.scan import Scan

OPTIONS = r"[ \t](?:-[upawU][^ \t\n-]|-[upawU][ =]|--(?:proxy-)?user[ =]|--auth[ =])"
"""The options behind which programs take a password, or a name and a password."""

_OPTION = re.compile(r"[ \t](-[upawU]|--(?:proxy-)?user|--auth)[ =]?(\$?[\"']?)")
_COMMAND = re.compile(
    r"\b(curl|wget|https?|xh|sshpass|mysql\w*|mariadb\w*|redis-cli|ldap\w+|docker|podman|helm|az|cf|oc|mongo\w*|smbclient|"
    r"rpcclient|snmp\w+|sqlcmd|bcp|rabbitmqadmin|htpasswd|skopeo|crane|buildah|keytool|unzip|7z\w?|zip|plink|pscp|winexe|xfreerdp)\b"
)
#: Which option of which programs has `name:password`, and which the password alone.
_PAIRS = {
    "-u": frozenset(("curl", "wget", "rabbitmqadmin")),
    "-U": frozenset(("curl", "smbclient", "rpcclient", "winexe")),
    "-a": frozenset(("http", "https", "xh")),
    "--user": frozenset(("curl",)),
    "--proxy-user": frozenset(("curl",)),
    "--auth": frozenset(("http", "https", "xh")),
}
_ALONE = {
    "-a": frozenset(("redis-cli",)),
    "-w": frozenset(("ldapsearch", "ldapmodify", "ldapadd", "ldappasswd", "ldapwhoami", "ldapdelete")),
    "-p": frozenset(
        "sshpass mysql mysqldump mysqladmin mysqlimport mariadb docker podman helm az cf oc mongo mongosh mongodump "
        "mongorestore rabbitmqadmin skopeo crane buildah".split()
    ),
}
#: Only attached: what stands apart behind them is a port, a directory or a database.
_ATTACHED = frozenset(("mysql", "mysqldump", "mysqladmin", "mysqlimport", "mariadb"))
#: Only in their command `login`.
_LOGINS = frozenset(("docker", "podman", "helm", "az", "cf", "oc", "skopeo", "crane", "buildah"))
_PAIR = re.compile(r"[^\s:\"'%$<>{}]{1,64}[:%]([^\s\"'`]{3,128})")
_PAIR_QUOTED = re.compile(r"[^:\"'%$<>{}\n]{1,64}[:%]([^\n\"']{3,128})")
_PASSWORD = re.compile(r"[^\s\"'`;|&]{4,128}")
_PASSWORD_QUOTED = re.compile(r"[^\n\"']{4,128}")
_VARIABLE = re.compile(r"\$[({A-Za-z_]|^[A-Z]+(?:_[A-Z]+)+$|^<|^\*+$")
FARTHEST = 240
"""How far behind its program an option may stand, in characters."""


def inspect(scan: Scan, start: int) -> None:
    """Look at an option at `text[start:]` for a password that a program takes there."""
    text = scan.text
    option = _OPTION.match(text, start)
    if option is None or option[2].startswith("$"):
        return
    first = max(0, start - FARTHEST)
    line = text.rfind("\n", first, start) + 1 or first
    while line > first and text[line - 2 : line] == "\\\n":  # the line goes on
        line = text.rfind("\n", first, line - 1) + 1 or first
    programs = _COMMAND.findall(text, line, start)
    if not programs:
        return
    program, name = programs[-1], option[1]
    begin = option.end()
    attached = text[start + len(name) + 1] not in " ="
    quoted = bool(option[2])
    if program in _PAIRS.get(name, ()):
        value = (_PAIR_QUOTED if quoted else _PAIR).match(text, begin)
    elif program in _ALONE.get(name, ()) and (attached or program not in _ATTACHED):
        if program in _LOGINS and "login" not in text[line:start]:
            return
        value = (_PASSWORD_QUOTED if quoted else _PASSWORD).match(text, begin)
    else:
        return
    if value is None:
        return
    password = value[value.lastindex or 0]
    if _VARIABLE.search(password) or PLACEHOLDER.search(password) or len(set(password)) < 3:
        return
    scan.add(value.start(), value.end(), "secret", 1)
