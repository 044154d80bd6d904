"""Other parameters for every chapter, small enough that it runs through in seconds.

A new chapter needs an entry: values that differ from the defaults in kind as well as in size where it can
(another prime, another activation). The chapter must then still make all its claims, whatever their verdicts.
"""

SMALL = {
    "book/1_seeing_it/02_toy_models": {
        "lams": [0.05, 0.2],
        "init": [-2, 1],
        "lr": 0.1,
        "tau_end": 3.0,
        "seed": 3,
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
