"""The corpus of hostile X.509-SVIDs: chains no agent may come in with, and for each the layer that must stop it.

Belongs here: chains, made by code for any instant, one defect each; the reason for the refusal; and beside each a
*twin* that differs in that one thing and is an agent. ``tests/identity/test_hostile_svids.py`` puts them to the
function, ``tests/api/test_hostile_door.py`` sends them through real TLS. Does not belong here: what can reach the
function and never TLS (bytes that are no certificate, another instant).
"""

from __future__ import annotations

import base64
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from enum import StrEnum
from typing import Any

from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec, ed25519
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from cryptography.x509.oid import ExtendedKeyUsageOID

from broker.errors import Reason
from broker.identity.bundle import Bundles, TrustBundle
from broker.identity.svid import MAX_INTERMEDIATES
from tests.forge import (
    ECDSA_SHA1,
    Authority,
    Field,
    Forged,
    Key,
    authority,
    der_san_uris,
    elements,
    forge,
    resigned,
    rsa_key,
    tlv,
)

DOMAIN = "dev.broker.internal"
PARTNER_DOMAIN = "partner.org"
ID = f"spiffe://{DOMAIN}/agent/analyst"
HOUR = timedelta(hours=1)
MAX_ID = 2048  # bytes; SPIFFE-ID.md section 2.3


class Layer(StrEnum):
    """Who must stop it when it comes over a real connection."""

    TLS = "TLS: the client sees UNAVAILABLE, and no handler runs"
    OURS = "our rules: UNAUTHENTICATED with the reason, and an audit event"


@dataclass(frozen=True)
class Sent:
    """What a client shows: DER of the leaf, DER of what it sends beside it, and the leaf's key."""

    leaf: bytes
    chain: tuple[bytes, ...]
    key: Key

    @classmethod
    def of(cls, forged: Forged) -> Sent:
        return cls(forged.der, tuple(each.public_bytes(Encoding.DER) for each in forged.chain), forged.key)

    @property
    def pem(self) -> bytes:
        return _framed(self.leaf)

    @property
    def chain_pem(self) -> bytes:
        return b"".join(map(_framed, self.chain))

    @property
    def key_pem(self) -> bytes:
        return self.key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())


@dataclass(frozen=True)
class Twin:
    """What differs from a hostile chain in one thing, and is ``id``."""

    sent: Sent
    id: str = ID


@dataclass(frozen=True)
class Hostile:
    """One chain, who stops it, and what would be let in in its place."""

    what: str
    layer: Layer
    reason: Reason | None  # what our rules say to it; None: they could not know
    sent: Sent
    twin: Twin
    stock: bool = True  # whether a stock gRPC client sends it, and as it is; if not, tests/raw_tls.py does


@dataclass(frozen=True)
class World:
    """Two trust domains that a broker trusts, and some that it does not. ``at`` is the instant of everything."""

    at: datetime
    home: Authority = field(init=False)
    retired: Authority = field(init=False)
    partner: Authority = field(init=False)
    stranger: Authority = field(init=False)

    def __post_init__(self) -> None:
        def made(name: str, root: Authority) -> None:
            object.__setattr__(self, name, root)

        made("home", authority(DOMAIN, at=self.at, name="home CA"))
        # In the bundle still, and over.
        made("retired", authority(DOMAIN, at=self.at, name="retired CA", begins=-48 * HOUR, ends=-HOUR))
        made("partner", authority(PARTNER_DOMAIN, at=self.at))
        # The same name as ours, another key, in no bundle.
        made("stranger", authority(DOMAIN, at=self.at, name="home CA"))

    @property
    def home_pem(self) -> bytes:
        return self.home.pem + self.retired.pem

    @property
    def bundles(self) -> Bundles:
        return Bundles(
            [TrustBundle.from_pem(DOMAIN, self.home_pem), TrustBundle.from_pem(PARTNER_DOMAIN, self.partner.pem)]
        )

    def deep(self, levels: int) -> Authority:
        """An authority ``levels`` below our root."""
        issuer = self.home
        for level in range(levels):
            issuer = issuer.intermediate(f"level {level}")
        return issuer


