// The two loops that a training spends its time in, over one memory of 32-bit numbers:
//   product: C += A B, a block of C's columns at a time; numbers of A that are 0 are passed over
//   adam: a step of the optimiser
// in WebAssembly where the browser has it, four numbers at a time, else in JavaScript.
function kdlabKernels(wanted) {
  "use strict";
  const MEGABYTES = 32, PAGE = 65536;
  const WIDE = 32, NARROW = 12; // columns of C at a time: half of the hidden units, or all classes
  const BETA1 = 0.9, BETA2 = 0.999, EPSILON = 1e-8; // torch's own

  // --- in JavaScript ---

  // Row r of C lies at c + r · cStep; number (r, k) of A at a + r · aRow + k · aColumn. Four sums
  // at a time are kept out of the memory, which is what takes longest.
  function product(all, width) {
    return (c, cStep, a, aRow, aColumn, b, bStep, rows, inner) => {
      for (let r = 0; r < rows; r++, c += cStep, a += aRow) {
        for (let j = 0; j < width; j += 4) {
          let s0 = all[c + j], s1 = all[c + j + 1], s2 = all[c + j + 2], s3 = all[c + j + 3];
          for (let k = 0, at = a, from = b + j; k < inner; k++, at += aColumn, from += bStep) {
            const x = all[at];
            if (x === 0) continue;
            s0 += x * all[from];
            s1 += x * all[from + 1];
            s2 += x * all[from + 2];
            s3 += x * all[from + 3];
          }
          all[c + j] = s0;
          all[c + j + 1] = s1;
          all[c + j + 2] = s2;
          all[c + j + 3] = s3;
        }
      }
    };
  }

  // torch.optim.Adam on `count` weights, with slopes g and means m, v.
  // Source: Kingma and Ba 2015, algorithm 1.
  function adam(all) {
    return (w, g, m, v, count, rate, root) => {
      for (let k = 0; k < count; k++) {
        const slope = all[g + k];
        all[m + k] += (1 - BETA1) * (slope - all[m + k]);
        all[v + k] = BETA2 * all[v + k] + (1 - BETA2) * slope * slope;
        all[w + k] -= (rate * all[m + k]) / (Math.sqrt(all[v + k]) * root + EPSILON);
      }
    };
  }

  // --- in WebAssembly: its instructions by their names, put together here ---

  const I32 = 0x7f, F32 = 0x7d, V128 = 0x7b, FOUR = 16; // bytes of four numbers
  const number = (n) => { // LEB128, as the format writes whole numbers
    const found = [];
    for (; n > 127; n >>>= 7) found.push((n & 127) | 128);
    return [...found, n];
  };
  const vector = (items) => [...number(items.length), ...items.flat()];
  const get = (i) => [0x20, ...number(i)], set = (i) => [0x21, ...number(i)];
  const simd = (code) => [0xfd, ...number(code)];
  const load4 = (offset) => [...simd(0x00), 2, ...number(offset)];
  const store4 = (offset) => [...simd(0x0b), 2, ...number(offset)];
  const splat = simd(0x13), root4 = simd(0xe3), add4 = simd(0xe4), subtract4 = simd(0xe5);
  const multiply4 = simd(0xe6), divide4 = simd(0xe7);
  const constant = (x) => [0x43, ...new Uint8Array(Float32Array.of(x).buffer)];
  const forward = (i, step) => [...get(i), ...step, 0x6a, ...set(i)]; // i += step
  const bytes = (n) => [0x41, ...number(n)]; // n below 64
  const loop = (i, ...body) => // do … while (i -= 1)
    [0x03, 0x40, ...body.flat(), ...get(i), ...bytes(1), 0x6b, 0x22, ...number(i), 0x0d, 0, 0x0b];
  const when = (...body) => [0x04, 0x40, ...body.flat(), 0x0b];

  // The same as `product`, with addresses and steps in bytes.
  function productCode(width) {
    const [c, cStep, a, aRow, aColumn, b, bStep, rows, inner] = Array(9).keys();
    const [left, atA, atB, x, first] = [9, 10, 11, 12, 13]; // locals; sums from `first` on
    const columns = [...Array(width / 4).keys()];
    const each = (...parts) => columns.flatMap((i) => parts.flatMap((part) => part(i)));
    const body = loop(rows,
      each(() => get(c), (i) => load4(i * FOUR), (i) => set(first + i)),
      [...get(inner), ...set(left), ...get(a), ...set(atA), ...get(b), ...set(atB)],
      loop(left,
        [...get(atA), 0x2a, 2, 0, 0x22, x, ...constant(0), 0x5c], // x = A[atA]; x ≠ 0
        when(each((i) => get(first + i), () => [...get(x), ...splat, ...get(atB)],
          (i) => load4(i * FOUR), () => [...multiply4, ...add4], (i) => set(first + i))),
        forward(atA, get(aColumn)), forward(atB, get(bStep))),
      each(() => get(c), (i) => get(first + i), (i) => store4(i * FOUR)),
      forward(c, get(cStep)), forward(a, get(aRow)));
    const locals = [[3, I32], [1, F32], [columns.length, V128]];
    return { inputs: Array(9).fill(I32), locals, body };
  }

  // The same as `adam`, four weights a turn; `count` is a number of fours.
  function adamCode() {
    const [w, g, m, v, count, rate, root] = Array(7).keys();
    const [slope, mean, square] = [7, 8, 9];
    const four = (x) => [...constant(x), ...splat];
    const body = loop(count,
      [...get(g), ...load4(0), ...set(slope)],
      [...get(m), ...load4(0), ...get(slope), ...get(m), ...load4(0), ...subtract4],
      [...four(1 - BETA1), ...multiply4, ...add4, ...set(mean)],
      [...get(v), ...load4(0), ...four(BETA2), ...multiply4],
      [...get(slope), ...get(slope), ...multiply4, ...four(1 - BETA2), ...multiply4, ...add4],
      set(square),
      [...get(m), ...get(mean), ...store4(0), ...get(v), ...get(square), ...store4(0)],
      [...get(w), ...get(w), ...load4(0), ...get(rate), ...splat, ...get(mean), ...multiply4],
      [...get(square), ...root4, ...get(root), ...splat, ...multiply4, ...four(EPSILON), ...add4],
      [...divide4, ...subtract4, ...store4(0)],
      [w, g, m, v].flatMap((i) => forward(i, bytes(FOUR))));
    return { inputs: [I32, I32, I32, I32, I32, F32, F32], locals: [[3, V128]], body };
  }

  // A module that imports the memory and exports these functions.
  function assembled(functions) {
    const text = (words) => vector([...words].map((letter) => letter.charCodeAt(0)));
    const section = (id, items) => {
      const inside = vector(items);
      return [id, ...number(inside.length), ...inside];
    };
    const codes = Object.values(functions), names = Object.keys(functions);
    const memory = [...text("own"), ...text("memory"), 2, 0, 1];
    return Uint8Array.from([
      0x00, 0x61, 0x73, 0x6d, 1, 0, 0, 0,
      ...section(1, codes.map(({ inputs }) => [0x60, ...vector(inputs.map((kind) => [kind])), 0])),
      ...section(2, [memory]),
      ...section(3, codes.map((_, i) => [i])),
      ...section(7, names.map((name, i) => [...text(name), 0, i])),
      ...section(10, codes.map(({ locals, body }) => {
        const inside = [...vector(locals.map(([n, kind]) => [n, kind])), ...body, 0x0b];
        return [...number(inside.length), ...inside];
      })),
    ]);
  }

  function inWebAssembly() {
    const code = assembled({
      wide: productCode(WIDE), narrow: productCode(NARROW), adam: adamCode(),
    });
    if (typeof WebAssembly === "undefined" || !WebAssembly.validate(code)) return null;
    const memory = new WebAssembly.Memory({ initial: MEGABYTES * 1048576 / PAGE });
    const module = new WebAssembly.Module(code);
    const { wide, narrow, adam } = new WebAssembly.Instance(module, { own: { memory } }).exports;
    const inBytes = (f) => (c, cStep, a, aRow, aColumn, b, bStep, rows, inner) =>
      f(4 * c, 4 * cStep, 4 * a, 4 * aRow, 4 * aColumn, 4 * b, 4 * bStep, rows, inner);
    return {
      name: "WebAssembly", all: new Float32Array(memory.buffer),
      wide: inBytes(wide), narrow: inBytes(narrow),
      adam: (w, g, m, v, count, ...rates) => adam(4 * w, 4 * g, 4 * m, 4 * v, count / 4, ...rates),
    };
  }

  function inJavaScript() {
    const all = new Float32Array(MEGABYTES * 1048576 / 4);
    return {
      name: "JavaScript", all,
      wide: product(all, WIDE), narrow: product(all, NARROW), adam: adam(all),
    };
  }

  const found = (wanted !== "JavaScript" && inWebAssembly()) || inJavaScript();
  let used = 0;

  // Room for so many numbers, all 0; returns where it begins.
  function room(count) {
    const at = used;
    used += Math.ceil(count / 4) * 4;
    if (used > found.all.length) throw new Error("the page's memory is too small for this setting");
    found.all.fill(0, at, used);
    return at;
  }

  return { ...found, WIDE, NARROW, BETA1, BETA2, room, clear: () => { used = 0; } };
}
