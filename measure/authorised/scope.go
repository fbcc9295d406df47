package authorised

import (
	"cmp"
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"time"
)

// everything stands for all devices or all ports.
const everything = "*"

// slack is by how much a router's clock may be behind that of the signer.
const slack = 5 * time.Minute

func ascending[T cmp.Ordered](list []T) bool {
	for i := 1; i < len(list); i++ {
		if list[i-1] >= list[i] {
			return false
		}
	}
	return true
}

func comparePrefixes(a, b netip.Prefix) int {
	return cmp.Or(a.Addr().Compare(b.Addr()), cmp.Compare(a.Bits(), b.Bits()))
}

// Arrange puts the lists of an entry into the order in which they are written.
func (e Entry) Arrange() Entry {
	for _, l := range []*[]string{&e.Devices, &e.From, &e.To, &e.Mechanisms} {
		*l = slices.Compact(slices.Sorted(slices.Values(*l)))
	}
	for _, l := range []*[]netip.Prefix{&e.Outer, &e.Inner} {
		*l = slices.Compact(slices.SortedFunc(slices.Values(*l), comparePrefixes))
	}
	e.VLANs = slices.Compact(slices.Sorted(slices.Values(e.VLANs)))
	return e
}

// AllowsFrom tells whether traffic that passes one of the ports may be copied.
func (e Entry) AllowsFrom(ports ...string) bool { return fits(e.From, ports...) }

// AllowsTo tells whether copies may leave by a port or device.
func (e Entry) AllowsTo(device string) bool { return len(e.To) == 0 || slices.Contains(e.To, device) }

// AllowsOuter tells whether copies may be sent to an address.
func (e Entry) AllowsOuter(a netip.Addr) bool { return len(e.Outer) == 0 || within(e.Outer, a) }

// AllowsInner tells whether traffic between two addresses may be copied.
func (e Entry) AllowsInner(a, b netip.Addr) bool {
	return len(e.Inner) == 0 || within(e.Inner, a) || within(e.Inner, b)
}

// AllowsVLAN tells whether traffic of a VLAN may be copied; 0 is untagged.
func (e Entry) AllowsVLAN(id uint16) bool { return len(e.VLANs) == 0 || slices.Contains(e.VLANs, id) }

// Allows tells whether a mechanism may be used, which is the one that the entry
// names or one of its kind: "tc" allows "tc mirred mirror".
func (e Entry) Allows(mechanism string) bool { return len(e.Mechanisms) == 0 || e.Names(mechanism) }

// Names tells whether the entry speaks of a mechanism.
func (e Entry) Names(mechanism string) bool {
	return slices.ContainsFunc(e.Mechanisms, func(m string) bool {
		rest, ok := strings.CutPrefix(strings.ToLower(mechanism), strings.ToLower(m))
		return ok && (rest == "" || rest[0] == ' ')
	})
}

// Leaves tells whether copies may leave the router at all.
func (e Entry) Leaves() bool { return len(e.To)+len(e.Outer) > 0 }

// IsFor tells whether an entry concerns the router of a serial number.
func (e Entry) IsFor(serial string) bool {
	return slices.Contains(e.Devices, everything) || serial != "" && slices.Contains(e.Devices, serial)
}

func fits(list []string, names ...string) bool {
	return slices.ContainsFunc(list, func(s string) bool { return s == everything || slices.Contains(names, s) })
}

func within(list []netip.Prefix, a netip.Addr) bool {
	return slices.ContainsFunc(list, func(p netip.Prefix) bool { return p.Contains(a.Unmap()) })
}

// Void tells why an entry does not count at a time, or "".
func (s Set) Void(e Entry, now time.Time) string {
	switch r, revoked := s.list.revocation(e.ID); {
	case revoked:
		return "revoked at " + r.Time.Format(time.RFC3339)
	case now.Before(s.list.Issued.Add(-slack)):
		return fmt.Sprintf("clock not set: it says %s, and the file is of %s", now.UTC().Format(time.DateOnly), s.list.Issued.Format(time.DateOnly))
	case now.Before(e.NotBefore):
		return "begins at " + e.NotBefore.Format(time.RFC3339)
	case !now.Before(e.Until):
		return "expired at " + e.Until.Format(time.RFC3339)
	}
	return ""
}