def hostile(world: World) -> list[Hostile]:
    """Every chain of the corpus, in the world's time."""
    made = [
        *_spellings(world),
        *_names(world),
        *_uses(world),
        *_keys(world),
        *_times(world),
        *_encodings(world),
        *_issuers(world),
        *_intermediates(world),
    ]
    assert len({each.what for each in made}) == len(made)
    return made


def allowed(world: World) -> dict[str, Sent]:
    """What looks strange and is an SVID of :data:`ID` all the same."""
    home = world.home
    last_moment = datetime(9999, 12, 31, 23, 59, 59, tzinfo=UTC)
    made = {
        "plain": home.svid(ID),
        "a DNS name beside the id": home.svid(ID, dns=["one.example.org"]),
        "an e-mail address beside the id": home.svid(ID, emails=["one@example.org"]),
        "no extended key usage": home.svid(ID, purposes=None),
        "a purpose beside the two": home.svid(
            ID,
            purposes=[
                ExtendedKeyUsageOID.SERVER_AUTH,
                ExtendedKeyUsageOID.CLIENT_AUTH,
                ExtendedKeyUsageOID.CODE_SIGNING,
            ],
        ),
        "no basic constraints": home.svid(ID, constraints=False),
        "a subject": home.svid(ID, subject="one"),
        "a subject and critical names": home.svid(ID, subject="one", san_critical=True),
        "no authority key identifier": home.svid(ID, authority_key=False),
        "keyAgreement beside digitalSignature": home.svid(ID, usage=("digital_signature", "key_agreement")),
        "P-384": home.svid(ID, key=ec.generate_private_key(ec.SECP384R1())),
        "RSA with 2048 bits": home.svid(ID, key=rsa_key(2048)),
        "one intermediate": world.deep(1).svid(ID),
        "an intermediate that is an SVID": home.intermediate("named", f"spiffe://{DOMAIN}").svid(ID),
        "as many intermediates as are read": world.deep(MAX_INTERMEDIATES).svid(ID),
        "path length 0, used rightly": home.intermediate("last", path_length=0).svid(ID),
        "a serial number of 20 octets": home.svid(ID, serial=(1 << 159) - 1),
        # RFC 5280 section 4.1.2.5: "no well-defined expiration date". The root still ends it.
        "no end before the year 10000": home.svid(ID, ends=last_moment - world.at),
    }
    return {what: Sent.of(forged) for what, forged in made.items()}


