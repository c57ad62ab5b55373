// The page train.html: handles, two learning curves and their difference, a row of digits.
(function () {
  "use strict";
  const charts = kdlabCharts(),
    { estimate, verdict } = kdlabEstimate(kdlabData.t, kdlabData.delta);
  const { node, sheet, line, text, path, signed, apart } = charts;
  const LABELS = 0,
    TAUGHT = 1; // the arms, in the workers' order
  const SHOWN = [4, 7, 2, 3, 8, 9],
    TYPICAL = 2; // classes: the first two typical, the others doubtful
  const at = (name) => document.getElementById(`kdlab-${name}`);
  const HALO = { stroke: "#fff", "stroke-width": 4, "paint-order": "stroke" }; // letters over lines
  const TALL = 244; // pixels of the two pictures
  const percent = (x) => `${Math.round(100 * x)} %`;
  const found = { marks: [] };

  const random = kdlabRandom(),
    kernels = kdlabKernels(),
    network = kdlabNetwork(random, kernels);
  const experiment = kdlabExperiment(random, network),
    data = experiment.unpacked(kdlabData);
  const quick = kernels.name === "WebAssembly"; // else some ten times slower

  const { perClass } = kdlabData,
    count = kdlabData.splits.length;
  const tenths = Array.from({ length: 11 }, (_, i) => i / 10);
  const controls = kdlabControls(
    at("handles"),
    [
      kdlabListed("slider", "T", "Temperature T", [1, 2, 4, 8, 16], 4),
      kdlabListed("slider", "alpha", "Teacher's α", tenths, 0.9),
      kdlabListed(
        "slider",
        "noise",
        "Wrong labels",
        tenths.slice(0, 7),
        0,
        tenths.slice(0, 7).map(percent),
      ),
      kdlabListed(
        "slider",
        "perClass",
        "Labels a digit",
        perClass,
        10,
        perClass.map((n) => n ?? "all, about 100"),
      ),
      kdlabListed("slider", "steps", "Training steps", [60, 120, 240, 480, 960], quick ? 240 : 120),
    ],
    changed,
  );

  const digits = chosen();
  let ask = null;

  // --- the students ---

  function changed() {
    controls.toAddress();
    drawDigits();
    begin();
  }

  function begin() {
    if (!ask) return;
    found.marks = [];
    found.settings = controls.read();
    at("error").textContent = "";
    at("view").classList.add("kdlab-old"); // pale until there is something of the new setting
    at("result").classList.add("kdlab-old");
    at("status").textContent = `training ${2 * count} students …`;
    ask(found.settings);
  }

  // A worker says how the two students of a split do; what all splits have reached is drawn.
  function heard(said) {
    if (said.error) return fail(`Nothing was trained: ${said.error}.`);
    if (!said.accuracies.every(Number.isFinite))
      return fail(`A student of split ${said.seed} diverged: its answers are no numbers.`);
    const mark = (found.marks[said.mark] ??= { steps: said.steps, splits: new Map() });
    mark.splits.set(said.seed, said.accuracies);
    if (mark.splits.size < count) return;
    found.total = said.total;
    draw();
    const done = said.mark === said.marks - 1;
    at("status").textContent = done ? "" : `step ${said.steps} of ${said.total} …`;
    if (done) say();
  }

  function fail(words) {
    at("error").textContent = words;
    at("status").textContent = "";
  }

  // {steps, labels, taught, gain}: estimates at each point that all splits have reached.
  function points() {
    return found.marks
      .filter((mark) => mark.splits.size === count)
      .map(({ steps, splits }) => {
        const values = [...splits.entries()].sort(([a], [b]) => a - b).map(([, v]) => v);
        const gains = values.map((v) => v[TAUGHT] - v[LABELS]);
        return {
          steps,
          gains,
          gain: estimate(gains),
          labels: estimate(values.map((v) => v[LABELS])),
          taught: estimate(values.map((v) => v[TAUGHT])),
        };
      });
  }

  const ceiling = estimate(kdlabData.splits.map((split) => split.accuracy));
  const within = ({ mean, half }) => `${mean.toFixed(1)} ± ${half.toFixed(1)}`;

  function say() {
    const { labels, taught, gain, steps } = points().at(-1);
    const size = `${signed(gain.mean)} ± ${gain.half.toFixed(1)} points of accuracy`;
    at("result").classList.remove("kdlab-old");
    controls.say(at("result"), [
      `Taught − labels alone: ${size}: ${verdict(gain)}.`,
      `After ${steps} steps: labels alone ${within(labels)} %, taught ${within(taught)} %, ` +
        `the teacher ${within(ceiling)} %.`,
    ]);
  }

  // --- the pictures ---

  function draw() {
    const known = points();
    if (!known.length) return;
    at("view").classList.remove("kdlab-old");
    drawCurves(known);
    drawGain(known.at(-1));
  }

  const ARMS = [
    ["labels", "labels alone", charts.ORANGE, { "stroke-dasharray": "9 4" }],
    ["taught", "taught", charts.BLUE, {}],
  ];
  const MIDDLE = { "text-anchor": "middle" };

  // Both arms' accuracy over steps, with bands, below the teacher's.
  function drawCurves(known) {
    const ends = known.at(-1),
      first = known[0].steps;
    const alt =
      `Accuracy over ${ends.steps} steps: labels alone ends at ${within(ends.labels)} %, ` +
      `taught at ${within(ends.taught)} %, below the teacher's ${within(ceiling)} %.`;
    const { svg, width, height } = sheet(at("curves"), TALL, alt);
    const frame = { left: 34, top: 30, right: width - 140, bottom: height - 42 };
    const lowest = Math.min(90, ...known.flatMap((p) => [p.labels.mean, p.taught.mean]));
    const low = Math.floor(lowest / 10) * 10,
      wide = frame.right - frame.left - 12;
    const y = (v) => frame.bottom - ((v - low) / (100 - low)) * (frame.bottom - frame.top);
    const far = (steps) => Math.log(steps / first) / Math.log(found.total / first || 2);
    const x = (steps) => frame.left + 6 + far(steps) * wide;
    svg.append(text(0, 14, "validation digits read right (%)"));
    axes(svg, frame, known, low, x, y);
    const roof = y(ceiling.mean),
      dashed = { "stroke-dasharray": "7 4" };
    svg.append(line(frame.left, roof, frame.right, roof, charts.GREEN, 2, dashed));
    for (const arm of ARMS) curve(svg, known, arm, x, y);
    name(svg, frame, ends, y);
  }

  function axes(svg, frame, known, low, x, y) {
    for (let v = low; v <= 100; v += low < 60 ? 20 : 10)
      svg.append(
        line(frame.left, y(v), frame.right, y(v), charts.HAIR),
        text(frame.left - 6, y(v) + 4, String(v), charts.MUTED, { "text-anchor": "end" }),
      );
    let free = Infinity; // from the last one back, as many numbers as there is room for
    for (const { steps } of [...known].reverse()) {
      if (x(steps) > free) continue;
      svg.append(text(x(steps), frame.bottom + 18, String(steps), charts.MUTED, MIDDLE));
      free = x(steps) - 30;
    }
    const middle = (frame.left + frame.right) / 2;
    svg.append(text(middle, frame.bottom + 36, "training steps (log scale)", charts.MUTED, MIDDLE));
  }

  function curve(svg, known, [arm, , colour, look], x, y) {
    const mean = known.map((p) => [x(p.steps), y(p[arm].mean)]);
    const upper = known.map((p) => [x(p.steps), y(Math.min(100, p[arm].mean + p[arm].half))]);
    const lower = known.map((p) => [x(p.steps), y(p[arm].mean - p[arm].half)]).reverse();
    const stroke = { fill: "none", stroke: colour, "stroke-width": 3, ...look };
    svg.append(
      node("path", { d: `${path([...upper, ...lower])}Z`, fill: colour, opacity: 0.18 }),
      node("path", { d: path(mean), ...stroke }),
      ...mean.map(([cx, cy]) => node("circle", { cx, cy, r: 4, fill: colour })),
    );
  }

  // Who is who, at the curves' ends.
  function name(svg, frame, ends, y) {
    const names = [
      ...ARMS.map(([arm, words, colour]) => [words, ends[arm].mean, colour]),
      ["the teacher", ceiling.mean, charts.GREEN],
    ];
    const heights = apart(names.map(([, value]) => y(value)));
    names.forEach(([words, value, colour], i) => {
      const said = `${words} ${value.toFixed(1)}`,
        look = { "font-weight": 600 };
      svg.append(text(frame.right + 8, heights[i] + 5, said, colour, look));
    });
  }

  // The difference: its verdict, a dot for each split, and the mean with its interval.
  function drawGain({ gains, gain, steps }) {
    const told = verdict(gain),
      size = `${signed(gain.mean)} ± ${gain.half.toFixed(1)} points`;
    const alt = `Taught minus labels alone: ${size}, ${told}.`;
    const { svg, width, height } = sheet(at("gain"), TALL, alt);
    const colour =
      { helps: charts.BLUE, hurts: charts.VERMILLION }[told.split(" ")[0]] || charts.GREY;
    const reach = 1.08 * Math.max(2, Math.abs(gain.mean) + gain.half, ...gains.map(Math.abs));
    const x = (v) => width / 2 + (v / reach) * (width / 2 - 16);
    const frame = { top: 92, bottom: height - 42, middle: width / 2 };
    svg.append(
      text(0, 14, `taught − labels alone, step ${steps}`),
      text(0, 50, told, colour, { "font-size": 26, "font-weight": 700 }),
      text(0, 76, size, charts.INK, { "font-size": 16, "font-weight": 600 }),
    );
    zero(svg, frame, x, reach);
    gains.forEach((v) => {
      const dot = { cx: x(v), cy: frame.top + 36, r: 6, fill: colour, opacity: 0.45 };
      svg.append(node("circle", dot));
    });
    const y = frame.top + 96,
      look = { r: 6, fill: colour, stroke: "#fff", "stroke-width": 2 };
    svg.append(
      text(2, frame.top + 16, `each of ${count} splits`, charts.MUTED, HALO),
      text(2, frame.top + 76, "mean, 95 % interval", charts.MUTED, HALO),
      line(x(gain.mean - gain.half), y, x(gain.mean + gain.half), y, colour, 6),
      node("circle", { cx: x(gain.mean), cy: y, ...look }),
    );
  }

  // The axis of the difference: 0, what is too small to care about, and numbers.
  function zero(svg, { top, bottom, middle }, x, reach) {
    const { delta } = kdlabData,
      wide = x(delta) - x(-delta);
    const small = { x: x(-delta), y: top, width: wide, height: bottom - top, opacity: 0.6 };
    svg.append(
      node("rect", { fill: charts.PALE, ...small }),
      line(x(0), top, x(0), bottom, charts.INK, 1.5),
    );
    const unit = reach > 25 ? 20 : reach > 12 ? 10 : reach > 5 ? 5 : reach > 2.5 ? 2 : 1;
    for (let v = -Math.floor(reach / unit) * unit; v <= reach; v += unit)
      svg.append(text(x(v), bottom + 18, v ? signed(v, 0) : "0", charts.MUTED, MIDDLE));
    const words = `points (grey: ±${delta}, too small to care about)`;
    svg.append(text(middle, bottom + 36, words, charts.MUTED, { ...MIDDLE, "font-size": 12 }));
  }

  // Validation images that the first split's teacher reads right: two typical, four in doubt.
  function chosen() {
    const [split] = data.splits,
      rows = [...split.validation];
    const logits = network.answers(split.teacher, data.pixels, split.validation),
      soft = new Float64Array(10);
    const seen = rows.map((row, i) => {
      network.softmax(logits, i * 10, 4, soft);
      const best = soft.indexOf(Math.max(...soft)),
        label = data.labels[row];
      const doubt = -soft.reduce((sum, p) => sum + p * Math.log(p), 0);
      return {
        row,
        label,
        doubt,
        right: best === label,
        logits: logits.slice(i * 10, i * 10 + 10),
      };
    });
    return SHOWN.map((c, place) => {
      const own = seen.filter((s) => s.right && s.label === c).sort((a, b) => a.doubt - b.doubt);
      return own[place < TYPICAL ? Math.floor(own.length / 2) : own.length - 1];
    });
  }

  function drawDigits() {
    const { T } = controls.read(),
      soft = new Float64Array(10);
    at("digits-title").textContent = `What the teacher says at T = ${T}`;
    at("digits").replaceChildren(
      ...digits.map(({ row, label, logits }) => {
        network.softmax(logits, 0, T, soft);
        const order = [...soft.keys()].sort((a, b) => soft[b] - soft[a]).slice(0, 2);
        const words = order.map((c) => `${c}: ${(100 * soft[c]).toFixed(0)} %`).join(", ");
        const place = controls.make("div", {});
        const svg = node("svg", {
          viewBox: "0 0 150 128",
          role: "img",
          "aria-label": `A ${label}; the teacher says ${words}.`,
        });
        const colours = (c) =>
          c === label
            ? charts.GREEN
            : c === order.find((k) => k !== label)
              ? charts.ORANGE
              : charts.GREY;
        svg.append(
          charts.image(data.pixels, row, 53, 2, 44),
          ...charts.bars(
            soft,
            { x: 2, y: 56, width: 146, height: 56 },
            colours,
            label,
            "0123456789",
          ),
        );
        place.append(svg);
        return place;
      }),
    );
  }

  // --- begin ---

  drawDigits();
  try {
    ask = kdlabCrew(kdlabData, heard);
    begin();
  } catch (error) {
    const cause = `This browser can't train in the background (${error.message}).`;
    fail(`${cause} Lesson 00 shows the same as it was run.`);
  }
  new ResizeObserver(draw).observe(at("view"));
})();
