"""The flows of small networks by independent and nearly exact means, to check others with.

For a network ``f(theta, X) -> (n, m)`` with flat parameters θ (d,) and targets ``Y`` (n, m), all by its dense Jacobian or Hessian:

- :func:`reference` at λ = 0: dθ/dτ = −P_T(θ)θ on Z = {F(θ) = Y}, explicitly, with a return to Z after every step;
- :func:`reference` at λ > 0: training itself, dθ/dτ = −∇L_λ(θ)/2λ, by SciPy's solvers for stiff equations;
- :func:`landing`, the fast phase: where dθ/dt = −∇L(θ), without decay, comes to rest on Z.

Records are ``xarray.Dataset`` with dims (step, parameter), or (run, step, parameter) where ``theta0`` is (run, d).
"""

from __future__ import annotations

import warnings
from collections.abc import Callable

import numpy as np
import scipy.integrate
import torch
import xarray as xr
from torch import Tensor

from .. import _checks, losses, records, zero_loss
from ..errors import StoppedError
from ..losses import Loss, SquaredError
from ..zero_loss import Network

ONE_STEP = {"DOP853": scipy.integrate.DOP853, "RK45": scipy.integrate.RK45}
STIFF = {name: getattr(scipy.integrate, name) for name in ("LSODA", "BDF", "Radau")}
SINGULAR = 1e-8  # σ_min/σ_max at which the slow flow stops: P_T is about to jump
STALLED = (
    100  # steps in a row that together advance τ by less than a millionth of its range: a kink, or the end
)
PATIENCE = 1e6  # time t after which :func:`landing` gives up
MOST_STEPS = 20_000  # steps after which training gives up: ten times what stiff runs need


def reference(
    f: Network,
    theta0: Tensor,
    X: Tensor,
    Y: Tensor,
    *,
    lam: float,
    tau_end: float,
    points: int = 101,
    rtol: float | None = None,
    tolerance: float = 1e-8,
    method: str | None = None,
    loss: str | Loss = "squared_error",
) -> xr.Dataset:
    """Integrate gradient flow on L_λ, or at λ = 0 the flow −P_T(θ)θ on Z, with error control, for a small network.

    At λ = 0 a step that ends farther than ``tolerance`` from Z is taken again at half its length; from a shorter distance one
    Gauss–Newton step, θ − J⁺r, leads back to Z. At λ > 0 the loss pulls 1/λ times as fast as the decay: a stiff equation,
    solved implicitly with the exact Jacobian −∇²L_λ/2λ.

    Parameters
    ----------
    f : any network.
    theta0 : (d,) or (run, d), float64; at λ = 0 each within ``tolerance`` of Z.
    X : inputs, samples first.
    Y : (n, m) targets.
    lam : the study's λ.
    tau_end : slow time at which to end.
    points : number of records, at evenly spaced τ from 0 to ``tau_end``.
    rtol : relative tolerance of the integrator per step, 1e-10 at λ = 0 and 1e-9 otherwise; its absolute tolerance is
        rtol/100.
    tolerance : greatest distance from Z at λ = 0, ‖J⁺r‖.
    method : of SciPy: "DOP853" (default) or "RK45" at λ = 0, "LSODA" (default), "BDF" or "Radau" at λ > 0.
    loss : squared error at λ = 0; any at λ > 0.

    Returns
    -------
    Dataset with dims (…, step, parameter) and coordinate ``tau``: ``theta``, ``norm2`` = ‖θ‖², ``residual`` = ‖F(θ) − Y‖,
        ``sigma_min`` of J; and at λ = 0 ``drift``, the greatest distance from Z before a return since the record before, at
        λ > 0 ``loss`` = L(θ).

    Raises
    ------
    ValueError
        Arguments that do not fit, d < nm, or a start off Z.
    StoppedError
        J loses full rank on the way (theorem 4.10 makes that exceptional), τ no longer advances (kinks), or the solver found no
        way on.
    """
    lam, loss, taus = _checks.real("lam", lam, 0), losses.loss(loss), _times(tau_end, points)
    methods = STIFF if lam else ONE_STEP
    method = next(iter(methods)) if method is None else method
    _checks.one_of("method", method, tuple(methods))
    rtol = _checks.real("rtol", (1e-9 if lam else 1e-10) if rtol is None else rtol, 1e-13, 1e-2)
    tolerance = _checks.real("tolerance", tolerance, 0, 1, open_low=True)
    if lam == 0 and not isinstance(loss, SquaredError):
        raise ValueError(f"lam = 0 with loss = '{loss.name}': its zero lies at infinity; give lam > 0")
    settings = {
        "flow": "gradient" if lam else "slow",
        "ended": "tau_end",
        "lam": lam,
        "method": method,
        "rtol": rtol,
    }
    if lam:
        return _each_run(
            lambda start: _stiff(f, X, Y, loss, lam, rtol, method, settings, start, taus), theta0, f, X, Y
        )
    settings["tolerance"] = tolerance
    y, solver = Y.reshape(-1), ONE_STEP[method]
    return _each_run(
        lambda start: _Slow(f, X, y, rtol, tolerance, solver, settings).run(start, taus), theta0, f, X, Y
    )


