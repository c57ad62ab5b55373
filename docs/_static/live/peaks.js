// One bell for two peaks: what each divergence makes of it. kdlab/show/peaks.py, in the browser.
function kdlabPeaks() {
  "use strict";
  const X = Float64Array.from({ length: 121 }, (_, i) => -6 + i / 10);
  const MARKS = [0, 5, 10, 20, 40, 80, 160]; // steps after which the student is shown
  const LR = 0.1, BETA1 = 0.9, BETA2 = 0.999, EPSILON = 1e-8; // Adam's, torch's own
  const pairs = (middles, widths) => middles.flatMap((m) => widths.map((w) => [m, w]));
  const STARTS = {
    "best of ten": pairs([-4, -2, 0, 2, 4], [0.5, 3]),
    "broad, in the middle": [[0, 3]],
    "narrow, on the left": [[-3, 0.5]],
    "narrow, on the right": [[3, 0.5]],
  };
  const sum = (values) => values.reduce((total, v) => total + v, 0);
  const both = (a, b) => Math.max(a, b) + Math.log1p(Math.exp(-Math.abs(a - b))); // log(eᵃ + eᵇ)
  const mixed = (a, b, share) =>
    a.map((v, i) => both(v + Math.log(share), b[i] + Math.log1p(-share)));
  const kl = (p, q) => sum(p.map((v, i) => Math.exp(v) * (v - q[i]))); // of logs

  function logSoftmax(z) {
    const top = Math.max(...z), rest = Math.log(sum(z.map((v) => Math.exp(v - top))));
    return z.map((v) => v - top - rest);
  }

  // Log-probabilities of two bells over X.
  function teacher(distance, share) {
    return logSoftmax(X.map((x) => both(
      Math.log(share) - (x + distance / 2) ** 2 / 0.6,
      Math.log(1 - share) - (x - distance / 2) ** 2 / 0.6)));
  }

  const bell = (middle, width) => logSoftmax(X.map((x) => -((x - middle) ** 2) / (2 * width ** 2)));

  // Each of the logs of teacher and student, p and q: [loss, its slope by student's shares].
  const DIVERGENCES = {
    "forward KL": () => (p, q) => [kl(p, q), p.map((v, i) => -Math.exp(v - q[i]))],
    "reverse KL": () => (p, q) => [kl(q, p), q.map((v, i) => v - p[i])],
    JSD: (beta) => (p, q) => {
      const m = mixed(p, q, beta);
      return [beta * kl(p, m) + (1 - beta) * kl(q, m), q.map((v, i) => (1 - beta) * (v - m[i]))];
    },
    "skewed KL": (skew) => (p, q) => {
      const m = mixed(p, q, skew);
      return [kl(p, m), p.map((v, i) => -(1 - skew) * Math.exp(v - m[i]))];
    },
  };

  // The slopes by middle and by the logarithm of the width: through the softmax, then the bell.
  function slopes(q, byQ, middle, width) {
    const shares = q.map(Math.exp), mean = sum(shares.map((v, i) => v * byQ[i]));
    let byMiddle = 0, byWidth = 0;
    shares.forEach((v, i) => {
      const byLogit = v * (byQ[i] - mean), away = (X[i] - middle) / width;
      byMiddle += (byLogit * away) / width;
      byWidth += byLogit * away * away;
    });
    return [byMiddle, byWidth];
  }

  // One student from one start: {loss at the end, found: {step: [middle, width]}}.
  function fitted(p, divergence, [first, wide]) {
    const at = [first, Math.log(wide)], m = [0, 0], v = [0, 0], found = {};
    let loss;
    for (let step = 0; step <= MARKS.at(-1); step++) {
      const width = Math.exp(at[1]), q = bell(at[0], width);
      const [now, byQ] = divergence(p, q), g = slopes(q, byQ, at[0], width);
      loss = now;
      if (MARKS.includes(step)) found[step] = [at[0], width];
      for (const i of [0, 1]) {
        m[i] += (1 - BETA1) * (g[i] - m[i]);
        v[i] += (1 - BETA2) * (g[i] ** 2 - v[i]);
        const mean = m[i] / (1 - BETA1 ** (step + 1)), square = v[i] / (1 - BETA2 ** (step + 1));
        at[i] -= (LR * mean) / (Math.sqrt(square) + EPSILON);
      }
    }
    return { loss, found };
  }

  // The student that ends best of those from a start's places.
  function fit(p, kind, weight, start) {
    const students = STARTS[start].map((place) => fitted(p, DIVERGENCES[kind](weight), place));
    return students.reduce((best, one) => (one.loss < best.loss ? one : best)).found;
  }

  return { X, MARKS, STARTS, teacher, bell, fit };
}
