// The page: a model, a picture, and the verdict on it, anew with every change.
import * as ort from "./ort/ort.wasm.bundle.min.mjs";
import { Easel, MAKERS, decoded } from "./easel.js";
import { probabilities, readMetadata, rows, run, toPixels } from "./self-scoring.js";
import { showVerdict } from "./verdict.js";

ort.env.wasm.numThreads = 1; // more needs headers that a plain static server does not send

const $ = (id) => document.getElementById(id);
const easel = new Easel($("easel"), () => update());
let model = null;
let running = false;
let changed = false;

await guarded(async () => {
  await openModel("model.onnx", await fetched("model.onnx"));
  const samples = await (await answered("samples/samples.json")).json();
  $("samples").replaceChildren(...samples.map(sample));
  if (samples.length) await openPicture(samples[0], await (await answered(`samples/${samples[0]}`)).blob());
});

async function openModel(name, bytes) {
  const about = readMetadata(bytes);
  const blank = MAKERS.clear(about.preprocessing);
  toPixels(blank, about.preprocessing); // refuses models of no pictures before anything changes
  const session = await ort.InferenceSession.create(bytes);
  model = { name, about, session, size: bytes.length };
  easel.fit(about.preprocessing);
  easel.show("blank", blank);
  await update();
}

async function openPicture(name, blob) {
  easel.show(name, await decoded(blob));
  await update();
}

/** Score what the easel holds; of the changes that come meanwhile, the last one counts. */
async function update() {
  changed = true;
  if (running || !model) return;
  running = true;
  $("result").setAttribute("aria-busy", "true");
  await guarded(async () => {
    while (changed) {
      changed = false;
      await scoreOnce(model, easel.picture);
    }
  });
  running = false;
  $("result").setAttribute("aria-busy", "false");
}

async function scoreOnce({ name, about, session, size }, { name: picture, pixels: rgba }) {
  const pixels = toPixels(rgba, about.preprocessing);
  showSeen(pixels, about.preprocessing);
  const start = performance.now();
  const outputs = await run(ort, session, about, [pixels]);
  const took = performance.now() - start;
  showVerdict(picture, rows(outputs, about)[0], probabilities(outputs, about)?.[0], about);
  const facts = [`${name}, ${(size / 1e6).toFixed(2)} MB`, `${about.classes} classes`, `${took.toFixed(1)} ms a picture`];
  $("facts").textContent = `${facts.join("; ")}; onnxruntime-web ${ort.env.versions.web} on one WebAssembly thread`;
}

function showSeen(pixels, { channels, height, width }) {
  const seen = Object.assign($("seen"), { width, height });
  const rgba = new ImageData(width, height);
  const at = (channel, pixel) => pixels[(channel % channels) * width * height + pixel];
  for (let pixel = 0; pixel < width * height; pixel++)
    rgba.data.set([at(0, pixel), at(1, pixel), at(2, pixel), 255], 4 * pixel);
  seen.getContext("2d").putImageData(rgba, 0, 0);
  $("size").textContent = `${width} × ${height} pixels, ${channels === 1 ? "grey" : "colour"}`;
}

function sample(name) {
  const picture = Object.assign(new Image(), { src: `samples/${name}`, alt: `sample ${name}` });
  const button = Object.assign(document.createElement("button"), { type: "button" });
  button.append(picture);
  button.addEventListener("click", () =>
    guarded(async () => openPicture(name, await (await answered(picture.src)).blob())),
  );
  const item = document.createElement("li");
  item.append(button);
  return item;
}

for (const button of document.querySelectorAll("button[data-does]"))
  button.addEventListener("click", () => {
    if (!model) return;
    const { name, pixels } = easel.picture;
    const does = button.dataset.does;
    const keeps = does === "invert" || does === "turn";
    easel.show(keeps ? `${name}, ${does}ed` : does, MAKERS[does](model.about.preprocessing, pixels));
    update();
  });

$("open").addEventListener("change", (event) => openFiles(event.target));
$("open-model").addEventListener("change", (event) => openFiles(event.target));
document.addEventListener("dragover", (event) => {
  event.preventDefault();
  document.querySelector(".easel").classList.add("dropping");
});
for (const end of ["dragleave", "drop"])
  document.addEventListener(end, () => document.querySelector(".easel").classList.remove("dropping"));
document.addEventListener("drop", (event) => {
  event.preventDefault();
  openFiles(event.dataTransfer);
});

function openFiles(holder) {
  const [file] = holder.files;
  if (!file) return;
  guarded(async () => {
    if (file.name.endsWith(".onnx")) await openModel(file.name, new Uint8Array(await file.arrayBuffer()));
    else await openPicture(file.name, file);
  });
  if ("value" in holder) holder.value = ""; // so that the same file can be opened again
}

async function answered(path) {
  const answer = await fetch(path);
  if (!answer.ok) throw new Error(`${path}: the server says ${answer.status}`);
  return answer;
}

async function fetched(path) {
  return new Uint8Array(await (await answered(path)).arrayBuffer());
}

/** Do something; what goes wrong is shown, and the page lives on. */
async function guarded(action) {
  $("problem").hidden = true;
  try {
    await action();
  } catch (error) {
    $("problem").textContent = error.message;
    $("problem").hidden = false;
    console.warn(error);
  }
}
