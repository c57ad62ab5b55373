// The experiment of lesson 00 over again: splits, their labels and teachers, and pairs of students.
function kdlabExperiment(random, network) {
  "use strict";
  const { generator, permutation } = random;
  const { CLASSES, BATCH, begin, student, images, answers } = network;
  const { softmax, gather, step, accuracy } = network;
  const LR = 1e-2, SEED = 0; // of kd.train and kd.distill, where nothing else is said

  function bytes(text) {
    return Uint8Array.from(atob(text), (letter) => letter.charCodeAt(0));
  }

  const whole = (text) => new Uint16Array(bytes(text).buffer);

  // What tools/page_data.py wrote, as arrays.
  function unpacked(data) {
    return {
      ...data,
      pixels: bytes(data.pixels),
      labels: bytes(data.labels),
      splits: data.splits.map((split) => ({
        ...split,
        train: whole(split.train),
        validation: whole(split.validation),
        teacher: split.teacher.map(layer),
      })),
    };
  }

  // A layer's numbers, kept in 16 bits of the largest one.
  function layer({ outputs, scale, numbers }) {
    const found = new Int16Array(bytes(numbers).buffer);
    return { outputs, numbers: Float32Array.from(found, (n) => n * scale) };
  }

  // kd.load(…, labels_per_class, noise).train: {kept: places in split.train, labels}.
  function labelled(data, split, perClass, noise) {
    const draw = generator(split.seed), clean = split.train.map((row) => data.labels[row]);
    let kept = clean.map((_, i) => i);
    if (perClass) {
      const chosen = new Set(), order = permutation(draw, clean.length);
      for (let c = 0; c < CLASSES; c++)
        order.filter((i) => clean[i] === c).slice(0, perClass).forEach((i) => chosen.add(i));
      kept = kept.filter((i) => chosen.has(i));
    }
    const labels = Uint8Array.from(kept, (i) => clean[i]);
    const wrong = permutation(draw, kept.length).slice(0, Math.round(noise * kept.length));
    for (const i of wrong) labels[i] = (labels[i] + 1 + (draw() % (CLASSES - 1))) % CLASSES;
    return { kept, labels };
  }

  // How many passes over so many images come nearest to this number of steps.
  function epochsOf(steps, count) {
    return Math.max(1, Math.round(steps / Math.ceil(count / BATCH)));
  }

  // Two students of a split with the same first weights and the same batches: labels alone, taught.
  // The split's `answers` are its teacher's logits for all its training images, see `taught`.
  function pair(data, split, settings) {
    const { perClass, noise, T, alpha } = settings;
    const { kept, labels } = labelled(data, split, perClass, noise);
    const p = new Float64Array(kept.length * CLASSES);
    kept.forEach((place, i) => softmax(split.answers, place * CLASSES, T, p, i * CLASSES));
    const epochs = settings.epochs ?? epochsOf(settings.steps, kept.length);
    return {
      images: images(data.pixels, kept.map((place) => split.train[place])),
      labels, p, T, epochs,
      seen: images(data.pixels, split.validation),
      truth: Array.from(split.validation, (row) => data.labels[row]),
      arms: [{ student: student(SEED), alpha: 0 }, { student: student(SEED), alpha }],
      order: generator(SEED),
      done: 0,
      steps: epochs * Math.ceil(kept.length / BATCH),
    };
  }

  // All pairs of these splits, from their first weights; the pairs before them are gone.
  function pairs(data, splits, settings) {
    begin();
    return splits.map((split) => pair(data, split, settings));
  }

  // Splits with what their teachers say of the training images, once for all settings.
  function taught(data, splits) {
    return splits.map((split) => (
      { ...split, answers: answers(split.teacher, data.pixels, split.train) }));
  }

  // Trains both students of a pair until the end of an epoch.
  function advance(pair, epoch) {
    for (; pair.done < epoch; pair.done++) {
      const order = permutation(pair.order, pair.images.count);
      for (let at = 0; at < order.length; at += BATCH) {
        const batch = order.slice(at, at + BATCH);
        gather(pair.images, batch);
        for (const { student, alpha } of pair.arms) {
          const lr = LR * (1 + Math.cos(Math.PI * student.t / pair.steps)) / 2;
          step(student, pair.labels, pair.p, batch, { T: pair.T, alpha, lr });
        }
      }
    }
    return pair;
  }

  // The validation accuracy of both, in per cent.
  function measured({ arms, seen, truth }) {
    return arms.map(({ student }) => 100 * accuracy(student, seen, truth));
  }

  // Epochs at whose end the students are measured: close together at first, when most happens.
  function checkpoints(epochs) {
    const shares = [1 / 32, 1 / 16, 1 / 8, 1 / 4, 1 / 2, 1];
    return [...new Set(shares.map((share) => Math.max(1, Math.round(share * epochs))))];
  }

  return { unpacked, taught, labelled, epochsOf, pairs, advance, measured, checkpoints };
}
