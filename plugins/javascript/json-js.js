// Live sync of `people.json` in a folder: a list of rows with `uid`, `name`, `rev` (counts up with each change), `deleted`, and any
// attributes. The token is the highest `rev` handed over. Shows a whole connector in JavaScript; nothing is kept between two calls.

import { get as settings } from "tidewaiter:connector/settings@0.1.0";
import { emit } from "tidewaiter:connector/sync-results@0.1.0";
import { getDirectories } from "wasi:filesystem/preopens@0.2.12";

// Only what the contract calls an error may be thrown out of a call; anything else is a crash.
const fail = (kind, message) => ({ kind, message, retryAfterMs: undefined });

const text = (value) => (typeof value === "string" ? value : JSON.stringify(value));
const attributes = ({ uid, name, deleted, ...others }) => Object.entries(others);

function read(folder, name) {
  const granted = getDirectories().find(([, path]) => path === folder);
  if (!granted) throw fail("connection-failed", `cannot read ${folder}/${name}: the folder is not granted`);
  const bytes = [];
  try {
    const file = granted[0].openAt({ symlinkFollow: true }, name, {}, { read: true });
    for (let end = false, at = 0n; !end; at = BigInt(bytes.length)) {
      const [part, last] = file.read(65536n, at);
      for (const byte of part) bytes.push(byte);
      end = last || part.length === 0;
    }
  } catch (error) {
    throw fail("connection-failed", `cannot read ${folder}/${name}: ${error.payload ?? error}`);
  }
  return new TextDecoder().decode(new Uint8Array(bytes));
}

// The rows by `rev`. A file that is being written is no reason to skip anything: the run is tried again.
function rows() {
  const { folder } = JSON.parse(settings());
  const content = read(folder, "people.json");
  try {
    const people = JSON.parse(content);
    if (people.every((row) => typeof row.uid === "string" && Number.isSafeInteger(row.rev))) {
      return people.sort((a, b) => a.rev - b.rev);
    }
  } catch {}
  throw fail("retryable", `${folder}/people.json is not a JSON list of rows, each with a text uid and a whole number rev`);
}

function delta(row) {
  const of = (change) => ({ objectClass: "account", change, sourceTime: undefined });
  if (row.deleted) return of({ tag: "delete", val: { uid: row.uid, name: row.name, lastKnown: undefined } });
  const values = (value) => (value === null ? [] : [{ tag: "text", val: text(value) }]);
  const known = attributes(row).map(([name, value]) => ({ name, values: values(value), mode: "whole" }));
  const object = { uid: row.uid, name: row.name ?? "", attributes: known };
  return of({ tag: "create-or-update", val: { object, previousUid: undefined } });
}

const integer = (rev) => ({ tag: "integer", val: BigInt(rev) });

export const liveSync = {
  getLatestSyncToken() {
    const last = rows().at(-1);
    return last && integer(last.rev);
  },

  sync(_objectClass, token, options) {
    const people = rows();
    if (token && !(token.tag === "integer" && token.val <= (people.at(-1)?.rev ?? -Infinity))) {
      throw fail("invalid-sync-token", "no row has the token's rev or a higher one: was people.json replaced?");
    }
    const changed = people.filter((row) => !token || row.rev > token.val);
    const largest = Math.max(1, Number(options.batchBytesMax / options.objectBytesMax)); // so many fit, whatever their size
    for (let at = 0; at < changed.length; ) {
      const batch = [];
      const { rev } = changed[at];
      while (batch.length < largest && changed[at]?.rev === rev) batch.push(delta(changed[at++]));
      // Between rows of one rev there is no token to go on from.
      const checkpoint = changed[at]?.rev === rev ? undefined : integer(rev);
      if (emit(batch, checkpoint) === "stop") return undefined; // the last checkpoint is the token
    }
    return undefined;
  },
};

export const schema = {
  objectClasses() {
    const names = new Set(rows().flatMap((row) => attributes(row).map(([name]) => name)));
    const known = [...names].sort().map((name) => ({ name, valueType: "text", properties: {} }));
    return [{ name: "account", attributes: known, reportsDeletes: true, wholeObjects: true, changes: "by-token" }];
  },
};

export const check = {
  check() {
    rows();
  },
};

export const descriptor = {
  describe() {
    const folder = { type: "string", description: "The folder with people.json. The connection needs a grant to read it." };
    const settings = { type: "object", properties: { folder }, required: ["folder"], additionalProperties: false };
    const needs = { tag: "read", val: "{settings.folder}" };
    return {
      name: "json-js",
      version: "0.1.0",
      summary: "People in a JSON file, by a number that counts changes.",
      licence: "Apache-2.0",
      operations: ["live-sync", "check"],
      settingsSchema: JSON.stringify(settings),
      settingsVersion: 1,
      tokenFormatsRead: ["rev"],
      tokenFormatWritten: "rev",
      capabilities: [{ capability: needs, reason: "Reads people.json in it.", optional: false }],
      allClasses: false,
    };
  },

  migrateSettings() {
    throw fail("unsupported", "there are no older settings");
  },
};

export const search = {
  search() {
    throw fail("unsupported", "this connector has no search");
  },
};
