"use strict";
// A drop zone before the pictures of page.js; the server parses what falls into it.

const picker = make("input", { type: "file", multiple: true, accept: "image/*,.avif,.jp2,.tif,.tiff,.ppm" });
const zone = make(
  "label",
  { id: "drop" },
  make("strong", { textContent: "Drop pictures of people here" }),
  make("span", { textContent: "or paste one. They stay on this machine." }),
  make("span", { className: "choose", textContent: "Choose pictures" }),
  picker,
);
const progress = make("div", { id: "progress" });
progress.setAttribute("role", "status");
$("gallery").prepend(zone, progress);
document.querySelector("nav").hidden = true;

const waitingFiles = [];
let busy = false;

function note(className, name, text) {
  const line = make("p", { className }, make("b", { textContent: name }), " ", make("span", { textContent: text }));
  if (className === "error") {
    line.setAttribute("role", "alert");
    const close = make("button", { type: "button", textContent: "×", title: "Remove this message" });
    close.addEventListener("click", () => line.remove());
    line.append(close);
  }
  progress.append(line);
  return line;
}

function take(files) {
  waitingFiles.push(...files);
  work();
}

async function work() {
  if (busy) return;
  busy = true;
  const alone = waitingFiles.length === 1;
  while (waitingFiles.length) {
    const file = waitingFiles.shift();
    const more = waitingFiles.length ? ` ${waitingFiles.length} more wait.` : "";
    const line = note("busy", file.name, `is parsed …${more}`);
    try {
      if (file.size > RPCNN_LIMIT) throw new Error(`has ${(file.size / 1e6).toFixed(1)} MB, more than ${RPCNN_LIMIT / 1e6}`);
      const reply = await fetch(`parse?name=${encodeURIComponent(file.name)}`, { method: "POST", body: file });
      const entry = await reply.json();
      if (!reply.ok) throw new Error(entry.error);
      items.push(entry);
      arranged();
      if (alone && !waitingFiles.length) open(items.length - 1);
    } catch (error) {
      note("error", file.name, error instanceof TypeError ? "was not parsed: the server does not answer; is rpcnn demo still running?" : error.message);
    }
    line.remove();
  }
  busy = false;
}

function arranged() {
  $("controls").hidden = items.length < 2;
  refresh();
}

picker.addEventListener("change", () => {
  take(picker.files);
  picker.value = "";
});
addEventListener("dragover", (event) => {
  event.preventDefault();
  zone.classList.add("over");
});
addEventListener("dragleave", (event) => event.relatedTarget || zone.classList.remove("over"));
addEventListener("drop", (event) => {
  event.preventDefault();
  zone.classList.remove("over");
  take(event.dataTransfer.files);
});
addEventListener("paste", (event) => take(event.clipboardData.files));
arranged();
