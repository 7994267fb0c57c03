// Makes a component of a connector: node build.js SOURCE.js WIT_FOLDER COMPONENT.wasm

import { cpSync, mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { componentize } from "@bytecodealliance/componentize-js";

const [sourcePath, wit, to] = process.argv.slice(2);
// The world of this folder, on top of the contract and what that needs.
const witPath = mkdtempSync(join(tmpdir(), "tidewaiter-wit-"));
try {
  cpSync(new URL("world.wit", import.meta.url), join(witPath, "world.wit"));
  cpSync(join(wit, "deps"), join(witPath, "deps"), { recursive: true });
  const contract = (from) => !from.endsWith("deps");
  cpSync(wit, join(witPath, "deps", "connector"), { recursive: true, filter: contract });
  // Whatever is fetched needs a grant, and this host has none for HTTP.
  const disableFeatures = ["http", "fetch-event"];
  const { component } = await componentize({ sourcePath, witPath, worldName: "with-files", disableFeatures });
  writeFileSync(to, component);
} finally {
  rmSync(witPath, { recursive: true });
}