def _stiff(f, X, Y, loss: Loss, lam, rtol, method, settings, start: Tensor, taus) -> xr.Dataset:
    """One run at λ > 0."""
    total = lambda t: loss.value(f(t, X), Y)  # noqa: E731
    velocity = _numpy(lambda t: -torch.func.grad(total)(t) / (2 * lam) - t)
    slope = _numpy(lambda t: -torch.func.hessian(total)(t) / (2 * lam) - torch.eye(len(t), dtype=t.dtype))
    rows = [_row(f, X, Y.reshape(-1), start)]

    def finish() -> xr.Dataset:
        values = [float(total(torch.from_numpy(row[0]))) for row in rows]
        return _dataset(rows, taus, settings).assign(loss=("step", np.array(values)))

    try:
        for solver in _steps(STIFF[method], velocity, slope, start, taus[-1], rtol):
            between = solver.dense_output()
            while len(rows) < len(taus) and taus[len(rows)] <= solver.t:
                rows.append(_row(f, X, Y.reshape(-1), torch.tensor(between(taus[len(rows)]))))
    except ArithmeticError as error:
        raise StoppedError(f"stopped before tau = {taus[-1]:g}: {error}", finish()) from error
    return finish()


def landing(f: Network, theta0: Tensor, X: Tensor, Y: Tensor, rtol: float = 1e-10) -> Tensor:
    """Φ(θ₀), (d,): the point of Z at which the flow dθ/dt = −∇L(θ) without weight decay comes to rest.

    Raises
    ------
    ValueError
        Arguments that do not fit.
    StoppedError
        The flow does not reach Z: it rests elsewhere, or is still under way after the time PATIENCE.
    """
    rtol = _checks.real("rtol", rtol, 1e-13, 1e-2)
    y = _check_start(f, theta0, X, Y)
    loss = lambda t: (f(t, X) - Y).square().sum()  # noqa: E731
    velocity = _numpy(lambda t: -torch.func.grad(loss)(t))
    slope = _numpy(lambda t: -torch.func.hessian(loss)(t))
    close = 1e-7 * float(y.norm().clamp(min=1))  # what remains, one step of :func:`_back` does to rounding

    theta, steps = theta0, _steps(scipy.integrate.LSODA, velocity, slope, theta0, PATIENCE, rtol)
    try:
        while (zero_loss.outputs(f, theta, X) - y).norm() > close:
            theta = torch.tensor(next(steps).y)
        return _back(f, theta, X, y)[0]
    except StopIteration:
        why = f"still under way at t = {PATIENCE:g}"
    except ArithmeticError as error:
        why = str(error)
    row = _row(f, X, y, theta)
    raise StoppedError(
        f"no point of Z reached from theta0: residual {row[1]:.3g}, {why}; start elsewhere",
        _dataset([row], [0.0], {"flow": "fast", "ended": "stopped"}),
    )


