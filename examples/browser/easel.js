// The picture on the page: drawn by hand, opened, or made up; whoever asks gets its pixels.

const SIDE = 336;
const BRUSH = SIDE / 9; // a stroke of handwritten digits, as wide as in the sets that they come from

export class Easel {
  #canvas;
  #context;
  #picture = null;
  #name = "drawing";

  /** `changed()` is called whenever there is another picture. */
  constructor(canvas, changed) {
    this.#canvas = canvas;
    this.#context = canvas.getContext("2d", { willReadFrequently: true });
    let stroke = false;
    const draw = (event) => {
      this.#stroke(event);
      changed();
    };
    canvas.addEventListener("pointerdown", (event) => {
      if (event.button) return;
      canvas.setPointerCapture(event.pointerId);
      stroke = true;
      this.#context.beginPath();
      draw(event);
    });
    canvas.addEventListener("pointermove", (event) => stroke && draw(event));
    for (const end of ["pointerup", "pointercancel"]) canvas.addEventListener(end, () => (stroke = false));
  }

  /** Take the shape of the model's input. */
  fit({ width, height }) {
    this.#canvas.width = SIDE;
    this.#canvas.height = Math.round((SIDE * height) / width);
  }

  /** What the picture is called, and its RGBA pixels. */
  get picture() {
    this.#picture ??= this.#context.getImageData(0, 0, this.#canvas.width, this.#canvas.height);
    return { name: this.#name, pixels: this.#picture };
  }

  /** Show a picture (ImageData), each of its pixels whole. */
  show(name, pixels) {
    this.#name = name;
    this.#picture = pixels;
    const { canvas } = surface(pixels);
    this.#context.fillStyle = "black";
    this.#context.fillRect(0, 0, this.#canvas.width, this.#canvas.height);
    this.#context.imageSmoothingEnabled = pixels.width > this.#canvas.width;
    this.#context.drawImage(canvas, 0, 0, this.#canvas.width, this.#canvas.height);
  }

  #stroke({ clientX, clientY }) {
    const box = this.#canvas.getBoundingClientRect();
    const scale = this.#canvas.width / box.width;
    Object.assign(this.#context, { lineWidth: BRUSH, lineCap: "round", lineJoin: "round", strokeStyle: "white" });
    this.#context.lineTo((clientX - box.left) * scale, (clientY - box.top) * scale);
    this.#context.stroke();
    this.#name = "drawing";
    this.#picture = null;
  }
}

/** A canvas that holds some pixels. */
function surface(pixels) {
  const context = new OffscreenCanvas(pixels.width, pixels.height).getContext("2d");
  context.putImageData(pixels, 0, 0);
  return context;
}

/** The pixels of an encoded picture (Blob), turned upright by its EXIF orientation, in no colour space but its own. */
export async function decoded(blob) {
  const bitmap = await createImageBitmap(blob, { premultiplyAlpha: "none", colorSpaceConversion: "none" });
  const context = new OffscreenCanvas(bitmap.width, bitmap.height).getContext("2d");
  context.drawImage(bitmap, 0, 0);
  return context.getImageData(0, 0, bitmap.width, bitmap.height);
}

/** Pictures from a rule: what a pixel is, or what becomes of the one that is shown. */
export const MAKERS = {
  clear: (size) => painted(size, () => 0),
  noise: (size) => painted(size, () => Math.random() * 256),
  stripes: (size) => painted(size, (x, y) => ((x + y) % 4 < 2 ? 255 : 0)),
  invert: (_, { data, width, height }) => {
    const opposite = data.map((value, at) => (at % 4 === 3 ? value : 255 - value));
    return new ImageData(opposite, width, height);
  },
  turn: (_, pixels) => {
    const { width, height } = pixels;
    const context = new OffscreenCanvas(height, width).getContext("2d");
    context.setTransform(0, 1, -1, 0, height, 0);
    context.drawImage(surface(pixels).canvas, 0, 0);
    return context.getImageData(0, 0, height, width);
  },
};

function painted({ width, height, channels }, value) {
  const pixels = new ImageData(width, height);
  for (let at = 0; at < width * height; at++) {
    const [x, y] = [at % width, Math.floor(at / width)];
    const grey = Math.floor(value(x, y));
    const rgb = channels === 1 ? [grey, grey, grey] : [grey, Math.floor(value(x, y)), Math.floor(value(x, y))];
    pixels.data.set([...rgb, 255], 4 * at);
  }
  return pixels;
}
