"""What the metrics compute, against other implementations on the same features, and the contract they share."""

from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from scipy.spatial.distance import cdist, pdist
from sklearn.neighbors import KernelDensity, KNeighborsClassifier
from torch import Tensor, nn
from torch_fidelity.metric_isc import isc_features_to_metric
from torch_fidelity.metric_kid import kid_features_to_metric
from torch_fidelity.metric_prc import prc_features_to_metric
from torchmetrics.image.fid import FrechetInceptionDistance

from lightning_gen.errors import DataError
from lightning_gen.functional import (
    manifold_coverage,
    manifold_density,
    median_bandwidth,
    mmd2,
    ms_ssim,
    parzen_log_likelihood,
    two_sample_test,
)
from lightning_gen.metrics import (
    MMD,
    MSSSIM,
    Agreement,
    Authenticity,
    ClassEntropy,
    Confidence,
    Coverage,
    Density,
    FrechetDistance,
    FrechetDistanceInfinity,
    InceptionScore,
    KernelDistance,
    Memorization,
    NearestNeighborError,
    ParzenLogLikelihood,
    Precision,
    Recall,
    SampleMetric,
    Samples,
    SupportSize,
    TwoSamplePValue,
    VendiScore,
)

EXTRACTOR: Any = SimpleNamespace(name="digits", num_features=8, num_classes=5)
METRICS = {
    "agreement_digits": Agreement,
    "authenticity_digits": Authenticity,
    "class_entropy_digits": ClassEntropy,
    "confident_digits": Confidence,
    "coverage_digits": Coverage,
    "density_digits": Density,
    "fid_digits": FrechetDistance,
    "fid_infinity_digits": FrechetDistanceInfinity,
    "inception_score_digits": lambda: InceptionScore(splits=4),
    "kid_digits": lambda: KernelDistance(num_subsets=10, subset_size=20),
    "memorized": lambda: Memorization(quantile=0.4),
    "memorized_digits": lambda: Memorization("features", quantile=0.4),
    "mmd2": MMD,
    "mmd2_digits": lambda: MMD("features"),
    "mmd_p_value": lambda: TwoSamplePValue(num_permutations=100),
    "mmd_p_value_digits": lambda: TwoSamplePValue("features", num_permutations=100),
    "ms_ssim": lambda: MSSSIM(num_pairs=10),
    "nearest_neighbor_error": NearestNeighborError,
    "parzen": lambda: ParzenLogLikelihood([0.1, 0.2, 0.4], num_tuning=20),
    "precision_digits": lambda: Precision(k=3),
    "recall_digits": lambda: Recall(k=3),
    "support": SupportSize,
    "support_digits": lambda: SupportSize("features"),
    "vendi_digits": VendiScore,
}
ON_IMAGES = [name for name in METRICS if not name.endswith("_digits")]
SIZES = {"generated": 60, "reference": 50, "tuning": 30, "training": 40}


def samples(seed: int, number: int) -> Samples:
    """Random images, features and logits; other seeds have other means."""
    generator = torch.Generator().manual_seed(seed)
    images = torch.rand(number, 1, 3, 3, generator=generator)
    features = torch.randn(number, 8, generator=generator) + 0.3 * seed
    return Samples(images, features, 4 * torch.randn(number, 5, generator=generator))


LABELS = torch.arange(100) // 7 % 5
"""Of what a sample was asked for, by its number."""

DATA = {role: samples(seed, number) for seed, (role, number) in enumerate(SIZES.items())}


def feed(metric: SampleMetric, role: Any, data: Samples | None = None, batch_size: int = 17) -> None:
    """Update with all of a role, in batches."""
    fields = data or DATA[role]
    for start in range(0, len(fields.images), batch_size):
        rows = slice(start, start + batch_size)
        metric.update(Samples(*(field[rows] for field in fields)), {"label": LABELS[: len(fields.images)][rows]}, role)


