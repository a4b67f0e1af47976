"""The references themselves: derivatives against differences, and cases known beforehand."""

import math

import numpy as np


def test_the_gradient_of_barlow_twins_is_that_of_its_loss(reference):
    rng = np.random.default_rng(0)
    z1, z2 = rng.normal(size=(2, 6, 4)) * 2 + 1
    by_z1, by_z2 = reference.barlow_twins_gradient(z1, z2, 0.3)
    expected = reference.numerical_gradient(
        lambda z: reference.barlow_twins_loss(z, z2, 0.3)[0], z1
    )
    np.testing.assert_allclose(by_z1, expected, atol=1e-8)
    expected = reference.numerical_gradient(
        lambda z: reference.barlow_twins_loss(z1, z, 0.3)[0], z2
    )
    np.testing.assert_allclose(by_z2, expected, atol=1e-8)


def test_barlow_twins_of_equal_and_of_opposite_embeddings(reference):
    z = np.array([[1.0, 1.0], [1.0, -1.0], [-1.0, 1.0], [-1.0, -1.0]])
    assert reference.barlow_twins_loss(z, z, eps=0) == (0, 0, 0)
    assert reference.barlow_twins_loss(z, -z, eps=0) == (8, 8, 0)
    same = z[:, [0, 0]]
    np.testing.assert_allclose(reference.barlow_twins_loss(same, same, 0.5, eps=0), (1, 0, 2))


def test_the_gradient_of_dino_is_that_of_its_loss(reference):
    rng = np.random.default_rng(0)
    student, teacher = rng.normal(size=(4, 3, 5)), rng.normal(size=(2, 3, 5))
    centre = rng.normal(size=5)
    expected = reference.numerical_gradient(
        lambda s: reference.dino_loss(s, teacher, centre, 0.5, 0.3), student
    )
    gradient = reference.dino_loss_gradient(student, teacher, centre, 0.5, 0.3)
    np.testing.assert_allclose(gradient, expected, atol=1e-8)


def test_dino_of_a_collapsed_student_is_the_logarithm_of_the_prototypes(reference):
    teacher = np.random.default_rng(0).normal(size=(2, 3, 7))
    loss = reference.dino_loss(np.zeros((5, 3, 7)), teacher, np.zeros(7))
    np.testing.assert_allclose(loss, math.log(7))


def test_schedules_have_the_values_of_their_definition(reference):
    rates = reference.cosine_schedule(2.0, 1.0, 7, warmup_steps=3)
    np.testing.assert_allclose(rates[:4], [0, 1, 2, 2])
    np.testing.assert_allclose(rates[5], 1.5)
    rates = reference.barlow_twins_learning_rates(2.0, 6, 2, final_share=0.5)
    np.testing.assert_allclose(rates[[0, 1, 2, 4]], [0, 1, 2, 1.5])
    temperatures = reference.teacher_temperatures(0.04, 0.07, 4, 6)
    np.testing.assert_allclose(temperatures, [0.04, 0.05, 0.06, 0.07, 0.07, 0.07])


def test_updates_have_the_values_of_their_definition(reference):
    centre = reference.update_centre(np.array([1.0]), np.array([[[2.0], [4.0]], [[0.0], [2.0]]]))
    np.testing.assert_allclose(centre, [1.1])
    assert reference.update_teacher(1.0, 0.0, 0.996) == 0.996
    small, large = reference.clip_per_tensor([np.array([3.0, 0.0]), np.array([[6.0], [8.0]])], 5)
    np.testing.assert_allclose(small, [3, 0])
    np.testing.assert_allclose(large, [[3], [4]], rtol=1e-6)


def test_lars_moves_a_matrix_by_its_trust_ratio_and_a_vector_plainly(reference):
    weight, gradient = np.array([[3.0, 4.0]]), np.array([[0.0, 2.0]])
    moved, buffer = reference.lars_update(weight, gradient, 0.0, lr=1.0, weight_decay=0.0)
    np.testing.assert_allclose(buffer, [[0, 0.005]])
    np.testing.assert_allclose(moved, weight - buffer)
    moved, buffer = reference.lars_update(weight[0], gradient[0], np.ones(2), lr=0.1)
    np.testing.assert_allclose(buffer, [0.9, 2.9])
    np.testing.assert_allclose(moved, [2.91, 3.71])


def test_the_head_gives_cosines_with_its_prototypes(reference):
    identity = (np.eye(2), np.zeros(2))
    x = np.array([[3.0, 4.0]])
    directions = np.array([[3.0, 4.0], [4.0, -3.0], [0.0, -2.0]])
    cosines = reference.dino_head(x, [identity], directions)
    np.testing.assert_allclose(cosines, [[1, 0, -0.8]], atol=1e-12)
    scaled = reference.dino_head(x, [identity], directions, [2.0, 1.0, 0.5])
    np.testing.assert_allclose(scaled, [[2, 0, -0.4]], atol=1e-12)
    np.testing.assert_allclose(reference.gelu(np.array([0.0, 1.0])), [0, 0.8413447460685429])
