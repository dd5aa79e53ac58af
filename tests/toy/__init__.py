"""Stages that do next to nothing, to test the contract with: tasks name them `tests.toy.lines`, `tests.toy.whole`."""