class _Slow:
    """One run at λ = 0: the pieces that belong together while it lasts."""

    def __init__(self, f, X, y, rtol, tolerance, solver, settings):
        self.f, self.X, self.y, self.rtol, self.tolerance = f, X, y, rtol, tolerance
        self.solver, self.settings = solver, settings
        self.velocity = _numpy(lambda t: -zero_loss.project_tangent(zero_loss.jacobian(f, t, X), t))

    def run(self, theta: Tensor, taus: np.ndarray) -> xr.Dataset:
        self.rows, self.taus, self.length = [], taus, None
        self.mark, self.attempts = -np.inf, 0  # where τ last made progress, and the steps since
        tau, theta = 0.0, self._start(theta)
        while len(self.rows) < len(taus):
            self._advanced(tau)
            tau, theta, between = self._step(tau, theta)
            while len(self.rows) < len(taus) and taus[len(self.rows)] <= tau:
                at = torch.tensor(between(taus[len(self.rows)]))
                self._record(_back(self.f, at, self.X, self.y)[0])
        return _dataset(self.rows, taus, self.settings)

    def _start(self, theta: Tensor) -> Tensor:
        back, distance, singular = _back(self.f, theta, self.X, self.y)
        if not distance <= self.tolerance:
            residual = _row(self.f, self.X, self.y, theta)[1]
            raise ValueError(
                f"theta0 is not on Z: residual {residual:.3g}, distance about {distance:.3g}, must be within tolerance "
                f"= {self.tolerance:g}; zero_loss.project(f, theta0, X, Y) gives the nearest point of Z"
            )
        self.drift = distance
        self._record(back)
        if singular:
            self._stop(self.taus[0], "J has not full rank at theta0")
        return back

    def _step(self, tau: float, theta: Tensor):
        """The next accepted step, ending on Z: (τ, θ, the interpolant between)."""
        end = self.taus[-1]
        length = None if self.length is None else min(self.length, end - tau)
        while True:
            limits = {"rtol": self.rtol, "atol": self.rtol / 100, "first_step": length}
            solver = self.solver(self.velocity, tau, theta.numpy(), end, **limits)
            solver.step()
            if solver.status == "failed":
                self._stop(tau, "the integrator found no step that is accurate enough")
            back, distance, singular = _back(self.f, torch.tensor(solver.y), self.X, self.y)
            if singular:
                self._stop(tau, "J loses full rank: a singular point of Z (theorem 4.10)")
            if distance <= self.tolerance:
                self.drift = max(self.drift, distance)
                self.length = solver.h_abs
                return solver.t, back, solver.dense_output()
            length = (solver.t - tau) / 2
            self._advanced(tau)

    def _advanced(self, tau: float) -> None:
        """Stop a flow that spends step after step in one place, as it does where it would cross a kink and come back."""
        if tau > self.mark + 1e-6 * self.taus[-1]:
            self.mark, self.attempts = tau, 0
        self.attempts += 1
        if self.attempts > STALLED:
            self._stop(tau, f"{STALLED} steps without progress; Z may be singular, or f not smooth, there")

    def _record(self, theta: Tensor) -> None:
        self.rows.append((*_row(self.f, self.X, self.y, theta), self.drift))
        self.drift = 0.0

    def _stop(self, tau: float, why: str) -> None:
        reached = _dataset(self.rows, self.taus[: len(self.rows)], self.settings)
        raise StoppedError(f"stopped after tau = {tau:.6g}: {why}. The record so far is in .records", reached)