def make(name: str, fed: bool = True) -> SampleMetric:
    metric = METRICS[name]()
    metric.bind(EXTRACTOR)
    for role in SIZES if fed else ():
        feed(metric, role)
    return metric


# Values -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", METRICS)
def test_mixed_precision_around_a_metric_changes_nothing(name: str) -> None:
    with torch.autocast("cpu", torch.bfloat16):
        found = make(name).compute()
    torch.testing.assert_close(found, make(name).compute(), rtol=0, atol=0)


def test_frechet_equals_torchmetrics() -> None:
    class Flat(nn.Module):
        num_features = 8

        def forward(self, x: Tensor) -> Tensor:
            return x

    theirs = FrechetInceptionDistance(Flat(), input_img_size=(8,)).set_dtype(torch.float64)
    theirs.update(DATA["generated"].features.double(), real=False)
    theirs.update(DATA["reference"].features.double(), real=True)
    assert make("fid_digits").compute().item() == pytest.approx(theirs.compute().item(), rel=1e-6)


def test_frechet_is_sound_far_from_the_origin() -> None:
    """Sums of squares lose digits there; float64 has them to spare."""
    metric = make("fid_digits", fed=False)
    for role in ("generated", "reference"):
        moved = DATA[role]._replace(features=DATA[role].features.double() + 1000)
        feed(metric, role, moved)
    assert metric.compute().item() == pytest.approx(make("fid_digits").compute().item(), rel=1e-6)


def test_frechet_says_when_the_covariance_is_singular() -> None:
    metric = make("fid_digits")
    metric.compute()
    assert metric.protocol == "8 features"
    metric.reset_generated()
    feed(metric, "generated", samples(0, 8))
    metric.compute()
    assert metric.protocol == "8 features of fewer images"


def test_kernel_distance_equals_torch_fidelity() -> None:
    ours = KernelDistance(num_subsets=2, subset_size=50)
    ours.bind(EXTRACTOR)
    generated, reference = samples(0, 50), samples(1, 50)
    feed(ours, "generated", generated)
    feed(ours, "reference", reference)
    theirs = kid_features_to_metric(
        generated.features.double(), reference.features.double(), kid_subsets=2, kid_subset_size=50, verbose=False
    )
    assert ours.compute().item() == pytest.approx(theirs["kernel_inception_distance_mean"], rel=1e-4)


def test_inception_score_equals_torch_fidelity() -> None:
    ours = make("inception_score_digits")
    order = torch.randperm(60, generator=torch.Generator().manual_seed(0))
    theirs = isc_features_to_metric(DATA["generated"].logits.double()[order], splits=4, shuffle=False)
    assert ours.compute().item() == pytest.approx(theirs["inception_score_mean"], rel=1e-4)
    assert ours.protocol == f"4 shuffled splits of 15, std {theirs['inception_score_std']:.2g}"


def test_inception_score_does_not_depend_on_the_order_of_classes() -> None:
    """Digits that are certain, class by class and mixed; consecutive splits of the former would have one class each."""
    logits = 20 * torch.eye(10).repeat_interleave(100, 0)
    scores = []
    for order in (torch.arange(1000), torch.randperm(1000, generator=torch.Generator().manual_seed(1))):
        metric = InceptionScore()
        metric.bind(EXTRACTOR)
        metric.update(Samples(torch.zeros(1000, 1, 1, 1), None, logits[order]))
        scores.append(metric.compute().item())
    assert scores == pytest.approx([9.55, 9.55], abs=0.1)  # 10 less what splits of 100 cost.


@pytest.mark.parametrize("name", ["fid_digits", "kid_digits"])
def test_real_images_without_differences_warn(name: str) -> None:
    """An extractor that sees nothing: any samples are perfect."""
    metric = make(name, fed=False)
    for role in ("generated", "reference"):
        feed(metric, role, DATA[role]._replace(features=torch.full_like(DATA[role].features, 0.3)))
    with pytest.warns(UserWarning, match=f"{name}: all real images have the same features.* another extractor"):
        assert metric.compute() == pytest.approx(0, abs=1e-9)


