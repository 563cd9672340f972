"""``broker doctor``: every step from here to a broker's answer, and what is wrong with the first that fails.

Belongs here: the order of the steps and how they are told. What is true of each is asked of the SDK's own
parts, the same that explain a failed call. ``broker doctor`` tells the rules about an SVID that are broken,
``broker doctor identity`` each.
"""

from __future__ import annotations

import asyncio
import socket
import stat
from collections.abc import Iterator, Sequence
from datetime import datetime, timedelta
from pathlib import Path
from urllib.parse import urlsplit

import click

from broker.cli.connection import client_of, settings
from broker.cli.doctor_login import login
from broker.cli.findings import Finding, failed, report
from broker.cli.output import format_option, moment, span
from broker.cli.settings import Settings
from broker.client.connect import svid_source
from broker.client.explain import probe_problem, svid_problem
from broker.client.probe import Stage, probe
from broker.client.svid import Material
from broker.client.target import Target, broker_trust_domain
from broker.clock import SystemClock
from broker.errors import BrokerError, InvalidInput, NotReady, Reason
from broker.identity.doctor import Verdict

# An SVID with less left is about to be renewed; if it is not, that is worth a word.
_LITTLE = timedelta(minutes=1)
_ABOUT_TIME = (Reason.SVID_EXPIRED, Reason.SVID_NOT_YET_VALID)


@click.group(invoke_without_command=True)
@format_option("text", "json")
@click.pass_context
def doctor(ctx: click.Context, form: str) -> None:
    """Find out, step by step, why it does not work.

    Looks at the SPIFFE Workload API, your SVID, its validity and trust domain, the way to the broker, TLS, the
    broker's certificate and its answer to `whoami`. Exits 1 if something is wrong; `error` names the first such step.
    """
    if ctx.invoked_subcommand is None:
        _report(form, every_rule=False)


@doctor.command()
@format_option("text", "json")
def identity(form: str) -> None:
    """The same, with the SVID's particulars and the verdict of each rule that the broker will ask."""
    _report(form, every_rule=True)


doctor.add_command(login)


def _report(form: str, *, every_rule: bool) -> None:
    report(examine(settings(), every_rule=every_rule), form, 24 if every_rule else 13)


def examine(chosen: Settings, *, every_rule: bool = False) -> Iterator[Finding]:
    """The steps in order; ends after the first that nothing can follow."""
    try:
        broker_trust_domain(chosen.trust_domain)
    except BrokerError as error:
        yield failed("trust domain", error)
        return
    try:
        source = svid_source(
            chosen.workload_api,
            trust_domain=chosen.trust_domain,
            certificate=chosen.certificate,
            key=chosen.key,
            bundle=chosen.bundle,
        )
    except BrokerError as error:
        yield failed("SVID", error)
        return
    try:
        endpoint = _endpoint(source.endpoint)
        yield endpoint
        if not endpoint.ok:
            return
        material = source.current()
    except (InvalidInput, NotReady) as error:
        # The SVID is there; the bundle to believe the broker by is not, or is none.
        yield Finding("SVID", True, error.metadata.get("spiffeId", ""))
        yield failed("trust domain", error)
        return
    except BrokerError as error:
        yield failed("SVID", error)
        return
    finally:
        source.close()
    now = SystemClock().now()
    yield Finding("SVID", True, _particulars(material) if every_rule else str(material.spiffe_id))
    problem = svid_problem(material, now)
    yield _validity(material, problem, now)
    yield from _rules(material.verdicts(now), every_rule)
    yield _trust_domain(material)
    if chosen.audience or chosen.token_file:
        token = _token(chosen)
        yield token
        if not token.ok:
            return
    try:
        target = Target.parse(chosen.address, chosen.server_name)
    except BrokerError as error:
        yield failed("address", error)
        return
    reached = list(_way(target, material, problem))
    yield from reached
    if reached[-1].ok:
        yield asyncio.run(_whoami(chosen))


def _endpoint(endpoint: str) -> Finding:
    parts = urlsplit(endpoint)
    if parts.scheme != "unix":
        return Finding("endpoint", True, endpoint)
    path = Path(parts.path)
    try:
        if not stat.S_ISSOCK(path.stat().st_mode):
            return _no_endpoint(f"{path} is not a socket.")
        with socket.socket(socket.AF_UNIX) as connection:
            connection.connect(str(path))
    except OSError as error:
        return _no_endpoint(f"{path}: {error.strerror}.")
    return Finding("endpoint", True, endpoint)


