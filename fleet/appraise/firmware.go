package appraise

import (
	"bytes"
	"fmt"
	"slices"

	"waxseal/measure"
	"waxseal/measure/eventlog"
	"waxseal/measure/reference"
)

// firmwareName is the name of the firmware's log as a whole.
const firmwareName = "firmware"

// loaders are the PCRs of boot loaders, kernel, initramfs and command line,
// whose events can be predicted from an image.
func (a *appraisal) loaders() map[measure.PCR]bool {
	return map[measure.PCR]bool{4: true, 9: true, 11: true, a.profile.Code: true}
}

// judgeFirmware holds the firmware's events against the reference, PCR by PCR.
func (a *appraisal) judgeFirmware() {
	got := map[measure.PCR][]eventlog.Event{}
	events := a.v.Firmware()
	for _, e := range events {
		got[e.PCR] = append(got[e.PCR], e)
	}
	if len(a.ref.Firmware) == 0 {
		a.passOver(events)
		return
	}
	if len(events) == 0 {
		p := a.add(firmwareName, row{state: Missing, Row: Row{Source: SourceFirmware}})
		p.note = fmt.Sprintf("the router has no log of its firmware, %d events are expected", len(a.ref.Firmware))
	}
	want := map[measure.PCR][]int{}
	for i, e := range a.ref.Firmware {
		want[e.PCR] = append(want[e.PCR], i)
	}
	a.foretold = a.foretells()
	for pcr := range measure.PCR(measure.NumPCRs) {
		a.judgePCR(pcr, want[pcr], got[pcr])
	}
}

// passOver says that the firmware's log was not judged.
func (a *appraisal) passOver(events []eventlog.Event) {
	if len(events) == 0 {
		return
	}
	p := &part{name: firmwareName}
	a.parts[p.name] = p
	p.note = fmt.Sprintf("%d events of the firmware replay and are not judged: the reference has none", len(events))
}

// foretells tells whether the reference predicts a boot loader and what it
// loads, without which no log can reach the assurance level firmware.
func (a *appraisal) foretells() bool {
	loader, loaded := false, false
	for _, e := range a.ref.Firmware {
		if e.Source == reference.Predicted {
			loader = loader || e.PCR == 4
			loaded = loaded || e.PCR == 9 || e.PCR == 11
		}
	}
	return loader && loaded
}

// judgePCR aligns the events of one PCR with the reference.
func (a *appraisal) judgePCR(pcr measure.PCR, want []int, got []eventlog.Event) {
	bank := a.v.Bank()
	expected := make([][]byte, len(want))
	for i, w := range want {
		expected[i] = a.ref.Firmware[w].Digests[bank.String()]
	}
	actual := make([][]byte, len(got))
	for i, e := range got {
		d, _ := e.Digest(bank)
		actual[i] = d.Sum
	}
	position := 0 // of the last event of the reference that was passed
	for _, p := range align(expected, actual) {
		r := row{Row: Row{PCR: pcr, Source: SourceFirmware}, position: position}
		name := fmt.Sprintf("firmware/pcr%d", pcr)
		predicted := false
		if p.b >= 0 {
			r.Actual = actual[p.b]
		}
		if p.a >= 0 {
			e := a.ref.Firmware[want[p.a]]
			position = 2*want[p.a] + 1
			r.Expected, r.position = expected[p.a], position
			r.contains = slices.Concat(e.Contains, a.items[e.Name].holds())
			name, predicted = e.Name, e.Source == reference.Predicted
		}
		r.state = a.compare(pcr, p, r.Row)
		if r.state == Missing {
			r.culprit = firmwareName
		}
		if r.state != Good || a.loaders()[pcr] && !predicted {
			a.foretold = false // a firmware that is not the one that was learned may have measured anything
		}
		a.add(name, r)
	}
}

func (a *appraisal) compare(pcr measure.PCR, p pair, r Row) State {
	switch {
	case !a.v.Quoted(pcr):
		return Unverified
	case p.b < 0:
		return Missing
	case p.a < 0:
		return Unknown
	case len(r.Expected) > 0 && bytes.Equal(r.Expected, r.Actual):
		return Good
	}
	return Changed
}
