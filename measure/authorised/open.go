package authorised

import (
	"bytes"
	"fmt"
	"slices"
)

// Set is what is authorised on one router, by people whom the reader believes.
// The zero Set authorises nothing.
type Set struct {
	list    List
	signers []string
	entries []Entry
}

// Open returns what a file authorises on the router of a serial number, if
// enough approvers have signed it. A router without a serial number has the
// entries for all devices.
func Open(file []byte, trust Approvers, serial string) (Set, error) {
	s, err := Read(file, trust)
	if err != nil {
		return Set{}, err
	}
	if len(s.signers) < trust.Approvals {
		return Set{}, fmt.Errorf("%w: by %q, need %d", ErrUnsigned, s.signers, trust.Approvals)
	}
	for _, e := range s.list.Entries {
		if e.IsFor(serial) {
			s.entries = append(s.entries, e)
		}
	}
	return s, nil
}

// Read returns the list of a file that at least one approver has signed, for
// those who are to approve it. It authorises nothing.
func Read(file []byte, trust Approvers) (Set, error) {
	if err := trust.Check(); err != nil {
		return Set{}, err
	}
	f, err := ParseFile(file)
	if err != nil {
		return Set{}, err
	}
	var s Set
	if err := s.readLists(f, trust); err != nil {
		return Set{}, err
	}
	if err := s.readRevocations(f, trust); err != nil {
		return Set{}, err
	}
	if s.list.Number < trust.Least {
		return Set{}, fmt.Errorf("%w: it has number %d: need %d or more", ErrOld, s.list.Number, trust.Least)
	}
	return s, nil
}

func (s *Set) readLists(f File, trust Approvers) error {
	var same []byte
	for _, blob := range f.Lists {
		payload, who, err := trust.open(Format, blob)
		if err != nil {
			return err
		}
		if same != nil && !bytes.Equal(same, payload) {
			return ErrDifferent
		}
		if slices.Contains(s.signers, who) {
			return fmt.Errorf("%w: %q signed twice", ErrFile, who)
		}
		same, s.signers = payload, append(s.signers, who)
	}
	var err error
	s.list, err = Parse(same)
	return err
}

// readRevocations adds what was revoked since the list, each with the number
// that comes next: one that is taken away leaves a gap or an older file.
func (s *Set) readRevocations(f File, trust Approvers) error {
	for _, blob := range f.Revocations {
		payload, _, err := trust.open(RevocationFormat, blob)
		if err != nil {
			return fmt.Errorf("revocation: %w", err)
		}
		var l late
		if err := parse(payload, &l, func() ([]byte, error) { return l.encode() }); err != nil {
			return err
		}
		if l.Number != s.list.Number+1 {
			return fmt.Errorf("%w: a revocation has number %d: need %d", ErrFile, l.Number, s.list.Number+1)
		}
		there := slices.ContainsFunc(s.list.Entries, func(e Entry) bool { return e.ID == l.ID })
		if _, already := s.list.revocation(l.ID); already || !there {
			return fmt.Errorf("%w: %q cannot be revoked: it is not there, or revoked already", ErrFile, l.ID)
		}
		s.list.Number, s.list.Revoked = l.Number, append(s.list.Revoked, l.Revocation)
	}
	return nil
}

// Entries returns what concerns the router, also what does not count now.
func (s Set) Entries() []Entry { return s.entries }

// List returns the whole list, with what was revoked since it was signed.
func (s Set) List() List { return s.list }

// Number returns the number of the file.
func (s Set) Number() uint64 { return s.list.Number }

// Signers returns the names of those who signed the list.
func (s Set) Signers() []string { return s.signers }
