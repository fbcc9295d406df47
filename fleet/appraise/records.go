package appraise

import (
	"crypto/sha256"
	"fmt"
	"strings"

	"waxseal/measure"
	"waxseal/measure/evidence"
	"waxseal/measure/reference"
)

// expected is what the reference has about one subject: more than one item
// where it is accepted both as there and as absent.
type expected struct {
	items    []reference.Item
	contains []string
	position int
}

// holds returns the names that the subject contains, none if e is nil.
func (e *expected) holds() []string {
	if e == nil {
		return nil
	}
	return e.contains
}

// index sorts the reference by subject.
func (a *appraisal) index() {
	a.items = map[string]*expected{}
	for i, it := range a.ref.Items {
		subject := measure.Subject(it.Name)
		e := a.items[subject]
		if e == nil {
			e = &expected{position: a.afterFirmware() + 2*i}
			a.items[subject] = e
		}
		e.items = append(e.items, it)
		e.contains = append(e.contains, it.Contains...)
		a.contains[subject] = append(a.contains[subject], it.Contains...)
	}
	for _, e := range a.ref.Firmware {
		a.contains[e.Name] = append(a.contains[e.Name], e.Contains...)
	}
}

// afterFirmware is the position of the agent's first record.
func (a *appraisal) afterFirmware() int { return 2*len(a.ref.Firmware) + 2 }

// judgeRecords holds the agent's records against the items of the reference.
func (a *appraisal) judgeRecords() {
	seen := map[string]bool{}
	position := a.afterFirmware()
	for _, r := range a.v.Records() {
		subject := r.Subject()
		want := a.items[subject]
		if want != nil {
			position = want.position
		}
		seen[subject] = true
		switch {
		case r.IsCap():
		case subject == serialName:
			a.judgeSerial(r, position+1)
		case strings.HasPrefix(subject, aggregateName):
			a.judgeAggregate(r, position+1)
		case r.PCR == a.profile.Runtime:
			a.judgeRuntime(r)
		case want == nil:
			a.addUnknown(r, position+1)
		default:
			a.judgeItem(r, want)
		}
	}
	for _, it := range a.ref.Items {
		if subject := measure.Subject(it.Name); !seen[subject] {
			a.addMissing(it, a.items[subject].position)
		}
	}
	if !seen[serialName] {
		sum := sha256.Sum256([]byte(a.v.Serial()))
		a.addMissing(reference.Item{PCR: a.profile.Device, Name: serialName, SHA256: []reference.Hex{sum[:]}}, a.end()-2)
	}
}

// judgeItem compares a record with the items that the reference has for it.
func (a *appraisal) judgeItem(r measure.Record, want *expected) {
	out := agentRow(r, want.position)
	first := want.items[0]
	out.Expected, out.contains, out.state = first.SHA256[0], want.contains, differing(r, first)
	for _, it := range want.items {
		if it.Name == r.Name && it.PCR == r.PCR && accepts(it.SHA256, r.Content) {
			out.state = Good
		}
	}
	p := a.add(r.Subject(), out)
	if out.state == Changed && first.Text != "" && p.diff == nil {
		p.diff, p.note = a.diff(first.Text, r.Content)
	}
}

// differing says how a record that is not good differs from its item.
func differing(r measure.Record, it reference.Item) State {
	switch {
	case strings.HasSuffix(r.Name, measure.Error):
		return Unreadable
	case strings.HasSuffix(r.Name, measure.Absent):
		return Absent
	case strings.HasSuffix(it.Name, measure.Absent):
		return Unknown // it is there, and the reference knows it only as absent
	}
	return Changed
}

func accepts(sums []reference.Hex, content [sha256.Size]byte) bool {
	for _, sum := range sums {
		if string(sum) == string(content[:]) {
			return true
		}
	}
	return false
}

func agentRow(r measure.Record, position int) row {
	return row{Row: Row{PCR: r.PCR, Source: SourceAgent, Actual: r.Content[:]}, position: position}
}

