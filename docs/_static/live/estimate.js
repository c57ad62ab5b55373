// A mean over splits and what it lets one say, as in kdlab/evidence/intervals.py.
function kdlabEstimate(t, delta) {
  "use strict";

  // Mean and half of the 95 % interval; t: the number of as many splits.
  function estimate(values) {
    const n = values.length,
      mean = values.reduce((sum, v) => sum + v, 0) / n;
    const spread = Math.sqrt(values.reduce((sum, v) => sum + (v - mean) ** 2, 0) / (n - 1));
    return { mean, half: (t * spread) / Math.sqrt(n) };
  }

  // One of six verdicts; delta: a difference too small to care about.
  function verdict({ mean, half }) {
    const low = mean - half,
      high = mean + half,
      inside = -delta <= low && high <= delta;
    if (low > 0 || high < 0) return (low > 0 ? "helps" : "hurts") + (inside ? " a little" : "");
    return inside ? "no difference" : "cannot tell";
  }

  return { estimate, verdict };
}
