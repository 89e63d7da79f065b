"""The company's own tokens: which are let in, as whom, and what becomes of them while their issuer is away."""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
import threading
import time
from types import SimpleNamespace

import jwt
import pytest
import requests
from crowds import until
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import rsa
from identity_providers import AUDIENCE, IdentityProvider, identity_provider, new_key, public_jwk
from marshmallow import ValidationError
from nginxes import NGINX, Behind, Nginx
from proxies import Proxy

from plugins.jwt import Jwt
from proxy import Exchange, Reject
from proxy.access.tokens import keys as signing
from proxy.access.tokens.claims import Claims, at
from proxy.access.tokens.keys import SigningKeys, parsed
from proxy.access.tokens.source import ALGORITHMS, Source
from proxy.access.tokens.verify import Issuer, Tokens

WRONG = "Incorrect API key provided. Ask the people who run this gateway for a valid one."


@pytest.fixture
def idp():
    with identity_provider() as made:
        yield made


class Door:
    """The plugin as the configuration makes it, with teams of its own; stop it after use."""

    def __init__(self, idp: IdentityProvider, known=("search", "ops"), plugin=None, **issuer):
        own = {"issuer": idp.issuer, "audience": [AUDIENCE], **issuer}
        self.plugin = Jwt(Jwt.Config().load({"issuers": [own], **(plugin or {})}))
        self.teams = {name: SimpleNamespace(grants={}) for name in known}
        self.plugin.on_start(SimpleNamespace(http=requests.Session, teams=self.teams))
        [made] = self.plugin._tokens._issuers.values()
        self.keys = made.keys

    def ask(self, token):
        return self.plugin.authenticate(Exchange("id", "POST", "/", {"authorization": f"Bearer {token}"}, "10.0.0.1"))

    def refusal(self, token):
        with pytest.raises(Reject) as refused:
            self.ask(token)
        return refused.value.status, refused.value.code, refused.value.message


@pytest.fixture
def door(idp):
    doors = []

    def make(**options):
        doors.append(Door(idp, **options))
        return doors[-1]

    yield make
    for each in doors:
        each.plugin.on_stop()


def part(value) -> str:
    raw = value if isinstance(value, bytes) else json.dumps(value).encode()
    return base64.urlsafe_b64encode(raw).rstrip(b"=").decode()


def pem(key) -> bytes:
    return key.public_key().public_bytes(serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo)


def hs256(header, claims, secret: bytes) -> str:
    text = f"{part({**header, 'alg': 'HS256'})}.{part(claims)}"
    return f"{text}.{part(hmac.digest(secret, text.encode(), 'sha256'))}"


@pytest.mark.parametrize("algorithm", ["RS256", "PS384", "ES256", "ES512", "EdDSA"])
def test_a_signed_token_says_who_is_calling(idp, door, algorithm):
    idp.keys.clear()
    idp.add("own", algorithm)
    it = door(algorithms=[algorithm], name="preferred_username")
    identity = it.ask(idp.token(preferred_username="Alice A."))
    assert (identity.subject, identity.name, identity.team) == (f"{idp.issuer}|alice", "Alice A.", None)
    assert identity.expires == pytest.approx(time.time() + 600, abs=5)


def test_keys_come_from_a_url_or_a_file_as_well(idp, door, tmp_path):
    assert door(jwks_url=idp.jwks_url).ask(idp.token())
    assert idp.count("configuration") == 0
    asked = len(idp.asked)
    file = tmp_path / "keys.json"
    file.write_text(json.dumps(idp.jwks()))
    assert door(jwks_file=str(file)).ask(idp.token())
    assert len(idp.asked) == asked


