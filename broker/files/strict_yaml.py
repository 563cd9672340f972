"""The YAML that operators may write: the plain part, where one text has one meaning.

Left out, each with a message that says what to write instead: anchors, aliases, merge keys, tags,
several documents, keys that are not texts, keys that come twice, and the plain scalars that YAML 1.1
turns into something else (``yes``, ``no``, ``on``, ``off``, floats, octal and sexagesimal numbers,
dates). The library's event parser is used, not its loader, because the loader has thrown most of
this away by the time it hands over a value.
Source: https://yaml.org/type/ (the 1.1 types), https://yaml.org/spec/1.2.2/#103-core-schema
"""

from __future__ import annotations

import re
from collections.abc import Iterator

import yaml

from broker.files.document import Document, Path, Place, dotted
from broker.files.problems import Problem, Problems

MAX_DEPTH = 24
# libyaml's parser where the wheel has it (ten times faster); both yield the same events.
_LOADER = getattr(yaml, "CSafeLoader", yaml.SafeLoader)

_INTEGER = re.compile(r"(?:0|-?[1-9][0-9]{0,18})\Z", re.ASCII)
_NULLS = {"", "~", "null"}
_FIXED: dict[str, bool] = {"true": True, "false": False}
_TROJAN_BOOLEAN = re.compile(r"(?:y|yes|n|no|on|off|true|false|null)\Z", re.IGNORECASE)
# Whatever YAML 1.1 would read as a number or a date, in any of its notations.
_TROJAN_NUMBER = re.compile(
    r"[-+]?(?:0[xob][0-9a-fA-F_]+|[0-9][0-9_,]*(?::[0-5]?[0-9])+(?:\.[0-9_]*)?|[0-9][0-9_]*"
    r"|(?:[0-9][0-9_]*)?\.[0-9_]+(?:[eE][-+]?[0-9]+)?|[0-9][0-9_]*\.?(?:[eE][-+]?[0-9]+)?|\.(?:inf|nan))\Z"
    r"|[0-9]{4}-[0-9]{1,2}-[0-9]{1,2}(?:[Tt \t].*)?\Z",
    re.IGNORECASE,
)


def parse_yaml(file: str, text: str) -> Document:
    """The one document in ``text``. Raises :class:`Problems`; ``file`` is the name they tell."""
    builder = _Builder(file)
    try:
        builder.build(iter(yaml.parse(text, Loader=_LOADER)))
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        # libyaml places what it misses at the end on a line of its own, after the last one.
        line = min(mark.line, text.count("\n")) + 1 if mark else 1
        builder.problems.append(Problem(file, line, "", f"is not YAML: {error.problem or error.context}"))
    except yaml.YAMLError as error:  # a character that YAML does not allow: no mark, but an offset
        offset = getattr(error, "position", None)
        line = text.count("\n", 0, offset) + 1 if isinstance(offset, int) else 1
        builder.problems.append(Problem(file, line, "", "contains a character that YAML does not allow"))
    if builder.problems:
        raise Problems(builder.problems)
    return Document(file, builder.data, builder.places)


