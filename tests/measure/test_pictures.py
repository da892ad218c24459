import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import linalg

from flaxgen.measure import auroc, frechet, inception_score, restoration

SCORES = st.lists(st.integers(-3, 3), min_size=1, max_size=9)


@given(SCORES, SCORES)
def test_auroc_is_the_share_of_pairs_in_order_ties_counted_half(inside, outside):
    pairs = [(a > b) + (a == b) / 2 for a in inside for b in outside]
    assert auroc.auroc(inside, outside) == pytest.approx(np.mean(pairs), abs=1e-12)


def test_auroc_takes_infinite_scores_and_refuses_nan_and_nothing():
    assert auroc.auroc([np.inf, 1.0], [-np.inf, 0.0]) == 1.0
    with pytest.raises(ValueError, match="outside holds 1 NaN among 2 scores"):
        auroc.auroc([1.0], [np.nan, 0.0])
    with pytest.raises(ValueError, match=r"inside has shape \(0,\)"):
        auroc.auroc([], [0.0])


def features(seed: int, count: int = 40, width: int = 5) -> np.ndarray:
    noise = np.random.default_rng(seed)
    return noise.normal(size=(count, width)) @ noise.normal(size=(width, width)) + noise.normal(size=width)


def test_a_gaussian_of_parts_is_that_of_the_whole():
    whole_ND = features(0) + 1e4
    found = frechet.Gaussian.of([whole_ND[:7], whole_ND[7:7], whole_ND[7:8], whole_ND[8:]])
    np.testing.assert_allclose(found.mean_D, whole_ND.mean(axis=0), rtol=1e-12)
    np.testing.assert_allclose(found.covariance_DD, np.cov(whole_ND, rowvar=False), rtol=1e-9)


def test_the_distance_is_that_of_the_defining_formula():
    one_ND, other_ND = features(1), features(2)
    one, other = (np.cov(each_ND, rowvar=False) for each_ND in (one_ND, other_ND))
    away = one_ND.mean(axis=0) - other_ND.mean(axis=0)
    wanted = away @ away + np.trace(one + other - 2 * linalg.sqrtm(one @ other).real)
    found = frechet.distance(frechet.Gaussian.of([one_ND]), frechet.Gaussian.of([other_ND]))
    assert found == pytest.approx(wanted, rel=1e-9)


def test_the_distance_of_commuting_gaussians_is_known_by_hand():
    one = frechet.Gaussian(np.array([1.0, 2.0]), np.diag([4.0, 9.0]))
    other = frechet.Gaussian(np.array([0.0, 0.0]), np.diag([1.0, 0.0]))
    assert frechet.distance(one, other) == pytest.approx(5 + (2 - 1) ** 2 + 9, rel=1e-12)
    assert frechet.distance(one, one) == pytest.approx(0, abs=1e-12)


def test_fewer_pictures_than_features_need_no_offset():
    few_ND = features(3, count=4, width=9)
    one = frechet.Gaussian.of([few_ND])
    assert frechet.distance(one, one) == pytest.approx(0, abs=1e-9)
    moved = frechet.Gaussian(one.mean_D + 1, one.covariance_DD)
    assert frechet.distance(one, moved) == pytest.approx(9, rel=1e-9)


def test_statistics_go_through_the_files_of_others(tmp_path):
    made = frechet.Gaussian.of([features(4)])
    made.save(tmp_path / "stats.npz")
    again = frechet.Gaussian.load(tmp_path / "stats.npz")
    assert np.array_equal(again.mean_D, made.mean_D) and np.array_equal(again.covariance_DD, made.covariance_DD)
    np.savez(tmp_path / "other.npz", x=np.zeros(3))
    with pytest.raises(ValueError, match=r"other.npz holds x; wanted the arrays mu and sigma"):
        frechet.Gaussian.load(tmp_path / "other.npz")
    np.save(tmp_path / "mu.npy", made.mean_D)
    with pytest.raises(ValueError, match=r"mu.npy holds no archive of arrays"):
        frechet.Gaussian.load(tmp_path / "mu.npy")
    raw = (tmp_path / "stats.npz").read_bytes()
    for damaged in (raw[:-30], raw.replace(b"NUMPY", b"PUMPY"), b""):
        (tmp_path / "stats.npz").write_bytes(damaged)
        with pytest.raises(ValueError, match=r"stats.npz: .*wanted a whole .npz file"):
            frechet.Gaussian.load(tmp_path / "stats.npz")


