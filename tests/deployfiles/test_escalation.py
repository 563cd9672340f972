"""escalation.yaml: rules as data, and what cannot be meant."""

from datetime import timedelta
from pathlib import Path

import pytest

from broker.deployfiles import load
from broker.errors import Reason
from broker.escalation.rules import Answer, Counts, Mode, Rule
from broker.files import Problems
from tests.deployfiles.test_broken import HERE, private_copy


def deployed(directory: Path, text: str) -> Path:
    copy = private_copy(HERE / "good", directory / "set")
    (copy / "escalation.yaml").write_text(text)
    (copy / "escalation.yaml").chmod(0o644)
    return copy


def test_what_is_read(tmp_path: Path) -> None:
    text = """\
rules:
  denials: {counts: refusals, reasons: [POLICY_DENIED], threshold: 20, within: 10m, mode: observe, answer: alert}
  probing: {counts: templates, threshold: 5, within: 1h, mode: enforce, answer: cool_down, cool_down: 15m}
  others: {counts: foreign_ids, threshold: 3, within: 1d, mode: enforce, answer: suspend}
  tools: {counts: refusals, reasons: ["TOOL_*"], threshold: 1, within: 1s, mode: enforce, answer: alert}
"""
    tools = frozenset({Reason.TOOL_CALL_MALFORMED, Reason.TOOL_NOT_ALLOWED})
    denied = frozenset({Reason.POLICY_DENIED})
    minute, enforce = timedelta(minutes=1), Mode.ENFORCE
    assert load(deployed(tmp_path, text)).escalation == (
        Rule("denials", Counts.REFUSALS, 20, 10 * minute, Mode.OBSERVE, Answer.ALERT, denied),
        Rule("probing", Counts.TEMPLATES, 5, 60 * minute, enforce, Answer.COOL_DOWN, cool_down=15 * minute),
        Rule("others", Counts.FOREIGN_IDS, 3, timedelta(days=1), enforce, Answer.SUSPEND),
        Rule("tools", Counts.REFUSALS, 1, timedelta(seconds=1), enforce, Answer.ALERT, tools),
    )


GOOD = {"counts": "refusals", "threshold": "5", "within": "1m", "mode": "observe", "answer": "alert"}


@pytest.mark.parametrize(
    ("changes", "field", "told"),
    [
        ({"counts": ""}, "rules.r.counts", "is missing"),
        ({"counts": "denials"}, "rules.r.counts", "must be 'refusals'"),
        ({"threshold": ""}, "rules.r.threshold", "is missing"),
        ({"threshold": "0"}, "rules.r.threshold", "greater than or equal to 1"),
        ({"threshold": "1001"}, "rules.r.threshold", "less than or equal to 1000"),
        ({"threshold": '"5"'}, "rules.r.threshold", "must be a valid integer"),
        ({"within": ""}, "rules.r.within", "is missing"),
        ({"within": "0m"}, "rules.r.within", "must be a duration"),
        ({"mode": ""}, "rules.r.mode", "is missing"),  # nobody is to wonder whether it is enforced
        ({"mode": "shadow"}, "rules.r.mode", "must be 'observe'"),
        ({"answer": "revoke"}, "rules.r.answer", "must be 'alert'"),
        ({"answer": "cool_down"}, "rules.r", "says cool_down: DURATION"),
        ({"cool_down": "5m"}, "rules.r", "says cool_down: DURATION"),
        ({"reasons": "[POLICY_DENYED]"}, "rules.r.reasons.0", "POLICY_DENYED names no reason"),
        ({"reasons": '["NOTHING_*"]'}, "rules.r.reasons.0", "names no reason"),
        ({"reasons": '["*"]'}, "rules.r.reasons.0", "must match"),
        ({"reasons": "[policy_denied]"}, "rules.r.reasons.0", "must match"),
        ({"counts": "foreign_ids", "reasons": "[TASK_NOT_FOUND]"}, "rules.r", "says reasons"),
        ({"agent": "x"}, "rules.r.agent", "is not a known key"),
    ],
)
def test_what_is_wrong_is_told(changes: dict[str, str], field: str, told: str, tmp_path: Path) -> None:
    entry = ", ".join(f"{key}: {value}" for key, value in {**GOOD, **changes}.items() if value)
    with pytest.raises(Problems) as caught:
        load(deployed(tmp_path, f"rules:\n  r: {{{entry}}}\n"))
    (problem,) = caught.value.problems
    assert (Path(problem.file).name, problem.line, problem.field) == ("escalation.yaml", 2, field)
    assert told in problem.message
