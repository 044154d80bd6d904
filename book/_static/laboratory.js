/* The laboratory's mathematics: a task, a two-layer network, and what is read off its weights. No page is needed.

   A matrix is a flat Float64Array, row by row. Letters are the book's: E (p × width), H = σ(XE) (n × width), S = σ′(XE),
   and V = Wᵀ (p × width), the readout with its long side contiguous; θ is E followed by V. X has rows e_a + e_b: it is
   never multiplied with, its pairs (a, b) gather rows. The tests compare all of this with grokutils. */
"use strict";

globalThis.Laboratory = (() => {
  /** σ and σ′ of each activation, number by number. */
  const ACTIVATIONS = {
    relu: [(z) => (z > 0 ? z : 0), (z) => (z > 0 ? 1 : 0)],
    quadratic: [(z) => z * z, (z) => 2 * z],
    softplus: [(z) => Math.max(z, 0) + Math.log1p(Math.exp(-Math.abs(z))), (z) => 1 / (1 + Math.exp(-z))],
  };

  /** Numbers in [0, 1) that a seed decides (mulberry32). */
  function uniform(seed) {
    let state = seed >>> 0;
    return () => {
      state = (state + 0x6d2b79f5) >>> 0;
      let t = Math.imul(state ^ (state >>> 15), state | 1);
      t ^= t + Math.imul(t ^ (t >>> 7), t | 61);
      return ((t ^ (t >>> 14)) >>> 0) / 4294967296;
    };
  }

  /** `count` normal numbers of mean 0 and standard deviation `std` (Box and Muller). */
  function normal(count, std, random) {
    return Float64Array.from({ length: count }, () =>
      std * Math.sqrt(-2 * Math.log(1 - random())) * Math.cos(2 * Math.PI * random()));
  }

  /** Addition modulo p: all pairs a ≤ b in an order that the seed decides, the share `fraction` of them for training. */
  function addition(p, fraction, random) {
    const pairs = [];
    for (let a = 0; a < p; a++) for (let b = a; b < p; b++) pairs.push([a, b]);
    for (let i = pairs.length - 1; i > 0; i--) {
      const j = Math.floor(random() * (i + 1));
      [pairs[i], pairs[j]] = [pairs[j], pairs[i]];
    }
    const n = trained(p, fraction);
    return { p, train: pairs.slice(0, n), test: pairs.slice(n) };
  }

  /** How many pairs `addition` trains on. */
  function trained(p, fraction) {
    return Math.round((fraction * p * (p + 1)) / 2);
  }

  /** PyTorch's default start of both layers, θ: uniform up to 1/√fan_in. */
  function defaultStart(p, width, random) {
    const spread = (count, fanIn) =>
      Float64Array.from({ length: count }, () => (2 * random() - 1) / Math.sqrt(fanIn));
    return Float64Array.of(...spread(p * width, p), ...spread(p * width, width));
  }

  /** The scalar product of `count` entries of x and of y; four sums at once keep the processor from waiting for one. */
  function dot(x, y, xAt, yAt, count) {
    let s0 = 0, s1 = 0, s2 = 0, s3 = 0, h = 0;
    for (; h + 3 < count; h += 4) {
      s0 += x[xAt + h] * y[yAt + h];
      s1 += x[xAt + h + 1] * y[yAt + h + 1];
      s2 += x[xAt + h + 2] * y[yAt + h + 2];
      s3 += x[xAt + h + 3] * y[yAt + h + 3];
    }
    for (; h < count; h++) s0 += x[xAt + h] * y[yAt + h];
    return s0 + s1 + (s2 + s3);
  }

  function square(x) {
    return dot(x, x, 0, 0, x.length);
  }

  /** f(XE), f elementwise, for pairs: (n × width). */
  function hidden(E, pairs, width, f) {
    const H = new Float64Array(pairs.length * width);
    pairs.forEach(([a, b], i) => {
      for (let h = 0; h < width; h++) H[i * width + h] = f(E[a * width + h] + E[b * width + h]);
    });
    return H;
  }

  /** HHᵀ, its lower triangle: (n × n). */
  function gram(H, n, width) {
    const K = new Float64Array(n * n);
    for (let i = 0; i < n; i++) for (let j = 0; j <= i; j++) K[i * n + j] = dot(H, H, i * width, j * width, width);
    return K;
  }

  /** Lower Cholesky factor of K (n × n), in place; throws where K is numerically singular. */
  function cholesky(K, n) {
    for (let j = 0; j < n; j++) {
      const scale = K[j * n + j];
      for (let i = j; i < n; i++) {
        const s = K[i * n + j] - dot(K, K, i * n, j * n, j);
        if (i > j) K[i * n + j] = s / K[j * n + j];
        else if (s > 1e-14 * scale) K[j * n + j] = Math.sqrt(s);
        else throw new Error("HHᵀ is singular: more hidden units or another seed are needed.");
      }
    }
    return K;
  }

  /** (LLᵀ)⁻¹B for a Cholesky factor L (n × n), in place of B (n × m). */
  function solve(L, n, B, m) {
    for (let i = 0; i < n; i++) {
      for (let k = 0; k < i; k++) for (let c = 0; c < m; c++) B[i * m + c] -= L[i * n + k] * B[k * m + c];
      for (let c = 0; c < m; c++) B[i * m + c] /= L[i * n + i];
    }
    for (let i = n - 1; i >= 0; i--) {
      for (let k = i + 1; k < n; k++) for (let c = 0; c < m; c++) B[i * m + c] -= L[k * n + i] * B[k * m + c];
      for (let c = 0; c < m; c++) B[i * m + c] /= L[i * n + i];
    }
    return B;
  }

  /** UᵀH for U (n × p): (p × width). */
  function transposedProduct(U, H, n, p, width) {
    const V = new Float64Array(p * width);
    for (let i = 0; i < n; i++)
      for (let c = 0; c < p; c++) {
        const u = U[i * p + c];
        for (let h = 0; h < width; h++) V[c * width + h] += u * H[i * width + h];
      }
    return V;
  }

  /** AY = (HHᵀ)⁻¹Y, (n × p), with Y one-hot. */
  function solvedTargets(H, { p, train }, width) {
    const n = train.length, Y = new Float64Array(n * p);
    train.forEach(([a, b], i) => (Y[i * p + ((a + b) % p)] = 1));
    return solve(cholesky(gram(H, n, width), n), n, Y, p);
  }

  /** The smallest readout that fits the training pairs, W = Hᵀ(HHᵀ)⁻¹Y (eq. 18), as V = Wᵀ. */
  function readout(E, task, width, activation) {
    const H = hidden(E, task.train, width, ACTIVATIONS[activation][0]);
    return transposedProduct(solvedTargets(H, task, width), H, task.train.length, task.p, width);
  }

  /**
   * What the network (E, V) knows: its answer to each pair, `answers` (p × p); `loss` and `accuracy` on the training and
   * the held-out pairs, the loss as PyTorch's mean over pairs and outputs; and its squared `norm`.
   */
  function measure(E, V, { p, train, test }, width, activation) {
    const sigma = ACTIVATIONS[activation][0], answers = new Int16Array(p * p), H = new Float64Array(width);
    const part = (pairs) => {
      let loss = 0, right = 0;
      for (const [a, b] of pairs) {
        for (let h = 0; h < width; h++) H[h] = sigma(E[a * width + h] + E[b * width + h]);
        let best = -Infinity, answer = 0;
        for (let c = 0; c < p; c++) {
          const y = dot(V, H, c * width, 0, width);
          loss += (y - (c === (a + b) % p)) ** 2;
          if (y > best) [best, answer] = [y, c];
        }
        answers[a * p + b] = answers[b * p + a] = answer;
        right += answer === (a + b) % p;
      }
      return { loss: loss / (pairs.length * p), accuracy: right / pairs.length };
    };
    return { train: part(train), test: part(test), norm: square(E) + square(V), answers };
  }

  /** F_k = (1/p) Σ_j e^(−2πi jk/p) E_j as its real and imaginary parts, each (width). */
  function feature(E, p, width, k) {
    const re = new Float64Array(width), im = new Float64Array(width);
    for (let j = 0; j < p; j++) {
      const c = Math.cos((2 * Math.PI * j * k) / p) / p, s = -Math.sin((2 * Math.PI * j * k) / p) / p;
      for (let h = 0; h < width; h++) {
        re[h] += c * E[j * width + h];
        im[h] += s * E[j * width + h];
      }
    }
    return { re, im };
  }

  /** ‖F_k‖² for k = 1, …, (p − 1)/2. */
  function spectrum(E, p, width) {
    return Array.from({ length: (p - 1) / 2 }, (_, i) => {
      const { re, im } = feature(E, p, width, i + 1);
      return square(re) + square(im);
    });
  }

  /** The frequency k of the largest ‖F_k‖. */
  function strongest(E, p, width) {
    const powers = spectrum(E, p, width);
    return 1 + powers.indexOf(Math.max(...powers));
  }

  /** An orthonormal basis [u, v] of the plane of frequency k, from Re F_k and Im F_k. */
  function plane(E, p, width, k) {
    const { re, im } = feature(E, p, width, k), long = Math.sqrt(square(re)), u = re.map((x) => x / long);
    const along = dot(im, u, 0, 0, width), rest = im.map((x, h) => x - along * u[h]), wide = Math.sqrt(square(rest));
    return [u, rest.map((x) => x / wide)];
  }

  /** The tokens' embeddings in a plane [u, v], [x, y] each. */
  function project(E, [u, v], p, width) {
    return Array.from({ length: p }, (_, j) => [dot(E, u, j * width, 0, width), dot(E, v, j * width, 0, width)]);
  }

  return {
    ACTIVATIONS, uniform, normal, addition, trained, defaultStart, dot, square, hidden, gram, cholesky, solve,
    transposedProduct, solvedTargets, readout, measure, spectrum, strongest, plane, project,
  };
})();