def test_confidence_is_a_share_with_its_standard_error() -> None:
    metric = make("confident_digits")
    over = (DATA["generated"].logits.softmax(1).max(1).values > 0.9).double().numpy()
    assert 0 < over.mean() < 1
    assert metric.compute().item() == pytest.approx(over.mean())
    assert metric.standard_error == pytest.approx(over.std() / np.sqrt(60))


@pytest.mark.parametrize(
    ("classes", "entropy"),
    [
        ([3, 3, 3, 3], 0.0),
        ([0, 1, 2, 3, 4], np.log(5)),
        ([0, 0, 1, 2], 1.5 * np.log(2)),  # 1/2 log 2 + 2 (1/4 log 4)
    ],
)
def test_class_entropy_is_that_of_the_histogram_of_the_classes_read(classes: list[int], entropy: float) -> None:
    metric = make("class_entropy_digits", fed=False)
    unclear = 0.1 * nn.functional.one_hot(torch.tensor(classes), 5)  # Whose mean probabilities are all but even.
    metric.update(samples(0, len(classes))._replace(logits=unclear))
    assert metric.compute().item() == pytest.approx(entropy)
    assert metric.protocol == "nats, at most 1.609"


def test_agreement_is_the_share_read_as_what_was_asked_for() -> None:
    metric = make("agreement_digits")
    agrees = (DATA["generated"].logits.argmax(1) == LABELS[:60]).double().numpy()
    assert 0 < agrees.mean() < 1
    assert metric.compute().item() == pytest.approx(agrees.mean())
    assert metric.standard_error == pytest.approx(agrees.std() / np.sqrt(60))
    with pytest.raises(DataError, match="and got none"):
        metric.update(DATA["generated"], {"image": DATA["generated"].images})
    with pytest.raises(DataError, match=r"labels of shape \(60,\) up to 5 .* knows 0 to 4"):
        metric.update(DATA["generated"], {"label": LABELS[:60] + 1})


def test_agreement_at_a_resolution_reads_what_is_left_of_shrunk_samples() -> None:
    """Lines of one pixel, on the left or on the right of each half: 4 pixels keep them apart, 2 do not."""

    class Lines:
        """Class 1 if the first half is brighter on the left than on the right."""

        name, num_features, num_classes = "lines", 1, 2

        def __call__(self, images: Tensor) -> tuple[Tensor, Tensor]:
            difference = (images[:, :, :, 0] - images[:, :, :, 1]).mean((1, 2))
            return difference[:, None], torch.stack([torch.full_like(difference, 1e-6), difference], 1)

    left = torch.tensor([1.0, 0, 1, 0]).expand(3, 1, 4, 4)
    images, labels = torch.cat([left, left.flip(3)]), torch.tensor([1, 1, 1, 0, 0, 0])
    shares = {}
    for resolution in (None, 4, 2):
        metric = Agreement(resolution)
        metric.bind(Lines())  # type: ignore[arg-type]
        metric.update(Samples(images, *Lines()(images)), {"label": labels})
        shares[metric.name] = metric.compute().item()
        assert not list(metric.children())
    assert shares == {"agreement_lines": 1.0, "agreement_at_4_lines": 1.0, "agreement_at_2_lines": 0.5}
    assert metric.protocol == "read as the class asked for at 2 x 2 pixels"
    with pytest.raises(DataError, match="resolution=0"):
        Agreement(resolution=0)


def test_agreement_of_an_oracle_and_of_guesses() -> None:
    labels = torch.arange(5000) % 5
    oracle, guesses = make("agreement_digits", fed=False), make("agreement_digits", fed=False)
    many = samples(0, 5000)
    oracle.update(many._replace(logits=nn.functional.one_hot(labels, 5).float()), {"label": labels})
    guesses.update(many, {"label": labels})
    assert oracle.compute() == 1
    assert guesses.compute().item() == pytest.approx(0.2, abs=4 * guesses.standard_error)