class _Builder:
    """Turns events into data, places and problems; goes on after a problem to find the next one."""

    def __init__(self, file: str) -> None:
        self.file = file
        self.data: object = None
        self.places: dict[Path, Place] = {}
        self.problems: list[Problem] = []

    def build(self, events: Iterator[yaml.Event]) -> None:
        documents = 0
        for event in events:
            if isinstance(event, yaml.DocumentStartEvent):
                documents += 1
                if documents > 1:
                    self._problem(event, (), "holds a second document", "Write one document per file.")
                    return
                if event.version or event.tags:
                    self._problem(event, (), "has a YAML directive", "Leave it out.")
                start = next(events)
                self.data = self._node(start, events, (), start)
        if documents == 0:
            self.problems.append(Problem(self.file, 1, "", "is empty"))

    def _node(self, event: yaml.Event, events: Iterator[yaml.Event], path: Path, key: yaml.Event) -> object:
        # The first of two equal keys keeps the place.
        self.places.setdefault(path, Place(*_position(event), *_position(key)))
        if isinstance(event, yaml.AliasEvent):
            self._problem(event, path, f"uses the alias *{event.anchor}", "Write the value out.")
            return None
        assert isinstance(event, yaml.NodeEvent)  # noqa: S101 - the parser's grammar; narrows the type
        if event.anchor:
            self._problem(event, path, f"sets the anchor &{event.anchor}", "Write the value out where it is used.")
        if isinstance(event, yaml.ScalarEvent):
            return self._scalar(event, path)
        if event.tag:  # type: ignore[attr-defined]
            self._problem(event, path, f"has the tag {event.tag}", "Leave tags out.")  # type: ignore[attr-defined]
        if len(path) >= MAX_DEPTH:
            self._problem(event, path, f"is nested deeper than {MAX_DEPTH} levels", "")
            raise Problems(self.problems)
        if isinstance(event, yaml.SequenceStartEvent):
            return self._sequence(events, path)
        return self._mapping(events, path)

    def _sequence(self, events: Iterator[yaml.Event], path: Path) -> list[object]:
        items: list[object] = []
        for event in events:
            if isinstance(event, yaml.SequenceEndEvent):
                break
            items.append(self._node(event, events, (*path, len(items)), event))
        return items

    def _mapping(self, events: Iterator[yaml.Event], path: Path) -> dict[str, object]:
        mapping: dict[str, object] = {}
        for key in events:
            if isinstance(key, yaml.MappingEndEvent):
                break
            name = self._key(key, events, path)
            value = self._node(next(events), events, (*path, name), key)
            if name in mapping:
                first = self.places[(*path, name)].key_line
                self._problem(key, (*path, name), "comes twice", f"It is already set in line {first}.")
            else:
                mapping[name] = value
        return mapping

    def _key(self, event: yaml.Event, events: Iterator[yaml.Event], path: Path) -> str:
        if not isinstance(event, yaml.ScalarEvent):
            self._problem(event, path, "has a key that is not a text", "")
            self._node(event, events, (*path, "?"), event)
            return "?"
        if event.anchor or event.tag:
            self._problem(event, path, "has a key with an anchor or a tag", "Leave it out.")
        if event.implicit[0] and event.value == "<<":
            self._problem(event, path, "uses the merge key <<", "Write the keys out.")
        elif event.implicit[0] and not isinstance(self._plain(event, path), str):
            self._problem(event, path, f"has the key {event.value}, which is not a text", "Put it in quotes.")
        return str(event.value)

    def _scalar(self, event: yaml.ScalarEvent, path: Path) -> object:
        if event.tag:
            self._problem(event, path, f"has the tag {event.tag}", "Leave tags out; put texts in quotes.")
            return event.value
        return self._plain(event, path) if event.implicit[0] else event.value

    def _plain(self, event: yaml.ScalarEvent, path: Path) -> object:
        value = str(event.value)
        if value in _NULLS:
            return None
        if value in _FIXED:
            return _FIXED[value]
        if _INTEGER.match(value):
            return int(value)
        if _TROJAN_BOOLEAN.match(value):
            self._problem(
                event,
                path,
                f"is {value}, which YAML 1.1 and 1.2 read differently",
                "Write true, false or null, or put it in quotes.",
            )
        elif _TROJAN_NUMBER.match(value):
            self._problem(
                event, path, f"is {value}, which is no plain whole number", "Put it in quotes to mean the text."
            )
        return value

    def _problem(self, event: yaml.Event, path: Path, message: str, hint: str) -> None:
        line, _ = _position(event)
        self.problems.append(Problem(self.file, line, dotted(path), message, hint))


def _position(event: yaml.Event) -> tuple[int, int]:
    mark = event.start_mark
    return (mark.line + 1, mark.column + 1) if mark else (1, 1)
