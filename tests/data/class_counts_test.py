import numpy as np

from refinenet_jax.data.class_counts import inverse_frequency, median_frequency

# Pixels of four classes and, last, ignored ones; the third never occurs.
COUNTS = np.array([[90, 10, 0, 0, 50], [60, 0, 0, 40, 0], [0, 0, 0, 0, 100]])


def test_inverse_frequency_by_hand():
    # 200 labelled pixels, three classes: of each a third would be 200/3.
    expected = [200 / (3 * 150), 200 / (3 * 10), 1, 200 / (3 * 40)]
    np.testing.assert_allclose(inverse_frequency(COUNTS), expected)
    weights = inverse_frequency(COUNTS)
    assert np.unique((weights * COUNTS[:, :-1].sum(0)).round(6)).size == 2  # and 0


def test_median_frequency_by_hand():
    # Of what is labelled in the images that show them: 150/200, 10/100, 40/100.
    expected = [0.4 / 0.75, 0.4 / 0.1, 1, 1]
    np.testing.assert_allclose(median_frequency(COUNTS), expected)


def test_no_class_at_all():
    nothing = np.array([[0, 0, 7]])
    assert inverse_frequency(nothing).tolist() == [1, 1]
    assert median_frequency(nothing).tolist() == [1, 1]
