// Pictures of any size brought to the model's, as Pillow does it: antialiased, in fixed point, across and then down. They
// come out as gradscore's do, to the last bit; a level beside it where Pillow 13 goes down first, because the height shrinks
// more.

const PRECISION = 2 ** 22; // 32 bits less 8 of the pixel and 2 of headroom
const sinc = (x) => (x === 0 ? 1 : Math.sin(Math.PI * x) / (Math.PI * x));
const FILTERS = {
  bilinear: { reach: 1, weight: (x) => Math.max(0, 1 - Math.abs(x)) },
  bicubic: { reach: 2, weight: (x) => cubic(Math.abs(x)) },
  lanczos: { reach: 3, weight: (x) => (Math.abs(x) < 3 ? sinc(x) * sinc(x / 3) : 0) },
};

function cubic(x) {
  if (x < 1) return (1.5 * x - 2.5) * x * x + 1;
  return x < 2 ? ((-0.5 * x + 2.5) * x - 4) * x + 2 : 0;
}

/** One plane of bytes of a picture { width, height }, resized and cropped as the model's preprocessing says. */
export function fitted(plane, picture, how) {
  const size = sizeToCrop(picture, how);
  const resized = resize(plane, picture, size, how.interpolation ?? "bilinear");
  const [left, top] = [margin(size.width, how.width), margin(size.height, how.height)];
  const cut = new Uint8Array(how.width * how.height); // black where the picture is smaller
  for (let y = Math.max(0, -top); y < Math.min(how.height, size.height - top); y++)
    for (let x = Math.max(0, -left); x < Math.min(how.width, size.width - left); x++)
      cut[y * how.width + x] = resized[(y + top) * size.width + x + left];
  return cut;
}

function sizeToCrop({ width, height }, how) {
  const [first, second] = how.resize ?? [];
  if (second) return { width: second, height: first };
  if (first && width <= height) return { width: first, height: Math.trunc((first * height) / width) };
  if (first) return { width: Math.trunc((first * width) / height), height: first };
  return how.crop === "center" ? { width, height } : how;
}

/** Where a centred crop begins; halves go to the even number, as Python rounds. */
function margin(extent, wanted) {
  if (extent < wanted) return -Math.floor((wanted - extent) / 2);
  const half = (extent - wanted) / 2;
  return Number.isInteger(half) ? half : 2 * Math.round(half / 2);
}

function resize(plane, from, to, interpolation) {
  const weights = interpolation === "nearest" ? nearest : (old, now) => filtered(old, now, FILTERS[interpolation]);
  const across = passed(plane, weights(from.width, to.width), from.height, from.width, 1, to.width, 1);
  return passed(across, weights(from.height, to.height), to.width, 1, to.width, 1, to.width);
}

/** For each new position: the first old position, and the weights from there on. */
function filtered(from, to, { reach, weight }) {
  const scale = from / to;
  const stretch = Math.max(scale, 1);
  return Array.from({ length: to }, (_, position) => {
    const center = (position + 0.5) * scale;
    const first = Math.max(0, Math.trunc(center - reach * stretch + 0.5));
    const last = Math.min(from, Math.trunc(center + reach * stretch + 0.5));
    const taps = Array.from({ length: last - first }, (_, tap) => weight((tap + first - center + 0.5) / stretch));
    const total = taps.reduce((sum, tap) => sum + tap, 0);
    return { first, taps: taps.map((tap) => fixed(tap / total)) };
  });
}

/** Pillow adds the step up, position by position, and so decides where halves go. */
function nearest(from, to) {
  let place = (from / to) * 0.5;
  return Array.from({ length: to }, () => {
    const first = Math.floor(place);
    place += from / to;
    return { first, taps: [PRECISION] };
  });
}

function fixed(share) {
  return Math.trunc(share * PRECISION + (share < 0 ? -0.5 : 0.5));
}

/** Weigh along one axis; `lines` lines stand `line` apart in the input and `newLine` in the output. */
function passed(plane, positions, lines, line, step, newLine, newStep) {
  const result = new Uint8ClampedArray(lines * positions.length);
  for (let index = 0; index < lines; index++)
    positions.forEach(({ first, taps }, position) => {
      let sum = PRECISION / 2;
      taps.forEach((weight, tap) => (sum += weight * plane[index * line + (first + tap) * step]));
      result[index * newLine + position * newStep] = Math.floor(sum / PRECISION);
    });
  return result;
}