def test_what_is_no_set_of_features_is_refused():
    with pytest.raises(ValueError, match="1 pictures; a covariance wants at least 2"):
        frechet.Gaussian.of([np.zeros((1, 3))])
    with pytest.raises(ValueError, match="mean or covariance is not finite"):
        frechet.Gaussian.of([np.full((3, 2), np.nan)])
    with pytest.raises(ValueError, match="5 features against 4; wanted both from one feature network"):
        frechet.distance(frechet.Gaussian.of([features(0)]), frechet.Gaussian.of([features(0, width=4)]))


def test_the_score_is_one_for_equal_answers_and_the_number_of_classes_for_sure_and_even_ones():
    same_NV = np.tile([[0.2, 0.3, 0.5]], (20, 1))
    assert inception_score.score(same_NV) == inception_score.Score(pytest.approx(1.0), pytest.approx(0.0, abs=1e-12))
    sure_NV = np.eye(4)[np.arange(40) % 4]
    assert inception_score.score(sure_NV) == inception_score.Score(pytest.approx(4.0), pytest.approx(0.0, abs=1e-12))


def test_the_splits_are_runs_of_neighbours_of_the_published_bounds():
    prob_NV = np.random.default_rng(0).dirichlet([0.3] * 5, size=23)
    values = []
    for i in range(10):  # openai/improved-gan, inception_score/model.py
        part = prob_NV[(i * 23 // 10) : ((i + 1) * 23 // 10), :]
        kl = part * (np.log(part) - np.log(np.expand_dims(np.mean(part, 0), 0)))
        values.append(np.exp(np.mean(np.sum(kl, 1))))
    found = inception_score.score(prob_NV)
    assert (found.mean, found.deviation) == (pytest.approx(np.mean(values)), pytest.approx(np.std(values)))


def test_logits_and_too_few_pictures_are_refused():
    with pytest.raises(ValueError, match="give softmax of the logits"):
        inception_score.score(np.random.default_rng(0).normal(size=(20, 3)))
    with pytest.raises(ValueError, match=r"probabilities of shape \(3, 2\) in 10 splits"):
        inception_score.score(np.full((3, 2), 0.5))


def test_psnr_of_one_level_is_48_dB_and_of_equal_pictures_infinite():
    truth = np.random.default_rng(0).integers(1, 250, (2, 5, 7, 3), np.uint8)
    assert restoration.psnr(truth + np.uint8(1), truth) == pytest.approx(48.1308, abs=1e-4)
    assert restoration.psnr(truth, truth) == np.inf
    where = np.zeros((2, 5, 7), bool)
    where[0, 1, 2] = True
    changed = truth.copy()
    changed[0, 1, 2] += 1
    assert restoration.psnr(changed, truth, where) == pytest.approx(48.1308, abs=1e-4)
    with pytest.raises(ValueError, match="no pixel to compare"):
        restoration.psnr(truth, truth, np.zeros((2, 5, 7), bool))
    with pytest.raises(ValueError, match="wanted uint8 of one shape"):
        restoration.psnr(truth.astype(float), truth)


def test_salt_and_pepper_changes_the_share_of_pixels_that_was_asked_for():
    gray = np.full((3, 50, 40, 2), 128, np.uint8)
    noisy = restoration.salted(gray, 0.25, seed=3)
    changed = (noisy != gray).any(axis=-1)
    assert abs(changed.mean() - 0.25) < 0.02 and set(np.unique(noisy)) == {0, 128, 255}
    assert ((noisy[..., 0] == noisy[..., 1]).all()) and np.array_equal(noisy, restoration.salted(gray, 0.25, seed=3))
    with pytest.raises(ValueError, match="pictures of float64"):
        restoration.salted(gray / 255, 0.25, seed=3)