// judgeSerial compares the measured identity with the certified one.
func (a *appraisal) judgeSerial(r measure.Record, position int) {
	want := sha256.Sum256([]byte(a.v.Serial()))
	out := agentRow(r, position)
	out.Expected = want[:]
	out.state = Good
	if r.Name != serialName || r.Content != want {
		out.state = differing(r, reference.Item{})
	}
	a.add(serialName, out)
}

// judgeAggregate recomputes the value that binds the agent's records to the
// firmware's PCRs 0 to 9. It can only be recomputed in the bank of the quote.
func (a *appraisal) judgeAggregate(r measure.Record, position int) {
	out := agentRow(r, position)
	want, ok := a.aggregate()
	switch {
	case r.Subject() != aggregateName+a.v.Bank().String() || !ok:
		out.state = Informational
	case r.Name == r.Subject() && r.Content == want:
		out.Expected, out.state = want[:], Good
	default:
		out.Expected, out.state, out.culprit = want[:], differing(r, reference.Item{}), a.firstOfFirmware()
	}
	p := a.add(r.Subject(), out)
	if out.state == Informational {
		p.note = "cannot be recomputed from the quoted bank and PCRs"
	}
}

func (a *appraisal) aggregate() ([sha256.Size]byte, bool) {
	h := sha256.New()
	for pcr := range measure.PCR(10) {
		if !a.v.Quoted(pcr) {
			return [sha256.Size]byte{}, false
		}
		h.Write(a.v.PCRs()[pcr])
	}
	return [sha256.Size]byte(h.Sum(nil)), true
}

// firstOfFirmware returns the first part that differs in the firmware's log.
func (a *appraisal) firstOfFirmware() string {
	name, first := "", -1
	for _, p := range a.parts {
		for _, r := range p.rows {
			if r.Source == SourceFirmware && r.state.differs() && (first < 0 || r.position < first) {
				name, first = p.name, r.position
			}
		}
	}
	return name
}

// addUnknown adds a record that the reference does not know.
func (a *appraisal) addUnknown(r measure.Record, position int) {
	out := agentRow(r, position)
	out.state = Unknown
	if r.PCR != a.profile.Runtime {
		out.culprit = policyName
	}
	a.bounded(r.Subject(), out)
}

// bounded adds a row to a part that the reference does not know, or to one
// part for all that are too many.
func (a *appraisal) bounded(name string, r row) {
	if a.parts[name] == nil {
		if a.unknown++; a.unknown > maxUnknown {
			name = fmt.Sprintf("%s/…", r.state)
		}
	}
	a.add(name, r)
}

// addMissing adds an item that the agent has not measured, or that the quote
// does not cover.
func (a *appraisal) addMissing(it reference.Item, position int) {
	out := row{Row: Row{PCR: it.PCR, Source: SourceAgent, Expected: it.SHA256[0]}, position: position}
	out.state, out.contains, out.culprit = Missing, it.Contains, policyName
	if a.open[it.PCR] {
		out.culprit = a.ref.Handoff
	}
	if !a.v.Quoted(it.PCR) {
		out.state, out.culprit = Unverified, ""
	}
	a.add(measure.Subject(it.Name), out)
}

// judgeUnverified shows what the log says about PCRs that nothing proves.
func (a *appraisal) judgeUnverified() {
	counts := map[measure.PCR]int{}
	for _, e := range a.v.Unverified() {
		counts[e.PCR]++
	}
	for pcr := range measure.PCR(measure.NumPCRs) {
		if counts[pcr] == 0 {
			continue
		}
		name := fmt.Sprintf("unverified/pcr%d", pcr)
		a.parts[name] = &part{name: name, note: fmt.Sprintf("%d events that no quote covers", counts[pcr])}
	}
}

// end is a position after all items.
func (a *appraisal) end() int { return a.afterFirmware() + 2*len(a.ref.Items) + 4 }

// diff returns the lines in which the router's text differs from the
// reference, or why it cannot.
func (a *appraisal) diff(text string, content [sha256.Size]byte) ([]Line, string) {
	got, ok := a.v.Content(content)
	if !ok {
		return nil, "text not available"
	}
	return diffLines(text, string(got), evidence.Escape)
}