def _spellings(world: World) -> Iterator[Hostile]:
    plain = Twin(Sent.of(world.home.svid(ID)))

    def one(what: str, uri: str | bytes, twin: Twin = plain, reason: Reason = Reason.SVID_ID_NOT_CANONICAL) -> Hostile:
        raw = der_san_uris(uri.encode() if isinstance(uri, str) else uri)
        return Hostile(f"id with {what}", Layer.OURS, reason, Sent.of(world.home.svid(raw_san=raw)), twin)

    def other(uri: str) -> Twin:
        return Twin(Sent.of(world.home.svid(uri)), uri)

    yield one("an upper-case trust domain", f"spiffe://{DOMAIN.upper()}/agent/analyst")
    yield one("an upper-case scheme", ID.replace("spiffe", "SPIFFE"))
    yield one("an https scheme", ID.replace("spiffe", "https"))
    yield one("no scheme", ID.removeprefix("spiffe://"))
    yield one("a parent segment", f"spiffe://{DOMAIN}/agent/x/../analyst")
    yield one("a dot segment", f"spiffe://{DOMAIN}/agent/./analyst")
    yield one("an empty segment", f"spiffe://{DOMAIN}/agent//analyst")
    yield one("a trailing slash", f"{ID}/")
    yield one("a percent-encoded letter", f"spiffe://{DOMAIN}/agent/%61nalyst")
    yield one("a percent-encoded slash", f"spiffe://{DOMAIN}/agent%2Fanalyst")
    yield one("a percent-encoded trust domain", "spiffe://%64ev.broker.internal/agent/analyst")
    yield one("a user", f"spiffe://user@{DOMAIN}/agent/analyst")
    yield one("a user and a password", f"spiffe://user:pass@{DOMAIN}/agent/analyst")
    yield one("a port", f"spiffe://{DOMAIN}:443/agent/analyst")
    yield one("an empty port", f"spiffe://{DOMAIN}:/agent/analyst")
    yield one("a query", f"{ID}?admin=1")
    yield one("an empty query", f"{ID}?")
    yield one("a fragment", f"{ID}#admin")
    yield one("an empty fragment", f"{ID}#")
    yield one("a wildcard", f"spiffe://{DOMAIN}/agent/*")
    yield one("a backslash", f"spiffe://{DOMAIN}\\agent\\analyst")
    yield one("a space at the end", f"{ID} ")
    yield one("a newline at the end", f"{ID}\n")
    yield one("the root path", f"spiffe://{DOMAIN}/")
    yield one("no path", f"spiffe://{DOMAIN}")
    yield one("no trust domain", "spiffe:///agent/analyst")
    yield one("an IPv6 trust domain", "spiffe://[::1]/agent/analyst")
    yield one("a NUL and more behind it", ID.encode() + b"\x00.example.org")
    yield one("a NUL in the trust domain", f"spiffe://{DOMAIN}\x00.example.org/agent/analyst")
    yield one("an internationalised trust domain", "spiffe://dév.broker.internal/agent/analyst")
    yield one("a letter that looks like another", f"spiffe://{DOMAIN}/agent/anаlyst")  # CYRILLIC A
    yield one("an invisible letter", f"{ID}\u200b")
    yield one("a byte that is no text", ID.encode() + b"\xff", reason=Reason.SVID_MALFORMED)
    yield one(
        "one byte more than an id has",
        f"spiffe://{DOMAIN}/".ljust(MAX_ID + 1, "a"),
        other(f"spiffe://{DOMAIN}/".ljust(MAX_ID, "a")),
    )
    yield one("a trust domain of 256 bytes", f"spiffe://{'a' * 256}/agent/analyst")


def _names(world: World) -> Iterator[Hostile]:
    home = world.home
    plain = Twin(Sent.of(home.svid(ID)))

    def one(what: str, reason: Reason, forged: Forged, twin: Twin = plain, layer: Layer = Layer.OURS) -> Hostile:
        return Hostile(what, layer, reason, Sent.of(forged), twin)

    yield one("no names", Reason.SVID_URI_COUNT, home.svid())
    yield one("only a DNS name", Reason.SVID_URI_COUNT, home.svid(dns=[DOMAIN]))
    yield one("two SPIFFE IDs", Reason.SVID_URI_COUNT, home.svid(ID, f"spiffe://{DOMAIN}/agent/migrator"))
    yield one("the same SPIFFE ID twice", Reason.SVID_URI_COUNT, home.svid(ID, ID))
    yield one("a SPIFFE ID and an https URI", Reason.SVID_URI_COUNT, home.svid(ID, "https://example.org/"))
    yield one("an https URI before the SPIFFE ID", Reason.SVID_URI_COUNT, home.svid("https://example.org/", ID))
    yield one("the id as a DNS name", Reason.SVID_URI_COUNT, home.svid(dns=[ID]))
    yield one("the id as common name only", Reason.SVID_URI_COUNT, home.svid(subject=ID[:64]))
    yield one("an empty URI", Reason.SVID_ID_NOT_CANONICAL, home.svid(""))
    yield one(
        "no subject and names not critical",
        Reason.SVID_MALFORMED,
        home.svid(ID, san_critical=False),
        Twin(Sent.of(home.svid(ID, san_critical=True))),
    )
    yield one("names that are no DER", Reason.SVID_MALFORMED, home.svid(raw_san=b"\x30\x82\xff\xff"), layer=Layer.TLS)
    many = [f"{number:04}.agents.example.org" for number in range(1000)]
    # 25 KiB. A stock client does not get so much out: its writes stall at a full buffer.
    crowded = Sent.of(home.svid(ID, dns=many))
    few = Twin(Sent.of(home.svid(ID, dns=many[:99])))
    yield Hostile("1,000 names", Layer.OURS, Reason.SVID_MALFORMED, crowded, few, stock=False)
    yield one(
        "more names than TLS carries",
        Reason.SVID_MALFORMED,
        home.svid(ID, dns=[f"{n}.{'x' * 200}.example.org" for n in range(1000)]),
        layer=Layer.TLS,
    )


