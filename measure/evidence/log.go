package evidence

import (
	"bytes"
	"fmt"
	"slices"

	"waxseal/measure"
	"waxseal/measure/eventlog"
)

// story is what a log says, with the PCR values that it leads to. It depends
// on the log, the bank, the PCRs and the profile alone, so it can be kept.
type story struct {
	events  []eventlog.Event // in the quoted PCRs; EV_NO_ACTION is left out
	beyond  []eventlog.Event // in other PCRs: proven by nothing
	records []measure.Record // those of events that are ours
	values  map[measure.PCR]measure.Digest
	start   []byte // PCR 0 before its first event
}

// rules reads a log for one challenge.
type rules struct {
	bank    measure.Alg
	mask    uint32 // quoted PCRs
	profile measure.Profile
}

// read decodes and replays a log, and holds it to the rules that need no
// reference: whose events stand where, and what comes after what.
func (r rules) read(b []byte) (*story, error) {
	log, err := r.decode(b)
	if err != nil {
		return nil, err
	}
	s := &story{start: make([]byte, r.bank.Size())}
	s.start[len(s.start)-1] = log.StartupLocality
	if s.values, err = log.Replay(r.bank); err != nil {
		return nil, fmt.Errorf("%w: %w", ErrLog, err)
	}
	if err := r.separators(log); err != nil {
		return nil, fmt.Errorf("%w: %w", ErrSeparator, err)
	}
	s.events = log.Events[:0] // in place: an event moves only towards the front
	s.records = make([]measure.Record, 0, len(log.Ours()))
	var closed [measure.NumPCRs]bool
	for i, e := range log.Events {
		record, err := r.place(e)
		if err != nil {
			return nil, fmt.Errorf("event %d: %w", i, err)
		}
		switch {
		case r.mask&(1<<e.PCR) == 0:
			s.beyond = append(s.beyond, e)
		case closed[e.PCR]:
			return nil, fmt.Errorf("event %d: %w: PCR %d", i, ErrCap, e.PCR)
		case e.Ours:
			s.records = append(s.records, record)
			closed[e.PCR] = record.IsCap()
			fallthrough
		case e.Extends():
			s.events = append(s.events, e)
		}
	}
	return s, nil
}

// separators checks that the firmware has closed its PCRs, if any of them is
// quoted and was used.
func (r rules) separators(log eventlog.Log) error {
	for _, e := range log.Firmware() {
		if e.PCR <= 7 && e.Extends() && r.mask&(1<<e.PCR) != 0 {
			return log.CheckSeparators(r.bank)
		}
	}
	return nil
}

// decode reads the log, which must have the quoted bank. No log is a log
// without events: it explains PCRs that were never extended.
func (r rules) decode(b []byte) (eventlog.Log, error) {
	if len(b) == 0 {
		return eventlog.Log{Banks: []measure.Alg{r.bank}}, nil
	}
	log, err := eventlog.DecodeCEL(b)
	if err != nil {
		return log, fmt.Errorf("%w: %w", ErrLog, err)
	}
	if !slices.Contains(log.Banks, r.bank) {
		return log, fmt.Errorf("%w: log has banks %v, the quote is of %v", ErrBank, log.Banks, r.bank)
	}
	return log, nil
}

// place tells whether e may stand in its PCR: ours where the class belongs,
// the firmware's anywhere but in the PCRs that only we extend. It returns the
// record of an event that is ours.
func (r rules) place(e eventlog.Event) (measure.Record, error) {
	if !e.Ours {
		return measure.Record{}, r.placeFirmware(e)
	}
	record, err := e.Record()
	if err != nil {
		return record, fmt.Errorf("%w: %w", ErrLog, err)
	}
	if record.IsCap() {
		if !slices.Contains(r.profile.Capped(), e.PCR) {
			return record, fmt.Errorf("%w: cap %s in PCR %d", ErrPlace, record.Name, e.PCR)
		}
		return record, nil
	}
	pcr, err := r.profile.For(record.Subject())
	if err != nil {
		return record, fmt.Errorf("%w: %w", ErrPlace, err)
	}
	if pcr != e.PCR {
		return record, fmt.Errorf("%w: %s in PCR %d instead of %d", ErrPlace, record.Name, e.PCR, pcr)
	}
	return record, nil
}

// placeFirmware also refuses the types whose digest is always that of their
// data, if it is not (PC Client Platform Firmware Profile, section 10.4.1).
func (r rules) placeFirmware(e eventlog.Event) error {
	if e.PCR == r.profile.Common || e.PCR == r.profile.Device || e.PCR == r.profile.Runtime {
		return fmt.Errorf("%w: something before the agent has used PCR %d", ErrUnclean, e.PCR)
	}
	switch e.Type {
	case eventlog.EVSeparator, eventlog.EVAction, eventlog.EVEFIAction:
		if !covered(e, r.bank) {
			return fmt.Errorf("%w: %s in PCR %d", ErrData, eventlog.TypeName(e.Type), e.PCR)
		}
	}
	return nil
}

// explains tells whether the log leads to the quoted values: a PCR that has
// events replays to its value, and a PCR that has none is at its start value.
func (s *story) explains(values map[measure.PCR][]byte) error {
	for pcr := range measure.PCR(measure.NumPCRs) {
		quoted, ok := values[pcr]
		if !ok {
			continue
		}
		replayed, extended := s.values[pcr]
		if extended && !bytes.Equal(replayed.Sum, quoted) {
			return fmt.Errorf("%w: PCR %d", ErrReplay, pcr)
		}
		if !extended && !s.atStart(pcr, quoted) {
			return fmt.Errorf("%w: PCR %d", ErrWithheld, pcr)
		}
	}
	return nil
}

// atStart tells whether value is the one of a PCR after TPM2_Startup: zero,
// but for the locality in PCR 0 and ones in 17 to 22 (PC Client Platform TPM
// Profile, section 4.6.2; TPM 2.0 Part 3, section 9.3).
func (s *story) atStart(pcr measure.PCR, value []byte) bool {
	if pcr == 0 {
		return bytes.Equal(value, s.start)
	}
	want := byte(0)
	if pcr >= 17 && pcr <= 22 {
		want = 0xff
	}
	for _, b := range value {
		if b != want {
			return false
		}
	}
	return true
}
