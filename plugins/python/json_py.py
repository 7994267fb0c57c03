"""Live sync of `people.json` in a folder: a list of rows with `uid`, `name`, `rev` (counts up with each change), `deleted`, and any
attributes. The token is the highest `rev` handed over. Shows a whole connector in Python; nothing of it is kept between two calls.
"""

import json
from itertools import batched, groupby

from componentize_py_types import Err
from wit_world.imports import settings, sync_results
from wit_world.imports.types import *


def fail(kind: ErrorKind, message: str) -> Err:
    return Err(ConnectorError(kind, message, None))


def text(value) -> str:
    return value if isinstance(value, str) else json.dumps(value)


def attributes(row: dict) -> dict:
    return {name: value for name, value in row.items() if name not in ("uid", "name", "deleted")}


def rows() -> list[dict]:
    """The rows by `rev`. A file that is being written is no reason to skip anything: the run is tried again."""
    path = json.loads(settings.get())["folder"] + "/people.json"
    try:
        with open(path, encoding="utf-8") as file:
            people = json.load(file)
        if all(isinstance(row["uid"], str) and type(row["rev"]) is int for row in people):
            return sorted(people, key=lambda row: row["rev"])
    except OSError as error:
        raise fail(ErrorKind.CONNECTION_FAILED, f"cannot read {path}: {error.strerror}; is its folder granted?")
    except (ValueError, KeyError, TypeError):
        pass
    raise fail(ErrorKind.RETRYABLE, f"{path} is not a JSON list of rows, each with a text uid and a whole number rev")


def delta(row: dict) -> SyncDelta:
    if row.get("deleted"):
        return SyncDelta("account", Change_Delete(Deleted(row["uid"], row.get("name"), None)), None)
    values = [Attribute(n, [] if v is None else [Value_Text(text(v))], ValueMode.WHOLE) for n, v in attributes(row).items()]
    changed = ConnectorObject(row["uid"], row.get("name", ""), values)
    return SyncDelta("account", Change_CreateOrUpdate(Updated(changed, None)), None)


class LiveSync:
    def get_latest_sync_token(self, object_class: str) -> SyncToken | None:
        people = rows()
        return SyncToken_Integer(people[-1]["rev"]) if people else None

    def sync(self, object_class: str, token: SyncToken | None, options: SyncOptions) -> SyncToken | None:
        people = rows()
        if token and not (isinstance(token, SyncToken_Integer) and people and token.value <= people[-1]["rev"]):
            raise fail(ErrorKind.INVALID_SYNC_TOKEN, "no row has the token's rev or a higher one: was people.json replaced?")
        new = [row for row in people if not token or row["rev"] > token.value]
        largest = max(1, options.batch_bytes_max // options.object_bytes_max)  # so many fit, whatever their size
        for rev, same in groupby(new, key=lambda row: row["rev"]):
            batches = list(batched(map(delta, same), largest))
            for number, batch in enumerate(batches, 1):
                # Between rows of one rev there is no token to go on from.
                checkpoint = SyncToken_Integer(rev) if number == len(batches) else None
                if sync_results.emit(list(batch), checkpoint) == sync_results.Flow.STOP:
                    return None  # the last checkpoint is the token
        return None


class Schema:
    def object_classes(self) -> list[ObjectClassInfo]:
        names = sorted({name for row in rows() for name in attributes(row)})
        known = [AttributeInfo(name, ValueType.TEXT, AttributeFlags(0)) for name in names]
        return [ObjectClassInfo("account", known, True, True, ChangeFeed.BY_TOKEN)]


class Check:
    def check(self) -> None:
        rows()


class Descriptor:
    def describe(self) -> ConnectorInfo:
        folder = {"type": "string", "description": "The folder with people.json. The connection needs a grant to read it."}
        schema = {"type": "object", "properties": {"folder": folder}, "required": ["folder"], "additionalProperties": False}
        needs = CapabilityRequest(Capability_Read("{settings.folder}"), "Reads people.json in it.", False)
        does, about = [Operation.LIVE_SYNC, Operation.CHECK], "People in a JSON file, by a number that counts changes."
        return ConnectorInfo(
            "json-py", "0.1.0", about, "Apache-2.0", does, json.dumps(schema), 1, ["rev"], "rev", [needs], False
        )

    def migrate_settings(self, from_version: int, settings: str) -> str:
        raise fail(ErrorKind.UNSUPPORTED, "there are no older settings")


class Search:
    def search(self, object_class: str, filter: Filter, page: bytes | None, options: SyncOptions) -> bytes | None:
        raise fail(ErrorKind.UNSUPPORTED, "this connector has no search")
