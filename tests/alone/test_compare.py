"""The comparison with what Colab ships finds what changed, and nothing else."""

from alone import compare


def test_differences_are_named():
    recorded = "# Colab\nnumpy==2.1.3\nIPython==7.34.0\nscikit_learn==1.6\n"
    assert compare.differences(recorded, "ipython==7.34.0\nnumpy==2.1.3\nscikit-learn==1.6\nother==1\n") == []
    assert compare.differences(recorded, "ipython==8.0\nnumpy==2.1.3+cpu\n") == [
        "ipython: recorded 7.34.0, Colab has 8.0",
        "scikit-learn: recorded 1.6, Colab has none",
    ]


def test_the_stand_in_for_torch_is_no_difference():
    assert compare.differences("torch==2.13.0\n", "torch==2.11.0\n") == []
