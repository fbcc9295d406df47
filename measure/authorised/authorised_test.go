package authorised

import (
	"bytes"
	"crypto/rand"
	"errors"
	"net/netip"
	"strings"
	"sync"
	"testing"
	"time"

	"waxseal/measure/manifest/sealed"
)

var issued = time.Date(2026, 7, 1, 12, 0, 0, 0, time.UTC)

func entry() Entry {
	return Entry{
		ID: "m1", Reference: "TICKET-1", Devices: []string{"*"}, From: []string{"r0"}, To: []string{"r2"},
		Outer: []netip.Prefix{netip.MustParsePrefix("192.0.2.9/32")}, MaxRate: 1000,
		NotBefore: issued, Until: issued.AddDate(0, 1, 0),
	}
}

func list(entries ...Entry) List {
	return List{Format: Format, Number: 1, Issued: issued, Entries: entries}
}

// people are two approvers and a stranger; making keys takes a while.
var people = sync.OnceValue(func() map[string]sealed.Keys {
	m := map[string]sealed.Keys{}
	for _, name := range []string{"ann", "bob", "eve"} {
		k, err := sealed.NewKeys(rand.Reader)
		if err != nil {
			panic(err)
		}
		m[name] = k
	}
	return m
})

func approvers(t testing.TB, approvals int) Approvers {
	t.Helper()
	a := Approvers{Format: ApproversFormat, Approvals: 1}
	for _, name := range []string{"ann", "bob"} {
		var err error
		if a, err = a.Add(name, people()[name].Trust()); err != nil {
			t.Fatal(err)
		}
	}
	a.Approvals = approvals
	return a
}

func signed(t testing.TB, l List, names ...string) File {
	t.Helper()
	f, err := l.Sign(people()[names[0]])
	for _, name := range names[1:] {
		if err == nil {
			f, err = f.Approve(l, people()[name])
		}
	}
	if err != nil {
		t.Fatal(err)
	}
	return f
}

func bytesOf(t testing.TB, f File) []byte {
	t.Helper()
	b, err := f.Encode()
	if err != nil {
		t.Fatal(err)
	}
	return b
}

func TestListIsReadAsItWasWritten(t *testing.T) {
	e := entry()
	e.Devices, e.VLANs, e.Mechanisms = []string{"WX-0001", "WX-0002"}, []uint16{7, 100}, []string{"tc mirred mirror"}
	e.Inner = []netip.Prefix{netip.MustParsePrefix("203.0.113.0/24"), netip.MustParsePrefix("2001:db8::/32")}
	l := list(e)
	l.Revoked = []Revocation{{"m0", issued, "ticket closed"}}
	b, err := l.Encode()
	if err != nil {
		t.Fatal(err)
	}
	again, err := Parse(b)
	if err != nil {
		t.Fatal(err)
	}
	if c, err := again.Encode(); err != nil || !bytes.Equal(b, c) {
		t.Errorf("written again as\n%s, %v", c, err)
	}
}

func TestOtherListsAreRefused(t *testing.T) {
	for name, spoil := range map[string]func(*List){
		"another format":            func(l *List) { l.Format = "waxseal-authorised-2" },
		"no number":                 func(l *List) { l.Number = 0 },
		"no time":                   func(l *List) { l.Issued = time.Time{} },
		"fractions of a second":     func(l *List) { l.Issued = issued.Add(1) },
		"another zone":              func(l *List) { l.Issued = issued.In(time.FixedZone("", 3600)) },
		"one ID twice":              func(l *List) { l.Entries = append(l.Entries, entry()) },
		"no ID":                     func(l *List) { l.Entries[0].ID = "" },
		"no reference":              func(l *List) { l.Entries[0].Reference = "" },
		"a line feed":               func(l *List) { l.Entries[0].Reference = "a\nb" },
		"a bidirectional mark":      func(l *List) { l.Entries[0].Reference = "a\u202eb" },
		"no device":                 func(l *List) { l.Entries[0].Devices = nil },
		"all devices and one":       func(l *List) { l.Entries[0].Devices = []string{"*", "WX-0001"} },
		"no source":                 func(l *List) { l.Entries[0].From = nil },
		"ports out of order":        func(l *List) { l.Entries[0].From = []string{"r1", "r0"} },
		"a port twice":              func(l *List) { l.Entries[0].From = []string{"r0", "r0"} },
		"to everywhere":             func(l *List) { l.Entries[0].To = []string{"*"} },
		"neither to nor outer":      func(l *List) { l.Entries[0].To, l.Entries[0].Outer = nil, nil },
		"any outer address":         func(l *List) { l.Entries[0].Outer = []netip.Prefix{netip.MustParsePrefix("0.0.0.0/0")} },
		"bits behind the length":    func(l *List) { l.Entries[0].Inner = []netip.Prefix{netip.MustParsePrefix("203.0.113.1/24")} },
		"IPv4 in IPv6":              func(l *List) { l.Entries[0].Inner = []netip.Prefix{netip.MustParsePrefix("::ffff:203.0.113.0/120")} },
		"VLAN 0":                    func(l *List) { l.Entries[0].VLANs = []uint16{0} },
		"VLAN 4095":                 func(l *List) { l.Entries[0].VLANs = []uint16{4095} },
		"no rate":                   func(l *List) { l.Entries[0].MaxRate = 0 },
		"an end before its start":   func(l *List) { l.Entries[0].Until = l.Entries[0].NotBefore },
		"no end":                    func(l *List) { l.Entries[0].Until = issued.AddDate(2, 0, 0) },
		"a revocation twice":        func(l *List) { l.Revoked = []Revocation{{"m1", issued, "x"}, {"m1", issued, "x"}} },
		"a revocation without why":  func(l *List) { l.Revoked = []Revocation{{"m1", issued, ""}} },
		"a revocation without time": func(l *List) { l.Revoked = []Revocation{{"m1", time.Time{}, "x"}} },
	} {
		l := list(entry())
		spoil(&l)
		if b, err := l.Encode(); !errors.Is(err, ErrList) {
			t.Errorf("%s: %s, %v", name, b, err)
		}
	}
}

