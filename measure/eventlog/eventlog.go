// Package eventlog reads, writes and replays measurement logs: what was
// extended into which PCR, in which order.
//
// Three encodings carry the same events: the TCG crypto-agile log of the
// firmware (TCG PC Client Platform Firmware Profile, section 10), CEL-TLV (TCG
// Canonical Event Log Format), which is the form on the wire, and the IMA
// list, which is also the netequip_boot log of RFC 9684.
//
// A log is a claim. Nothing in it is to be believed before its replay agrees
// with PCR values that a TPM has signed, and even then only the digests are
// proven: the type of an event and the data of most firmware events are
// covered by no digest. What is proven beyond the digests is said by Ours and
// by DigestCoversData.
//
// The decoders are strict. They accept one spelling of each log, allocate no
// more than a small multiple of their input, and never panic. The package
// opens no file, device or socket, reads no clock and never computes SHA-1.
package eventlog

import (
	"bytes"
	"errors"
	"fmt"
	"slices"

	"waxseal/measure"
)

// Caps that are applied before anything is parsed or allocated.
const (
	MaxSize   = 4 << 20 // bytes of an encoded log
	MaxEvents = 65536   // events of a log, those of type EVNoAction included
	MaxBanks  = 16      // PCR banks of a log
)

// Errors of the decoders and encoders. Each is wrapped with the number of the
// event and the byte at which it starts.
var (
	ErrTooLarge  = errors.New("event log is above the size that is accepted")
	ErrTruncated = errors.New("event log ends inside an event")
	ErrMalformed = errors.New("event log is malformed")
	ErrFormat    = errors.New("event log is not in the TCG crypto-agile format (Spec ID Event03)")
)

// Event is one entry of a log, the firmware's or ours.
type Event struct {
	PCR     measure.PCR
	Ours    bool             // the entry of a Record; the decoders then checked that the digests cover Data
	Type    uint32           // TCG event type, covered by no digest; EVEventTag where Ours
	Digests []measure.Digest // one for each bank of the log, in its order
	Data    []byte           // the firmware's event data, or the Payload of our Record
}

// Log is a measurement log. The slices of a decoded log share memory with the
// bytes it was decoded from.
type Log struct {
	Banks           []measure.Alg // the banks that each event has a digest for, in that order
	StartupLocality uint8         // 0, 3 or 4: the last byte of PCR 0 at start, as the log's StartupLocality event says
	Events          []Event       // the firmware's, then ours
}

// Of returns the log entry of an event that a measure.Recorder has extended.
func Of(e measure.Event) Event {
	return Event{PCR: e.PCR, Ours: true, Type: EVEventTag, Digests: e.Digests, Data: e.Payload()}
}

// New returns a log of our own events only.
func New(banks []measure.Alg, events []measure.Event) Log {
	l := Log{Banks: slices.Clone(banks), Events: make([]Event, len(events))}
	for i, e := range events {
		l.Events[i] = Of(e)
	}
	return l
}

// Join returns the firmware's log followed by our events, in the banks that
// both have, in our order. A firmware without a log is the zero Log.
func Join(firmware Log, ours Log) (Log, error) {
	if len(firmware.Events) == 0 {
		return ours, nil
	}
	var banks []measure.Alg
	for _, alg := range ours.Banks {
		if slices.Contains(firmware.Banks, alg) {
			banks = append(banks, alg)
		}
	}
	if !slices.ContainsFunc(banks, measure.Alg.Computable) {
		return Log{}, fmt.Errorf("join logs: firmware has banks %v and we have %v: need one in common, SHA-256 or stronger", firmware.Banks, ours.Banks)
	}
	f, err := firmware.Select(banks)
	if err != nil {
		return Log{}, err
	}
	o, err := ours.Select(banks)
	if err != nil {
		return Log{}, err
	}
	f.Events = append(f.Events, o.Events...)
	return f, nil
}

// Select returns the log with the digests of banks only, in that order.
func (l Log) Select(banks []measure.Alg) (Log, error) {
	if slices.Equal(banks, l.Banks) {
		return Log{l.Banks, l.StartupLocality, slices.Clone(l.Events)}, nil
	}
	places := make([]int, len(banks))
	for i, alg := range banks {
		if places[i] = slices.Index(l.Banks, alg); places[i] < 0 {
			return Log{}, fmt.Errorf("log has no bank %v, only %v", alg, l.Banks)
		}
	}
	out := Log{slices.Clone(banks), l.StartupLocality, slices.Clone(l.Events)}
	digests := make([]measure.Digest, 0, len(banks)*len(l.Events))
	for i := range out.Events {
		e := &out.Events[i]
		if len(e.Digests) != len(l.Banks) {
			return Log{}, fmt.Errorf("event %d has %d digests for %d banks: %w", i, len(e.Digests), len(l.Banks), ErrMalformed)
		}
		start := len(digests)
		for _, at := range places {
			digests = append(digests, e.Digests[at])
		}
		e.Digests = digests[start:len(digests):len(digests)]
		if isSpecID(*e) {
			e.Data = encodeSpecID(banks)
		}
	}
	return out, nil
}

// Firmware returns the events before the first of ours.
func (l Log) Firmware() []Event { return l.Events[:l.firstOfOurs()] }

// Ours returns our events.
func (l Log) Ours() []Event { return l.Events[l.firstOfOurs():] }

func (l Log) firstOfOurs() int {
	if i := slices.IndexFunc(l.Events, func(e Event) bool { return e.Ours }); i >= 0 {
		return i
	}
	return len(l.Events)
}

// Extends tells whether the event was extended into its PCR: all are but
// those of type EVNoAction.
func (e Event) Extends() bool { return e.Type != EVNoAction }

// Record returns the record of one of our events.
func (e Event) Record() (measure.Record, error) {
	if !e.Ours {
		return measure.Record{}, fmt.Errorf("PCR %d: %s event is not one of ours", e.PCR, TypeName(e.Type))
	}
	return measure.ParsePayload(e.PCR, e.Data)
}

// DigestCoversData tells whether Data is proven by the digests: there is at
// least one digest of SHA-256 or stronger, and each is the digest of Data.
// Data of any other event must be shown as unverified.
func (e Event) DigestCoversData() bool {
	covered := false
	for _, d := range e.Digests {
		if !d.Alg.Computable() {
			continue
		}
		if !measure.Hash(d.Alg, e.Data).Equal(d) {
			return false
		}
		covered = true
	}
	return covered && e.Extends()
}

// Digest returns the event's digest in one bank.
func (e Event) Digest(bank measure.Alg) (measure.Digest, bool) {
	for _, d := range e.Digests {
		if d.Alg == bank {
			return d, true
		}
	}
	return measure.Digest{}, false
}

// Equal tells whether both events say the same.
func (e Event) Equal(f Event) bool {
	return e.PCR == f.PCR && e.Ours == f.Ours && e.Type == f.Type &&
		slices.EqualFunc(e.Digests, f.Digests, measure.Digest.Equal) && bytes.Equal(e.Data, f.Data)
}
