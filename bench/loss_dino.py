"""DINO's last layer and loss with their gradients, against lightly's, at the paper's size.

    python -m bench.loss_dino --json

What follows the heads' bottleneck in an update: the teacher's logits of two crops, the student's of
ten, the loss, its gradient in the student's features and last layer, and the new centre. Before
anything is timed, both sides are compared: equal losses and gradients, or the benchmark fails.
Lightly's loss is compared in float64: in float32 its sums of four million products are some 1e-4
off.
"""

import warnings
from importlib.metadata import version

import torch
import torch.nn.functional as F
from lightly.loss import DINOLoss
from lightly.models.modules import DINOProjectionHead

from bench import _memory
from bench._compare import Contestant, arguments, compare, show
from eosin.methods._heads import WeightNormLinear
from eosin.methods._self_distillation import self_distillation_loss

STUDENT_TEMP, TEACHER_TEMP, CENTER_MOMENTUM = 0.1, 0.04, 0.9
GLOBAL_CROPS, LOCAL_CROPS = 2, 8
BOTTLENECK = 256

Input = tuple[torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor]


class Ours:
    """Our last layers of student and teacher, and what an update does with them."""

    def __init__(self, student: torch.Tensor, teacher: torch.Tensor) -> None:
        self.student, self.teacher = self._layer(student), self._layer(teacher)
        self.center = student.new_zeros(1, len(student))

    @staticmethod
    def _layer(directions: torch.Tensor) -> WeightNormLinear:
        layer = WeightNormLinear(*directions.T.shape, is_length_trained=False)
        layer.weight_v.data, layer.weight_g.data = (
            directions.clone(),
            directions.new_ones(len(directions), 1),
        )
        return layer

    def run(self, features: torch.Tensor, teacher_features: torch.Tensor) -> torch.Tensor:
        """The loss; gradients are left in the features and in the last layer."""
        features.grad = self.student.weight_v.grad = None
        with torch.no_grad():
            logits = self.teacher(teacher_features)
            mean = logits.mean(0, keepdim=True)
        loss = self_distillation_loss(
            features,
            self.student,
            logits,
            self.center,
            student_temp=STUDENT_TEMP,
            teacher_temp=TEACHER_TEMP,
        ).total
        loss.backward()
        self.center.lerp_(mean, 1 - CENTER_MOMENTUM)
        return loss.detach()


class Lightly:
    """The last layers of lightly's heads, fed with all crops at once, and its loss."""

    def __init__(self, student: torch.Tensor, teacher: torch.Tensor) -> None:
        self.student, self.teacher = self._layer(student), self._layer(teacher)
        self.loss = DINOLoss(
            len(student),
            teacher_temp=TEACHER_TEMP,
            student_temp=STUDENT_TEMP,
            center_momentum=CENTER_MOMENTUM,
        ).to(student)

    @staticmethod
    def _layer(directions: torch.Tensor) -> torch.nn.Module:
        outputs, dim = directions.shape
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", FutureWarning)  # of its weight normalisation
            layer = DINOProjectionHead(1, 1, dim, outputs).last_layer.to(directions)
        layer.weight_v.data = directions.clone()
        return layer

    def run(self, features: torch.Tensor, teacher_features: torch.Tensor) -> torch.Tensor:
        """The loss; gradients are left in the features and in the last layer."""
        features.grad = self.student.weight_v.grad = None
        with torch.no_grad():
            teacher = self.teacher(teacher_features).chunk(GLOBAL_CROPS)
        student = self.student(features).chunk(GLOBAL_CROPS + LOCAL_CROPS)
        loss = self.loss(list(teacher), list(student), teacher_temp=TEACHER_TEMP)
        loss.backward()
        return loss.detach()


SIDES = {"ours": Ours, "lightly": Lightly}


def make_input(batch: int, outputs: int, device: torch.device) -> Input:
    """Features that want a gradient, the teacher's features, and both last layers' directions."""
    generator = torch.Generator().manual_seed(0)

    def draw(rows: int) -> torch.Tensor:
        return torch.randn(rows, BOTTLENECK, generator=generator).to(device)

    features = F.normalize(draw((GLOBAL_CROPS + LOCAL_CROPS) * batch)).requires_grad_()
    return features, F.normalize(draw(GLOBAL_CROPS * batch)), draw(outputs), draw(outputs)


def check_equal(given: Input) -> None:
    """Fails where the two sides do not compute the same, in two updates."""
    features, teacher_features, student, teacher = given
    ours, theirs = Ours(student, teacher), Lightly(student, teacher)
    exact = Lightly(student.double(), teacher.double())
    error = loss = 0.0
    for _ in range(2):
        our_loss = ours.run(features, teacher_features)
        gradients = features.grad, ours.student.weight_v.grad
        theirs.run(features, teacher_features)
        expected = features.grad, theirs.student.weight_v.grad
        wide = features.detach().double().requires_grad_()
        exact_loss = exact.run(wide, teacher_features.double())
        torch.testing.assert_close(our_loss.double(), exact_loss, rtol=1e-6, atol=0)
        for found, wanted in zip(gradients, expected, strict=True):
            error = max(error, float((found - wanted).norm() / wanted.norm()))
        loss = float(our_loss)
    assert error < 1e-5, f"the gradients differ by {error:.1e} of their norm"
    torch.testing.assert_close(ours.center[None], theirs.loss.center, rtol=1e-4, atol=1e-6)
    assert ours.center.any(), "the centre has not moved"
    print(f"equal: loss {loss:.4f}, gradients differ by {error:.0e} of their norm, centres equal")


def extra_memory_mb(side: str, batch: int, outputs: int) -> float:
    """Greatest resident memory that one update adds."""
    setup = f"""
from bench import loss_dino as bench

def prepared(batch, outputs):
    features, teacher_features, *layers = bench.make_input(batch, outputs, torch.device("cpu"))
    return bench.SIDES["{side}"](*layers), features, teacher_features

small, *given = prepared(4, 64)
small.run(*given)
side, *given = prepared({batch}, {outputs})
"""
    return _memory.extra_memory_mb(setup, "side.run(*given)")


def main() -> None:
    """Runs the benchmark."""
    parser = arguments(__doc__ or "")
    parser.add_argument("--batch", type=int, default=64)
    parser.add_argument("--outputs", type=int, default=65536)
    parser.add_argument("--device", default="cpu")
    options = parser.parse_args()
    device = torch.device(options.device)
    given = make_input(options.batch, options.outputs, device)
    check_equal(given)
    features, teacher_features, student, teacher = given
    ours, theirs = Ours(student, teacher), Lightly(student, teacher)
    line = compare(
        "loss_dino",
        Contestant("eosin", lambda: ours.run(features, teacher_features)),
        Contestant(f"lightly {version('lightly')}", lambda: theirs.run(features, teacher_features)),
        rounds=options.rounds,
        device=device,
    )
    line |= {"batch": options.batch, "outputs": options.outputs}
    if device.type == "cpu":
        for side in SIDES:
            line[f"{side}_extra_mb"] = extra_memory_mb(side, options.batch, options.outputs)
        line["memory_ratio"] = line["ours_extra_mb"] / line["lightly_extra_mb"]
        print(
            f"extra memory: {line['ours_extra_mb']:.0f} MB, lightly "
            f"{line['lightly_extra_mb']:.0f} MB, ratio {line['memory_ratio']:.2f}"
        )
    show([line], as_json=options.json)


if __name__ == "__main__":
    main()
