"""Tools for tests of this library and of programs that embed it: images built from directories, and strategies.

`vmvisor_image.testing.source_tests` has tests for every source, to be inherited.
`vmvisor_image.testing.forge` builds disk images; `vmvisor_image.testing.strategies` (valid data) and
`vmvisor_image.testing.damage` (damage to it) need hypothesis.
"""
