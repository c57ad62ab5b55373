// Softmax at a temperature, and the two losses of distillation, for any number of classes.
function kdlabSoftmax() {
  "use strict";

  // log softmax(z / T)
  function logSoftmax(z, T) {
    const top = Math.max(...z), scaled = z.map((v) => (v - top) / T);
    const sum = Math.log(scaled.reduce((total, v) => total + Math.exp(v), 0));
    return scaled.map((v) => v - sum);
  }

  // In nats, of log-probabilities.
  function entropy(log) {
    return -log.reduce((sum, v) => sum + Math.exp(v) * v, 0);
  }

  // KL(teacher ‖ student) at T, without T², and the cross-entropy to the label at 1.
  function losses(teacher, student, label, T) {
    const p = logSoftmax(teacher, T), q = logSoftmax(student, T);
    const soft = p.reduce((sum, v, c) => sum + Math.exp(v) * (v - q[c]), 0);
    return { soft, hard: -logSoftmax(student, 1)[label] };
  }

  return { logSoftmax, entropy, losses };
}
