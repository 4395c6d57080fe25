// A self-scoring model from JavaScript, whichever runtime runs it (onnxruntime-web, onnxruntime-node): what it says
// about itself, how a picture becomes its input, and its outputs as plain rows.
import { fitted } from "./resize.js";

const METADATA_PROPS = 14; // ModelProto.metadata_props in onnx.proto
const [KEY, VALUE] = [1, 2]; // StringStringEntryProto
const GREY = [19595 / 65536, 38470 / 65536, 7471 / 65536]; // ITU-R 601, as Pillow rounds it

/** What `gradscore fuse` wrote into an ONNX file: classes, preprocessing, outputs. No JavaScript runtime hands it out. */
export function readMetadata(bytes) {
  const text = new TextDecoder();
  for (const [field, entry] of fields(bytes)) {
    if (field !== METADATA_PROPS) continue;
    const pair = Object.fromEntries(fields(entry));
    if (text.decode(pair[KEY]) !== "gradscore") continue;
    const about = JSON.parse(text.decode(pair[VALUE]));
    if (about.kind === "self-scoring") return about;
  }
  throw new Error("this model does not score itself: make one that does with `gradscore fuse`");
}

/** Yield the number and content of every length-delimited field of a protobuf message. */
function* fields(bytes) {
  const broken = new Error("this is no ONNX file, or not all of it");
  let at = 0;
  const varint = () => {
    let value = 0;
    for (let unit = 1; at < bytes.length; unit *= 128) {
      const byte = bytes[at++];
      value += (byte % 128) * unit;
      if (byte < 128) return value;
    }
    throw broken;
  };
  const skip = { 0: varint, 1: () => (at += 8), 5: () => (at += 4) };
  while (at < bytes.length) {
    const tag = varint();
    if (tag % 8 === 2) {
      const length = varint();
      const content = bytes.subarray(at, (at += length));
      if (content.length < length) throw broken;
      yield [Math.floor(tag / 8), content];
    } else if (tag % 8 in skip) skip[tag % 8]();
    else throw broken;
  }
  if (at > bytes.length) throw broken;
}

/** An RGBA picture { data, width, height } as the model sees it: its channels and size, one byte a value, [C, H, W]. */
export function toPixels(picture, preprocessing) {
  const { kind, channels, height, width } = preprocessing;
  if (kind !== "image" || ![1, 3].includes(channels)) throw new Error("this model takes no grey or RGB pictures");
  const { data } = picture;
  const planeOf = (value) => {
    const values = new Uint8Array(picture.width * picture.height);
    for (let pixel = 0; pixel < values.length; pixel++) values[pixel] = value(4 * pixel);
    return values;
  };
  const grey = (at) => Math.floor(GREY[0] * data[at] + GREY[1] * data[at + 1] + GREY[2] * data[at + 2] + 0.5);
  const planes = channels === 1 ? [planeOf(grey)] : [0, 1, 2].map((channel) => planeOf((at) => data[at + channel]));
  const pixels = new Uint8Array(channels * height * width);
  planes.forEach((plane, channel) => {
    pixels.set(fitted(plane, picture, preprocessing), channel * height * width);
  });
  return pixels;
}

/** Pixels [C, H, W] as numbers (pixel · scale − mean) / std, in float32 as gradscore computes them. */
export function normalise(pixels, { channels, scale, mean, std }) {
  const size = pixels.length / channels;
  const of = (values, channel) => Math.fround(values[values.length === 1 ? 0 : channel]);
  return Float32Array.from(pixels, (pixel, at) => {
    const channel = Math.floor(at / size);
    const scaled = Math.fround(pixel * Math.fround(scale));
    return Math.fround(scaled - of(mean, channel)) / of(std, channel);
  });
}

/** Run the model on pictures prepared by `toPixels`; returns the runtime's own tensors by name. */
export function run(ort, session, about, pictures) {
  const [{ name, dtype }] = about.inputs;
  if (dtype !== "float32") throw new Error(`this model takes ${dtype}, this code prepares float32`);
  const { channels, height, width } = about.preprocessing;
  const size = channels * height * width;
  const batch = new Float32Array(pictures.length * size);
  pictures.forEach((pixels, row) => batch.set(normalise(pixels, about.preprocessing), row * size));
  const input = new ort.Tensor("float32", batch, [pictures.length, channels, height, width]);
  return session.run({ [name]: input });
}

/** What the model knows of each prediction, as plain values; NaN is null. `about.added` tells which output holds what. */
export function rows(outputs, about) {
  return Array.from(outputs[about.added.label].data, (_, row) => {
    const values = Object.entries(about.added).map(([name, output]) => [name, told(name, outputs[output], row, about)]);
    const result = Object.fromEntries(values);
    return { ...result, label_name: about.class_names?.[result.label] ?? `${result.label}` };
  });
}

function told(name, { data }, row, { feature_names }) {
  if (name === "accept") return Boolean(data[row]);
  if (name !== "features") return plain(data[row]);
  const start = row * feature_names.length;
  return Object.fromEntries(feature_names.map((feature, column) => [feature, plain(data[start + column])]));
}

function plain(value) {
  const number = Number(value);
  return Number.isFinite(number) ? number : null;
}

/** The classifier's own probabilities, one row a picture; null where it has no output of one number a class. */
export function probabilities(outputs, { classes, outputs: own }) {
  const wide = ({ dims, type }) => dims.length === 2 && dims[1] === classes && type === "float32";
  const scores = own.map((name) => outputs[name]).find(wide);
  if (!scores) return null;
  return Array.from({ length: scores.dims[0] }, (_, row) =>
    normalised(scores.data.subarray(row * classes, (row + 1) * classes)),
  );
}

/** Softmax, of what does not add up to 1 already. */
function normalised(scores) {
  const total = scores.reduce((sum, score) => sum + score, 0);
  if (Math.abs(total - 1) < 1e-3 && scores.every((score) => score >= 0)) return Array.from(scores);
  const top = Math.max(...scores);
  const parts = Array.from(scores, (score) => Math.exp(score - top));
  const sum = parts.reduce((all, part) => all + part, 0);
  return parts.map((part) => part / sum);
}