func TestOtherSpellingsAreRefused(t *testing.T) {
	b, err := list(entry()).Encode()
	if err != nil {
		t.Fatal(err)
	}
	good := string(b)
	for name, r := range map[string][2]string{
		"unknown key":   {`"format"`, `"extra": 1, "format"`},
		"doubled key":   {`"number": 1`, `"number": 1, "number": 1`},
		"other case":    {`"number"`, `"Number"`},
		"missing key":   {`"max_rate": 1000,`, ``},
		"null":          {`"vlans": []`, `"vlans": null`},
		"as text":       {`"max_rate": 1000`, `"max_rate": "1000"`},
		"negative":      {`"max_rate": 1000`, `"max_rate": -1`},
		"not one line":  {"\n}\n", "\n}"},
		"text after it": {"\n}\n", "\n}\nx"},
		"an offset":     {`12:00:00Z`, `12:00:00+00:00`},
		"an address":    {`192.0.2.9/32`, `192.0.2.9`},
	} {
		bad := strings.Replace(good, r[0], r[1], 1)
		if bad == good {
			t.Fatalf("%s: nothing to replace in\n%s", name, good)
		}
		if _, err := Parse([]byte(bad)); !errors.Is(err, ErrList) {
			t.Errorf("%s: %v", name, err)
		}
	}
	if _, err := Parse(make([]byte, MaxSize+1)); !errors.Is(err, ErrList) {
		t.Errorf("too large: %v", err)
	}
}

func TestTimeDecides(t *testing.T) {
	s, err := Open(bytesOf(t, signed(t, list(entry()), "ann")), approvers(t, 1), "")
	if err != nil {
		t.Fatal(err)
	}
	e := s.Entries()[0]
	e.NotBefore = issued.Add(time.Hour)
	for at, want := range map[time.Time]string{
		time.Unix(40, 0):              "clock not set: it says 1970-01-01, and the file is of 2026-07-01",
		issued.Add(-time.Hour):        "clock not set: it says 2026-07-01, and the file is of 2026-07-01",
		issued:                        "begins at 2026-07-01T13:00:00Z",
		issued.Add(time.Hour):         "",
		e.Until.Add(-time.Nanosecond): "",
		e.Until:                       "expired at 2026-08-01T12:00:00Z",
	} {
		if got := s.Void(e, at); got != want {
			t.Errorf("%s: %q, want %q", at, got, want)
		}
	}
}

func TestScopeIsWhatIsNamed(t *testing.T) {
	e := entry()
	e.Inner, e.VLANs = []netip.Prefix{netip.MustParsePrefix("203.0.113.0/24")}, []uint16{100}
	e.Mechanisms = []string{"tc mirred", "packet socket"}
	in, out := netip.MustParseAddr("203.0.113.7"), netip.MustParseAddr("198.51.100.7")
	for name, got := range map[string]bool{
		"from its port":              e.AllowsFrom("r0"),
		"from another and its port":  e.AllowsFrom("r1", "r0"),
		"to its port":                e.AllowsTo("r2"),
		"to its address":             e.AllowsOuter(netip.MustParseAddr("192.0.2.9")),
		"to its address in IPv6":     e.AllowsOuter(netip.MustParseAddr("::ffff:192.0.2.9")),
		"traffic to the prefix":      e.AllowsInner(out, in),
		"traffic from the prefix":    e.AllowsInner(in, out),
		"its VLAN":                   e.AllowsVLAN(100),
		"its mechanism":              e.Allows("tc mirred mirror"),
		"its mechanism, in capitals": e.Allows("TC mirred"),
	} {
		if !got {
			t.Errorf("%s: not allowed", name)
		}
	}
	for name, got := range map[string]bool{
		"from another port":       e.AllowsFrom("r1"),
		"from nowhere":            e.AllowsFrom(),
		"to another port":         e.AllowsTo("r3"),
		"to another address":      e.AllowsOuter(netip.MustParseAddr("192.0.2.10")),
		"to no address":           e.AllowsOuter(netip.Addr{}),
		"other traffic":           e.AllowsInner(out, out),
		"untagged":                e.AllowsVLAN(0),
		"another mechanism":       e.Allows("nft dup"),
		"one that begins like it": e.Allows("tc mirredx"),
	} {
		if got {
			t.Errorf("%s: allowed", name)
		}
	}
}

// FuzzParse demands that whatever is accepted has but one spelling.
func FuzzParse(f *testing.F) {
	b, err := list(entry()).Encode()
	if err != nil {
		f.Fatal(err)
	}
	f.Add(b)
	f.Fuzz(func(t *testing.T, data []byte) {
		l, err := Parse(data)
		if err != nil {
			return
		}
		if again, err := l.Encode(); err != nil || !bytes.Equal(again, data) {
			t.Errorf("read in more than one spelling, %v", err)
		}
		for _, e := range l.Entries {
			e.AllowsFrom("r0")
			e.AllowsOuter(netip.Addr{})
			e.Allows("x")
		}
	})
}
