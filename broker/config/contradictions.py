"""What each field of the configuration allows and all together do not, with the inequality in the message.

Belongs here: every contradiction that can be seen without touching what the configuration names.
"""

from __future__ import annotations

from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any

from broker.config.model import Config, Deploy
from broker.config.witnesses import WitnessSettings
from broker.files import Document, Problem
from broker.identity.spiffe_id import SpiffeId


def contradictions(config: Config, document: Document) -> Iterator[Problem]:
    """What each field allows and all together do not, with the inequality in the message."""

    problem = config.problem
    yield from _identity_problems(config, problem)
    yield from _proxies_problems(config, problem)
    yield from _admin_problems(config, problem)
    yield from _people_problems(config, problem)
    yield from _deploy_problems(config.deploy, problem)
    yield from _checkpoint_problems(config, problem)
    listen, limits = config.listen, config.limits
    if not listen.operations.loopback and not listen.allow_remote_operations:
        hint = "It has no authentication. Listen on 127.0.0.1, or set listen.allow_remote_operations: true."
        yield problem(("listen", "operations"), f"{listen.operations} is not loopback", hint)
    if listen.operations == listen.agents:
        yield problem(("listen", "operations"), "is the agents' address too", "Give it a port of its own.")
    for short, long in (
        ("default_task_duration", "max_task_duration"),
        ("issue_timeout", "drain_timeout"),
        ("confirm_within", "max_task_duration"),
    ):
        low, high = getattr(limits, short), getattr(limits, long)
        if low > high:
            at = ("limits", short) if ("limits", short) in document.places else ("limits", long)
            yield problem(at, f"{short} <= {long} must hold: {_told(low)} > {_told(high)}", "")
    if config.retention is not None and config.audit.keep_texts_for > config.retention.leases:
        told = f"{_told(config.audit.keep_texts_for)} > {_told(config.retention.leases)}"
        hint = "What agents said is erased before the task that it belongs to is deleted."
        yield problem(("retention", "leases"), f"audit.keep_texts_for <= retention.leases must hold: {told}", hint)
    yield from _misplaced_keys(config, problem)


def _identity_problems(config: Config, problem: Any) -> Iterator[Problem]:
    identity, own = config.identity, config.trust_domain
    if identity.workload_api is not None:
        for name in ("certificate", "private_key"):
            if getattr(identity, name) is not None:
                yield problem(("identity", name), "is a second identity beside workload_api", "Keep one of the two.")
    else:
        for name in ("certificate", "private_key"):
            if getattr(identity, name) is None:
                hint = "Name the two files, or set identity.workload_api to the SPIFFE agent's socket."
                yield problem(("identity", name), "is missing", hint)
        for name in (own, *identity.federates_with):
            if name not in identity.bundles:
                yield problem(("identity", "bundles"), f"has no bundle for {name}", "Its agents could not call.")
        if identity.spiffe_id is not None:
            yield problem(("identity", "spiffe_id"), "chooses among the SVIDs of workload_api, which is not set", "")
    if identity.spiffe_id is not None and SpiffeId.parse(identity.spiffe_id).trust_domain != own:
        yield problem(("identity", "spiffe_id"), f"is not of the broker's own trust domain, {own}", "")
    for name in identity.bundles:
        if name not in (own, *identity.federates_with):
            hint = "List it in identity.federates_with, if its agents shall call."
            yield problem(("identity", "bundles", name), "is a trust domain that is not accepted", hint)
    for index, name in enumerate(identity.federates_with):
        if name == own:
            hint = "A federated trust domain never stands for the own one."
            yield problem(("identity", "federates_with", index), "is the broker's own trust domain", hint)
        elif name in identity.federates_with[:index]:
            yield problem(("identity", "federates_with", index), "is listed twice", "")


def _proxies_problems(config: Config, problem: Any) -> Iterator[Problem]:
    address, proxies, own = config.listen.proxies, config.proxies, config.trust_domain
    if address is not None and address in (config.listen.agents, config.listen.operations):
        yield problem(("listen", "proxies"), f"{address} is listened on for something else", "Give it a port.")
    if proxies is None:
        if address is not None:
            yield problem(("listen", "proxies"), "needs the section proxies", "Say which proxies are allowed there.")
        return
    if address is None:
        yield problem(("proxies",), "needs listen.proxies", "Say where proxies connect, or leave the section out.")
    accepted = (own, *config.identity.federates_with)
    for index, text in enumerate(proxies.allow):
        at = ("proxies", "allow", index)
        if text in proxies.allow[:index]:
            yield problem(at, "is listed twice", "")
        if SpiffeId.parse(text).trust_domain not in accepted:
            yield problem(at, "is of a trust domain that is not accepted", "List that in identity.federates_with.")
    if not proxies.jwt_bundles and config.identity.workload_api is None:
        yield problem(("proxies", "jwt_bundles"), "is missing", "Without a Workload API, name at least one file.")
    for name in proxies.jwt_bundles:
        if name not in accepted:
            hint = "List it in identity.federates_with, if its agents shall call."
            yield problem(("proxies", "jwt_bundles", name), "is a trust domain that is not accepted", hint)


def _admin_problems(config: Config, problem: Any) -> Iterator[Problem]:
    address, listen = config.listen.admin, config.listen
    if address is not None and config.people is None:
        yield problem(("listen", "admin"), "needs the section people", "Say where people log in (docs/people.md).")
    if address is not None and address in (listen.agents, listen.proxies, listen.operations):
        yield problem(("listen", "admin"), f"{address} is listened on for something else", "Give it a port.")
    others = (listen.agents, listen.proxies, listen.admin, listen.operations)
    if listen.automation is not None and listen.automation in others:
        message = f"{listen.automation} is listened on for something else"
        yield problem(("listen", "automation"), message, "Give it a port.")
    for role, groups in config.roles.items():
        for index, group in enumerate(groups):
            if group in groups[:index]:
                yield problem(("roles", role.value, index), "is listed twice", "")


