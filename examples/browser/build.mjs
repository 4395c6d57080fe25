// Write a static site: the page, the WASM runtime, a self-scoring model, and pictures to try.
//
// Usage: node build.mjs self_scoring.onnx [picture...]; then: python -m http.server --directory site
import { copyFile, mkdir, readFile, rm, writeFile } from "node:fs/promises";
import { basename, join } from "node:path";
import { fileURLToPath } from "node:url";
import { readMetadata } from "./self-scoring.js";

const PAGE = ["index.html", "style.css", "page.js", "easel.js", "verdict.js", "self-scoring.js", "resize.js"];
const RUNTIME = ["ort.wasm.bundle.min.mjs", "ort-wasm-simd-threaded.wasm"];

const [model, ...pictures] = process.argv.slice(2);
if (!model) {
  console.error("usage: node build.mjs self_scoring.onnx [picture...]");
  process.exit(2);
}
readMetadata(await readFile(model)); // refuses other files

const here = fileURLToPath(new URL(".", import.meta.url));
const site = join(here, "site");
const samples = pictures.map((path, index) => `${index + 1}-${basename(path)}`);
await rm(site, { recursive: true, force: true });
await mkdir(join(site, "ort"), { recursive: true });
await mkdir(join(site, "samples"));
await Promise.all([
  ...PAGE.map((name) => copyFile(join(here, name), join(site, name))),
  ...RUNTIME.map((name) => copyFile(join(here, "node_modules/onnxruntime-web/dist", name), join(site, "ort", name))),
  ...pictures.map((path, index) => copyFile(path, join(site, "samples", samples[index]))),
  copyFile(model, join(site, "model.onnx")),
  writeFile(join(site, "samples/samples.json"), JSON.stringify(samples)),
]);
console.log(`wrote ${site}: serve it with python -m http.server --directory ${site}`);
