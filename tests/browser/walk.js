// Walks through the page in a browser as people do: every page, every button, by mouse and by keyboard, in the light and in the dark, wide and narrow. Ends with an error at the
// first thing that isn't as it should be. What it is given, `tests/all/page.rs` says.
import assert from "node:assert/strict";
import { appendFile, mkdir, readFile } from "node:fs/promises";
import { createRequire } from "node:module";
import { chromium } from "playwright-core";

const { url, token, browser: { path: executablePath, env }, people, screenshots, view: viewMax } = JSON.parse(process.argv[2]);
const axe = await readFile(createRequire(import.meta.url).resolve("axe-core/axe.min.js"), "utf8");
await mkdir(screenshots, { recursive: true });

const PAGES = {
  overview: "/",
  connection: "/ui/connections/hr",
  held: "/ui/connections/kept",
  "awaiting-approval": "/ui/connections/asks",
  failed: "/ui/connections/trap",
  changes: "/ui/changes",
  entry: "/ui/changes/1",
  connectors: "/ui/connectors",
  "dead-letters": "/ui/dead-letters",
  reference: "/api/v1/reference",
};
/** The labels of all buttons that were there to be seen, and of those that were used. */
const [seen, used] = [new Set(), new Set()];
/** What the browser complained about. */
const complaints = [];

// A sandbox of the browser's own wants rights that a container doesn't give, and shared memory that it has little of; the pages are our own.
const browser = await chromium.launch({ executablePath, env: { ...process.env, ...env }, args: ["--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage"] });

async function context(options) {
  const made = await browser.newContext({ viewport: { width: 1280, height: 800 }, ...options });
  made.setDefaultTimeout(20_000);
  made.on("request", (request) => {
    if (!request.url().startsWith(`${url}/`)) complaints.push(`asks elsewhere: ${request.url()}`);
  });
  made.on("console", (message) => {
    // What people are refused is told on the page; the browser writes it down as well.
    const isAnswer = message.text().startsWith("Failed to load resource") && /\/api\/v1\/|\/ui\/(login|live)$/.test(message.location().url);
    if (message.type() === "error" && !isAnswer) complaints.push(message.text());
  });
  made.on("weberror", (error) => complaints.push(String(error.error())));
  return made;
}

async function look(page) {
  const labels = await page.locator("button, summary").allTextContents();
  for (const label of labels) if (!label.startsWith("Yes, ")) seen.add(plain(label));
}

const plain = (label) => label.replace(/ in run \d+$/, "").trim();

async function go(page, path) {
  const answer = await page.goto(url + path);
  assert.equal(answer.status(), 200, path);
  await look(page);
}

/** Uses a button, says yes where it asks whether one is sure, and waits for what is told of it. */
async function press(page, label, expected, within = page.locator("main")) {
  await look(page);
  used.add(label);
  await page.evaluate(() => (document.getElementById("told").textContent = ""));
  if (label.endsWith("…")) {
    await within.getByText(label, { exact: true }).first().click();
    await within.getByRole("button", { name: `Yes, ${label[0].toLowerCase()}${label.slice(1, -1)}` }).first().click();
  } else {
    await within.getByRole("button", { name: label, exact: true }).first().click();
  }
  await tells(page, expected);
  await look(page);
}

async function tells(page, expected) {
  const told = page.locator("#told");
  await page.waitForFunction(() => /[^…]$/.test(document.getElementById("told").textContent));
  assert.match(await told.textContent(), expected);
}

const page = await (await context({})).newPage();
const state = (word) => page.locator("h2 .state", { hasText: word });

