/* The live laboratory: the toy of chapter 02 and eq. 20 for small p, computed in the reader's browser.

   `Laboratory` (on window) holds the mathematics, which the tests compare with grokutils; the rest draws it.
   A matrix is a flat Float64Array, row by row. Symbols as in the book: E (p × width), H = σ(XE), K = HHᵀ. */
"use strict";

const Laboratory = (() => {
  const SIGMA = {
    relu: [(z) => (z > 0 ? z : 0), (z) => (z > 0 ? 1 : 0)],
    quadratic: [(z) => z * z, (z) => 2 * z],
    softplus: [(z) => Math.max(z, 0) + Math.log1p(Math.exp(-Math.abs(z))), (z) => 1 / (1 + Math.exp(-z))],
  };

  /** Gradient descent on L_λ = (w₁ + w₂ − 2)² + λ(w₁² + w₂²): arrays of w₁, w₂ and of both losses, one entry a step. */
  function descend(lambda, lr, start, steps) {
    let [u, v] = start;
    const path = { u: [u], v: [v], train: [], test: [] };
    for (let k = 0; k < steps; k++) {
      const r = u + v - 2;
      u -= lr * 2 * (r + lambda * u);
      v -= lr * 2 * (r + lambda * v);
      path.u.push(u);
      path.v.push(v);
    }
    for (let k = 0; k <= steps; k++) {
      path.train.push((path.u[k] + path.v[k] - 2) ** 2);
      path.test.push((path.u[k] - 1) ** 2 + (path.v[k] - 1) ** 2); // mean over standard normal inputs
    }
    return path;
  }

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

  /** All unordered pairs a ≤ b below p in an order that the seed decides, split after the share `fraction`. */
  function split(p, fraction, random) {
    const pairs = [];
    for (let a = 0; a < p; a++) for (let b = a; b < p; b++) pairs.push([a, b]);
    for (let i = pairs.length - 1; i > 0; i--) {
      const j = Math.floor(random() * (i + 1));
      [pairs[i], pairs[j]] = [pairs[j], pairs[i]];
    }
    const n = Math.round(fraction * pairs.length);
    return { train: pairs.slice(0, n), test: pairs.slice(n) };
  }

  /** Z = XE and H = σ(Z) for pairs, each (n × width). */
  function hidden(E, pairs, width, sigma) {
    const Z = new Float64Array(pairs.length * width), H = new Float64Array(Z.length);
    pairs.forEach(([a, b], i) => {
      for (let h = 0; h < width; h++) {
        const z = E[a * width + h] + E[b * width + h];
        Z[i * width + h] = z;
        H[i * width + h] = sigma(z);
      }
    });
    return { Z, H };
  }

  /** Lower Cholesky factor of K (n × n), in place; throws where K is numerically singular. */
  function cholesky(K, n) {
    for (let j = 0; j < n; j++) {
      const scale = K[j * n + j];
      for (let i = j; i < n; i++) {
        let s = K[i * n + j];
        for (let k = 0; k < j; k++) s -= K[i * n + k] * K[j * n + k];
        if (i > j) K[i * n + j] = s / K[j * n + j];
        else if (s > 1e-14 * scale) K[j * n + j] = Math.sqrt(s);
        else throw new Error("HHᵀ is singular: more hidden units or another seed are needed");
      }
    }
  }

  /** AY = (HHᵀ)⁻¹Y, (n × p), with Y one-hot. */
  function solve(H, pairs, p, width) {
    const n = pairs.length, K = new Float64Array(n * n), AY = new Float64Array(n * p);
    for (let i = 0; i < n; i++)
      for (let j = 0; j <= i; j++) {
        let s = 0;
        for (let h = 0; h < width; h++) s += H[i * width + h] * H[j * width + h];
        K[i * n + j] = s;
      }
    cholesky(K, n);
    pairs.forEach(([a, b], i) => (AY[i * p + ((a + b) % p)] = 1));
    for (let c = 0; c < p; c++) {
      for (let i = 0; i < n; i++) {
        let s = AY[i * p + c];
        for (let k = 0; k < i; k++) s -= K[i * n + k] * AY[k * p + c];
        AY[i * p + c] = s / K[i * n + i];
      }
      for (let i = n - 1; i >= 0; i--) {
        let s = AY[i * p + c];
        for (let k = i + 1; k < n; k++) s -= K[k * n + i] * AY[k * p + c];
        AY[i * p + c] = s / K[i * n + i];
      }
    }
    return AY;
  }

  /** The readout W = Hᵀ(HHᵀ)⁻¹Y, transposed: (p × width). */
  function transposedReadout(AY, H, n, p, width) {
    const V = new Float64Array(p * width);
    for (let i = 0; i < n; i++)
      for (let c = 0; c < p; c++) {
        const y = AY[i * p + c];
        for (let h = 0; h < width; h++) V[c * width + h] += y * H[i * width + h];
      }
    return V;
  }

  /** dE/dτ of eq. 20: Xᵀ[(A Y Yᵀ A H) ⊙ σ′(XE)] − E. */
  function velocity(E, pairs, p, width, activation) {
    const [sigma, slope] = SIGMA[activation], n = pairs.length;
    const { Z, H } = hidden(E, pairs, width, sigma);
    const AY = solve(H, pairs, p, width), V = transposedReadout(AY, H, n, p, width);
    const dE = E.map((e) => -e);
    pairs.forEach(([a, b], i) => {
      for (let h = 0; h < width; h++) {
        let pull = 0;
        for (let c = 0; c < p; c++) pull += AY[i * p + c] * V[c * width + h];
        pull *= slope(Z[i * width + h]);
        dE[a * width + h] += pull;
        dE[b * width + h] += pull;
      }
    });
    return dE;
  }

  /** ‖E‖², ‖W‖² and the network's answer to every pair (a, b), (p × p). */
  function measure(E, pairs, p, width, activation) {
    const [sigma] = SIGMA[activation], { H } = hidden(E, pairs, width, sigma);
    const V = transposedReadout(solve(H, pairs, p, width), H, pairs.length, p, width);
    const square = (M) => M.reduce((sum, x) => sum + x * x, 0);
    const answers = new Int16Array(p * p);
    for (let a = 0; a < p; a++)
      for (let b = a; b < p; b++) {
        let best = -Infinity;
        for (let c = 0; c < p; c++) {
          let y = 0;
          for (let h = 0; h < width; h++) y += V[c * width + h] * sigma(E[a * width + h] + E[b * width + h]);
          if (y > best) [best, answers[a * p + b]] = [y, c];
        }
        answers[b * p + a] = answers[a * p + b];
      }
    return { normE: square(E), normW: square(V), answers };
  }

  /** A flow of eq. 20: `advance()` makes one step of Bogacki and Shampine's pair, its error held below `tolerance`. */
  function flow(E, pairs, p, width, activation, tolerance = 1e-3) {
    const rate = (at) => velocity(at, pairs, p, width, activation);
    const floor = tolerance * p ** -0.5; // of an entry's error: relative to the initial entries
    const state = { E, tau: 0, step: 1e-4 };
    let k1 = rate(E);
    state.advance = () => {
      for (;;) {
        const h = state.step, from = state.E;
        const k2 = rate(from.map((e, i) => e + (h / 2) * k1[i]));
        const k3 = rate(from.map((e, i) => e + ((3 * h) / 4) * k2[i]));
        const next = from.map((e, i) => e + h * ((2 / 9) * k1[i] + (1 / 3) * k2[i] + (4 / 9) * k3[i]));
        const k4 = rate(next);
        let sum = 0;
        for (let i = 0; i < next.length; i++) {
          const error = h * ((-5 / 72) * k1[i] + (1 / 12) * k2[i] + (1 / 9) * k3[i] - (1 / 8) * k4[i]);
          const allowed = floor + tolerance * Math.max(Math.abs(from[i]), Math.abs(next[i]));
          sum += (error / allowed) ** 2;
        }
        const error = Math.sqrt(sum / next.length);
        state.step = h * Math.min(5, Math.max(0.2, 0.9 * (error || 1e-9) ** (-1 / 3)));
        if (error <= 1) {
          [state.E, state.tau, k1] = [next, state.tau + h, k4];
          return;
        }
      }
    };
    return state;
  }

  /** Tokens in the plane of their strongest frequency k: Re F_k and Im F_k made orthonormal. */
  function circle(E, p, width) {
    let best = { power: -1 };
    for (let k = 1; k <= (p - 1) / 2; k++) {
      const re = new Float64Array(width), im = new Float64Array(width);
      for (let j = 0; j < p; j++) {
        const c = Math.cos((2 * Math.PI * j * k) / p) / p, s = -Math.sin((2 * Math.PI * j * k) / p) / p;
        for (let h = 0; h < width; h++) {
          re[h] += c * E[j * width + h];
          im[h] += s * E[j * width + h];
        }
      }
      const power = re.reduce((t, x, h) => t + x * x + im[h] * im[h], 0);
      if (power > best.power) best = { k, re, im, power };
    }
    const dot = (x, y) => x.reduce((t, value, h) => t + value * y[h], 0);
    const u = best.re.map((x) => x / Math.sqrt(dot(best.re, best.re)));
    const along = dot(best.im, u), rest = best.im.map((x, h) => x - along * u[h]);
    const v = rest.map((x) => x / Math.sqrt(dot(rest, rest)));
    const tokens = Array.from({ length: p }, (_, j) => {
      const row = E.subarray(j * width, (j + 1) * width);
      return [dot(row, u), dot(row, v)];
    });
    return { k: best.k, tokens };
  }

  return { descend, uniform, normal, split, velocity, measure, flow, circle };
})();
window.Laboratory = Laboratory;
