// What runs in the background: a worker trains the pairs of its splits and tells how they do.
function kdlabWorker() {
  "use strict";
  const random = kdlabRandom(),
    network = kdlabNetwork(random, kdlabKernels());
  const experiment = kdlabExperiment(random, network);
  const turns = new MessageChannel();
  let data, wanted;

  // Lets a message in that came meanwhile: a setting that nobody waits for any more is left.
  const pause = () =>
    new Promise((done) => {
      turns.port1.onmessage = done;
      turns.port2.postMessage(null);
    });

  async function train(id, settings) {
    const pairs = experiment.pairs(data, data.splits, settings);
    const marks = experiment.checkpoints(pairs[0].epochs);
    for (const [mark, epoch] of marks.entries()) {
      for (const [i, pair] of pairs.entries()) {
        const accuracies = experiment.measured(experiment.advance(pair, epoch));
        const { seed } = data.splits[i],
          steps = pair.arms[0].student.t;
        postMessage({ id, mark, marks: marks.length, seed, steps, total: pair.steps, accuracies });
        await pause();
        if (wanted !== id) return;
      }
    }
  }

  onmessage = async ({ data: said }) => {
    try {
      if (said.data) {
        data = experiment.unpacked(said.data);
        data.splits = experiment.taught(data, data.splits);
      } else {
        wanted = said.id;
        await train(said.id, said.settings);
      }
    } catch (error) {
      postMessage({ error: String(error) });
    }
  };
}

// The workers of a page: `ask(settings)` has every pair trained, `heard` is called with what they
// say. They are made of the text of these functions, for a page opened as a file may load no other.
function kdlabCrew(data, heard) {
  "use strict";
  const parts = [kdlabRandom, kdlabKernels, kdlabNetwork, kdlabExperiment, kdlabWorker];
  const text = `${parts.map(String).join("\n")}\nkdlabWorker();`;
  const address = URL.createObjectURL(new Blob([text], { type: "text/javascript" }));
  const count = Math.max(1, Math.min(4, navigator.hardwareConcurrency || 2));
  let asked = 0;

  const workers = Array.from({ length: count }, (_, own) => {
    const worker = new Worker(address);
    worker.onmessage = ({ data: said }) => {
      if (said.error || said.id === asked) heard(said);
    };
    worker.onerror = (event) => heard({ error: event.message || "the worker did not start" });
    worker.postMessage({
      data: { ...data, splits: data.splits.filter((_, i) => i % count === own) },
    });
    return worker;
  });

  return function ask(settings) {
    asked += 1;
    for (const worker of workers) worker.postMessage({ id: asked, settings });
  };
}