def _uses(world: World) -> Iterator[Hostile]:
    home = world.home
    plain = Twin(Sent.of(home.svid(ID)))

    def one(what: str, reason: Reason, layer: Layer = Layer.OURS, **defects: Any) -> Hostile:
        return Hostile(what, layer, reason, Sent.of(home.svid(ID, **defects)), plain)

    yield one("CA:TRUE", Reason.SVID_IS_CA, ca=True)
    yield one("a CA that signs", Reason.SVID_IS_CA, ca=True, usage=("digital_signature", "key_cert_sign"))
    yield one("no key usage", Reason.SVID_KEY_USAGE, usage=None)
    yield one("a key usage not critical", Reason.SVID_KEY_USAGE, usage_critical=False)
    yield one("keyCertSign", Reason.SVID_KEY_USAGE, usage=("digital_signature", "key_cert_sign"))
    yield one("cRLSign", Reason.SVID_KEY_USAGE, usage=("digital_signature", "crl_sign"))
    yield one("no digitalSignature", Reason.SVID_KEY_USAGE, Layer.TLS, usage=("key_agreement",))
    yield one(
        "no purpose of a client", Reason.SVID_EXTENDED_KEY_USAGE, Layer.TLS, purposes=[ExtendedKeyUsageOID.SERVER_AUTH]
    )
    yield one("no purpose of a server", Reason.SVID_EXTENDED_KEY_USAGE, purposes=[ExtendedKeyUsageOID.CLIENT_AUTH])
    yield one(
        "any purpose", Reason.SVID_EXTENDED_KEY_USAGE, Layer.TLS, purposes=[ExtendedKeyUsageOID.ANY_EXTENDED_KEY_USAGE]
    )
    yield one(
        "only code signing", Reason.SVID_EXTENDED_KEY_USAGE, Layer.TLS, purposes=[ExtendedKeyUsageOID.CODE_SIGNING]
    )
    unknown = x509.UnrecognizedExtension(x509.ObjectIdentifier("1.3.6.1.4.1.99999.1"), b"\x05\x00")
    yield Hostile(
        "a critical extension nobody knows",
        Layer.TLS,
        Reason.SVID_CHAIN_INVALID,
        Sent.of(home.svid(ID, extra=[(unknown, True)])),
        Twin(Sent.of(home.svid(ID, extra=[(unknown, False)]))),
    )
    constraints = x509.NameConstraints([x509.UniformResourceIdentifier(DOMAIN)], None)
    yield one("name constraints on the leaf", Reason.SVID_CHAIN_INVALID, extra=[(constraints, True)])


def _keys(world: World) -> Iterator[Hostile]:
    home = world.home
    plain = Twin(Sent.of(home.svid(ID)))
    strong = Twin(Sent.of(home.svid(ID, key=rsa_key(2048))))

    def one(what: str, key: Key, layer: Layer, twin: Twin = plain) -> Hostile:
        return Hostile(what, layer, Reason.SVID_KEY_WEAK, Sent.of(home.svid(ID, key=key)), twin)

    yield one("RSA with 1024 bits", rsa_key(1024), Layer.OURS, strong)
    yield one("RSA with 2047 bits", rsa_key(2047), Layer.OURS, strong)
    yield one("P-224", ec.generate_private_key(ec.SECP224R1()), Layer.TLS)
    yield one("the curve of currencies", ec.generate_private_key(ec.SECP256K1()), Layer.TLS)
    yield one("Ed25519", ed25519.Ed25519PrivateKey.generate(), Layer.TLS)


