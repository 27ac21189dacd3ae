"""Packages of ESXi 5 and later: VIBs, offline bundles, and the signatures on them."""