def forgeries(idp: IdentityProvider):
    """Tokens without a right signature of the issuer's, by what is wrong with them."""
    rsa_key, own = idp.keys["rsa"][1], new_key("ES256")
    claims, kid = idp.claims(), {"kid": "rsa"}
    good = idp.token()
    head, said, signature = good.split(".")
    header = {"alg": "ES256", "kid": "first"}
    yield "none", f"{part({'alg': 'none', 'kid': 'first'})}.{said}."
    yield "none with a signature", f"{part({'alg': 'none', 'kid': 'first'})}.{said}.{signature}"
    yield "None", f"{part({'alg': 'nOnE', 'kid': 'first'})}.{said}.{signature}"
    yield "HS256 with the public key as PEM", hs256(kid, claims, pem(rsa_key))
    yield "HS256 with the key's JWK", hs256(kid, claims, json.dumps(public_jwk(rsa_key, "RS256")).encode())
    yield "HS256 with nothing", hs256(kid, claims, b"")
    yield "another key under the same name", jwt.encode(claims, own, "ES256", {"kid": "first"})
    yield "an embedded key", jwt.encode(claims, own, "ES256", {"kid": "first", "jwk": public_jwk(own, "ES256")})
    trap = f"http://127.0.0.1:{idp.port}/trap"
    yield "a jku", jwt.encode(claims, own, "ES256", {"kid": "first", "jku": f"{trap}/keys", "x5u": f"{trap}/x"})
    yield "a kid that is a path", jwt.encode(claims, own, "ES256", {"kid": "../../../../dev/null"})
    yield "a kid that is SQL", jwt.encode(claims, own, "ES256", {"kid": "' OR 1=1 --"})
    yield "a kid that is a number", f"{part({**header, 'kid': 1})}.{said}.{signature}"
    yield "an algorithm of another key", f"{part({**header, 'alg': 'RS256'})}.{said}.{signature}"
    yield "an algorithm that is not allowed", jwt.encode(claims, rsa_key, "RS512", kid)
    yield "an algorithm that is a list", f"{part({**header, 'alg': ['ES256']})}.{said}.{signature}"
    yield "other claims", f"{head}.{part(idp.claims(sub='root'))}.{signature}"
    yield "half a signature", good[: -len(signature) // 2]
    yield "a signature of zeros", f"{head}.{said}.{part(bytes(64))}"
    yield "an extension that must be understood", idp.token(header={"crit": ["exp"], "exp": 1})


def test_forged_tokens_are_refused_like_unknown_keys(idp, door):
    idp.add("rsa", "RS256")
    idp.kid = "first"
    it = door()
    assert it.ask(idp.token())
    it.keys._tried = it.keys._clock()
    for what, token in forgeries(idp):
        assert it.refusal(token) == (401, "invalid_api_key", WRONG), what
    assert not any("trap" in path for path in idp.asked)


@pytest.mark.parametrize(
    "token",
    [
        "eyJ", "eyJ.eyJ.eyJ", "eyJ" + "x" * 2**20, "lg_abc_def", "sk-1", "eyJhbGciOiJub25lIn0.e30.", "eyJé.e30.x",
        "eyJ\0.e30.x", "eyJ\ud800.e30.x", "eyJ.eyJ", "a.b.c.d.e", f"{part({'alg': 'ES256'})}.{part([])}.x",
        f"{part(b'{' + b'[' * 20000)}.e30.x", f"{part({'alg': 'ES256'})}.{part(b'[' * 9000)}.x",
        f"{part({'alg': 'ES256'})}.{part({'iss': ['x']})}.x", f"{part({'alg': 'ES256'})}.{part({'iss': 'https://x'})}.x",
    ],
)  # fmt: skip
def test_what_is_no_token_of_the_issuer_is_left_to_others(door, token):
    assert door().ask(token) is None


@pytest.mark.parametrize(
    ("claims", "reason"),
    [
        ({"exp": -31}, "The token has expired."),
        ({"nbf": 31}, "The token is not valid yet."),
        ({"iat": 60}, "The token is not valid yet."),
        ({"aud": "other"}, "The token is for another audience."),
        ({"aud": ["a", "b"]}, "The token is for another audience."),
        ({"aud": None}, "The token has no 'aud'."),
        ({"exp": None}, "The token has no 'exp'."),
        ({"exp": "soon"}, WRONG),
        ({"exp": []}, WRONG),
        ({"sub": 7}, WRONG),
    ],
)
def test_who_has_a_genuine_token_is_told_what_is_wrong_with_it(idp, door, claims, reason):
    now = int(time.time())
    claims = {name: now + value if type(value) is int and name != "sub" else value for name, value in claims.items()}
    it = door()
    token = idp.token(**claims)
    assert it.refusal(token) == (401, "invalid_api_key", reason)
    assert it.refusal(token + "x") in ((401, "invalid_api_key", WRONG),), "without the signature nothing is told"


def test_the_clocks_may_differ_by_the_leeway(idp, door):
    now = int(time.time())
    it = door(plugin={"leeway": 30})
    assert it.ask(idp.token(exp=now - 20)) and it.ask(idp.token(nbf=now + 20))
    strict = door(plugin={"leeway": 0})
    assert strict.refusal(idp.token(exp=now - 1))[2] == "The token has expired."


def test_one_of_the_audiences_is_enough(idp, door):
    it = door(audience=["a", "b"])
    assert it.ask(idp.token(aud=["x", "b"])) and it.ask(idp.token(aud="a"))
    assert it.refusal(idp.token())[2] == "The token is for another audience."


def test_a_verified_token_is_known_by_all_of_its_text(idp, door, monkeypatch):
    it = door()
    token = idp.token()
    first = it.ask(token)
    calls = []
    real = jwt.decode
    monkeypatch.setattr("proxy.access.tokens.verify.jwt.decode", lambda *a, **k: calls.append(a) or real(*a, **k))
    assert it.ask(token) is first and calls == []
    # The last letter of a signature of 64 bytes holds unused bits, so another text may be the same signature.
    assert it.refusal(f"{token[:-10]}AAAAAAAAAA")[0] == 401
    assert it.ask(idp.token(sub="bob")).subject.endswith("|bob")
    assert list(it.plugin._tokens._verified) == [
        hashlib.sha256(text.encode()).digest() for text in (token, calls[-1][0])
    ]


def made(idp, now, remembered=10):
    keys = SigningKeys(Source(idp.issuer, idp.jwks_url, None, frozenset(["ES256"])), requests.Session)
    keys.refresh()
    return Tokens([Issuer(keys, (AUDIENCE,), Claims())], lambda _: True, remembered=remembered, clock=lambda: now[0])


def test_nothing_is_remembered_past_its_end(idp):
    now = [time.time()]
    tokens = made(idp, now)
    end = int(now[0]) + 100
    token = idp.token(exp=end)
    first = tokens.identify(token)
    now[0] = end - 0.001
    assert tokens.identify(token) is first
    now[0] = float(end)
    assert tokens.identify(token) is not first, "verified again, by the clock that counts"
    assert len(tokens._verified) == 0


def test_a_bounded_number_is_remembered_and_the_least_used_goes(idp):
    tokens = made(idp, [time.time()], remembered=3)
    texts = [idp.token(sub=str(number)) for number in range(4)]
    first = [tokens.identify(text) for text in texts[:3]]
    assert tokens.identify(texts[0]) is first[0]
    tokens.identify(texts[3])
    assert tokens.identify(texts[0]) is first[0]
    assert tokens.identify(texts[1]) is not first[1]
    assert len(tokens._verified) == 3


def test_tokens_of_a_key_that_was_withdrawn_are_out(idp, door):
    idp.add("second")
    it = door()
    old, new = idp.token(kid="first"), idp.token()
    assert it.ask(old) and it.ask(new)
    del idp.keys["first"]
    it.keys.refresh()
    it.keys._tried = it.keys._clock()
    assert it.refusal(old) == (401, "invalid_api_key", WRONG)
    assert it.ask(new)


def test_a_new_key_is_fetched_when_a_token_names_it(idp, door):
    it = door()
    assert it.ask(idp.token())
    idp.add("rotated")
    it.keys._tried = it.keys._clock() - signing.COOLDOWN_S
    token = idp.token()
    assert it.refusal(token)[:2] == (503, "signing_keys_unavailable"), "not on the request's time"
    until(lambda: it.keys.generation == 2)
    assert it.ask(token)


def test_a_storm_of_unknown_names_fetches_once_in_half_a_minute(idp, door):
    it = door()
    fetched = idp.count()
    assert it.refusal(idp.token(header={"kid": "x"}))[0] == 401, "the keys were fetched just now"
    it.keys._tried = it.keys._clock() - signing.COOLDOWN_S
    statuses = set()
    threads = [
        threading.Thread(
            target=lambda n=n: statuses.update(it.refusal(idp.token(header={"kid": f"{n}{m}"}))[0] for m in range(25))
        )
        for n in range(4)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    until(lambda: idp.count() > fetched)
    assert idp.count() == fetched + 1
    assert statuses <= {401, 503}
    assert it.refusal(idp.token(header={"kid": "y"}))[:2] == (401, "invalid_api_key")


def test_a_token_without_a_name_means_the_only_key(idp, door):
    it = door()
    algorithm, key = idp.keys["first"]
    token = jwt.encode(idp.claims(), key, algorithm)
    assert it.ask(token)
    idp.add("second")
    it.keys.refresh()
    assert it.refusal(token) == (401, "invalid_api_key", WRONG)


FAULTS = {
    "an error": 500, "nothing there": 404, "a redirect": 302, "no JSON": b"<html>", "no object": b"[]",
    "no keys": b'{"keys": []}', "no list": b'{"keys": {}}', "too long": b'{"keys": [' + b" " * (1 << 20) + b"]}",
    "too many": json.dumps({"keys": [{"kty": "EC"}] * 500}).encode(),
}  # fmt: skip


@pytest.mark.parametrize("fault", FAULTS.values(), ids=FAULTS)
def test_the_keys_that_were_fetched_last_stay_while_the_issuer_fails(idp, door, fault, caplog):
    it = door(jwks_url=idp.jwks_url)
    token = idp.token()
    assert it.ask(token)
    idp.fault = fault
    it.keys.refresh()
    it.keys.refresh()
    assert it.ask(token) and it.ask(idp.token(sub="bob"))
    assert it.refusal(idp.token(header={"kid": "new"}))[:2] == (503, "signing_keys_unavailable")
    told = [record.getMessage() for record in caplog.records if record.levelname == "ERROR"]
    assert len(told) == 1 and told[0].startswith(f"signing keys of {idp.issuer} cannot be had: ")
    assert not any("stolen" in path for path in idp.asked)
    idp.fault = None
    it.keys.refresh()
    assert it.ask(idp.token(sub="carol"))


def test_keys_that_are_too_old_let_nobody_in(idp):
    now = [0.0]
    source = Source(idp.issuer, idp.jwks_url, None, frozenset(["ES256"]), stale_s=3600)
    keys = SigningKeys(source, requests.Session, clock=lambda: now[0])
    keys.refresh()
    idp.fault = 500
    now[0] = 3600.0
    keys.refresh()
    assert keys.find("first", "ES256")
    now[0] = 3600.1
    with pytest.raises(Reject) as refused:
        keys.find("first", "ES256")
    assert (refused.value.status, refused.value.headers["retry-after"]) == (503, "5")


def test_an_issuer_that_is_down_at_the_start_closes_the_door_until_it_is_back(idp, door, monkeypatch):
    monkeypatch.setattr("plugins.jwt.WAIT_S", 0.05)
    monkeypatch.setattr(signing, "COOLDOWN_S", 0.3)
    idp.fault = 503
    it = door()
    token = idp.token()
    assert it.refusal(token)[:2] == (503, "signing_keys_unavailable")
    assert it.ask("lg_some_key") is None, "other credentials are other plugins' business"
    idp.fault = None
    until(lambda: it.keys.generation)
    assert it.ask(token)


@pytest.mark.parametrize("where", ["https://elsewhere.example/keys", "http://192.0.2.1/keys", "file:///keys", 7, None])
def test_a_discovery_document_does_not_lead_elsewhere(idp, door, where, monkeypatch):
    monkeypatch.setattr("plugins.jwt.WAIT_S", 0.05)
    idp.discovered = where
    if where == "https://elsewhere.example/keys":  # allowed in form, as issuers do keep their keys elsewhere
        idp.issuer += "/other"
    it = door()
    idp.wait_asked(1, "configuration")
    assert it.refusal(idp.token())[0] == 503


def test_only_public_keys_that_may_sign_are_taken(idp):
    all_of_them = frozenset(ALGORITHMS)
    strong, elliptic = new_key("RS256"), new_key("ES256")
    weak = rsa.generate_private_key(65537, 1024)
    jwks = [
        public_jwk(strong, "RS256", kid="good"),
        public_jwk(strong, "RS256", kid="one", alg="PS256"),
        public_jwk(weak, "RS256", kid="weak"),
        public_jwk(strong, "RS256", kid="enc", use="enc"),
        public_jwk(strong, "RS256", kid="ops", key_ops=["encrypt"]),
        public_jwk(elliptic, "ES256", kid="mixed", alg="RS256"),
        public_jwk(elliptic, "ES256", kid="broken", x="AAAA"),
        {"kty": "oct", "k": part(b"secret"), "kid": "shared"},
        {"kty": "EC", "crv": ["P-256"], "kid": "list"},
        {"kid": 7}, "nonsense", None,
    ]  # fmt: skip
    found = {key.kid: key.algorithms for key in parsed({"keys": jwks}, all_of_them)}
    assert found == {
        "good": frozenset(name for name in ALGORITHMS if name[:2] in ("RS", "PS")),
        "one": frozenset(["PS256"]),
    }


@pytest.mark.parametrize(
    ("path", "value"),
    [
        ("sub", "alice"), ("groups.1", "ops"), ("realm.roles.0", "admin"), ("https://corp.example/team", "search"),
        ("a.b", "whole"), ("groups.2", None), ("groups.-1", None), ("sub.0", None), ("nothing.at.all", None),
    ],
)  # fmt: skip
def test_a_path_leads_to_a_claim(path, value):
    claims = {
        "sub": "alice", "groups": ["search", "ops"], "realm": {"roles": ["admin"]},
        "https://corp.example/team": "search", "a.b": "whole", "a": {"b": "parted"},
    }  # fmt: skip
    assert at(claims, path) == value


def test_teams_come_from_a_claim(idp, door):
    it = door(team="groups")
    assert it.ask(idp.token(groups=["unknown", "ops"])).team == "ops"
    assert it.ask(idp.token(groups="search")).team == "search"
    mapped = door(team="groups", teams={"AI Search": "search", "*": "ops", "Admins": "ops"})
    assert mapped.ask(idp.token(groups=["Admins", "AI Search"])).team == "search"
    assert mapped.ask(idp.token(groups=["Admins"])).team == "ops"
    other = door(team="groups", default_team="ops")
    assert other.ask(idp.token(groups=["unknown"])).team == other.ask(idp.token()).team == "ops"


@pytest.mark.parametrize("groups", [None, [], ["unknown"], "unknown", 7, {"ops": 1}, [["ops"]]])
def test_a_token_without_a_team_does_not_get_more_than_one_with_it(idp, door, groups):
    assert door(team="groups").refusal(idp.token(groups=groups))[:2] == (403, "no_team")


def test_a_remembered_token_is_out_when_its_team_is_gone(idp, door):
    it = door(team="groups")
    token = idp.token(groups=["ops"])
    assert it.ask(token)
    del it.teams["ops"]
    assert it.refusal(token)[:2] == (403, "no_team")


def test_grants_and_limits_come_from_claims(idp, door):
    it = door(grants="lockgate.grants", limits="lockgate.limits")
    own = {"grants": {"models": ["gpt-*"], "capabilities": []}, "limits": {"requests_per_minute": 5}}
    identity = it.ask(idp.token(lockgate=own))
    assert (identity.grants, identity.limits) == (own["grants"], own["limits"])


@pytest.mark.parametrize("grants", [None, [], "all", {"model": ["*"]}, {"models": "*"}, {"capabilities": ["root"]}])
def test_grants_that_are_missing_or_not_understood_are_none(idp, door, grants):
    it = door(grants="grants")
    assert it.refusal(idp.token(grants=grants))[:2] == (403, "token_not_usable")


@pytest.mark.parametrize("sub", [None, "", "a" * 256, "a\nb", "a\0"])
def test_who_calls_has_a_name_that_can_be_written_down(idp, door, sub):
    assert door().refusal(idp.token(sub=sub))[:2] == (403, "token_not_usable")


@pytest.mark.parametrize(
    ("own", "mistake"),
    [
        ({"issuer": "http://login.example"}, "must be an https:// URL"),
        ({"jwks_url": "http://login.example/keys"}, "must be an https:// URL"),
        ({"jwks_url": "https://login.example/keys", "jwks_file": __file__}, "there is a jwks_url already"),
        ({"algorithms": ["HS256"]}, "Must be one of"),
        ({"algorithms": ["none"]}, "Must be one of"),
        ({"algorithms": []}, "Shorter than minimum length"),
        ({"audience": []}, "Shorter than minimum length"),
        ({"audience": None}, "may not be null"),
        ({"teams": {"a": "b"}}, "needs `team`"),
    ],
)
def test_a_configuration_that_would_not_be_safe_is_refused(own, mistake):
    issuer = {"issuer": "https://login.example", "audience": ["a"], **own}
    with pytest.raises(ValidationError, match=mistake):
        Jwt.Config().load({"issuers": [issuer]})


def test_keys_are_fetched_through_the_egress_of_the_gateway(idp, start_gateway):
    config = CONFIG.format(issuer=idp.issuer, audience=AUDIENCE)
    with Proxy() as proxy:
        gateway = start_gateway(f'{config}\n[egress]\nproxy = "{proxy.url}"\n')
        with gateway.wire() as wire:
            token = idp.token(groups=["AI Users"])
            assert wire.post(HI, authorization=f"Bearer {token}").status == 200
        assert [asked.target for asked in proxy.asked] == [
            f"{idp.issuer}/.well-known/openid-configuration", idp.jwks_url,
        ]  # fmt: skip


CONFIG = """
chain = ["tokens", "access"]

[plugins.tokens]
use = "jwt"
[[plugins.tokens.issuers]]
issuer = "{issuer}"
audience = ["{audience}"]
team = "groups"
teams = {{ "AI Users" = "users" }}

[plugins.access]
use = "access"

[teams.users]
grants = {{ models = ["echo", "echo-*"] }}

[providers.echo]
use = "echo"
[models.echo]
targets = ["echo"]
[models.secret]
targets = ["echo"]
"""
HI = {"model": "echo", "messages": [{"role": "user", "content": "Hi"}]}


@pytest.mark.skipif(NGINX is None, reason="nginx is not installed")
def test_a_token_of_16_kib_comes_through_nginx_and_the_server(idp, tmp_path, worker):
    gateway = Behind(tmp_path, CONFIG.format(issuer=idp.issuer, audience=AUDIENCE), worker=worker)
    try:
        nginx = Nginx(tmp_path / "n", gateway.path)
        try:
            padding = "x" * 11_900
            groups = [f"CN=Some Group {number},OU=Groups,DC=corp" for number in range(5)]
            token = idp.token(groups=[*groups, "AI Users"], padding=padding)
            assert 16_300 < len(token) < 17_000
            with nginx.wire() as wire:
                assert wire.post(HI, authorization=f"Bearer {token}").status == 200
                listed = wire.get("/v1/models", authorization=f"Bearer {token}")
                assert [model["id"] for model in listed.json["data"]] == ["echo"]
                hidden, absent = (
                    wire.get(f"/v1/models/{name}", authorization=f"Bearer {token}") for name in ("secret", "absent")
                )
                assert hidden.status == absent.status == 404
                assert hidden.body.replace(b"secret", b"absent") == absent.body
                refused = wire.post(HI, authorization=f"Bearer {token[:-20]}{'A' * 20}")
                assert (refused.status, refused.json["error"]["message"]) == (401, WRONG)
                nobody = wire.post(HI, authorization=f"Bearer {idp.token(groups=groups)}")
                assert (nobody.status, nobody.json["error"]["code"]) == (403, "no_team")
        finally:
            nginx.stop()
    finally:
        gateway.stop()