def test_ms_ssim_is_the_mean_over_pairs_of_a_class() -> None:
    """Copies in one class, of which all pairs are alike; in another two images, so that each pair is these two."""
    one, (two, three) = torch.rand(1, 1, 16, 16), torch.rand(2, 1, 1, 16, 16)
    images = torch.cat([one, two, one, three, one, torch.rand(1, 1, 16, 16)])
    metric = MSSSIM(num_pairs=10)
    metric.update(Samples(images), {"label": torch.tensor([7, 2, 7, 2, 7, 4])})  # A class with one image has no pair.
    between = ms_ssim(two, three).item()
    assert metric.compute().item() == pytest.approx((1 + between) / 2, abs=1e-6)
    assert metric.protocol == "2 scales, 10 pairs in each of 2 classes, 1.00 in the highest"
    assert metric.standard_error == pytest.approx(0, abs=1e-6)


def test_ms_ssim_needs_labels_and_two_of_a_class() -> None:
    metric = MSSSIM()
    with pytest.raises(DataError, match="MSSSIM compares samples of the same label, and got none"):
        metric.update(DATA["generated"], {"image": DATA["generated"].images})
    metric.update(Samples(torch.rand(2, 1, 8, 8)), {"label": torch.tensor([0, 1])})
    with pytest.raises(DataError, match="each of 2 has another label"):
        metric.compute()
    with pytest.raises(DataError, match="num_pairs=1; expected int >= 2"):
        MSSSIM(num_pairs=1)


def test_parzen_equals_scikit_learn_and_chooses_on_tuning_images() -> None:
    metric = make("parzen")
    flat = {role: DATA[role].images.flatten(1).double().numpy() for role in SIZES}
    densities = [KernelDensity(bandwidth=s).fit(flat["generated"]) for s in (0.1, 0.2, 0.4)]
    best = max(densities, key=lambda density: density.score(flat["tuning"][:20]))
    scores = best.score_samples(flat["reference"])
    assert metric.compute().item() == pytest.approx(scores.mean(), rel=1e-6)
    assert metric.standard_error == pytest.approx(scores.std() / np.sqrt(50), rel=1e-6)
    assert metric.protocol == f"sigma {best.bandwidth} of 3 in [0.1, 0.4], chosen on 20 images"


def test_parzen_takes_the_first_tuning_images() -> None:
    limited, exact = ParzenLogLikelihood([0.1, 0.2, 0.4], num_tuning=20), ParzenLogLikelihood([0.1, 0.2, 0.4])
    copies = samples(0, 60)  # Of the generated images: the narrowest window would be best.
    for metric in (limited, exact):
        feed(metric, "generated")
        feed(metric, "reference")
    first = Samples(*(field[:20] for field in DATA["tuning"]))
    feed(exact, "tuning", first)
    feed(limited, "tuning", Samples(*(torch.cat(pair) for pair in zip(first, copies, strict=True))))
    assert limited.compute() == exact.compute()
    assert limited.protocol == exact.protocol
    assert "chosen on 20 images" in limited.protocol


def test_parzen_takes_the_first_of_equal_widths_and_says_when_it_is_at_the_end() -> None:
    metric = ParzenLogLikelihood([0.3, 0.3, 2.0])
    for role in SIZES:
        feed(metric, role)
    metric.compute()
    assert metric.protocol == "sigma 0.3 of 3 in [0.3, 2], chosen on 30 images, at the end of the grid"


def test_parzen_with_one_width_needs_no_tuning_images() -> None:
    metric = ParzenLogLikelihood([0.3])
    feed(metric, "generated")
    feed(metric, "reference")
    expected = parzen_log_likelihood(DATA["reference"].images, DATA["generated"].images, 0.3).mean()
    assert metric.compute().item() == pytest.approx(expected.item())
    assert metric.protocol == "sigma 0.3 given"


