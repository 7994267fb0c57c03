"""Live sync of a table by pg8000, an ordinary driver, unmodified: its sockets are the sandbox's. For tests: it knows one table.
"""

# What names are looked up with is found at build time only.
import encodings.idna
import json

import pg8000.native
from componentize_py_types import Err
from wit_world.imports import secrets, settings, sync_results
from wit_world.imports.types import *


def connect() -> pg8000.native.Connection:
    asked = json.loads(settings.get())
    host, port = asked["server"].rsplit(":", 1)
    try:
        password = secrets.reveal("password").decode()
        return pg8000.native.Connection("driver", host=host, port=int(port), database="postgres", password=password, ssl_context=False)
    except Err:
        raise Err(ConnectorError(ErrorKind.PERMISSION_DENIED, "the password is not granted", None))
    except pg8000.native.InterfaceError as error:
        raise Err(ConnectorError(ErrorKind.CONNECTION_FAILED, str(error), None))
    except pg8000.native.DatabaseError as error:
        raise Err(ConnectorError(ErrorKind.INVALID_CREDENTIAL, error.args[0]["M"], None))


def delta(row: list) -> SyncDelta:
    uid, mail = row
    values = [Attribute("mail", [Value_Text(mail)] if mail else [], ValueMode.WHOLE)]
    changed = ConnectorObject(str(uid), str(uid), values)
    return SyncDelta("account", Change_CreateOrUpdate(Updated(changed, None)), None)


class LiveSync:
    def get_latest_sync_token(self, object_class: str) -> SyncToken | None:
        [[last]] = connect().run("SELECT max(id) FROM people")
        return None if last is None else SyncToken_Integer(last)

    def sync(self, object_class: str, token: SyncToken | None, options: SyncOptions) -> SyncToken | None:
        after = token.value if token else 0
        rows = connect().run("SELECT id, mail FROM people WHERE id > :after ORDER BY id", after=after)
        if rows:
            sync_results.emit([delta(row) for row in rows], SyncToken_Integer(rows[-1][0]))
        return None


class Schema:
    def object_classes(self) -> list[ObjectClassInfo]:
        mail = AttributeInfo("mail", ValueType.TEXT, AttributeFlags(0))
        return [ObjectClassInfo("account", [mail], False, True, ChangeFeed.BY_TOKEN)]


class Check:
    def check(self) -> None:
        connect()


class Descriptor:
    def describe(self) -> ConnectorInfo:
        schema = {"type": "object", "properties": {"server": {"type": "string"}}, "required": ["server"]}
        needs = [
            CapabilityRequest(Capability_Tcp("{settings.server}"), "Connects to the server.", False),
            CapabilityRequest(Capability_Reveal("password"), "Logs in.", False),
        ]
        does = [Operation.LIVE_SYNC, Operation.CHECK]
        return ConnectorInfo("pg-py", "0.1.0", "A table.", "Apache-2.0", does, json.dumps(schema), 1, ["id"], "id", needs, False)

    def migrate_settings(self, from_version: int, settings: str) -> str:
        raise Err(ConnectorError(ErrorKind.UNSUPPORTED, "there are no older settings", None))


class Search:
    def search(self, object_class: str, filter: Filter, page: bytes | None, options: SyncOptions) -> bytes | None:
        raise Err(ConnectorError(ErrorKind.UNSUPPORTED, "this connector has no search", None))
