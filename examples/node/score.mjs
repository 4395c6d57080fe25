// Predictions, and how far to trust each, from one file and PNG pictures: one JSON object a picture.
//
// Usage: node score.mjs self_scoring.onnx picture.png...
import { readFile } from "node:fs/promises";
import * as ort from "onnxruntime-node";
import { PNG } from "pngjs";
import { readMetadata, rows, run, toPixels } from "../browser/self-scoring.js";

const [model, ...paths] = process.argv.slice(2);
if (!paths.length) {
  console.error("usage: node score.mjs self_scoring.onnx picture.png...");
  process.exit(2);
}
const bytes = await readFile(model);
const about = readMetadata(bytes);
const session = await ort.InferenceSession.create(bytes);
const pictures = await Promise.all(
  paths.map(async (path) => toPixels(PNG.sync.read(await readFile(path)), about.preprocessing)),
);
const outputs = await run(ort, session, about, pictures);
rows(outputs, about).forEach((row, index) => console.log(JSON.stringify({ id: paths[index], ...row })));