@pytest.mark.parametrize(("name", "sigmas"), [("log", np.logspace(-1, 0, 10)), ("fine", np.arange(0.1, 0.3, 0.01))])
def test_grids_of_the_papers(name: Any, sigmas: Any) -> None:
    np.testing.assert_allclose(ParzenLogLikelihood(name).sigmas, sigmas, rtol=1e-12)


@pytest.mark.parametrize("name", ["precision_digits", "recall_digits"])
def test_precision_and_recall_equal_torch_fidelity(name: str) -> None:
    generated, reference = (DATA[role].features for role in ("generated", "reference"))
    theirs = prc_features_to_metric(generated, reference, prc_neighborhood=3, prc_batch_size=99, verbose=False)
    value = theirs[name.removesuffix("_digits")]
    assert 0 < value < 1
    assert make(name).compute().item() == pytest.approx(value, rel=1e-6)


def test_density_and_coverage_are_of_samples_in_the_manifold_of_real_images() -> None:
    generated, reference = (DATA[role].features for role in ("generated", "reference"))
    assert make("density_digits").compute() == manifold_density(generated, reference, 5)
    assert make("coverage_digits").compute() == manifold_coverage(generated, reference, 5)


@pytest.mark.parametrize("name", ["memorized", "memorized_digits"])
def test_memorized_is_the_share_nearer_than_a_quantile_of_held_out_images(name: str) -> None:
    def rows(role: str) -> Any:
        data = DATA[role]
        return (255 * data.images.flatten(1)).round() if name == "memorized" else data.features

    generated, held_out = (cdist(rows(role), rows("training")).min(1) for role in ("generated", "reference"))
    share = (generated <= np.quantile(held_out, 0.4)).mean()
    metric = make(name)
    assert 0 < share < 1
    assert metric.compute().item() == pytest.approx(share)
    assert metric.standard_error == pytest.approx(np.sqrt(share * (1 - share) / 60))
    assert metric.protocol.startswith("nearer to one of 40 training images than 60% of the held-out ones")


def test_copies_are_flagged() -> None:
    metric = Memorization()
    for role in SIZES:
        feed(metric, role)
    assert metric.compute() < 0.5
    assert "MEMORISED" not in metric.protocol
    metric.reset_generated()
    feed(metric, "generated", DATA["training"])
    assert metric.compute() == 1
    assert metric.protocol.endswith(", over 0.5: MEMORISED")
    # Where the held-out images are copies too, a sample cannot be nearer.
    metric.update(Samples(DATA["training"].images.repeat(3, 1, 1, 1)), role="reference")
    assert metric.compute() == 1


def test_nearest_neighbor_error_equals_scikit_learn() -> None:
    """Of a classifier that has learned from the generated images and their labels."""
    x = [DATA[role].images.mul(255).round().flatten(1).numpy() for role in ("generated", "reference")]
    machine = KNeighborsClassifier(1).fit(x[0], LABELS[:60])
    share = 1 - machine.score(x[1], LABELS[:50])
    metric = make("nearest_neighbor_error")
    assert 0 < share < 1
    assert metric.compute().item() == pytest.approx(share)
    assert metric.standard_error == pytest.approx(np.sqrt(share * (1 - share) / 50))
    with pytest.raises(DataError, match="got generated images without"):
        metric.update(DATA["generated"])


@pytest.mark.parametrize("size", [50, 1000])
def test_the_support_of_a_lookup_table_is_its_size(size: int) -> None:
    generator = torch.Generator().manual_seed(0)
    table = torch.rand(size, 1, 3, 3, generator=generator)
    metric = SupportSize()
    metric.update(Samples(torch.rand(20, 1, 3, 3, generator=generator)), role="reference")
    metric.update(Samples(table[torch.randint(size, (2000,), generator=generator)]))
    radius = pdist(metric.reference[0].numpy()).min()
    near = 2 * (pdist(table.flatten(1)) <= radius).sum()  # Images of the table that are alike without being equal.
    assert metric.compute().item() == pytest.approx(size**2 / (size + near), rel=0.1)


