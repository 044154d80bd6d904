"""Re-run chapters with other parameters: one, or a sweep of thousands on a cluster.

chapter → cases → store → execution → cluster → collect → report; ``cli`` is what a reader types.
"""
