"""The benchmarks: each bar measured as a ratio inside one run, so that a busy machine slows both sides alike.

`python -m tests.bench [NAME…]`; with QUICK=1 in the environment, smaller and in under a minute. One module a group of
bars, always with the same sections: sizes, measure, helpers.
"""