def test_support_counts_pairs_as_near_as_the_nearest_held_out_ones() -> None:
    metric = make("support_digits")
    radius = pdist(DATA["reference"].features).min()
    number = (pdist(DATA["generated"].features) <= radius).sum()
    assert metric.compute().item() == pytest.approx(60 * 59 / 2 / max(number, 1))
    metric.reset_generated()
    far = DATA["generated"]._replace(features=1000 * DATA["generated"].features)
    feed(metric, "generated", far)
    assert metric.compute() == 60 * 59 / 2
    assert metric.protocol == f"0 of 1770 pairs as near as the nearest two held-out images ({radius:.3g}), at least"


def test_p_value_is_of_the_two_sample_test() -> None:
    x, y = (DATA[role].images for role in ("generated", "reference"))
    expected = two_sample_test(x, y, [median_bandwidth(x, y)], 100, torch.Generator().manual_seed(0))
    metric = make("mmd_p_value")
    assert metric.compute().item() == pytest.approx(expected.p_value)
    assert make("mmd_p_value_digits").compute() < 0.02, "the features have other means"
    limited = TwoSamplePValue(num_images=20)
    feed(limited, "generated")
    feed(limited, "reference")
    limited.compute()
    assert limited.protocol.startswith("20 and 20 images, Gaussian kernel of the median distance, 1000 permutations")


def test_p_value_does_not_depend_on_the_order_of_classes() -> None:
    """The same images, those of the reference class by class: its first ones would be of one class."""
    images = torch.cat([samples(0, 100).images, 1 - samples(0, 100).images ** 2])
    metric = TwoSamplePValue(num_images=40, num_permutations=100)
    metric.update(Samples(images[torch.randperm(200, generator=torch.Generator().manual_seed(1))]))
    metric.update(Samples(images), role="reference")
    assert metric.compute() > 0.05


def test_mmd_is_the_unbiased_one_and_knows_videos() -> None:
    x, y = (DATA[role].images for role in ("generated", "reference"))
    metric = make("mmd2")
    assert metric.compute().item() == pytest.approx(mmd2(x, y, [median_bandwidth(y[:25], y[25:])], biased=False).item())
    assert make("mmd2_digits").compute() > 3 * abs(metric.compute()), "the features have other means"
    videos = torch.rand(2, 20, 3, 4, 5, 5)
    metrics = MMD(), MMD()
    for metric, (x, y) in zip(metrics, (videos, videos.flatten(2)), strict=True):
        metric.update(Samples(x), role="generated")
        metric.update(Samples(y), role="reference")
    assert metrics[0].compute() == metrics[1].compute()


# The contract -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", METRICS)
def test_names_carry_the_extractor_unless_it_is_the_published_one(name: str) -> None:
    metric = METRICS[name]()
    metric.bind(EXTRACTOR)
    assert metric.name == name
    metric.bind(SimpleNamespace(name="inception", num_features=8, num_classes=5))
    assert metric.name == name.removesuffix("_digits")


@pytest.mark.parametrize("name", METRICS)
def test_reset_generated_keeps_the_real_images(name: str) -> None:
    metric = make(name)
    value = metric.compute()
    metric.reset_generated()
    feed(metric, "generated", samples(5, 60))
    assert metric.compute() != value or name in ("support", "mmd_p_value_digits"), "these two can be at their bounds"
    metric.reset_generated()
    feed(metric, "generated")
    assert metric.compute() == value
    assert metric.protocol


@pytest.mark.parametrize("name", METRICS)
def test_reset_forgets_everything(name: str) -> None:
    metric = make(name)
    metric.reset()
    feed(metric, "tuning")
    feed(metric, "training")
    with pytest.raises(DataError, match="has 0 generated images; it needs at least"):
        metric.compute()
    if hasattr(metric, "reference"):
        feed(metric, "generated")
        with pytest.raises(DataError, match=r"has 0 reference images; it needs at least .*role='reference'"):
            metric.compute()


