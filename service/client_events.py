"""Server-sent events on the client's side."""

from collections.abc import Iterator, Mapping
import json

from service.studies.schemas import EventRead


def parse_events(lines: Iterator[str]) -> Iterator[EventRead]:
    """Server-sent events from the lines of a stream; comments are skipped, an unfinished last event is dropped."""
    fields: dict[str, str] = {}
    for line in lines:
        if line:
            name, _, value = line.partition(":")
            if name:
                value = value.removeprefix(" ")
                fields[name] = f"{fields[name]}\n{value}" if name == "data" and "data" in fields else value
        elif "data" in fields:
            yield _event(fields)
            fields = {}


def _event(fields: Mapping[str, str]) -> EventRead:
    payload = json.loads(fields["data"])
    identity = int(fields["id"]) if "id" in fields else None
    return EventRead(id=identity, kind=fields.get("event", "message"), at=payload.pop("at", None), payload=payload)
