package mirror

import (
	"crypto/rand"
	"net/netip"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"waxseal/measure/authorised"
	"waxseal/measure/manifest/sealed"
)

var approver = sync.OnceValues(func() (sealed.Keys, error) { return sealed.NewKeys(rand.Reader) })

// readAuthorised signs and opens the mirrors of a case, one a line:
// TICKET-1 from=r0 to=r2 outer=192.0.2.9/32 rate=1000.
func readAuthorised(t *testing.T, text string) authorised.Set {
	t.Helper()
	l := authorised.List{Format: authorised.Format, Number: 1, Issued: start.Add(-time.Hour)}
	for line := range strings.Lines(text) {
		if fields := words.FindAllString(line, -1); len(fields) > 0 {
			e := readEntry(t, fields)
			l.Entries = append(l.Entries, e.Arrange())
			if strings.Contains(line, " revoked") {
				l.Revoked = append(l.Revoked, authorised.Revocation{ID: e.ID, Time: start, Reason: "abused"})
			}
		}
	}
	return open(t, l)
}

func readEntry(t *testing.T, fields []string) authorised.Entry {
	e := authorised.Entry{
		ID: fields[0], Reference: fields[0], Devices: []string{"*"}, MaxRate: 1_000_000,
		NotBefore: l0, Until: l0.AddDate(0, 0, 30),
	}
	for _, word := range fields[1:] {
		key, value, _ := strings.Cut(word, "=")
		value = strings.Trim(value, `"`)
		list := strings.Split(value, ",")
		switch key {
		case "from":
			e.From = list
		case "to":
			e.To = list
		case "by":
			e.Mechanisms = list
		case "outer", "inner":
			for _, s := range list {
				p := netip.MustParsePrefix(s)
				if key == "outer" {
					e.Outer = append(e.Outer, p)
				} else {
					e.Inner = append(e.Inner, p)
				}
			}
		case "vlan":
			n, _ := strconv.Atoi(value)
			e.VLANs = []uint16{uint16(n)}
		case "rate":
			n, _ := strconv.Atoi(value)
			e.MaxRate = uint64(n)
		case "after", "until":
			d, err := time.ParseDuration(value)
			if err != nil {
				t.Fatal(err)
			}
			if key == "after" {
				e.NotBefore = start.Add(d)
			} else {
				e.Until = start.Add(d)
			}
		case "revoked":
		default:
			t.Fatalf("what is %q?", word)
		}
	}
	return e
}

var l0 = start.Add(-time.Hour)

// open signs a list as its only approver and opens it.
func open(t *testing.T, l authorised.List) authorised.Set {
	t.Helper()
	keys, err := approver()
	if err != nil {
		t.Fatal(err)
	}
	trust, err := authorised.Approvers{Format: authorised.ApproversFormat, Approvals: 1}.Add("ann", keys.Trust())
	if err != nil {
		t.Fatal(err)
	}
	f, err := l.Sign(keys)
	if err != nil {
		t.Fatal(err)
	}
	b, err := f.Encode()
	if err != nil {
		t.Fatal(err)
	}
	s, err := authorised.Open(b, trust, "")
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func TestAnAuthorisationDoesNotCountWithoutAClock(t *testing.T) {
	c := judged{ports: []string{"r0", "r1", "r2"}, allowed: readAuthorised(t, "TICKET-1 from=r0 to=r2")}
	seen := readStep(t, `0ms rule subject=tc/1 in=r0 target=r2 cause="tc mirred mirror" by rtnetlink`)
	if in := c.run([]step{seen})[0]; in.Severity != Info || in.Authorised != "TICKET-1" {
		t.Errorf("with a clock: %s", summary(in))
	}
	seen.see.Time = time.Unix(40, 0)
	in := c.run([]step{seen})[0]
	if in.Severity != Alarm || in.Authorised != "" || !strings.Contains(in.Cause, "TICKET-1 does not count: clock not set") {
		t.Errorf("without: %s", summary(in))
	}
}