def test_parzen_without_tuning_images() -> None:
    metric = ParzenLogLikelihood()
    feed(metric, "generated")
    feed(metric, "reference")
    with pytest.raises(DataError, match=r"0 tuning images; it needs at least 1, given to update"):
        metric.compute()


@pytest.mark.parametrize("name", METRICS)
def test_batches_change_nothing(name: str) -> None:
    whole = METRICS[name]()
    whole.bind(EXTRACTOR)
    for role in SIZES:
        feed(whole, role, batch_size=1000)
    assert make(name).compute().item() == pytest.approx(whole.compute().item(), rel=1e-12)


@pytest.mark.parametrize("name", METRICS)
@pytest.mark.parametrize("bad", [torch.nan, torch.inf])
def test_values_that_are_not_finite_are_refused(name: str, bad: float) -> None:
    broken = Samples(*(field.clone() for field in samples(0, 4)))
    for field in broken:
        field[1, 2:] = bad
    broken.images[2] = bad
    with pytest.raises(DataError, match="NaN or infinite"):
        make(name, fed=False).update(broken)


@pytest.mark.parametrize("name", [name for name in METRICS if name not in ON_IMAGES])
def test_missing_features_are_an_error_that_says_what_to_do(name: str) -> None:
    with pytest.raises(DataError, match=r"call bind\(extractor\) first"):
        METRICS[name]().update(DATA["generated"])
    with pytest.raises(DataError, match="pass Samples"):
        make(name, fed=False).update(Samples(DATA["generated"].images))


@pytest.mark.parametrize(
    ("metric", "message"),
    [
        (InceptionScore(splits=61), "60 samples for 61 splits; give at least as many samples, or fewer splits"),
        (KernelDistance(subset_size=51), "60 and 50 rows for subsets of 51; .* a subset_size of 2 to 50"),
    ],
)
def test_too_few_images_for_the_protocol(metric: SampleMetric, message: str) -> None:
    metric.bind(EXTRACTOR)
    for role in SIZES:
        feed(metric, role)
    with pytest.raises(DataError, match=message):
        metric.compute()


@pytest.mark.parametrize(
    ("name", "least"),
    [("fid_digits", 2), ("precision_digits", 4), ("coverage_digits", 6), ("support", 2), ("mmd_p_value", 2)],
)
def test_fewer_samples_than_a_score_needs(name: str, least: int) -> None:
    metric = make(name)
    metric.reset_generated()
    feed(metric, "generated", samples(0, least - 1))
    with pytest.raises(DataError, match=rf"has {least - 1} generated images; it needs at least {least}, given to "):
        metric.compute()
    feed(metric, "generated", samples(1, 1))
    metric.compute()


def test_copies_cannot_be_found_without_training_images() -> None:
    metric = Memorization()
    feed(metric, "generated")
    feed(metric, "reference")
    with pytest.raises(DataError, match=r"0 training images; it needs at least 1, given to .*role='training'"):
        metric.compute()


def test_one_image_has_no_covariance() -> None:
    metric = make("fid_digits")
    metric.reset_generated()
    feed(metric, "generated", samples(0, 1))
    with pytest.raises(DataError, match="has 1 generated images; it needs at least 2"):
        metric.compute()


@pytest.mark.parametrize("sigmas", [[], [0.0, 0.1], [-1.0]])
def test_widths_that_are_none(sigmas: list[float]) -> None:
    with pytest.raises(
        DataError, match=r"no sigmas; expected one width|expected one of log, fine or list\[float > 0\]"
    ):
        ParzenLogLikelihood(sigmas)


@pytest.mark.parametrize("name", METRICS)
def test_nothing_is_left_in_a_checkpoint_and_no_graph_is_kept(name: str) -> None:
    metric = METRICS[name]()
    metric.bind(EXTRACTOR)
    for role in SIZES:
        feed(metric, role, Samples(*(field.clone().requires_grad_() for field in DATA[role])))
    assert not metric.compute().requires_grad
    assert not metric.state_dict()
    assert not any(t.requires_grad for state in metric.metric_state.values() for t in state)
