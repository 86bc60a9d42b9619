"""Plans for the loops that networks are made of. That any plan gives the right numbers is test_emit_llvm's matter."""

from milligrad import ops
from milligrad.compiler.llvm.nests import Layout
from milligrad.compiler.llvm.tiling import Planner
from milligrad.compiler.program import Access, Apply, Array, Loop, Program, Reduce, Segment

W, P = Array("w", 784 * 128, "leaf"), Array("p", 784 * 128, "state")
X, H = Array("x", 784, "input", True), Array("h", 128, "value", True)


def plan(loop, capacity, width=8, registers=32):
    nest = Layout(Program([W, P, X, H], [loop]), capacity).nest(loop)
    return Planner(nest, width, registers, capacity).plan()


def forward():
    segment = Segment((784,), (Access(W, 0, (784, 1)), Access(X, 0, (0, 1))))
    return Loop((128,), [Reduce(ops.sum, (segment,))], [(0, Access(H, 0, (1,)))], True)


def test_a_layer_goes_along_its_inputs_and_takes_samples_together():
    found = plan(forward(), 32)
    assert found.along == {(0, 0): 0}
    assert found.jam[0] > 1, "each weight serves several samples"
    assert found.order == (1, 0), "the weights of a tile serve all samples before the next tile"


def test_of_one_sample_several_rows_are_taken_together():
    found = plan(forward(), 1)
    assert found.lane == 0 and found.along == {(0, 0): 0}


def test_weight_gradients_hold_a_tile_of_sums_over_the_samples():
    segment = Segment((), (Access(H, 0, (1, 0)), Access(X, 0, (0, 1))), True)
    found = plan(Loop((128, 784), [Reduce(ops.sum, (segment,))], [(0, Access(P, 0, (784, 1)))]), 32)
    assert found.lane == 1 and not found.along
    assert found.jam[0] > 1 and found.jam[1] > 1 and found.jam[0] * found.jam[1] <= 24


def test_few_registers_make_small_tiles():
    segment = Segment((), (Access(H, 0, (1, 0)), Access(X, 0, (0, 1))), True)
    found = plan(Loop((128, 784), [Reduce(ops.sum, (segment,))], [(0, Access(P, 0, (784, 1)))]), 32, 4, 16)
    assert 4 <= found.jam[0] * found.jam[1] <= 12


def test_elementwise_loops_go_along_memory():
    loop = Loop((784, 128), [Apply(ops.add, (Access(W, 0, (1, 784)), 1.0))], [(0, Access(P, 0, (1, 784)))])
    found = plan(loop, 1)
    assert found.lane == 0 and found.jam == (1, 1) and found.order == (1, 0)


def test_samples_go_in_lanes_where_there_is_nothing_else():
    out = Array("out", 3, "output", True)
    loop = Loop((), [Apply(ops.exp, (Access(X, 5, ()),))], [(0, Access(out, 1, ()))], True)
    nest = Layout(Program([X, out], [loop]), 64).nest(loop)
    assert Planner(nest, 8, 32, 64).plan().lane == 0


def test_nothing_to_put_in_lanes():
    loop = Loop((), [Apply(ops.exp, (Access(W, 5, ()),))], [(0, Access(P, 1, ()))])
    assert plan(loop, 1).lane is None
