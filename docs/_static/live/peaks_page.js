// The page peaks.html: handles, and one student for each divergence.
(function () {
  "use strict";
  const charts = kdlabCharts(),
    { node, sheet, line, text, path } = charts;
  const { X, MARKS, STARTS, teacher, bell, fit } = kdlabPeaks();
  const at = (name) => document.getElementById(`kdlab-${name}`);
  const percent = (share) => `${Math.round(100 * share)} %`;
  const shares = [0.3, 0.35, 0.4, 0.45, 0.5, 0.55, 0.6, 0.65, 0.7];
  const controls = kdlabControls(
    at("handles"),
    [
      kdlabListed(
        "slider",
        "distance",
        "Distance of the peaks",
        [1, 1.5, 2, 2.5, 3, 4, 5, 6, 7],
        5,
      ),
      kdlabListed("slider", "share", "Left peak's share", shares, 0.4, shares.map(percent)),
      kdlabListed(
        "slider",
        "beta",
        "β of the JSD",
        [0.01, 0.05, 0.1, 0.25, 0.5, 0.75, 0.9, 0.95, 0.99],
        0.5,
      ),
      kdlabListed("slider", "skew", "Skew", [0.01, 0.05, 0.1, 0.25, 0.5, 0.75, 0.9], 0.1),
      kdlabListed("choice", "start", "Student starts", Object.keys(STARTS), "best of ten"),
      kdlabListed("slider", "steps", "Steps", MARKS, MARKS.at(-1)),
    ],
    changed,
  );
  const kept = new Map();

  // A student whose handles did not move is as it was.
  function fitted(p, kind, weight, { distance, share, start }) {
    const key = [kind, weight, distance, share, start].join();
    if (!kept.has(key)) kept.set(key, fit(p, kind, weight, start));
    return kept.get(key);
  }

  function changed() {
    controls.toAddress();
    draw();
  }

  function draw() {
    const settings = controls.read(),
      { beta, skew, steps } = settings;
    const p = teacher(settings.distance, settings.share);
    const kinds = [
      ["forward KL", null, "forward KL"],
      ["reverse KL", null, "reverse KL"],
      ["JSD", beta, `JSD, β = ${beta}`],
      ["skewed KL", skew, `skewed KL, ${skew}`],
    ];
    const found = kinds.map(([kind, weight, name]) => {
      const [middle, width] = fitted(p, kind, weight, settings)[steps];
      return { name, middle, width, q: bell(middle, width).map(Math.exp) };
    });
    const said = p.map(Math.exp),
      most = Math.max(...said);
    const top = Math.max(most, ...found.flatMap(({ q }) => [...q]));
    const share = (q, counts) => q.reduce((sum, v, k) => sum + (counts(k) ? v : 0), 0);
    const lines = found.map((student, i) => {
      const left = percent(share(student.q, (k) => X[k] < 0));
      const hardly = percent(share(student.q, (k) => said[k] < 0.1 * most));
      panel(at(`panel-${i}`), student, said, top, left, hardly);
      const middle = charts.plain(student.middle),
        width = student.width.toFixed(1);
      return (
        `${student.name}: middle ${middle}, width ${width}; ${left} in the left half, ` +
        `${hardly} on words that the teacher hardly says.`
      );
    });
    at("result").replaceChildren(...lines.map((line) => controls.make("p", {}, line)));
  }

  function panel(place, { name, q }, said, top, left, hardly) {
    const { svg, width, height } = sheet(
      place,
      236,
      `${name}: ${left} of the student in the left half.`,
      130,
    );
    const base = height - 50,
      x = (i) => (i / (X.length - 1)) * width;
    const curve = (values) => [...values].map((v, i) => [x(i), base - (v / top) * (base - 34)]);
    svg.append(
      text(0, 16, name, charts.INK, { "font-size": 15, "font-weight": 700 }),
      node("path", {
        d: `${path([[0, base], ...curve(said), [width, base]])}Z`,
        fill: charts.GREEN,
        opacity: 0.3,
      }),
      node("path", { d: path(curve(q)), fill: "none", stroke: charts.BLUE, "stroke-width": 3 }),
      line(0, base, width, base, charts.MUTED, 1.5),
      text(0, height - 28, `left half: ${left}`, charts.INK),
      text(0, height - 8, `hardly said: ${hardly}`, charts.INK),
    );
  }

  draw();
  new ResizeObserver(draw).observe(at("view"));
})();
