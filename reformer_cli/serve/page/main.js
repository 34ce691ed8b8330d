// The page: what is put together from the other files, its keys, and its buttons.

import { Alternatives } from "./alternatives.js";
import { Compare } from "./compare.js";
import { Copies } from "./copies.js";
import { Documents } from "./documents.js";
import { Editor } from "./editor.js";
import { mark } from "./look.js";
import { Panels } from "./panels.js";
import { Remembered } from "./remembered.js";
import { Runs } from "./runs.js";
import { AWAY, connection, json, onTokenWanted } from "./server.js";
import { Settings } from "./settings.js";
import { Shade } from "./shade.js";
import { Sync } from "./sync.js";
import { Texts } from "./texts.js";
import { Writer, readOut } from "./writing.js";

const $ = (id) => document.getElementById(id);

function say(text, alarm = false) {
  $("say").textContent = text === AWAY ? "" : text; // which stands above the text already
  $("say").classList.toggle("alarm", alarm);
}

const editor = new Editor($("text"), $("scroller"));
const settings = new Settings();
const sync = new Sync(editor, settings);
const documents = new Documents(editor);
const writer = new Writer(editor, sync, settings, say);
const ways = new Alternatives(editor, sync, settings, say);
const runs = new Runs(settings, say);
const panels = new Panels();
new Texts(documents, editor, say);
new Shade(editor, settings);
new Copies(editor, settings, writer);
new Remembered(editor, settings);
new Compare(editor, sync, settings);
readOut(writer, $("written"));

// --- the buttons below the text

$("go").addEventListener("click", () => {
  if (writer.writing) return writer.stop();
  editor.take();
  return writer.goOn();
});
$("three").addEventListener("click", () => ways.show());
$("undo").addEventListener("click", () => takeBack());
for (const [event, label] of [["begin", "Stop"], ["end", "Go on"]]) {
  writer.addEventListener(event, () => {
    $("go").textContent = label;
    $("go").title = label === "Stop" ? "Esc" : "Ctrl+Enter";
  });
}

function takeBack() {
  writer.stop();
  if (!editor.undo()) say("There is nothing to take back.");
}

// What the model wrote last has a colour until somebody types.
let began = 0;
writer.addEventListener("begin", () => (began = editor.selection.to));
writer.addEventListener("written", ({ detail }) => mark(editor, "written", [[began, detail.to]]));
for (const name of ["typing", "open"]) editor.addEventListener(name, () => mark(editor, "written", []));

// --- keys

let leaving = false; // Esc was pressed: the next Tab leaves the text, as everywhere else

document.addEventListener("keydown", (event) => {
  const control = event.ctrlKey || event.metaKey;
  const key = event.key.toLowerCase();
  if (event.isComposing || $("token").open) return;
  if (control && key === "enter") {
    event.preventDefault();
    if (ways.open) ways.close();
    writer.goOn();
  } else if (key === "escape" && writer.writing) {
    event.preventDefault();
    writer.stop();
  }
});

editor.root.addEventListener("keydown", (event) => {
  if (event.isComposing) return;
  const control = event.ctrlKey || event.metaKey;
  const key = event.key.toLowerCase();
  if (key === "tab" && !event.shiftKey && !control && !event.altKey) {
    if (leaving) return;
    event.preventDefault();
    writer.stop();
    ways.show();
  } else if (control && !event.altKey && (key === "z" || key === "y")) {
    event.preventDefault();
    if (key === "y" || event.shiftKey) editor.redo();
    else takeBack();
  }
  leaving = key === "escape" && !writer.writing && !ways.open;
  if (leaving) say("Tab now leaves the text.");
  if (key === "escape" && ways.open) ways.close();
});

// --- what is said of the text and of the server

let counting = 0;
for (const name of ["change", "open"]) {
  editor.addEventListener(name, () => {
    counting ||= setTimeout(() => {
      counting = 0;
      const count = editor.text.words;
      $("words").textContent = `${count.toLocaleString()} ${count === 1 ? "word" : "words"}`;
    }, 300);
  });
}
documents.addEventListener("state", ({ detail: { text, alarm } }) => {
  $("saved").textContent = text && !alarm ? `· ${text}` : "";
  if (alarm) say(text, true);
});
connection.addEventListener("away", ({ detail }) => {
  $("offline").textContent = detail;
  $("offline").hidden = false;
});
connection.addEventListener("back", () => {
  $("offline").hidden = true;
  load();
});
panels.addEventListener("change", () => {
  if (panels.shown === "models") load();
  else runs.stopWatching();
});

onTokenWanted(async (wrong) => {
  $("token-field").value = "";
  $("token-heading").textContent = wrong ? "That token is not the right one" : "The password of this server";
  $("token").returnValue = "";
  $("token").showModal();
  await new Promise((done) => $("token").addEventListener("close", done, { once: true }));
  return $("token").returnValue === "ok" ? $("token-field").value.trim() : null;
});

async function load() {
  try {
    await runs.load();
    const { presets } = await json("api/presets");
    settings.offer(presets);
  } catch (error) {
    say(error.message, true);
  }
}

await documents.begin();
$("scroller").inert = false; // what was typed before would have become a text of its own
document.documentElement.dataset.ready = "true";
editor.take();
editor.reveal(editor.kept.from);
if (innerWidth > 1000) panels.toggle("manner", { focus: false });
load();
