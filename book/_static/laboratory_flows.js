/* Two flows in slow time τ: eq. 20, and the slow flow of the whole network, dθ/dτ = −P_T θ on Z. */
"use strict";

Object.assign(globalThis.Laboratory, (() => {
  const { ACTIVATIONS, dot, square, hidden, gram, cholesky, solve, transposedProduct, solvedTargets, readout } =
    globalThis.Laboratory;

  /** dE/dτ of eq. 20: Xᵀ[(A Y Yᵀ A H) ⊙ σ′(XE)] − E. */
  function isolatedVelocity(E, task, width, activation) {
    const [sigma, slope] = ACTIVATIONS[activation], { p, train } = task, n = train.length;
    const H = hidden(E, train, width, sigma), S = hidden(E, train, width, slope);
    const AY = solvedTargets(H, task, width), V = transposedProduct(AY, H, n, p, width);
    const dE = E.map((e) => -e), row = new Float64Array(width);
    train.forEach(([a, b], i) => {
      row.fill(0);
      for (let c = 0; c < p; c++) for (let h = 0; h < width; h++) row[h] += AY[i * p + c] * V[c * width + h];
      for (let h = 0; h < width; h++) {
        const pull = row[h] * S[i * width + h];
        dE[a * width + h] += pull;
        dE[b * width + h] += pull;
      }
    });
    return dE;
  }

  /** The network at θ on its training pairs: outputs F, and J = ∇F as the products Jv and Jᵀu, by structure. */
  function point(theta, { p, train }, width, activation) {
    const [sigma, slope] = ACTIVATIONS[activation], half = p * width, n = train.length;
    const E = theta.subarray(0, half), V = theta.subarray(half);
    const H = hidden(E, train, width, sigma), S = hidden(E, train, width, slope), row = new Float64Array(width);

    /** F, (n × p). */
    function outputs() {
      const F = new Float64Array(n * p);
      for (let i = 0; i < n; i++) for (let c = 0; c < p; c++) F[i * p + c] = dot(H, V, i * width, c * width, width);
      return F;
    }

    /** Jv = (S ⊙ X dE)W + H dW, (n × p). */
    function push(v) {
      const result = new Float64Array(n * p);
      train.forEach(([a, b], i) => {
        for (let h = 0; h < width; h++) row[h] = S[i * width + h] * (v[a * width + h] + v[b * width + h]);
        for (let c = 0; c < p; c++)
          result[i * p + c] = dot(V, row, c * width, 0, width) + dot(v, H, half + c * width, i * width, width);
      });
      return result;
    }

    /** Jᵀu = (Xᵀ[S ⊙ uWᵀ], Hᵀu), as long as θ. */
    function pull(u) {
      const result = new Float64Array(2 * half);
      result.set(transposedProduct(u, H, n, p, width), half);
      train.forEach(([a, b], i) => {
        row.fill(0);
        for (let c = 0; c < p; c++) for (let h = 0; h < width; h++) row[h] += u[i * p + c] * V[c * width + h];
        for (let h = 0; h < width; h++) {
          const r = row[h] * S[i * width + h];
          result[a * width + h] += r;
          result[b * width + h] += r;
        }
      });
      return result;
    }

    /**
     * The Cholesky factor of K = JJᵀ, (np × np): K = (HHᵀ) ⊗ I + ((XXᵀ) ⊗ 11ᵀ) ⊙ MMᵀ with the rows
     * M_(i,c) = S_i ⊙ V_c. Pairs that share no token have only the first part.
     */
    function factor() {
      const size = n * p, K = new Float64Array(size * size), HH = gram(H, n, width);
      train.forEach(([a, b], i) => {
        for (let j = 0; j <= i; j++) {
          const [c, d] = train[j], shared = (a === c) + (a === d) + (b === c) + (b === d);
          for (let r = 0; r < p; r++) {
            const at = (i * p + r) * size + j * p;
            if (shared) {
              for (let h = 0; h < width; h++) row[h] = shared * S[i * width + h] * S[j * width + h] * V[r * width + h];
              for (let s = 0; s < p; s++) K[at + s] = dot(V, row, s * width, 0, width);
            }
            K[at + r] += HH[i * n + j];
          }
        }
      });
      return cholesky(K, size);
    }

    /** A function u ↦ K⁻¹u, in place of u. */
    function solver() {
      const L = factor();
      return (u) => solve(L, n * p, u, 1);
    }

    return { outputs, push, pull, solver };
  }

  /** At θ: `velocity` = −P_T θ with P_T = I − J⁺J, and `back`, the Gauss–Newton step −J⁺(F(θ) − Y) to Z. */
  function slowMotion(theta, task, width, activation) {
    const at = point(theta, task, width, activation), solveGram = at.solver();
    const r = at.outputs();
    task.train.forEach(([a, b], i) => (r[i * task.p + ((a + b) % task.p)] -= 1));
    const normal = at.pull(solveGram(at.push(theta)));
    return { velocity: normal.map((x, i) => x - theta[i]), back: at.pull(solveGram(r)).map((x) => -x) };
  }

  /**
   * A flow from `x`: `motion(x)` gives its `velocity` and, where it is to stay on Z, the way `back` to it. `advance()`
   * makes one step of Bogacki and Shampine's pair and goes back. An entry's error stays below `tolerance`, relative to it
   * and to `scale`, in the root mean square.
   */
  function integrator(x, motion, tolerance, scale) {
    const flow = { x, tau: 0, step: 1e-4 };
    let k1 = motion(x).velocity;
    flow.advance = () => {
      for (;;) {
        const h = flow.step, from = flow.x;
        const k2 = motion(from.map((e, i) => e + (h / 2) * k1[i])).velocity;
        const k3 = motion(from.map((e, i) => e + ((3 * h) / 4) * k2[i])).velocity;
        const next = from.map((e, i) => e + h * ((2 / 9) * k1[i] + (1 / 3) * k2[i] + (4 / 9) * k3[i]));
        const { velocity: k4, back } = motion(next);
        let sum = 0;
        for (let i = 0; i < next.length; i++) {
          const error = h * ((-5 / 72) * k1[i] + (1 / 12) * k2[i] + (1 / 9) * k3[i] - (1 / 8) * k4[i]);
          sum += (error / (tolerance * (scale + Math.max(Math.abs(from[i]), Math.abs(next[i]))))) ** 2;
        }
        const error = Math.sqrt(sum / next.length);
        flow.step = h * Math.min(5, Math.max(0.2, 0.9 * (error || 1e-9) ** (-1 / 3)));
        if (error <= 1) {
          flow.x = back ? next.map((e, i) => e + back[i]) : next;
          flow.tau += h;
          k1 = k4; // of a point as far from this one as the error of the step
          return;
        }
      }
    };
    return flow;
  }

  /** Eq. 20 from E; `network()` gives E and the readout that belongs to it. */
  function isolatedFlow(E, task, width, activation, tolerance = 1e-3) {
    const motion = (x) => ({ velocity: isolatedVelocity(x, task, width, activation) });
    const flow = integrator(E, motion, tolerance, task.p ** -0.5);
    flow.network = () => ({ E: flow.x, V: readout(flow.x, task, width, activation) });
    return flow;
  }

  /** The slow flow from θ on Z; `network()` gives its two layers. */
  function slowFlow(theta, task, width, activation, tolerance = 1e-3) {
    const half = task.p * width;
    const flow = integrator(theta, (x) => slowMotion(x, task, width, activation), tolerance, task.p ** -0.5);
    flow.network = () => ({ E: flow.x.subarray(0, half), V: flow.x.subarray(half) });
    return flow;
  }

  return { isolatedVelocity, slowMotion, isolatedFlow, slowFlow };
})());