def _times(world: World) -> Iterator[Hostile]:
    home = world.home
    good = home.svid(ID)
    plain = Twin(Sent.of(good))

    def one(what: str, reason: Reason, forged: Forged, twin: Twin = plain) -> Hostile:
        return Hostile(what, Layer.TLS, reason, Sent.of(forged), twin)

    yield one("expired a second ago", Reason.SVID_EXPIRED, home.svid(ID, ends=-timedelta(seconds=1)))
    yield one("expired long ago", Reason.SVID_EXPIRED, home.svid(ID, begins=-90_000 * HOUR, ends=-80_000 * HOUR))
    yield one("not yet valid", Reason.SVID_NOT_YET_VALID, home.svid(ID, begins=HOUR, ends=2 * HOUR))
    yield one(
        "not valid before the next century",
        Reason.SVID_NOT_YET_VALID,
        home.svid(ID, begins=900_000 * HOUR, ends=900_001 * HOUR),
    )
    backwards = resigned(good, home, _swap_validity)
    yield Hostile("over before it begins", Layer.TLS, Reason.SVID_NOT_YET_VALID, Sent(backwards, (), good.key), plain)
    yield one("a root that expired", Reason.SVID_CHAIN_INVALID, world.retired.svid(ID))
    yield one(
        "an intermediate that expired",
        Reason.SVID_CHAIN_INVALID,
        home.intermediate("old", begins=-2 * HOUR, ends=-HOUR).svid(ID),
        Twin(Sent.of(home.intermediate("old").svid(ID))),
    )
    yield one(
        "an intermediate not yet valid",
        Reason.SVID_CHAIN_INVALID,
        home.intermediate("new", begins=HOUR, ends=2 * HOUR).svid(ID),
        Twin(Sent.of(home.intermediate("new").svid(ID))),
    )


