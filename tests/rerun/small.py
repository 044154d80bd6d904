"""Other parameters for every chapter, small enough that it runs through in seconds.

A new chapter needs an entry: values that differ from the defaults in kind as well as in size where it can
(another prime, another activation). The chapter must then still make all its claims, whatever their verdicts.
"""

SMALL = {
    "book/1_seeing_it/01_a_network_that_groks": {
        "p": 7,
        "width": 32,
        "test_pairs": 5,
        "steps": 2000,
        "weight_decay": 1e-3,
        "n_seeds": 2,
        "sweep_seeds": 2,
        "sweep_tau": 0.2,
        "grid_p": 7,
        "grid_narrow": 4,
        "grid_wide": 24,
        "grid_steps": 20,
    },
    "book/1_seeing_it/02_toy_models": {
        "lams": [0.05, 0.2],
        "init": [-2, 1],
        "lr": 0.1,
        "tau_end": 3.0,
        "seed": 3,
    },
    "book/2_geometry/03_the_zero_loss_set": {
        "n": 3,
        "d_in": 2,
        "d_out": 1,
        "width": 5,
        "activation": "softplus",
        "lams": [1e-1, 1e-3],
        "tau_end": 0.5,
        "p": 3,
        "seeds": 2,
    },
    "book/2_geometry/04_orthogonality": {
        "n": 3,
        "d_in": 2,
        "d_out": 1,
        "width": 5,
        "activation": "softplus",
        "reach": 0.05,
        "rays": 8,
        "lams": [1e-1, 1e-3],
        "tau_end": 0.5,
    },
    "book/2_geometry/05_the_slow_flow": {
        "seed": 2,
        "width": 8,
        "samples": 2,
        "lams": [0.1, 0.01],
        "tau_end": 1.0,
    },
    "book/3_networks/08_the_two_layer_closed_form": {
        "p": 5,
        "train_fraction": 0.6,
        "width": 24,
        "activation": "tanh",
        "seed": 1,
        "lams": [1e-1, 1e-3],
        "scales": [0.5, 1.0],
    },
    "book/3_networks/09_simulated_grokking": {
        "p": 7,
        "width": 48,
        "activation": "softplus",
        "steps": 60,
        "tau_exact": 0.5,
        "n_seeds": 2,
    },
}
