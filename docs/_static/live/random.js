// The random numbers of torch's CPU generator, so that a seed means here what it means in kdlab.
// A factory, and not a module: a page opened as a file can load none, and a worker gets its text.
function kdlabRandom() {
  "use strict";
  const N = 624, M = 397;

  // MT19937, 32 bits at a time. Source: Matsumoto and Nishimura 1998.
  function generator(seed) {
    const state = new Uint32Array(N);
    state[0] = seed;
    for (let i = 1; i < N; i++) {
      const before = state[i - 1] ^ (state[i - 1] >>> 30);
      state[i] = Math.imul(1812433253, before) + i;
    }
    let next = N;

    function renew() {
      for (let i = 0; i < N; i++) {
        const y = (state[i] & 0x80000000) | (state[(i + 1) % N] & 0x7fffffff);
        state[i] = state[(i + M) % N] ^ (y >>> 1) ^ (y & 1 ? 0x9908b0df : 0);
      }
      next = 0;
    }

    return function draw() {
      if (next === N) renew();
      let y = state[next++];
      y ^= y >>> 11;
      y ^= (y << 7) & 0x9d2c5680;
      y ^= (y << 15) & 0xefc60000;
      return (y ^ (y >>> 18)) >>> 0;
    };
  }

  // torch.randperm(n, generator=draw)
  function permutation(draw, n) {
    const order = Array.from({ length: n }, (_, i) => i);
    for (let i = 0; i < n - 1; i++) {
      const j = i + (draw() % (n - i));
      [order[i], order[j]] = [order[j], order[i]];
    }
    return order;
  }

  // tensor.uniform_(-bound, bound) in float32: 24 of the 32 bits count
  function uniform(draw, bound) {
    return Math.fround(Math.fround((draw() & 0xffffff) / 0x1000000 * 2 * bound) - bound);
  }

  return { generator, permutation, uniform };
}
