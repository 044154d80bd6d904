/* Gradient descent: on the toy of chapter 02, and on a real two-layer network. */
"use strict";

Object.assign(globalThis.Laboratory, (() => {
  const { ACTIVATIONS, dot } = globalThis.Laboratory;
  const FAR = 1e6; // weights and losses from which no descent comes back

  /**
   * Gradient descent on L_λ = (w₁ + w₂ − 2)² + λ(w₁² + w₂²): w₁ (u), w₂ (v) and both losses, one entry a step; it ends
   * early where the weights are FAR away.
   */
  function descend(lambda, lr, start, steps) {
    let [u, v] = start;
    const path = { u: [], v: [], train: [], test: [] };
    for (let k = 0; k <= steps && Math.abs(u) + Math.abs(v) < FAR; k++) {
      const r = u + v - 2;
      path.u.push(u);
      path.v.push(v);
      path.train.push(r ** 2);
      path.test.push((u - 1) ** 2 + (v - 1) ** 2); // mean over standard normal inputs
      u -= lr * 2 * (r + lambda * u);
      v -= lr * 2 * (r + lambda * v);
    }
    return path;
  }

  /**
   * Full-batch gradient descent on the mean squared error, with PyTorch's conventions: θ ← θ − lr (∇ + decay·θ).
   *
   * The trainer holds `theta`, changed in place, its halves `E` and `V`, and `step`. Each sample is taken from its two
   * rows of E to its share of the gradient while it is in the cache: no matrix product, no copy.
   */
  function trainer(theta, { p, train }, width, activation, lr, decay) {
    const [sigma, slope] = ACTIVATIONS[activation], half = p * width;
    const E = theta.subarray(0, half), V = theta.subarray(half);
    const gradient = new Float64Array(2 * half), gE = gradient.subarray(0, half), gV = gradient.subarray(half);
    const z = new Float64Array(width), H = new Float64Array(width), pull = new Float64Array(width);
    const share = 2 / (train.length * p);

    function accumulate(a, b) {
      const right = (a + b) % p;
      for (let h = 0; h < width; h++) {
        z[h] = E[a * width + h] + E[b * width + h];
        H[h] = sigma(z[h]);
      }
      pull.fill(0);
      for (let c = 0; c < p; c++) {
        const at = c * width, d = share * (dot(V, H, at, 0, width) - (c === right ? 1 : 0)); // ∂loss/∂ŷ_c
        for (let h = 0; h < width; h++) {
          gV[at + h] += d * H[h];
          pull[h] += d * V[at + h];
        }
      }
      for (let h = 0; h < width; h++) {
        const g = pull[h] * slope(z[h]);
        gE[a * width + h] += g;
        gE[b * width + h] += g;
      }
    }

    return {
      theta, E, V, step: 0,
      advance() {
        gradient.fill(0);
        for (const [a, b] of train) accumulate(a, b);
        for (let i = 0; i < theta.length; i++) theta[i] -= lr * (gradient[i] + decay * theta[i]);
        this.step++;
      },
    };
  }

  return { descend, trainer, FAR };
})());