def _back(f, theta: Tensor, X, y: Tensor) -> tuple[Tensor, float, bool]:
    """One Gauss–Newton step to Z, its length (the distance from Z), and whether J is singular there."""
    J = zero_loss.jacobian(f, theta, X)
    r = zero_loss.outputs(f, theta, X) - y
    S = zero_loss.singular_values(J)
    step = torch.linalg.lstsq(J, r[:, None], driver="gelsd").solution[:, 0]  # J⁺r, whatever J's rank
    return theta - step, float(step.norm()), bool(S[-1] <= SINGULAR * S[0])


def _row(f, X, y: Tensor, theta: Tensor) -> tuple[np.ndarray, float, float]:
    """θ, ‖r‖ and σ_min(J)."""
    sigma_min = zero_loss.singular_values(zero_loss.jacobian(f, theta, X))[-1]
    residual = (zero_loss.outputs(f, theta, X) - y).norm()
    return theta.numpy(), float(residual), float(sigma_min)


def _dataset(rows: list, taus, settings: dict) -> xr.Dataset:
    theta = np.array([row[0] for row in rows])  # (step, d)
    columns = zip(("residual", "sigma_min", "drift"), np.array([row[1:] for row in rows]).T, strict=False)
    return xr.Dataset(
        {
            "theta": (("step", "parameter"), theta),
            "norm2": ("step", (theta**2).sum(1)),
            **{name: ("step", column) for name, column in columns},
        },
        coords={"step": np.arange(len(theta)), "tau": ("step", np.asarray(taus)[: len(theta)])},
        attrs={**settings, **records.provenance()},
    )


def _each_run(run: Callable[[Tensor], xr.Dataset], theta0: Tensor, f, X, Y) -> xr.Dataset:
    if _checks.tensor("theta0", theta0).ndim == 1:
        _check_start(f, theta0, X, Y)
        return run(theta0.detach())
    if theta0.ndim != 2 or not len(theta0):
        raise ValueError(f"theta0 has shape {tuple(theta0.shape)}: must be (d,) or (run, d)")
    _check_start(f, theta0[0], X, Y)
    parts = [run(start) for start in theta0.detach()]
    return xr.concat(parts, dim="run", coords="minimal", compat="override", join="override", data_vars="all")


def _check_start(f, theta: Tensor, X, Y) -> Tensor:
    y, d = _checks.tensor("F(theta0)", zero_loss.outputs(f, theta, X)), len(theta)
    if _checks.tensor("Y", Y).shape != f(theta, X).shape:
        raise ValueError(f"Y has shape {tuple(Y.shape)}: must be {tuple(f(theta, X).shape)}, as f's outputs")
    if d < len(y):
        raise ValueError(f"theta0 has {d} entries for {len(y)} outputs: must have d ≥ nm (assumption 4.1)")
    return Y.reshape(-1)


def _steps(method, velocity, slope, start: Tensor, end: float, rtol: float):
    """SciPy's stiff solver after each of its steps up to ``end``; ArithmeticError where it cannot go on."""
    solver, tolerances = None, {"rtol": rtol, "atol": rtol / 100}
    for _ in range(MOST_STEPS):
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of overflow, and of what the solver's status says anyway
            try:
                solver = solver or method(velocity, 0.0, start.numpy(), end, jac=slope, **tolerances)
                message = solver.step()
            except ValueError as error:  # infinite entries in the Jacobian of an implicit method
                raise ArithmeticError(str(error)) from error
        if solver.status == "failed" or not np.isfinite(solver.y).all():
            raise ArithmeticError(message or "the weights left the finite numbers")
        yield solver
        if solver.status == "finished":
            return
    raise ArithmeticError(f"no end after {MOST_STEPS} steps")


def _numpy(velocity: Callable[[Tensor], Tensor]):
    """A field for SciPy, which calls with τ and an array that it keeps."""
    return lambda _, theta: velocity(torch.tensor(theta)).detach().numpy()


def _times(tau_end: float, points: int) -> np.ndarray:
    tau_end = _checks.real("tau_end", tau_end, 0, open_low=True)
    return np.linspace(0.0, tau_end, _checks.integer("points", points, 2))
