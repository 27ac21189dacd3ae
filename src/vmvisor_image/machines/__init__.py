"""Virtual machines as their files describe them: VMX with VMSD, OVF and OVA, and libvirt's XML."""