def _no_endpoint(detail: str) -> Finding:
    hint = "Is the SPIFFE agent running, may you open its socket, and is SPIFFE_ENDPOINT_SOCKET right?"
    return Finding("endpoint", False, detail, Reason.SVID_MISSING, hint)


def _particulars(material: Material) -> str:
    leaf = material.leaf
    beside = material.chain_pem.count(b"-----BEGIN CERTIFICATE-----") - 1
    names = ", ".join(leaf.dns_names) or "none"
    return (
        f"{material.spiffe_id}, serial {leaf.serial:x}, sha256 {leaf.fingerprint[:16]}, DNS names: {names}, "
        f"{beside} intermediate(s)"
    )


def _validity(material: Material, problem: BrokerError | None, now: datetime) -> Finding:
    if problem and problem.reason in _ABOUT_TIME:
        return failed("validity", problem)
    left = material.not_after - now
    little = "; it should have been renewed by now" if left < _LITTLE else ""
    return Finding("validity", True, f"until {moment(material.not_after)}, another {span(left)}{little}")


def _rules(verdicts: Sequence[Verdict], every: bool) -> Iterator[Finding]:
    """Each rule; or, not ``every``, those that are broken and were not told as validity."""
    broken = [each for each in verdicts if each.refusal and each.refusal.reason not in _ABOUT_TIME]
    if not every and not broken:
        return
    for verdict in verdicts if every else broken:
        if verdict.refusal is None:
            yield Finding(f"rule: {verdict.rule}", True, "holds")
        else:
            detail = " ".join((verdict.refusal.message, *verdict.remarks))
            yield Finding(f"rule: {verdict.rule}", False, detail, verdict.refusal.reason, verdict.refusal.hint)


def _trust_domain(material: Material) -> Finding:
    """Whose bundle the broker is believed by."""
    bundle, own = material.bundle, material.spiffe_id.trust_domain
    roots = ", ".join(f"sha256 {root.fingerprint[:16]}" for root in bundle.roots)
    told = f"{bundle.trust_domain}, {len(bundle.roots)} root(s): {roots}"
    if material.federated:
        told += f"; the broker's, and yours is {own}"
        if material.own_bundle is None:
            told += ", whose bundle is not at hand: your SVID's chain was not verified here"
    return Finding("trust domain", True, told)


def _token(chosen: Settings) -> Finding:
    """A proxy takes our calls to the broker, and the broker knows us by a JWT-SVID."""
    try:
        tokens = client_of(chosen).connection.tokens
        assert tokens is not None  # noqa: S101 - an audience or a file was given
        try:
            tokens.token()
        finally:
            tokens.close()
    except BrokerError as error:
        return failed("JWT-SVID", error)
    return Finding("JWT-SVID", True, f"for {chosen.audience or chosen.token_file}; what follows is of the proxy")


def _way(target: Target, material: Material, known: BrokerError | None) -> Iterator[Finding]:
    seen = probe(target, material)
    # Refused for what was found wrong above: that is the explanation, and not a second problem.
    problem = known if known and seen.stage is Stage.CLIENT_REFUSED else probe_problem(target, material, seen)
    order = [Stage.TCP, Stage.TLS, Stage.SERVER_UNTRUSTED, Stage.SERVER_NAME, Stage.CLIENT_REFUSED, Stage.ACCEPTED]
    passed = order.index(seen.stage)
    names = ", ".join(seen.server_names) or "none"
    until = f", valid until {moment(seen.server.not_after)}" if seen.server else ""
    steps = (
        ("TCP", f"connected to {target}"),
        ("TLS", "the handshake begins"),
        ("broker", f"its certificate is of {material.bundle.trust_domain}{until}"),
        ("broker's name", f"{target.server_name} (its DNS names: {names})"),
        ("accepted", "the broker accepts the SVID"),
    )
    for place, (step, detail) in enumerate(steps):
        if place == passed and problem is not None:
            yield failed(step, problem)
            return
        yield Finding(step, True, detail)


async def _whoami(chosen: Settings) -> Finding:
    try:
        async with client_of(chosen) as client:
            known = await client.whoami()
    except BrokerError as error:
        return failed("whoami", error)
    roles = ", ".join(known.roles) or "no roles"
    return Finding("whoami", True, f"{known.spiffe_id}: {known.tier}, {roles}, owner {known.owner}")
