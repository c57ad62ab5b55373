// The page temperature.html: what a temperature makes of an answer, the same as demo 1.
(function () {
  "use strict";
  const charts = kdlabCharts(),
    { node, sheet, line, text } = charts;
  const at = (name) => document.getElementById(`kdlab-${name}`);
  const EACH = 4; // images of a class
  const LEAST = 1e-6; // of the logarithmic axis

  const random = kdlabRandom(),
    network = kdlabNetwork(random, kdlabKernels());
  const experiment = kdlabExperiment(random, network),
    data = experiment.unpacked(kdlabData);
  const images = answered();

  const { logSoftmax, entropy, losses } = kdlabSoftmax();
  const doubts = images.map(({ z }) => entropy(logSoftmax(z, 4)));
  const controls = kdlabControls(
    at("handles"),
    [
      kdlabListed("slider", "T", "Temperature T", [0.5, 1, 1.5, 2, 3, 4, 6, 8, 12, 20], 4),
      kdlabListed(
        "slider",
        "image",
        "Image",
        [...images.keys()],
        doubts.indexOf(Math.max(...doubts)),
        images.map(({ label }, i) => `${label}, number ${(i % EACH) + 1}`),
      ),
      kdlabListed("choice", "source", "Logits from", ["an image", "typed logits"], "an image"),
      kdlabListed("choice", "scale", "Axis", ["linear", "logarithmic"], "linear"),
      { kind: "entry", name: "typed", label: "Teacher's logits", start: "4, 2, 1, -1, -2" },
      { kind: "entry", name: "typedStudent", label: "Student's logits", start: "2, 2, 0, 0, -1" },
    ],
    changed,
  );

  // Validation images, four of each class, with the answers of the first split's teacher, and of a
  // student that was trained just now on 100 labels.
  function answered() {
    const [split] = experiment.taught(data, data.splits.slice(0, 1));
    const settings = { perClass: 10, noise: 0, T: 4, alpha: 0, steps: 240 };
    const [pair] = experiment.pairs(data, [split], settings);
    experiment.advance(pair, pair.epochs);
    const student = network.logits(pair.arms[0].student, pair.seen),
      found = [];
    const teacher = network.answers(split.teacher, data.pixels, split.validation);
    for (let c = 0; c < network.CLASSES; c++)
      pair.truth
        .flatMap((label, i) => (label === c ? [i] : []))
        .slice(0, EACH)
        .forEach((i) =>
          found.push({
            row: split.validation[i],
            label: c,
            z: [...teacher.slice(i * 10, i * 10 + 10)],
            s: [...student.slice(i * 10, i * 10 + 10)],
          }),
        );
    return found;
  }

  // The numbers of a typed line, or an error that says what is wrong with it.
  function readLogits(name, said) {
    const found = said
      .replace(/[,;]/g, " ")
      .replace(/−/g, "-")
      .split(" ")
      .filter(Boolean)
      .map(Number);
    if (!found.every(Number.isFinite))
      throw new Error(`${name}: “${said}” must be numbers between commas, as in 3, 1, 0`);
    if (found.length < 2 || found.length > 20 || found.some((z) => Math.abs(z) > 1e4))
      throw new Error(`${name}: “${said}” must be 2 to 20 numbers within ±10,000, one a class`);
    return found;
  }

  // {z, s: logits of teacher and student; label; names of the classes; the image's row, if any}
  function shown({ source, image, typed, typedStudent }) {
    if (source === "an image") return { ...images[image], names: [..."0123456789"] };
    const z = readLogits("Teacher's logits", typed),
      s = readLogits("Student's logits", typedStudent);
    if (z.length !== s.length)
      throw new Error(
        `Teacher and student must have one class each, not ${z.length} and ${s.length}`,
      );
    return { z, s, label: 0, names: z.map((_, c) => String.fromCharCode(97 + c)) };
  }

  function changed() {
    controls.toAddress();
    draw();
  }

  function draw() {
    const settings = controls.read(),
      typed = settings.source !== "an image";
    for (const name of ["typed", "typedStudent"]) controls.show(name, typed);
    controls.show("image", !typed);
    let found;
    try {
      found = shown(settings);
      at("error").textContent = "";
    } catch (error) {
      at("error").textContent = `Not drawn: ${error.message}.`;
      return;
    }
    const { T, scale } = settings,
      { z, s, label, names, row } = found;
    const logs = [logSoftmax(z, T), logSoftmax(s, T), logSoftmax(s, 1)];
    const titles = [`teacher at T = ${T}`, `student at T = ${T}`, "student at T = 1"];
    logs.forEach((log, i) =>
      panel(
        at(`panel-${i}`),
        titles[i],
        log,
        names,
        scale,
        i ? charts.BLUE : charts.GREEN,
        i === 2 ? label : -1,
      ),
    );
    at("picture").replaceChildren();
    if (row !== undefined) {
      const svg = node("svg", {
        width: 72,
        height: 72,
        role: "img",
        "aria-label": `A handwritten ${label}`,
      });
      svg.append(charts.image(data.pixels, row, 1, 1, 70));
      at("picture").append(svg, `label: ${label}`);
    }
    say(settings, found, logs);
  }

  // One softmax as bars; `outlined`: the label's class, whose own bar would be full.
  function panel(place, title, log, names, scale, colour, outlined) {
    const share = (name, c) => `${name} ${(100 * Math.exp(log[c])).toFixed(1)} %`;
    const words = `${title}: ${names.map(share).join(", ")}`;
    const { svg, width, height } = sheet(place, 236, words, 200);
    const frame = { x: 36, y: 52, width: width - 40, height: height - 76 };
    const logarithmic = scale === "logarithmic",
      high = (p) =>
        logarithmic ? Math.max(0, 1 - Math.log(Math.max(p, LEAST)) / Math.log(LEAST)) : p;
    svg.append(
      text(0, 16, title, colour, { "font-size": 15, "font-weight": 700 }),
      text(0, 36, `entropy ${entropy(log).toFixed(2)} nats`),
    );
    for (const p of logarithmic ? [1e-6, 1e-4, 1e-2, 1] : [0, 0.5, 1]) {
      const y = frame.y + frame.height * (1 - high(p)),
        digits = logarithmic ? p.toExponential(0).replace("e-", "e−").replace("e+0", "") : p;
      svg.append(
        line(frame.x, y, frame.x + frame.width, y, charts.HAIR),
        text(frame.x - 6, y + 4, String(digits), charts.MUTED, {
          "text-anchor": "end",
          "font-size": 12,
        }),
      );
    }
    svg.append(
      ...charts.bars(
        [...log].map((v) => high(Math.exp(v))),
        frame,
        () => colour,
        outlined,
        names,
      ),
    );
  }

  function say({ T }, { z, s, label, names }, logs) {
    const { soft, hard } = losses(z, s, label, T),
      share = [...logs[0]].map(Math.exp);
    const order = [...names.keys()].sort((a, b) => share[b] - share[a]).slice(0, 4);
    const likely = order.map((c) => `${names[c]} ${(100 * share[c]).toFixed(2)} %`).join(", ");
    const both = (one, at) =>
      `entropy ${entropy(one).toFixed(3)} nats at T = 1, ${entropy(at).toFixed(3)} at T = ${T}`;
    controls.say(at("result"), [
      `Soft loss: KL = ${soft.toFixed(4)} nats, times T² = ${(soft * T * T).toFixed(4)}. ` +
        `Hard loss: cross-entropy = ${hard.toFixed(4)} nats.`,
      `Teacher at T = ${T}: ${likely}.`,
      `Teacher: ${both(logSoftmax(z, 1), logs[0])} (uniform: ${Math.log(z.length).toFixed(3)}).`,
      `Student: ${both(logs[2], logs[1])}.`,
    ]);
  }

  draw();
  new ResizeObserver(draw).observe(at("view"));
})();
