import milligrad.data

PUBLIC = """DataLoader Dataset IDXArray Rows Subset TensorDataset load_digits load_mnist load_names make_circles
make_moons make_spiral random_split read_idx xor"""


def test_the_public_names_are_pinned():
    assert sorted(milligrad.data.__all__) == sorted(PUBLIC.split())
    assert all(hasattr(milligrad.data, name) for name in milligrad.data.__all__)