def _people_problems(config: Config, problem: Any) -> Iterator[Problem]:
    named: dict[str, str] = {}
    for url, issuer in (config.people.issuers if config.people else {}).items():
        at = ("people", "issuers", url)
        if issuer.on_behalf_of_audience == issuer.audience:
            # Whoever an agent acts for would have given it the key to the people's door.
            hint = "Make the broker two clients at the provider."
            yield problem((*at, "on_behalf_of_audience"), "is the audience too", hint)
        if (other := named.setdefault(issuer.known_as or url, url)) != url:
            hint = "Two providers could each have a subject of the same name, who are two people."
            yield problem(at, f"is known by the same name as {other}", hint)
        if url.startswith("http:") and issuer.ca_file is not None:
            yield problem((*at, "ca_file"), "is for https, and this issuer is http", "")


def _deploy_problems(deploy: Deploy, problem: Any) -> Iterator[Problem]:
    keys, required = deploy.deploy_keys, deploy.deploy_signatures_required
    number = ("deploy", "deploy_signatures_required")
    if not keys and required is not None:
        yield problem(number, "needs deploy_keys", "Name the keys of those who sign.")
    if keys and required is None:
        yield problem(number, "is missing", "Say how many of the people in deploy_keys must sign; two at least.")
    people = len({entry.person for entry in keys.values()})
    if keys and required is not None and required > people:
        hint = "Several keys of one person count once."
        yield problem(number, f"deploy_signatures_required <= people must hold: {required} > {people}", hint)
    directory = deploy.directory.resolve()
    for name, entry in keys.items():
        at = ("deploy", "deploy_keys", name)
        if (entry.file is None) == (entry.pem is None):
            yield problem(at, "needs one of file and pem", "Name the file of the public key, or write it here.")
        elif entry.file is not None and entry.file.resolve().is_relative_to(directory):
            hint = "Whoever writes the set would choose who signs it."
            yield problem((*at, "file"), "lies in the deploy directory", hint)


def _checkpoint_problems(config: Config, problem: Any) -> Iterator[Problem]:
    audit, at = config.audit, ("audit", "checkpoints")
    checkpoints = audit.checkpoints
    if checkpoints is None:
        return
    if checkpoints.witnesses:
        for name, inside, bound in (
            ("every", checkpoints.every, audit.max_backlog_age),
            ("every_records", checkpoints.every_records, audit.max_backlog_records),
        ):
            if inside >= bound:  # type: ignore[operator]
                hint = "Or grants would stop before a checkpoint is due."
                told = f"{_told(inside)} >= {_told(bound)}" if isinstance(inside, timedelta) else f"{inside} >= {bound}"  # type: ignore[arg-type]
                limit = "max_backlog_age" if name == "every" else "max_backlog_records"
                yield problem((*at, name), f"{name} < audit.{limit} must hold: {told}", hint)
    for index, reference in enumerate(checkpoints.signing_keys):
        if reference in checkpoints.signing_keys[:index]:
            yield problem((*at, "signing_keys", index), "is listed twice", "")
    for name, witness in checkpoints.witnesses.items():
        yield from _witness_problems(config, witness, (*at, "witnesses", name), problem)


def _witness_problems(config: Config, witness: WitnessSettings, at: tuple[str, ...], problem: Any) -> Iterator[Problem]:
    if len(witness.kinds) != 1:
        yield problem(at, f"needs exactly one of file, s3, http and syslog, and has {len(witness.kinds)}", "")
    if witness.file is not None and witness.file.resolve().is_relative_to(config.state.directory.resolve()):
        hint = "Whoever changes or restores the ledger would change or restore it, too."
        yield problem((*at, "file"), "lies in the state directory", hint)
    if witness.syslog is not None and not witness.syslog.tls and not witness.syslog.address.loopback:
        yield problem((*at, "syslog", "tls"), "is off, and the address is not loopback", "")
    s3 = witness.s3
    if s3 is not None and (s3.access_key_id is None) != (s3.secret_access_key is None):
        yield problem((*at, "s3"), "has one half of a key", "Name access_key_id and secret_access_key, or neither.")


def _misplaced_keys(config: Config, problem: Any) -> Iterator[Problem]:
    # Whoever steals the database must not find the key to its MACs beside it.
    state = config.state.directory.resolve()
    keys: list[tuple[tuple[str | int, ...], str]] = [
        (("keys", "ledger", index), ref) for index, ref in enumerate(config.keys.ledger)
    ]
    files: list[tuple[tuple[str | int, ...], Path]] = [
        (at, Path(ref.removeprefix("file:"))) for at, ref in keys if ref.startswith("file:")
    ]
    signing = config.audit.checkpoints.signing_keys if config.audit.checkpoints is not None else ()
    files += [
        (("audit", "checkpoints", "signing_keys", index), Path(ref.removeprefix("file:")))
        for index, ref in enumerate(signing)
        if ref.startswith("file:")
    ]
    own_key = [(("identity", "private_key"), config.identity.private_key)] if config.identity.private_key else []
    for at, file in [*files, *own_key]:
        if file.resolve().is_relative_to(state):
            yield problem(at, "lies in the state directory", "Keep keys away from the database.")
    for index, ref in enumerate(config.keys.ledger):
        if ref in config.keys.ledger[:index]:
            yield problem(("keys", "ledger", index), "is listed twice", "")


def _told(duration: timedelta) -> str:
    return f"{duration.total_seconds():g}s"
