package mirror

import (
	"fmt"
	"strconv"
	"strings"
	"time"

	"github.com/go-json-experiment/json"
)

// CapabilityLine encodes the first line of a report: what can be watched here.
func CapabilityLine(list []Capability) ([]byte, error) {
	if list == nil {
		list = []Capability{}
	}
	return line(struct {
		Capabilities []Capability `json:"capabilities"`
	}{list})
}

// Line encodes one update of an incident as a line of JSON.
func (in Incident) Line() ([]byte, error) { return line(in.Clean()) }

func line(v any) ([]byte, error) {
	b, err := json.Marshal(v)
	if err != nil {
		return nil, fmt.Errorf("write a line: %w", err)
	}
	return append(b, '\n'), nil
}

// maxText is the longest text of a report in bytes; names of devices and
// processes have 15.
const maxText = 1024

// Clean writes out whatever in the texts could steer a terminal, hide text or
// begin a line: names of devices, processes and files come from whoever made
// them.
func (in Incident) Clean() Incident {
	for _, s := range []*string{
		&in.ID, &in.Cause, &in.In, &in.Copy, &in.Encap, &in.Netns, &in.Subject, &in.Detector,
		&in.Authorised, &in.Process.Comm, &in.Process.Exe,
	} {
		*s = plain(*s)
	}
	in.Ports, in.Evidence = plainAll(in.Ports), plainAll(in.Evidence)
	return in
}

func plainAll(list []string) []string {
	var out []string
	for _, s := range list {
		out = append(out, plain(s))
	}
	return out
}

// plain keeps what is printable, and writes everything else, and the
// backslash, as Go does in a quoted text, so that nothing looks like an escape
// that is none.
func plain(s string) string {
	var b strings.Builder
	for _, r := range strings.ToValidUTF8(s, "\uFFFD") {
		if b.Len() > maxText {
			return b.String() + "…"
		}
		if strconv.IsPrint(r) && r != '\\' {
			b.WriteRune(r)
			continue
		}
		q := strconv.QuoteRuneToASCII(r)
		b.WriteString(q[1 : len(q)-1])
	}
	return b.String()
}

// Row is one update of an incident for people: the time, how much it matters,
// and what it is.
func (in Incident) Row() string {
	in = in.Clean()
	row := fmt.Sprintf("%s  %-6s  %s", in.Time.UTC().Format(time.TimeOnly), strings.ToUpper(string(in.Severity)), in.Cause)
	if in.Netns != "" {
		row += ", in namespace " + in.Netns
	}
	if in.Authorised != "" {
		row += ", authorised: " + in.Authorised
	}
	if in.Count > 0 {
		row += fmt.Sprintf("; %d sampled, about %.0f a second", in.Count, in.Rate)
	}
	if in.State == Ended {
		row += "; ended"
	}
	return row + "  [" + in.ID + "]"
}

// Row is one capability for people.
func (c Capability) Row() string {
	row := fmt.Sprintf("%-7s  %s", c.State, plain(c.Name))
	if c.How != "" {
		row += ", by " + plain(c.How)
	}
	if c.Why != "" {
		row += ": " + plain(c.Why)
	}
	return row
}