def _encodings(world: World) -> Iterator[Hostile]:
    home = world.home
    good = home.svid(ID)
    plain = Twin(Sent.of(good))

    def one(
        what: str,
        layer: Layer,
        reason: Reason,
        edit: Callable[[list[bytes]], None],
        **settings: bytes,
    ) -> Hostile:
        return Hostile(what, layer, reason, Sent(resigned(good, home, edit, **settings), (), good.key), plain)

    def put(at: int, der: bytes) -> Callable[[list[bytes]], None]:
        return lambda fields: fields.__setitem__(at, der)

    yield one("a negative serial number", Layer.OURS, Reason.SVID_MALFORMED, put(Field.SERIAL, b"\x02\x01\x80"))
    yield one("serial number zero", Layer.OURS, Reason.SVID_MALFORMED, put(Field.SERIAL, b"\x02\x01\x00"))
    yield one(
        "a serial number of 21 octets", Layer.OURS, Reason.SVID_MALFORMED, put(Field.SERIAL, tlv(2, b"\x01" * 21))
    )
    yield one("an extension twice", Layer.TLS, Reason.SVID_MALFORMED, _names_twice)
    yield one("no version and extensions", Layer.TLS, Reason.SVID_CHAIN_INVALID, lambda fields: fields.__delitem__(0))
    yield one("version 2", Layer.TLS, Reason.SVID_MALFORMED, put(Field.VERSION, b"\xa0\x03\x02\x01\x01"))
    yield one(
        "a SHA-1 signature",
        Layer.OURS,
        Reason.SVID_CHAIN_INVALID,
        put(Field.ALGORITHM, ECDSA_SHA1),
        algorithm=ECDSA_SHA1,
    )
    yield one(
        "one signature algorithm inside and another outside",
        Layer.TLS,
        Reason.SVID_CHAIN_INVALID,
        put(Field.ALGORITHM, ECDSA_SHA1),
    )
    broken = bytearray(good.der)
    broken[-1] ^= 1  # the last byte of the signature
    yield Hostile(
        "a signature with one bit flipped",
        Layer.TLS,
        Reason.SVID_CHAIN_INVALID,
        Sent(bytes(broken), (), good.key),
        plain,
    )
    yield Hostile(
        "half a certificate",
        Layer.TLS,
        Reason.SVID_MALFORMED,
        Sent(good.der[: len(good.der) // 2], (), good.key),
        plain,
    )
    yield Hostile(
        "a certificate with a tail",
        Layer.TLS,
        Reason.SVID_MALFORMED,
        Sent(good.der + b"\x00", (), good.key),
        plain,
    )
    yield Hostile(
        "random bytes",
        Layer.TLS,
        Reason.SVID_MALFORMED,
        Sent(b"\x30\x03\x01\x02\x03", (), good.key),
        plain,
    )
    yield Hostile(
        "somebody else's certificate, without its key",
        Layer.TLS,
        None,
        Sent(good.der, (), home.svid(ID).key),
        plain,
    )


def _issuers(world: World) -> Iterator[Hostile]:
    home, partner, stranger = world.home, world.partner, world.stranger
    good = home.svid(ID)
    plain = Twin(Sent.of(good))

    def one(what: str, layer: Layer, reason: Reason, sent: Forged | Sent, twin: Twin = plain) -> Hostile:
        return Hostile(what, layer, reason, sent if isinstance(sent, Sent) else Sent.of(sent), twin)

    chain = Reason.SVID_CHAIN_INVALID
    yield one("our id from the CA of a federated trust domain", Layer.OURS, chain, partner.svid(ID))
    yield one(
        "the federated domain's id from our CA",
        Layer.OURS,
        chain,
        home.svid(f"spiffe://{PARTNER_DOMAIN}/agent/analyst"),
    )
    yield one("a CA with the right name and another key", Layer.TLS, chain, stranger.svid(ID))
    elsewhere = Reason.SVID_TRUST_DOMAIN_UNKNOWN
    yield one("an unknown trust domain", Layer.OURS, elsewhere, home.svid("spiffe://elsewhere.org/agent/analyst"))
    yield one("a subdomain of ours", Layer.OURS, elsewhere, home.svid(f"spiffe://a.{DOMAIN}/agent/analyst"))
    yield one("our trust domain with a dot at the end", Layer.OURS, elsewhere, home.svid(f"spiffe://{DOMAIN}./agent/a"))
    yield one("an IDN trust domain in ASCII", Layer.OURS, elsewhere, home.svid("spiffe://xn--dv-bja.org/agent/analyst"))
    yield one("signed by itself", Layer.TLS, chain, forge(uris=[ID], issuer=None, at=world.at))
    yield one("signed by another workload", Layer.TLS, chain, forge(uris=[ID], issuer=good, at=world.at))
    by_leaf = forge(uris=[ID], issuer=home.svid(ID, subject="a leaf"), at=world.at)
    leaf = home.svid(ID, subject="a leaf")
    by_leaf = forge(uris=[ID], issuer=leaf, at=world.at)
    yield one(
        "signed by another workload, which is sent along",
        Layer.TLS,
        chain,
        Sent(by_leaf.der, (leaf.der,), by_leaf.key),
    )
    foreign = stranger.svid(ID)
    yield one("a foreign root, sent along", Layer.TLS, chain, Sent(foreign.der, (stranger.der,), foreign.key))
    federated = partner.svid(ID)
    yield one("the federated root, sent along", Layer.OURS, chain, Sent(federated.der, (partner.der,), federated.key))
    yield one("our own root as a leaf", Layer.TLS, Reason.SVID_ID_NOT_CANONICAL, Sent(home.der, (), home.key))


def _intermediates(world: World) -> Iterator[Hostile]:
    home = world.home
    good = home.svid(ID)
    plain = Twin(Sent.of(good))
    under = Twin(Sent.of(home.intermediate().svid(ID)))

    def one(what: str, layer: Layer, issuer: Authority, twin: Twin = under) -> Hostile:
        return Hostile(f"an intermediate {what}", layer, Reason.SVID_CHAIN_INVALID, Sent.of(issuer.svid(ID)), twin)

    def beside(what: str, layer: Layer, *chain: bytes, stock: bool = True) -> Hostile:
        return Hostile(
            f"beside a good leaf, {what}",
            layer,
            Reason.SVID_CHAIN_INVALID,
            Sent(good.der, chain, good.key),
            plain,
            stock,
        )

    lost = home.intermediate().svid(ID)
    yield Hostile(
        "an intermediate that was not sent", Layer.TLS, Reason.SVID_CHAIN_INVALID, Sent(lost.der, (), lost.key), under
    )
    yield one("without CA:TRUE", Layer.TLS, home.intermediate("no ca", ca=False))
    yield one("without basic constraints", Layer.TLS, home.intermediate("none", constraints=False))
    yield one("without keyCertSign", Layer.TLS, home.intermediate("no sign", usage=("digital_signature",)))
    yield one("without key usage", Layer.OURS, home.intermediate("no usage", usage=None))
    # section 3.2: an authority may certify authorities of other trust domains; they must not mint ours
    yield one("of the federated trust domain", Layer.OURS, home.intermediate("theirs", f"spiffe://{PARTNER_DOMAIN}"))
    yield one("under the federated root", Layer.OURS, world.partner.intermediate("theirs"))
    yield one("that names a workload", Layer.OURS, home.intermediate("with a path", f"spiffe://{DOMAIN}/ca"))
    two = (f"spiffe://{DOMAIN}", f"spiffe://{PARTNER_DOMAIN}")
    yield one("with two SPIFFE IDs", Layer.OURS, home.intermediate("two", *two))
    lax = {"usage_critical": False}
    yield one("SVID with a key usage not critical", Layer.OURS, home.intermediate("lax", two[0], **lax))
    yield one("with RSA of 1024 bits", Layer.OURS, home.intermediate("weak", key=rsa_key(1024)))
    permitted = x509.NameConstraints([x509.UniformResourceIdentifier(DOMAIN)], None)
    yield one("with URI name constraints", Layer.OURS, home.intermediate("narrow", extra=[(permitted, True)]))
    last = home.intermediate("last", path_length=0)
    yield one("below path length 0", Layer.TLS, last.intermediate("one too many"), Twin(Sent.of(last.svid(ID))))
    deepest = Twin(Sent.of(world.deep(MAX_INTERMEDIATES).svid(ID)))
    yield one("more than are read", Layer.OURS, world.deep(MAX_INTERMEDIATES + 1), deepest)
    yield beside("five CAs that it does not need", Layer.OURS, *[home.der] * 5)
    yield beside("a leaf of no name", Layer.OURS, home.svid(dns=["x"]).der)
    yield beside("itself", Layer.OURS, good.der)
    yield beside("random bytes", Layer.TLS, b"\x30\x03\x01\x02\x03", stock=False)
    yield beside("a megabyte", Layer.TLS, home.der + bytes(1024 * 1024), stock=False)


def _swap_validity(fields: list[bytes]) -> None:
    begins, ends = elements(fields[Field.VALIDITY])
    fields[Field.VALIDITY] = tlv(0x30, ends + begins)


def _names_twice(fields: list[bytes]) -> None:
    (extensions,) = elements(fields[Field.EXTENSIONS])
    each = elements(extensions)
    names = next(one for one in each if b"\x06\x03\x55\x1d\x11" in one[:8])
    fields[Field.EXTENSIONS] = tlv(0xA3, tlv(0x30, b"".join([*each, names])))


def _framed(der: bytes) -> bytes:
    return b"-----BEGIN CERTIFICATE-----\n" + base64.encodebytes(der) + b"-----END CERTIFICATE-----\n"
