// A row of the model's outputs, shown.

const MOST_BARS = 10;
const WHY = { 1: "looks wrong", 2: "looks unknown" }; // codes of the output `why`
const $ = (id) => document.getElementById(id);
const percent = (share) => share.toLocaleString("en", { style: "percent", minimumFractionDigits: 1 });

/** Show a row from `score`, and the classifier's own probabilities where it gives them. */
export function showVerdict(name, row, probabilities, about) {
  $("label").textContent = row.label_name;
  $("label").classList.toggle("long", row.label_name.length > 12);
  showDecision(row);
  showMeter("meter", "p", row.p_correct);
  showThreshold(about.threshold);
  $("questions").hidden = !("p_known" in row);
  showMeter("right-meter", "p_right", row.p_right);
  showMeter("known-meter", "p_known", row.p_known);
  for (const key of ["max_softmax", "entropy", "residual"]) $(key).textContent = short(row[key]);
  showBars(probabilities, row.label, about);
  $("raw").textContent = JSON.stringify({ id: name, ...row }, null, 2);
}

function showDecision(row) {
  const known = Number.isFinite(row.p_correct);
  $("decision").textContent = !known ? "no verdict" : row.accept ? "✓ accept" : "✗ reject";
  $("decision").className = !known ? "" : row.accept ? "accept" : "reject";
  $("why").textContent = WHY[row.why] ?? "";
  $("result").classList.toggle("accepted", known && row.accept);
  $("result").classList.toggle("rejected", known && !row.accept);
}

function showMeter(meter, text, p) {
  $(text).textContent = Number.isFinite(p) ? cautious(p) : "not a number";
  $(meter).style.setProperty("--share", percent(p ?? 0));
  $(meter).setAttribute("aria-valuenow", p ?? 0);
}

function showThreshold(threshold) {
  const told = typeof threshold === "number";
  $("threshold").hidden = $("threshold-note").hidden = !told;
  if (!told) return;
  $("meter").style.setProperty("--threshold", percent(threshold));
  $("threshold-note").textContent = `accepted from ${percent(threshold)} on`;
}

/** Never certainty, where there is none. */
function cautious(p) {
  if (p > 0.9995) return "> 99.9%";
  return p < 0.0005 ? "< 0.1%" : percent(p);
}

function showBars(probabilities, label, about) {
  $("classes").hidden = !probabilities;
  if (!probabilities) return;
  const all = probabilities.map((share, index) => ({ share, index, name: about.class_names?.[index] ?? `${index}` }));
  const few = all.length <= MOST_BARS + 2;
  const shown = few ? all : all.sort((one, other) => other.share - one.share).slice(0, MOST_BARS);
  $("bars").classList.toggle("wide", shown.some(({ name }) => name.length > 3));
  $("bars").replaceChildren(...shown.map((one) => bar(one, one.index === label)));
  $("more").hidden = few;
  $("more").textContent = `the ${shown.length} likeliest of ${all.length} classes`;
}

function bar({ name, share }, predicted) {
  const item = document.createElement("li");
  item.classList.toggle("predicted", predicted);
  const [title, track, line, value] = ["name", "track-of-bar", "bar", "value"].map((kind) => {
    const part = document.createElement("span");
    part.className = kind;
    return part;
  });
  title.textContent = name;
  value.textContent = Number.isFinite(share) ? percent(share) : "–";
  line.style.display = "block";
  line.style.setProperty("--share", percent(share || 0));
  track.append(line);
  item.append(title, track, value);
  return item;
}

function short(number) {
  if (number === null) return "not a number";
  return number !== 0 && Math.abs(number) < 1e-3 ? number.toExponential(2) : number.toPrecision(3);
}