// Whoever isn't logged in sees a form, and what is wrong with what they write.
await page.goto(url);
assert.equal(new URL(page.url()).pathname, "/ui/login");
await page.getByLabel("Access token").fill("tw_no");
await page.keyboard.press("Enter");
await page.getByRole("alert").getByText("That is no access token").waitFor();
const sizes = [];
const sized = async (answer) => sizes.push((await answer.body().catch(() => "")).length);
await page.getByLabel("Access token").fill(token);
page.on("response", sized);
used.add("Log in");
seen.add("Log in");
await page.getByRole("button", { name: "Log in" }).click();
await page.getByRole("heading", { name: "Overview" }).waitFor();
await page.waitForTimeout(500);
page.off("response", sized);
const view = sizes.reduce((sum, size) => sum + size, 0);
console.log(`the first view is ${(view / 1024).toFixed(1)} KiB in ${sizes.length} answers`);
assert.ok(sizes.length >= 3 && view <= viewMax, `${view}`);

// Each page, for everybody.
const checked = await context({ bypassCSP: true, storageState: await page.context().storageState() });
for (const [scheme, width] of [["light", 1280], ["dark", 1280], ["light", 360], ["dark", 360]]) {
  const other = await checked.newPage();
  await other.emulateMedia({ colorScheme: scheme });
  await other.setViewportSize({ width, height: 800 });
  for (const [name, path] of Object.entries({ login: "/ui/login", ...PAGES })) {
    await go(other, path);
    await other.evaluate(() => document.querySelectorAll("details").forEach((one) => (one.open = true)));
    await other.evaluate(axe);
    const { violations, passes } = await other.evaluate(() => axe.run());
    assert.ok(passes.length > 10, `${passes.length}`);
    const found = violations.map((one) => `${one.id}: ${one.nodes.map((node) => node.html.slice(0, 200)).join("; ")}`);
    assert.deepEqual(found, [], `${name}, ${scheme}, ${width} wide`);
    assert.ok((await other.evaluate(() => document.documentElement.scrollWidth)) <= width, `${name} fits into ${width}`);
    await other.screenshot({ path: `${screenshots}/${name}-${scheme}-${width}.png`, fullPage: true });
  }
  await other.close();
}
await checked.close();

// By keyboard: past what is on every page, a question that is taken back, a button.
await go(page, PAGES.connection);
await page.keyboard.press("Tab");
assert.equal(await page.evaluate(() => document.activeElement.textContent), "Skip to content");
await page.keyboard.press("Enter");
await page.waitForFunction(() => document.activeElement.id === "main");
await page.locator("summary", { hasText: "Reset the token" }).focus();
await page.keyboard.press("Enter");
await page.getByRole("button", { name: "Yes, reset the token" }).waitFor();
await page.keyboard.press("Escape");
await page.waitForFunction(() => !document.querySelector("details.sure[open]"));
await page.getByRole("button", { name: "Sync now" }).focus();
await page.keyboard.press("Enter");
await tells(page, /^Done: sync of hr/);

// What happens elsewhere is there without being asked for.
await go(page, PAGES.overview);
const journal = async () => Number(/ends with entry (\d+)/.exec(await page.textContent("main"))[1]);
const before = await journal();
await appendFile(people, "900,new@x,2030-01-01T00:00:00Z,\n");
const asked = await fetch(`${url}/api/v1/connections/hr/types/account/sync?wait=30s`, {
  method: "POST",
  headers: { authorization: `Bearer ${token}` },
});
assert.equal(asked.status, 200, await asked.text());
await page.waitForFunction((last) => document.querySelector("main").textContent.includes(`ends with entry ${last}.`), before + 1);

// The connection.
await go(page, PAGES.connection);
await press(page, "Sync now", /^Done: sync of hr/);
await press(page, "Check", /^hr can do its work\.$/);
await press(page, "Pause…", /^Done/);
await state("paused").waitFor();
await press(page, "Sync now", /paused/);
await press(page, "Resume", /^Done/);
await press(page, "Bring up…", /^Done: .* of hr/);
await press(page, "Reconcile…", /^Done: reconcile of hr/);
await press(page, "Rewind the token…", /^Done/);
await press(page, "Reset the token…", /^Done/);
await page.locator("summary", { hasText: "History of the token" }).click();
used.add("History of the token");
await page.getByRole("region", { name: "History of the token" }).getByText("reset by").first().waitFor();
for (const name of ["Limits of a run", "Limits of the sandbox"]) {
  await page.locator("summary", { hasText: name }).click();
  await page.getByRole("region", { name }).getByRole("rowheader").first().waitFor();
  used.add(name);
}
await go(page, PAGES.failed);
await page.locator("summary", { hasText: "What the connector said last" }).first().click();
used.add("What the connector said last");

