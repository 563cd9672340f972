"""The frameworks are whole, name what there is, and say what is not covered."""

from __future__ import annotations

import re

import pytest

from broker.audit.event import EventType
from broker.compliance.framework import Control, framework, names
from broker.errors import InvalidInput
from tests.house.test_documents import wrong_with

# How each framework counts: the ids that there must be, in order. Source: the frameworks themselves.
_CSF = "GV.OC GV.RM GV.RR GV.PO GV.OV GV.SC ID.AM ID.RA ID.IM PR.AA-01 PR.AA-02 PR.AA-03 PR.AA-04 PR.AA-05 PR.AA-06"
_CSF += " PR.AT PR.DS PR.PS PR.IR DE.CM DE.AE RS.MA RS.AN RS.CO RS.MI RC.RP RC.CO"
IDS = {
    "csa-maestro": [f"L{number}" for number in range(1, 8)],
    "nist-ai-rmf": [
        f"{function} {number}"
        for function, count in (("GOVERN", 6), ("MAP", 5), ("MEASURE", 4), ("MANAGE", 4))
        for number in range(1, count + 1)
    ],
    "nist-csf": _CSF.split(),
    "owasp-agentic": [f"ASI{number:02}" for number in range(1, 11)],
    "owasp-nhi": [f"NHI{number}" for number in range(1, 11)],
}
CONTROLS = [(key, control) for key in names() for control in framework(key).controls]
by_control = pytest.mark.parametrize(
    "control", [control for _, control in CONTROLS], ids=[f"{key}-{control.id}" for key, control in CONTROLS]
)


def test_every_framework_is_there_with_every_control() -> None:
    assert {key: [control.id for control in framework(key).controls] for key in names()} == IDS


@by_control
def test_a_control_says_what_it_is_about_and_what_is_not_covered(control: Control) -> None:
    assert control.name and control.not_covered.endswith(".")
    # What is served has something to show for it; what is not served pretends to nothing.
    assert bool(control.served) == bool(control.commands) == bool(control.events)


@by_control
def test_every_command_exists_with_its_options(control: Control) -> None:
    assert {command: wrong for command in control.commands if (wrong := wrong_with(command))} == {}


@by_control
def test_every_event_type_exists(control: Control) -> None:
    for named in control.events:
        assert [each for each in EventType if each == named or (named.endswith(".") and each.startswith(named))], named


@pytest.mark.parametrize("key", names())
def test_no_event_is_named_twice_by_one_control(key: str) -> None:
    for control in framework(key).controls:
        hits = [named for each in EventType for named in control.events if Control.evidence(_only(named), each)]
        assert len(hits) == len(framework_types(control)), control.id


def _only(named: str) -> Control:
    return Control("", "", "", (), (named,), "")


def framework_types(control: Control) -> list[EventType]:
    return [each for each in EventType if control.evidence(each)]


def test_a_family_is_named_with_its_dot_and_nothing_else_is() -> None:
    named = {each for _, control in CONTROLS for each in control.events}
    assert all(re.fullmatch(r"[a-z_]+\.([a-z_]+)?", each) for each in named)
    assert _only("lease.").evidence("lease.issued") and not _only("lease").evidence("lease.issued")


def test_one_that_is_not_here_is_refused() -> None:
    for key in ("iso-42001", "../frameworks/nist-csf", ""):
        with pytest.raises(InvalidInput, match="there is no framework") as refused:
            framework(key)
        assert "nist-csf" in refused.value.hint
