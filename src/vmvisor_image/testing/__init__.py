"""For tests, ours and those of programs that embed this library: images built from folders, and strategies.

`vmvisor_image.testing.source_tests` has the tests that every source passes, to be inherited.
`vmvisor_image.testing.forge` builds disk images; `vmvisor_image.testing.strategies` (what is valid) and
`vmvisor_image.testing.damage` (what is done to it) need hypothesis.
"""
