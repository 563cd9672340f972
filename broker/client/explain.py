"""Why no answer came, in words: for the exception a caller sees and for ``broker doctor``.

Belongs here: looking at what is known on this side (our SVID, our bundle, the clock) and at one probe,
and naming the first thing that is wrong. When TLS refuses somebody no broker code runs and no audit
event is written, so only the client can explain it. Does not belong here: refusals in words
(``errors.py``).
"""

from __future__ import annotations

import asyncio
from datetime import datetime

import grpc

from broker.client.probe import Probe, Stage, probe
from broker.client.svid import Material
from broker.client.target import Target
from broker.errors import BrokerError, NotReady, Reason, Unauthenticated


async def explain(
    target: Target,
    material: Material,
    now: datetime,
    failure: grpc.aio.AioRpcError,
    renewal: BrokerError | None = None,
) -> BrokerError:
    """What to tell about a call that ended ``failure`` without a word from the broker.

    ``renewal`` is why the SVID was not renewed, where that was tried and failed.
    """
    error = svid_problem(material, now)
    if error is not None and renewal is not None:
        error.message += f" The last try to renew it failed: {renewal.message}"
    if error is None:
        error = probe_problem(target, material, await asyncio.to_thread(probe, target, material))
    if error is None:
        # The way is clear now, so the connection broke under this call.
        error = NotReady(
            Reason.BROKER_UNREACHABLE,
            f"The connection to the broker at {target} broke: {(failure.details() or '')[:200]}.",
            hint="Ask again with the same request id; the broker is reachable now.",
        )
    error.metadata.setdefault("address", str(target))
    error.metadata["grpcStatus"] = failure.code().name
    return error


def svid_problem(material: Material, now: datetime) -> BrokerError | None:
    """What is wrong with our own SVID, by our own trust domain's bundle where it is at hand; None if nothing is."""
    if now > material.not_after:
        return Unauthenticated(
            Reason.SVID_EXPIRED,
            f"Our own SVID {material.spiffe_id} expired at {_text(material.not_after)}; it is {_text(now)}.",
            hint="The SPIFFE agent has not renewed it: is it running? Compare the clocks of both machines.",
            metadata={"spiffeId": str(material.spiffe_id), "notAfter": _text(material.not_after)},
        )
    if now < material.not_before:
        return Unauthenticated(
            Reason.SVID_NOT_YET_VALID,
            f"Our own SVID {material.spiffe_id} is valid from {_text(material.not_before)}; it is {_text(now)}.",
            hint="This machine's clock is behind the clock of the trust domain's authority.",
            metadata={"spiffeId": str(material.spiffe_id), "notBefore": _text(material.not_before)},
        )
    for verdict in material.verdicts(now):
        if verdict.refusal:
            refusal = verdict.refusal
            told = " ".join((f"Our own SVID will be refused: {refusal.message}", *verdict.remarks))
            metadata = {**refusal.metadata, "spiffeId": str(material.spiffe_id)}
            return Unauthenticated(refusal.reason, told, hint=refusal.hint, metadata=metadata)
    return None


def probe_problem(target: Target, material: Material, seen: Probe) -> BrokerError | None:
    """What stops us on the way to ``target``; None if nothing does."""
    own, domain = material.spiffe_id.trust_domain, material.bundle.trust_domain
    whose = "the" if material.federated else "our"
    if seen.stage is Stage.CLIENT_REFUSED:
        return Unauthenticated(
            Reason.SVID_CHAIN_INVALID,
            f"The broker at {target} closed the connection when it saw our SVID {material.spiffe_id}, which is "
            f"valid by our own clock{' and bundle' if material.own_bundle else ''}. {seen.detail}".strip(),
            hint=_why_refused(material, own),
            metadata={"spiffeId": str(material.spiffe_id), "trustDomain": own},
        )
    problem = server_problem(target, domain, whose, seen, "BROKER_ADDRESS")
    if problem is not None and problem.reason is Reason.BROKER_UNTRUSTED:
        problem.metadata["ownTrustDomain"] = own
    return problem


def server_problem(target: Target, domain: str, whose: str, seen: Probe, address: str) -> BrokerError | None:
    """What is wrong with what is at ``target``; None if nothing is. ``address`` is the variable that says so."""
    names = ", ".join(seen.server_names) or "none"
    match seen.stage:
        case Stage.TCP:
            return NotReady(
                Reason.BROKER_UNREACHABLE,
                f"Nothing answers at {target}: {seen.detail}.",
                hint=f"Is brokerd running, and is {address} its address?",
            )
        case Stage.TLS if seen.silent:
            return NotReady(
                Reason.BROKER_UNREACHABLE,
                f"What listens at {target} takes connections and does not answer: {seen.detail}.",
                hint="brokerd, or its machine, is stopped or overloaded, or something between holds connections for it."
                f" Or is {address} not the broker's {_PORTS[address]} port?",
            )
        case Stage.TLS:
            return NotReady(
                Reason.BROKER_UNREACHABLE,
                f"What listens at {target} does not speak TLS with us: {seen.detail}.",
                hint=f"Is {address} the broker's {_PORTS[address]} port (not its metrics port)?",
            )
        case Stage.SERVER_UNTRUSTED:
            return NotReady(
                Reason.BROKER_UNTRUSTED,
                f"The certificate at {target} is not of {whose} trust domain {domain}, "
                f"or not valid now: {seen.detail}.",
                hint="The broker is believed by that trust domain's bundle alone. If it really is of another one, set "
                "BROKER_TRUST_DOMAIN (or --trust-domain) to it.",
                metadata={"trustDomain": domain, "serverNames": names},
            )
        case Stage.SERVER_NAME:
            return NotReady(
                Reason.BROKER_NAME_MISMATCH,
                f"The certificate at {target} is not named {target.server_name}; its DNS names: {names}.",
                hint="Set BROKER_SERVER_NAME (or --server-name) to the broker's DNS name, or have its SVID issued "
                "with that name.",
                metadata={"serverName": target.server_name, "serverNames": names},
            )
        case _:
            return None


_PORTS = {"BROKER_ADDRESS": "agents'", "BROKER_ADMIN_ADDRESS": "people's"}


def _why_refused(material: Material, own: str) -> str:
    hint = f"The broker's bundle of {own} does not have our authority (was it rotated?), or its clock differs from ours"
    if material.federated:
        hint += "; or it does not federate with us: identity.federates_with, and -federatesWith on its SPIRE entry"
    return f"{hint}."


def _text(moment: datetime) -> str:
    return moment.strftime("%Y-%m-%dT%H:%M:%SZ")
