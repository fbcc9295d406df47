package authorised

import (
	"bytes"
	"errors"
	"net/netip"
	"testing"
	"time"

	"waxseal/measure/manifest/sealed"
)

func TestAsManyMustSignAsTheReaderDemands(t *testing.T) {
	l := list(entry())
	for _, c := range []struct {
		name    string
		need    int
		signers []string
		want    error
	}{
		{"one of one", 1, []string{"ann"}, nil},
		{"two of two", 2, []string{"ann", "bob"}, nil},
		{"one of two", 2, []string{"ann"}, ErrUnsigned},
		{"one person twice", 2, []string{"ann", "ann"}, ErrFile},
		{"a stranger", 1, []string{"eve"}, sealed.ErrSignature},
		{"a stranger as the second", 2, []string{"ann", "eve"}, sealed.ErrSignature},
	} {
		s, err := Open(bytesOf(t, signed(t, l, c.signers...)), approvers(t, c.need), "WX-0001")
		if !errors.Is(err, c.want) || c.want == nil && len(s.Entries()) != 1 || c.want != nil && len(s.Entries()) != 0 {
			t.Errorf("%s: %d entries, %v: want %v", c.name, len(s.Entries()), err, c.want)
		}
	}
}

func TestTheSecondMustSignTheSameList(t *testing.T) {
	other := entry()
	other.Outer = []netip.Prefix{netip.MustParsePrefix("198.51.100.0/24")}
	f := signed(t, list(entry()), "ann")
	f.Lists = append(f.Lists, signed(t, list(other), "bob").Lists[0])
	if _, err := Open(bytesOf(t, f), approvers(t, 2), ""); !errors.Is(err, ErrDifferent) {
		t.Errorf("%v", err)
	}
}

func TestApproversAreDifferentPeople(t *testing.T) {
	a := approvers(t, 1)
	if _, err := a.Add("ann again", people()["ann"].Trust()); !errors.Is(err, ErrApprovers) {
		t.Errorf("the same keys under another name: %v", err)
	}
	if _, err := a.Add("ann", people()["eve"].Trust()); !errors.Is(err, ErrApprovers) {
		t.Errorf("the same name with other keys: %v", err)
	}
	for _, approvals := range []int{0, 3} {
		a.Approvals = approvals
		if err := a.Check(); !errors.Is(err, ErrApprovers) {
			t.Errorf("%d approvals of two people: %v", approvals, err)
		}
	}
	if _, err := Open(bytesOf(t, signed(t, list(entry()), "ann")), Approvers{}, ""); !errors.Is(err, ErrApprovers) {
		t.Errorf("no approvers: %v", err)
	}
	b, err := approvers(t, 2).Encode()
	if err != nil {
		t.Fatal(err)
	}
	if got, err := ParseApprovers(b); err != nil || got.Approvals != 2 || len(got.People) != 2 {
		t.Errorf("%v, %v", got, err)
	}
	if _, err := ParseApprovers(bytes.Replace(b, []byte(`"approvals": 2`), []byte(`"approvals": 0`), 1)); !errors.Is(err, ErrApprovers) {
		t.Errorf("%v", err)
	}
}

func TestEntriesAreOfTheirDevices(t *testing.T) {
	one, other := entry(), entry()
	one.Devices = []string{"WX-0001"}
	other.ID = "m2"
	file := bytesOf(t, signed(t, list(one, other), "ann"))
	for serial, want := range map[string]int{"WX-0001": 2, "WX-0002": 1, "": 1, "*": 1} {
		s, err := Open(file, approvers(t, 1), serial)
		if err != nil || len(s.Entries()) != want {
			t.Errorf("%q: %d entries, %v: want %d", serial, len(s.Entries()), err, want)
		}
	}
}

func TestOneApproverRevokes(t *testing.T) {
	l := list(entry())
	f, err := signed(t, l, "ann", "bob").Revoke(Revocation{"m1", issued.Add(time.Hour), "abused"}, 2, people()["bob"])
	if err != nil {
		t.Fatal(err)
	}
	s, err := Open(bytesOf(t, f), approvers(t, 2), "")
	if err != nil {
		t.Fatal(err)
	}
	if s.Number() != 2 || s.Void(s.Entries()[0], issued.Add(2*time.Hour)) != "revoked at 2026-07-01T13:00:00Z" {
		t.Errorf("number %d, %q", s.Number(), s.Void(s.Entries()[0], issued.Add(2*time.Hour)))
	}

	// Whoever takes it away has an older file.
	a := approvers(t, 2)
	a.Least = 2
	f.Revocations = []Blob{}
	if _, err := Open(bytesOf(t, f), a, ""); !errors.Is(err, ErrOld) {
		t.Errorf("an older file: %v", err)
	}
}

func TestOtherRevocationsAreRefused(t *testing.T) {
	l := list(entry())
	good := Revocation{"m1", issued, "abused"}
	for name, c := range map[string]struct {
		r      Revocation
		number uint64
		who    string
		want   error
	}{
		"by a stranger":       {good, 2, "eve", sealed.ErrSignature},
		"of nothing":          {Revocation{"m9", issued, "x"}, 2, "ann", ErrFile},
		"of an old number":    {good, 1, "ann", ErrFile},
		"of a number too far": {good, 3, "ann", ErrFile},
	} {
		f, err := signed(t, l, "ann").Revoke(c.r, c.number, people()[c.who])
		if err != nil {
			t.Fatal(err)
		}
		if _, err := Open(bytesOf(t, f), approvers(t, 1), ""); !errors.Is(err, c.want) {
			t.Errorf("%s: %v", name, err)
		}
	}
	f := signed(t, l, "ann")
	f.Revocations = append(f.Revocations, f.Lists[0]) // a list is no revocation
	if _, err := Open(bytesOf(t, f), approvers(t, 1), ""); !errors.Is(err, sealed.ErrKind) {
		t.Errorf("%v", err)
	}
}

func TestNoBitOfAFileCanBeFlipped(t *testing.T) {
	file := bytesOf(t, signed(t, list(entry()), "ann", "bob"))
	trust := approvers(t, 2)
	if _, err := Open(file, trust, ""); err != nil {
		t.Fatal(err)
	}
	for i := 0; i < len(file); i += 1 + i%97 { // a signature takes a while to verify
		bad := bytes.Clone(file)
		bad[i] ^= 1 << (i % 8)
		if _, err := Open(bad, trust, ""); err == nil {
			t.Fatalf("bit %d of byte %d of %d is flipped, and nobody sees it", i%8, i, len(file))
		}
	}
}

// FuzzOpen demands that nothing which is not signed opens.
func FuzzOpen(f *testing.F) {
	f.Add(bytesOf(f, signed(f, list(entry()), "eve")))
	trust := approvers(f, 1)
	f.Fuzz(func(t *testing.T, data []byte) {
		if _, err := Open(data, trust, ""); err == nil {
			t.Error("opened a file that nobody signed")
		}
		if parsed, err := ParseFile(data); err == nil && !bytes.Equal(bytesOf(t, parsed), data) {
			t.Error("a file has more than one spelling")
		}
	})
}

// FuzzParseApprovers demands that whatever is accepted has but one spelling.
func FuzzParseApprovers(f *testing.F) {
	b, err := approvers(f, 2).Encode()
	if err != nil {
		f.Fatal(err)
	}
	f.Add(b)
	f.Fuzz(func(t *testing.T, data []byte) {
		a, err := ParseApprovers(data)
		if err != nil {
			return
		}
		if again, err := a.Encode(); err != nil || !bytes.Equal(again, data) {
			t.Errorf("read in more than one spelling, %v", err)
		}
	})
}