// A reconciliation shows how far it is, and may be cancelled.
await go(page, "/ui/connections/big");
await page.getByText("Reconcile…", { exact: true }).click();
await page.getByRole("button", { name: "Yes, reconcile" }).click();
await page.getByRole("progressbar").waitFor();
await press(page, "Cancel the reconciliation…", /./);
await page.getByRole("progressbar").waitFor({ state: "detached" });

// What is held.
await go(page, PAGES.held);
await press(page, "Release…", /^Done/);
await press(page, "Sync now", /^Done: sync of kept/);
await state("live").waitFor();
await go(page, "/ui/connections/thrown");
await press(page, "Discard…", /^Done/);
await state("held").waitFor({ state: "detached" });

// An update that asks for more, and the files of a connector.
await go(page, PAGES.connectors);
const asks = page.getByText("asks for more than was approved in asks");
await asks.getByRole("link").click();
await page.getByRole("heading", { name: "asks", exact: true }).waitFor();
await press(page, "Approve what it asks for…", /^Done/);
await page.getByText("awaits-approval", { exact: true }).first().waitFor({ state: "detached" });
await go(page, PAGES.connectors);
assert.equal(await asks.count(), 0);
const hostile = page.locator("section", { has: page.getByRole("heading", { name: "hostile" }) });
await press(page, "Roll back…", /^Done/, hostile);
await press(page, "Try again…", /^Done/, hostile);
await press(page, "Pin the file in the folder…", /./, hostile);
await press(page, "Quarantine…", /^Done/, hostile);
await state("quarantine").waitFor();
await press(page, "End the quarantine…", /^Done/, hostile);

// Changes: those that are wanted, and one of them; what is sensitive isn't shown.
await go(page, PAGES.changes);
await page.getByLabel("Connection").fill("person");
used.add("Filter");
await page.getByRole("button", { name: "Filter" }).click();
await page.waitForURL(/connection=person/);
while ((await page.locator("tbody tr").count()) === 0) {
  await page.getByText("that were looked through").waitFor();
  await go(page, await page.getByRole("link", { name: "Older ones" }).getAttribute("href"));
}
assert.equal(await page.locator("tbody tr").count(), 1);
await page.locator("tbody a").click();
await page.getByRole("heading", { name: /^Entry \d+$/ }).waitFor();
assert.match(await page.textContent("main"), /Number\s*\*\*\*/);

// Dead letters: one that is refused again, and is given up.
await go(page, PAGES["dead-letters"]);
await press(page, "Retry", /no such department/);
await press(page, "Give up…", /^Done/);
await page.getByText("There is none").waitFor();

// A browser whose access token is revoked is sent to where one logs in, whatever it was looking at.
const ask = (method, path, body) =>
  page.evaluate(async ([method, path, body]) => {
    const headers = body ? { "content-type": "application/json" } : {};
    return (await fetch(`/api/v1/access${path}`, { method, body, headers })).json();
  }, [method, path, body]);
const { token: theirs } = await ask("POST", "", JSON.stringify({ name: "guest", role: "read" }));
const guest = await (await context({})).newPage();
await guest.goto(url);
await guest.getByLabel("Access token").fill(theirs);
await guest.keyboard.press("Enter");
await guest.getByRole("heading", { name: "Overview" }).waitFor();
await guest.goto(url + PAGES.entry);
await ask("DELETE", "/guest");
await guest.waitForURL(`${url}/ui/login`, { timeout: 60_000 });

used.add("Log out");
await page.getByRole("button", { name: "Log out" }).click();
await page.waitForURL(`${url}/ui/login`);

assert.deepEqual([...seen].sort(), [...used].sort(), "each button was used");
assert.deepEqual(complaints, []);
console.log(`${used.size} buttons, ${Object.keys(PAGES).length} pages, four times each`);
await browser.close();
