// Makes the page live: asks the API for what a button says, tells what came of it, and has the page made anew when there is news.
"use strict";

const told = document.getElementById("told");
const tell = (text, bad) => {
  told.textContent = text;
  told.className = bad ? "bad" : "";
};

function ago() {
  const now = Date.now();
  for (const time of document.querySelectorAll("time[datetime]")) {
    const seconds = Math.round((now - Date.parse(time.dateTime)) / 1000);
    const far = Math.abs(seconds);
    const [size, unit] = far < 90 ? [1, "s"] : far < 5400 ? [60, "min"] : far < 129600 ? [3600, "h"] : [86400, "d"];
    const count = Math.round(far / size);
    time.title = time.dateTime;
    time.textContent = far < 1 ? "now" : seconds < 0 ? `in ${count} ${unit}` : `${count} ${unit} ago`;
  }
}

// What somebody is in the middle of is left alone.
function busy() {
  const at = document.activeElement;
  return document.querySelector("details.sure[open]") || (at && at.matches("input, summary") && document.querySelector("main").contains(at));
}

async function renew() {
  if (busy()) return;
  const answer = await fetch(location.href, { credentials: "same-origin" });
  if (answer.redirected) return location.assign(answer.url);
  if (!answer.ok) return;
  const fresh = new DOMParser().parseFromString(await answer.text(), "text/html").querySelector("main");
  const main = document.querySelector("main");
  if (!fresh || busy()) return;
  const open = new Set([...main.querySelectorAll("details[open][data-keep]")].map((one) => one.dataset.keep));
  for (const one of fresh.querySelectorAll("details[data-keep]")) one.open = open.has(one.dataset.keep);
  const path = document.activeElement && main.contains(document.activeElement) ? document.activeElement.dataset.path : null;
  main.replaceChildren(...fresh.childNodes);
  if (path) main.querySelector(`button[data-path="${CSS.escape(path)}"]`)?.focus();
  ago();
}

async function follow(operation) {
  for (;;) {
    const answer = await fetch(`/api/v1/operations/${operation}`, { credentials: "same-origin" });
    if (!answer.ok) return tell("It is not known any more how that went.", true);
    const now = await answer.json();
    if (now.standing === "succeeded") return tell(`Done: ${now.action} of ${now.connection}.`);
    if (now.standing === "failed") return tell(`${now.action} of ${now.connection} failed: ${now.problem.detail}`, true);
    await new Promise((resolve) => setTimeout(resolve, 500));
    await renew();
  }
}

async function act(button) {
  const { method, path, body } = button.dataset;
  button.disabled = true;
  button.blur();
  // Closed at once: while it is open, the page isn't made anew, and how far the act is isn't seen.
  const sure = button.closest("details.sure");
  if (sure) sure.open = false;
  tell(`${button.textContent}…`);
  try {
    const headers = body ? { "content-type": "application/json" } : {};
    const answer = await fetch(path, { method, body, headers, credentials: "same-origin" });
    const said = await answer.json();
    if (!answer.ok) tell(said.detail || answer.statusText, true);
    else if (answer.status === 202) await follow(said.id);
    else if (said.problems) tell(said.problems.length ? said.problems.join(" ") : `${said.connection} can do its work.`, said.problems.length > 0);
    else tell("Done.");
  } catch (error) {
    tell(`The server can't be reached: ${error.message}`, true);
  }
  button.disabled = false;
  await renew();
}

document.addEventListener("click", (event) => {
  const button = event.target.closest("button[data-path]");
  if (button) act(button);
});
document.addEventListener("keydown", (event) => {
  const sure = event.key === "Escape" && event.target.closest("details.sure[open]");
  if (sure) {
    sure.open = false;
    sure.querySelector("summary").focus();
  }
});

ago();
setInterval(ago, 10000);
const live = new EventSource(document.body.dataset.live);
// Entries don't change, and it is written down each time that somebody reads them: theirs are pages to which only others come.
const entries = location.pathname.startsWith("/ui/changes"), entry = location.pathname.startsWith("/ui/changes/");
live.addEventListener("journaled", () => entry || renew().catch(() => {}));
live.addEventListener("later", () => entries || renew().catch(() => {}));
// It tries again by itself, but not where the server knows this browser no more.
live.addEventListener("error", () => {
  if (live.readyState === EventSource.CLOSED) setTimeout(() => location.reload(), 10000);
});
