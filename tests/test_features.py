import numpy as np
import pytest

from flaxgen import errors, features, tensors, weights
from flaxgen.measure import frechet, inception_score
from flaxgen.models import classifier, classifier_config, inception
from tests import inceptions

SMALL = classifier_config.Config(size=7, channels=2, classes=5, blocks=((3, "down"), (4, "same")))


def write(path, arrays: dict[str, np.ndarray]) -> None:
    tensors.write(path, [(name, array.dtype, array.shape) for name, array in arrays.items()], arrays.values(), {})


@pytest.fixture(scope="module")
def small() -> features.Classifier:
    noise = np.random.default_rng(1)
    drawn = {path: noise.normal(size=shape).astype(np.float32) for path, shape in SMALL.shapes().items()}
    return features.Classifier(classifier.Classifier(SMALL), weights.nest(drawn))


@pytest.fixture(scope="module")
def image_NYXC() -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (features.ROWS + 5, 7, 7, 2), np.uint8)


def test_images_go_through_in_parts_of_one_size_and_none_is_lost(small, image_NYXC):
    feature_ND, prob_NV = features.of(small, image_NYXC)
    assert feature_ND.shape == (features.ROWS + 5, 4) and prob_NV.shape == (features.ROWS + 5, 5)
    np.testing.assert_allclose(prob_NV.sum(axis=1), 1, rtol=1e-5)
    alone_ND, _ = features.of(small, image_NYXC[-3:])
    np.testing.assert_allclose(feature_ND[-3:], alone_ND, rtol=1e-5)


def test_a_comparison_has_the_names_of_its_features_numbers(small, image_NYXC):
    found = features.compare(small, image_NYXC[:60], image_NYXC[60:])
    assert list(found) == ["classifier distance", "classifier score", "classifier score deviation"]
    feature_ND, prob_NV = features.of(small, image_NYXC)
    both = [frechet.Gaussian.of([part]) for part in (feature_ND[:60], feature_ND[60:])]
    assert found["classifier distance"] == pytest.approx(frechet.distance(*both), rel=1e-3, abs=1e-9)
    assert found["classifier score"] == pytest.approx(inception_score.score(prob_NV[:60]).mean, rel=1e-5)
    kept = features.compare(small, image_NYXC[:60], features.gaussian(small, image_NYXC[60:]))
    assert kept == found


def test_any_callable_of_images_measures(image_NYXC):
    class Mean:
        distance, score = "grey distance", "grey score"

        def __call__(self, image_BYXC):
            return image_BYXC.mean((1, 2)), np.full((len(image_BYXC), 2), 0.5)

    found = features.compare(Mean(), image_NYXC, image_NYXC)
    assert found["grey distance"] == pytest.approx(0, abs=1e-9) and found["grey score"] == pytest.approx(1)


def test_images_of_another_size_type_or_number_are_refused(small, image_NYXC):
    with pytest.raises(ValueError, match=r"images of \(7, 7, 3\); the classifier reads \(7, 7, 2\)"):
        features.of(small, np.zeros((2, 7, 7, 3), np.uint8))
    with pytest.raises(ValueError, match="wanted uint8 of shape"):
        features.of(small, image_NYXC / 255)
    with pytest.raises(ValueError, match="at least one"):
        features.of(small, image_NYXC[:0])


def test_a_classifier_goes_through_its_folder_and_another_model_is_none(small, tmp_path, image_NYXC):
    weights.save(tmp_path / "one", small.model, small.params)
    again = features.load(tmp_path / "one")
    assert all(np.array_equal(*pair) for pair in zip(again(image_NYXC[:3]), small(image_NYXC[:3]), strict=True))
    with pytest.raises(errors.Mismatch, match="holds a transformer, wanted a classifier"):
        features.load(weights.__file__.replace("weights.py", "bundled/poetry"))


def test_inception_has_the_units_of_the_published_graph():
    shapes = inception.units()
    assert len(shapes) == 94 and inception.PARAMETERS == 23_815_520
    assert (
        sum(shape[-1] for name, shape in shapes.items() if name.startswith("Mixed_5b") and name.endswith(("1x1", "5_2", "l_3", "pool")))
        == 256
    )
    assert shapes["Mixed_6e.branch7x7dbl_4"] == (7, 1, 192, 192) and shapes["Mixed_7c.branch3x3dbl_3b"] == (3, 1, 384, 384)


@pytest.mark.parametrize(("how", "shift"), [("torch", 0.25), ("tensorflow", 0.0)])
def test_resizing_interpolates_at_the_places_of_the_two_libraries(how, shift):
    matrix_PY = inception.resizing(3, 6, how)
    np.testing.assert_allclose(matrix_PY @ np.arange(3), np.clip(np.arange(6) / 2 - shift, 0, 2), atol=1e-6)
    np.testing.assert_allclose(matrix_PY.sum(axis=1), 1)
    assert ((matrix_PY > 0).sum(axis=1) <= 2).all()


def test_weights_that_are_not_those_of_fid_are_refused(tmp_path):
    (tmp_path / "weights.pth").write_bytes(b"PK")
    with pytest.raises(errors.Unsafe, match="a pickle, which can run code, is not read"):
        features.load_inception(tmp_path / "weights.pth")
    write(tmp_path / "other.safetensors", {"fc.weight": np.zeros((1000, 2048), np.float32)})
    with pytest.raises(errors.Mismatch, match="torchvision's weights of ImageNet"):
        features.load_inception(tmp_path / "other.safetensors")
    write(tmp_path / "part.safetensors", {"fc.weight": np.zeros((1008, 2048), np.float32)})
    with pytest.raises(errors.Mismatch, match=r"missing: Conv2d_1a_3x3\.conv\.weight"):
        features.load_inception(tmp_path / "part.safetensors")


@pytest.mark.nightly
def test_inception_gives_what_torchvisions_changed_as_pytorch_fid_does_gives(tmp_path, golden):
    given = inceptions.drawn_weights()
    write(tmp_path / "inception.safetensors", given | {"Conv2d_1a_3x3.bn.num_batches_tracked": np.zeros((), np.int64)})
    found = features.load_inception(tmp_path / "inception.safetensors")
    feature_BD, prob_BV = found(inceptions.drawn_image())
    with np.load(golden / "inception" / "expected.npz") as expected:
        wanted_BD = expected["feature_BD"]
    np.testing.assert_allclose(feature_BD, wanted_BD, atol=1e-5 * np.abs(wanted_BD).max())
    logit_BV = wanted_BD @ given["fc.weight"].T  # without the bias, as the published score is computed
    wanted_BV = np.exp(logit_BV - logit_BV.max(axis=1, keepdims=True))
    np.testing.assert_allclose(prob_BV, wanted_BV / wanted_BV.sum(axis=1, keepdims=True), rtol=1e-4)
    grey_BD, _ = found(inceptions.drawn_image()[..., :1])
    assert grey_BD.shape == (2, 2048)
