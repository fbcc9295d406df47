package authorised

import (
	"fmt"
	"net/netip"
	"slices"
	"time"

	"waxseal/measure/evidence"
)

// Bounds of what stands in an entry.
const (
	maxText     = 128 // bytes of a reference or a reason
	maxName     = 64  // bytes of an ID, a serial number, a device or a mechanism
	maxElements = 64  // of each list in an entry
	maxVLAN     = 4094
)

// Check tells whether the list is complete and contradicts itself nowhere.
func (l List) Check() error {
	if l.Format != Format {
		return fmt.Errorf("%w: format is %q: need %q", ErrList, l.Format, Format)
	}
	if l.Number == 0 {
		return fmt.Errorf("%w: number is 0: need 1 or more", ErrList)
	}
	if err := checkTime("issued", l.Issued); err != nil {
		return fmt.Errorf("%w: %w", ErrList, err)
	}
	if len(l.Entries) > MaxEntries || len(l.Revoked) > MaxEntries {
		return fmt.Errorf("%w: %d entries, %d revoked: at most %d", ErrList, len(l.Entries), len(l.Revoked), MaxEntries)
	}
	ids := map[string]bool{}
	for _, e := range l.Entries {
		if err := e.Check(); err != nil {
			return fmt.Errorf("%w: entry %q: %w", ErrList, evidence.Escape(e.ID), err)
		}
		if ids[e.ID] {
			return fmt.Errorf("%w: two entries are called %q", ErrList, e.ID)
		}
		ids[e.ID] = true
	}
	return l.checkRevoked()
}

func (l List) checkRevoked() error {
	seen := map[string]bool{}
	for _, r := range l.Revoked {
		if err := r.check(); err != nil {
			return fmt.Errorf("%w: %w", ErrList, err)
		}
		if seen[r.ID] {
			return fmt.Errorf("%w: entry %q is revoked twice", ErrList, r.ID)
		}
		seen[r.ID] = true
	}
	return nil
}

// Check tells whether an entry can stand in a list.
func (e Entry) Check() error {
	if err := checkText("id", e.ID, maxName); err != nil {
		return err
	}
	if err := checkText("reference", e.Reference, maxText); err != nil {
		return err
	}
	for _, c := range []struct {
		what  string
		names []string
		least int
	}{{"devices", e.Devices, 1}, {"from", e.From, 1}, {"to", e.To, 0}, {"mechanisms", e.Mechanisms, 0}} {
		if err := checkNames(c.what, c.names, c.least); err != nil {
			return err
		}
	}
	if err := e.checkScope(); err != nil {
		return err
	}
	return e.checkTimes()
}

func (e Entry) checkScope() error {
	if slices.Contains(e.To, everything) {
		return fmt.Errorf(`to: "*" is no port: leave it out, and name outer`)
	}
	if len(e.To) == 0 && len(e.Outer) == 0 && len(e.Mechanisms) == 0 {
		return fmt.Errorf("it names neither to nor outer nor mechanisms: that would be anything")
	}
	for what, list := range map[string][]netip.Prefix{"outer": e.Outer, "inner": e.Inner} {
		if err := checkPrefixes(what, list); err != nil {
			return err
		}
	}
	if len(e.VLANs) > maxElements || !ascending(e.VLANs) || len(e.VLANs) > 0 && (e.VLANs[0] == 0 || e.VLANs[len(e.VLANs)-1] > maxVLAN) {
		return fmt.Errorf("vlans %d: need at most %d different ones from 1 to %d, in order", e.VLANs, maxElements, maxVLAN)
	}
	if e.MaxRate == 0 {
		return fmt.Errorf("max_rate is 0: that would be none")
	}
	return nil
}

func (e Entry) checkTimes() error {
	if err := checkTime("not_before", e.NotBefore); err != nil {
		return err
	}
	if err := checkTime("until", e.Until); err != nil {
		return err
	}
	if span := e.Until.Sub(e.NotBefore); span <= 0 || span > MaxDays*24*time.Hour {
		return fmt.Errorf("it lasts from %s until %s: need a span of at most %d days",
			e.NotBefore.Format(time.RFC3339), e.Until.Format(time.RFC3339), MaxDays)
	}
	return nil
}

func (r Revocation) check() error {
	if err := checkText("id", r.ID, maxName); err != nil {
		return err
	}
	if err := checkText("reason", r.Reason, maxText); err != nil {
		return err
	}
	return checkTime("time", r.Time)
}

func checkTime(what string, t time.Time) error {
	if t.Location() != time.UTC || t.Nanosecond() != 0 || t.Year() < 2000 || t.Year() > 9999 {
		return fmt.Errorf("%s %s: need a time in UTC, in whole seconds", what, t)
	}
	return nil
}

func checkText(what, text string, limit int) error {
	if text == "" || len(text) > limit || evidence.Escape(text) != text {
		return fmt.Errorf("%s %q: need 1 to %d bytes of printable text", what, text, limit)
	}
	return nil
}

// checkNames demands that each name stands once, so that a list has one form.
func checkNames(what string, names []string, least int) error {
	if len(names) < least || len(names) > maxElements {
		return fmt.Errorf("%s: %d names: need %d to %d", what, len(names), least, maxElements)
	}
	for _, n := range names {
		if err := checkText(what, n, maxName); err != nil {
			return err
		}
	}
	if !ascending(names) || len(names) > 1 && slices.Contains(names, everything) {
		return fmt.Errorf(`%s %q: need different names in order, or "*" alone`, what, names)
	}
	return nil
}

func checkPrefixes(what string, list []netip.Prefix) error {
	if len(list) > maxElements {
		return fmt.Errorf("%s: %d prefixes: at most %d", what, len(list), maxElements)
	}
	for i, p := range list {
		if !p.IsValid() || p != p.Masked() || p.Addr().Is4In6() {
			return fmt.Errorf("%s %s: need a prefix without bits behind its length", what, p)
		}
		if what == "outer" && p.Bits() == 0 {
			return fmt.Errorf("%s %s: that would be anywhere", what, p)
		}
		if i > 0 && comparePrefixes(list[i-1], p) >= 0 {
			return fmt.Errorf("%s: need different prefixes in order", what)
		}
	}
	return nil
}
