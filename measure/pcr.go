package measure

import (
	"fmt"
	"strings"
)

// PCR is the index of a platform configuration register, 0 to 23.
type PCR uint8

// The PCRs of profile waxseal-1. PCR 0 to 11 belong to firmware, loaders and
// IMA and are never extended by us; PCR 16 and 23 can be reset and are never
// evidence (PC Client Platform TPM Profile, section 4.6).
const (
	Code    PCR = 12 // agent, bootloader, kernel, initramfs, device tree, rootfs: the same on every device of a model and release
	Common  PCR = 13 // measurement policy, kernel command line, owner's trust anchors: the same for a fleet role
	Device  PCR = 14 // identity, device configuration, start-up files
	Runtime PCR = 15 // phases, findings of the running agent; order is free
	NumPCRs     = 24
)

// Profile says which PCR a class of record goes into.
type Profile struct {
	Name                          string
	Code, Common, Device, Runtime PCR
}

// Waxseal1 is the default profile.
var Waxseal1 = Profile{"waxseal-1", Code, Common, Device, Runtime}

// RFC9683 puts code into PCR 8 and common configuration into PCR 9, as the
// table in RFC 9683, section 2.1.2 does for boot loaders and kernels.
var RFC9683 = Profile{"rfc9683", 8, 9, Device, Runtime}

// ParseProfile returns the profile with the given name.
func ParseProfile(name string) (Profile, error) {
	for _, p := range []Profile{Waxseal1, RFC9683} {
		if p.Name == name {
			return p, nil
		}
	}
	return Profile{}, fmt.Errorf("PCR profile %q is not one of waxseal-1, rfc9683", name)
}

// PCRs returns the four PCRs of the profile: code, common, device, runtime.
func (p Profile) PCRs() []PCR { return []PCR{p.Code, p.Common, p.Device, p.Runtime} }

// Capped returns the PCRs that are closed by a cap at hand-over.
func (p Profile) Capped() []PCR { return []PCR{p.Code, p.Common, p.Device} }

// For returns the PCR of a record name by its class (the text before the
// first slash). Records of class phase have no PCR of their own: a cap goes
// into every capped PCR, other phases into Runtime.
func (p Profile) For(name string) (PCR, error) {
	class, _, _ := strings.Cut(name, "/")
	switch class {
	case "agent", "bootloader", "kernel", "initramfs", "dtb", "rootfs", "peripheral":
		return p.Code, nil
	case "policy", "cmdline", "bootenv", "keys", "module", "bpf", "owner":
		return p.Common, nil
	case "identity", "config", "startup", "aggregate":
		return p.Device, nil
	case "phase", "mirror", "runtime", "update":
		return p.Runtime, nil
	}
	return 0, fmt.Errorf("record %q: class %q is in no PCR of profile %s", name, class, p.Name)
}
