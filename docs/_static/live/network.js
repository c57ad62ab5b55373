// Students of 64-64-10 and their teacher: what they answer, a student's slope, a step.
// A layer's weights lie as (inputs + 1, outputs): the last input is always 1, and its weights are
// the biases.
function kdlabNetwork(random, kernels) {
  "use strict";
  const { generator, uniform } = random;
  const { all, wide, narrow, adam, room, WIDE, NARROW, BETA1, BETA2 } = kernels;
  const PIXELS = 64, HIDDEN = 64, CLASSES = 10, BATCH = 32; // classes lie in rows of NARROW
  const W2 = (PIXELS + 1) * HIDDEN, SIZE = W2 + (HIDDEN + 1) * NARROW; // of a student's one block
  let scratch; // of one step, shared by all students

  function begin() {
    kernels.clear();
    scratch = {
      x: room(BATCH * (PIXELS + 1)), h: room(BATCH * (HIDDEN + 1)), z: room(BATCH * NARROW),
      slope: room(BATCH * NARROW), back: room(BATCH * HIDDEN), turned: room(CLASSES * HIDDEN),
      q: new Float64Array(CLASSES),
    };
  }

  // nn.Linear's first weights after torch.manual_seed(seed); there they lie as (outputs, inputs)
  function student(seed) {
    const draw = generator(seed), w = room(SIZE);
    const fill = (inputs, outputs, step, at) => {
      const bound = 1 / Math.sqrt(inputs);
      for (let j = 0; j < outputs; j++)
        for (let i = 0; i < inputs; i++) all[at + i * step + j] = uniform(draw, bound);
      for (let j = 0; j < outputs; j++) all[at + inputs * step + j] = uniform(draw, bound);
    };
    fill(PIXELS, HIDDEN, HIDDEN, w);
    fill(HIDDEN, CLASSES, NARROW, w + W2);
    return { w, g: room(SIZE), m: room(SIZE), v: room(SIZE), t: 0 };
  }

  // A student's weights as kdlab names them and as torch lays them, (outputs, inputs).
  function weights({ w }) {
    const part = (at, inputs, outputs, step) => Array.from({ length: outputs * inputs },
      (_, k) => all[at + (k % inputs) * step + Math.floor(k / inputs)]);
    return {
      "1.weight": part(w, PIXELS, HIDDEN, HIDDEN),
      "1.bias": part(w + PIXELS * HIDDEN, 1, HIDDEN, HIDDEN),
      "3.weight": part(w + W2, HIDDEN, CLASSES, NARROW),
      "3.bias": part(w + W2 + HIDDEN * NARROW, 1, CLASSES, NARROW),
    };
  }

  // Images of the set, in [0, 1], each with its 1 behind it.
  function images(pixels, rows) {
    const at = room(rows.length * (PIXELS + 1));
    rows.forEach((row, i) => {
      const to = at + i * (PIXELS + 1);
      for (let p = 0; p < PIXELS; p++) all[to + p] = pixels[row * PIXELS + p] / 16;
      all[to + PIXELS] = 1;
    });
    return { at, count: rows.length };
  }

  // c = x w for the rows at x, or c += x w: blocks of columns, as many as there are outputs
  function times(c, cStep, x, xRow, xColumn, w, outputs, rows, inner) {
    const [block, width] = outputs === NARROW ? [narrow, NARROW] : [wide, WIDE];
    for (let j = 0; j < outputs; j += width)
      block(c + j, cStep, x, xRow, xColumn, w + j, outputs, rows, inner);
  }

  // h = relu(x w), each row with its 1 behind it
  function hidden(h, x, inputs, w, outputs, rows) {
    const step = outputs + 1, end = h + rows * step;
    all.fill(0, h, end);
    times(h, step, x, inputs + 1, 1, w, outputs, rows, inputs + 1);
    for (let k = h; k < end; k++) if (all[k] < 0) all[k] = 0;
    for (let k = h + outputs; k < end; k += step) all[k] = 1;
  }

  // z = h w for the ten classes
  function last(z, h, inputs, w, rows) {
    all.fill(0, z, z + rows * NARROW);
    times(z, NARROW, h, inputs + 1, 1, w, NARROW, rows, inputs + 1);
  }

  function forward({ w }, x, rows) {
    hidden(scratch.h, x, PIXELS, w, HIDDEN, rows);
    last(scratch.z, scratch.h, HIDDEN, w + W2, rows);
  }

  // A teacher's logits for these images, ten an image, from its two layers' numbers.
  function answers([first, second], pixels, rows) {
    begin();
    const x = images(pixels, rows).at, outputs = first.outputs;
    const w1 = room(first.numbers.length), w2 = room((outputs + 1) * NARROW);
    all.set(first.numbers, w1);
    for (let i = 0; i <= outputs; i++)
      all.set(second.numbers.subarray(i * CLASSES, (i + 1) * CLASSES), w2 + i * NARROW);
    const h = room(rows.length * (outputs + 1)), z = room(rows.length * NARROW);
    hidden(h, x, PIXELS, w1, outputs, rows.length);
    last(z, h, outputs, w2, rows.length);
    return Float64Array.from({ length: rows.length * CLASSES },
      (_, k) => all[z + Math.floor(k / CLASSES) * NARROW + (k % CLASSES)]);
  }

  // A student's logits for these images, ten an image.
  function logits(student, images) {
    const found = new Float64Array(images.count * CLASSES);
    inTurn(student, images, (i, at) => found.set(all.subarray(at, at + CLASSES), i * CLASSES));
    return found;
  }

  // Calls answered(i, where its logits lie) for each of the images.
  function inTurn(student, images, answered) {
    for (let first = 0; first < images.count; first += BATCH) {
      const rows = Math.min(BATCH, images.count - first);
      forward(student, images.at + first * (PIXELS + 1), rows);
      for (let r = 0; r < rows; r++) answered(first + r, scratch.z + r * NARROW);
    }
  }

  // softmax(z / T) of the ten numbers at `from`
  function softmax(z, from, T, into, to = 0) {
    let top = -Infinity, sum = 0;
    for (let c = 0; c < CLASSES; c++) top = Math.max(top, z[from + c]);
    for (let c = 0; c < CLASSES; c++) sum += into[to + c] = Math.exp((z[from + c] - top) / T);
    for (let c = 0; c < CLASSES; c++) into[to + c] /= sum;
  }

  // ∂/∂z [α T² KL(p_T ‖ q_T) + (1 − α) CE(y, q_1)] = α T (q_T − p_T) + (1 − α) (q_1 − 1[y]),
  // a row's share of the batch's mean. p: the teacher's answers at T; batch: row numbers in both.
  // Source: Hinton, Vinyals, Dean 2015, eq. 2; in kdlab, losses/slopes.py.
  function slopes(labels, p, batch, T, alpha) {
    const { z, slope, q } = scratch;
    const soft = (alpha * T) / batch.length, hard = (1 - alpha) / batch.length;
    all.fill(0, slope, slope + batch.length * NARROW);
    batch.forEach((row, r) => {
      const to = slope + r * NARROW;
      if (soft > 0) {
        softmax(all, z + r * NARROW, T, q);
        for (let c = 0; c < CLASSES; c++) all[to + c] += soft * (q[c] - p[row * CLASSES + c]);
      }
      if (hard > 0) {
        softmax(all, z + r * NARROW, 1, q);
        for (let c = 0; c < CLASSES; c++) all[to + c] += hard * (q[c] - (c === labels[row]));
      }
    });
  }

  // The gradient of a batch, from its slopes: each layer's is (its inputs)ᵀ (its outputs' slopes).
  function backward({ w, g }, rows) {
    const { x, h, slope, back, turned } = scratch;
    all.fill(0, g, g + SIZE);
    times(g + W2, NARROW, h, 1, HIDDEN + 1, slope, NARROW, HIDDEN + 1, rows);
    for (let c = 0; c < CLASSES; c++)
      for (let j = 0; j < HIDDEN; j++) all[turned + c * HIDDEN + j] = all[w + W2 + j * NARROW + c];
    all.fill(0, back, back + rows * HIDDEN);
    times(back, HIDDEN, slope, NARROW, 1, turned, HIDDEN, rows, CLASSES);
    for (let r = 0; r < rows; r++) // nothing flows back through a unit that rested
      for (let j = 0; j < HIDDEN; j++)
        if (all[h + r * (HIDDEN + 1) + j] === 0) all[back + r * HIDDEN + j] = 0;
    times(g, HIDDEN, x, 1, PIXELS + 1, back, HIDDEN, PIXELS + 1, rows);
  }

  // The images of a batch (row numbers, at most 32), for the steps that follow.
  function gather(images, batch) {
    batch.forEach((row, r) => {
      const from = images.at + row * (PIXELS + 1);
      all.copyWithin(scratch.x + r * (PIXELS + 1), from, from + PIXELS + 1);
    });
  }

  // One step on what was gathered.
  function step(student, labels, p, batch, { T, alpha, lr }) {
    forward(student, scratch.x, batch.length);
    slopes(labels, p, batch, T, alpha);
    backward(student, batch.length);
    const t = ++student.t;
    const rate = lr / (1 - BETA1 ** t), root = 1 / Math.sqrt(1 - BETA2 ** t);
    adam(student.w, student.g, student.m, student.v, SIZE, rate, root);
  }

  // The share of images that a student reads right, NaN where its answers are no numbers.
  function accuracy(student, images, labels) {
    let right = 0;
    inTurn(student, images, (i, at) => {
      let best = 0;
      for (let c = 0; c < CLASSES; c++) {
        if (!Number.isFinite(all[at + c])) right = NaN;
        if (all[at + c] > all[at + best]) best = c;
      }
      right += best === labels[i];
    });
    return right / images.count;
  }

  return {
    PIXELS, CLASSES, BATCH,
    begin, student, weights, images, answers, logits, softmax, gather, step, accuracy,
  };
}
