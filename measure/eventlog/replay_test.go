package eventlog

import (
	"bytes"
	"encoding/hex"
	"errors"
	"fmt"
	"slices"
	"testing"

	"waxseal/measure"
)

func pcrLine(bank measure.Alg, pcr measure.PCR, d measure.Digest) string {
	return fmt.Sprintf("%v %d %s", bank, pcr, hex.EncodeToString(d.Sum))
}

func TestReplayAgreesWithExtendOneByOne(t *testing.T) {
	l := whole(t, 20)
	for _, bank := range both {
		want := map[measure.PCR]measure.Digest{}
		for _, e := range l.Events {
			if !e.Extends() {
				continue
			}
			d, _ := e.Digest(bank)
			old, ok := want[e.PCR]
			if !ok {
				old = measure.Digest{Alg: bank, Sum: make([]byte, bank.Size())}
			}
			next, err := measure.Extend(old, d)
			if err != nil {
				t.Fatal(err)
			}
			want[e.PCR] = next
		}
		got := mustReplay(t, l, bank)
		if len(got) != len(want) {
			t.Errorf("%v: %d PCRs: want %d", bank, len(got), len(want))
		}
		for pcr, d := range want {
			if !got[pcr].Equal(d) {
				t.Errorf("PCR %d is %v: want %v", pcr, got[pcr], d)
			}
		}
	}
}

func TestReplayIsOfOneStrongBankOnly(t *testing.T) {
	banks := []measure.Alg{measure.SHA1, measure.SHA256}
	l := New(banks, recorded(4, banks...))
	for _, bank := range []measure.Alg{measure.SHA1, measure.SM3, 0, 0xffff} {
		if v, err := l.Replay(bank); err == nil {
			t.Errorf("bank %v replays to %v", bank, v)
		}
		if err := l.CheckSeparators(bank); err == nil {
			t.Errorf("bank %v: separators were accepted", bank)
		}
	}
	if v, err := l.Replay(measure.SHA384); !errors.Is(err, ErrMalformed) {
		t.Errorf("bank that the log lacks: %v, %v: want %v", v, err, ErrMalformed)
	}
}

func TestStartupLocalitySetsPCR0Only(t *testing.T) {
	l := Log{Banks: both, StartupLocality: 3}
	for pcr := range measure.PCR(measure.NumPCRs) {
		want := byte(0)
		if pcr == 0 {
			want = 3
		}
		d := l.Start(measure.SHA256, pcr)
		if len(d.Sum) != 32 || !allZero(d.Sum[:31]) || d.Sum[31] != want {
			t.Errorf("PCR %d starts at %v", pcr, d)
		}
	}
	l.Events = []Event{event(0, EVNoAction, localitySignature+"\x03", both...), event(0, EVSCRTMVersion, "1", both...)}
	with := mustReplay(t, l, measure.SHA256)[0]
	l.StartupLocality = 0
	if without := mustReplay(t, l, measure.SHA256)[0]; with.Equal(without) {
		t.Error("start-up locality does not change the replay of PCR 0")
	}
}

// TestLogMustExplainEachQuotedPCR alters a good log, as someone would who has
// another boot to hide, and quotes the honest PCRs.
func TestLogMustExplainEachQuotedPCR(t *testing.T) {
	remove := func(l *Log, gone func(i int, e Event) bool) {
		i := -1
		l.Events = slices.DeleteFunc(l.Events, func(e Event) bool { i++; return gone(i, e) })
	}
	for _, tt := range []struct {
		name  string
		alter func(*Log, map[measure.PCR]measure.Digest)
		want  error
	}{
		{"the log as it is", func(*Log, map[measure.PCR]measure.Digest) {}, nil},
		{"a PCR at zero without events", func(_ *Log, q map[measure.PCR]measure.Digest) {
			q[10] = measure.Digest{Alg: measure.SHA384, Sum: make([]byte, 48)}
		}, nil},
		{"D-26 log withheld", func(l *Log, _ map[measure.PCR]measure.Digest) { l.Events = nil }, ErrUnexplained},
		{"all events of one PCR removed", func(l *Log, _ map[measure.PCR]measure.Digest) {
			remove(l, func(_ int, e Event) bool { return e.PCR == measure.Code })
		}, ErrUnexplained},
		{"one event removed", func(l *Log, _ map[measure.PCR]measure.Digest) {
			remove(l, func(i int, _ Event) bool { return i == 30 })
		}, ErrReplay},
		{"D-27 last event cut off", func(l *Log, _ map[measure.PCR]measure.Digest) { l.Events = l.Events[:len(l.Events)-1] }, ErrReplay},
		{"D-28 log longer than the PCRs", func(l *Log, _ map[measure.PCR]measure.Digest) {
			l.Events = append(l.Events, Of(recorded(4, both...)[0]))
		}, ErrReplay},
		{"D-28 log longer than a PCR at zero", func(l *Log, q map[measure.PCR]measure.Digest) {
			q[measure.Code] = measure.Digest{Alg: measure.SHA384, Sum: make([]byte, 48)}
		}, ErrReplay},
		{"D-29 quoted PCR that the log never extends", func(_ *Log, q map[measure.PCR]measure.Digest) {
			q[10] = measure.Hash(measure.SHA384, nil)
		}, ErrUnexplained},
		{"D-30 type rewritten to EV_NO_ACTION", func(l *Log, _ map[measure.PCR]measure.Digest) { l.Events[25].Type = EVNoAction }, ErrReplay},
		{"D-31 EV_NO_ACTION inserted", func(l *Log, _ map[measure.PCR]measure.Digest) {
			l.Events = slices.Insert(l.Events, 5, event(0, EVNoAction, "anything", both...))
		}, nil},
		{"EV_NO_ACTION that became an extend", func(l *Log, _ map[measure.PCR]measure.Digest) { l.Events[0].Type = EVIPL }, ErrReplay},
		{"start-up locality made up", func(l *Log, _ map[measure.PCR]measure.Digest) { l.StartupLocality = 3 }, ErrReplay},
		{"events of one PCR swapped", func(l *Log, _ map[measure.PCR]measure.Digest) {
			l.Events[1], l.Events[2] = l.Events[2], l.Events[1]
		}, ErrReplay},
		{"events of two PCRs swapped, which no PCR can tell", func(l *Log, _ map[measure.PCR]measure.Digest) {
			l.Events[9], l.Events[10] = l.Events[10], l.Events[9]
		}, nil},
		{"event moved to another PCR", func(l *Log, _ map[measure.PCR]measure.Digest) { l.Events[1].PCR = 3 }, ErrReplay},
		{"digest altered", func(l *Log, _ map[measure.PCR]measure.Digest) {
			d := &l.Events[8].Digests[1]
			d.Sum = bytes.Clone(d.Sum)
			d.Sum[47] ^= 0x80
		}, ErrReplay},
		{"digests of the bank removed", func(l *Log, _ map[measure.PCR]measure.Digest) { l.Events[8].Digests = l.Events[8].Digests[:1] }, ErrMalformed},
		{"D-12 values of another bank quoted", func(l *Log, q map[measure.PCR]measure.Digest) {
			v, _ := l.Replay(measure.SHA256)
			q[0] = v[0]
		}, ErrReplay},
		{"text altered, digest kept: no PCR can tell", func(l *Log, _ map[measure.PCR]measure.Digest) { l.Events[3].Data = []byte("other") }, nil},
	} {
		t.Run(tt.name, func(t *testing.T) {
			l := whole(t, 10)
			quoted := mustReplay(t, l, measure.SHA384)
			tt.alter(&l, quoted)
			if err := l.Explains(measure.SHA384, quoted); !errors.Is(err, tt.want) {
				t.Errorf("%v: want %v", err, tt.want)
			}
		})
	}
}

func TestDigestsOfOneBankSayNothingOfAnother(t *testing.T) {
	banks := []measure.Alg{measure.SHA1, measure.SHA256}
	l := Log{Banks: banks, Events: []Event{event(4, EVIPL, "honest", banks...)}}
	quoted := mustReplay(t, l, measure.SHA256)
	l.Events[0].Digests[1] = measure.Hash(measure.SHA256, []byte("forged"))
	if err := l.Explains(measure.SHA256, quoted); !errors.Is(err, ErrReplay) {
		t.Errorf("SHA-256 digests forged under honest SHA-1: %v: want %v", err, ErrReplay)
	}
	if err := l.Explains(measure.SHA1, quoted); err == nil {
		t.Error("the log was judged in the SHA-1 bank")
	}
}

func TestDigestCoversDataOnlyIfAllBanksSaySo(t *testing.T) {
	for _, tt := range []struct {
		name  string
		alter func(*Event)
		want  bool
	}{
		{"as it is", func(*Event) {}, true},
		{"D-33 data altered", func(e *Event) { e.Data = []byte("other") }, false},
		{"data removed", func(e *Event) { e.Data = nil }, false},
		{"one bank altered", func(e *Event) { e.Digests[1].Sum[0] ^= 1 }, false},
		{"only SHA-1 left", func(e *Event) { e.Digests = e.Digests[2:] }, false},
		{"no digest left", func(e *Event) { e.Digests = nil }, false},
		{"EV_NO_ACTION", func(e *Event) { e.Type = EVNoAction }, false},
		{"SHA-1 altered, which is not looked at", func(e *Event) { e.Digests[2].Sum[0] ^= 1 }, true},
	} {
		e := event(5, EVEFIAction, "Exit Boot Services Invocation", measure.SHA256, measure.SHA384, measure.SHA1)
		tt.alter(&e)
		if got := e.DigestCoversData(); got != tt.want {
			t.Errorf("%s: %v: want %v", tt.name, got, tt.want)
		}
	}
}

func TestFirmwareTextIsShownAsVerifiedOnlyWhereItIs(t *testing.T) {
	l, _ := firmware(t)
	covered := map[string]bool{}
	for _, e := range l.Events {
		if e.DigestCoversData() {
			covered[TypeName(e.Type)] = true
		}
	}
	for name, want := range map[string]bool{
		"EV_EFI_ACTION":                    true,
		"EV_SEPARATOR":                     true,
		"EV_EFI_VARIABLE_DRIVER_CONFIG":    true,
		"EV_EFI_BOOT_SERVICES_APPLICATION": false, // digest is of the program
		"EV_EVENT_TAG":                     false, // Linux: digest of the initrd
		"EV_EFI_PLATFORM_FIRMWARE_BLOB":    false,
		"EV_NO_ACTION":                     false,
	} {
		if covered[name] != want {
			t.Errorf("%s: covered is %v: want %v", name, covered[name], want)
		}
	}
}

func TestSeparatorsMustBeInOrder(t *testing.T) {
	find := func(l *Log, pcr measure.PCR) int {
		return slices.IndexFunc(l.Events, func(e Event) bool { return e.PCR == pcr && e.Type == EVSeparator })
	}
	for _, tt := range []struct {
		name  string
		alter func(*Log)
		want  error
	}{
		{"as they are", func(*Log) {}, nil},
		{"no events", func(l *Log) { l.Events = nil }, ErrSeparator},
		{"missing in PCR 7", func(l *Log) { l.Events = slices.Delete(l.Events, find(l, 7), find(l, 7)+1) }, ErrSeparator},
		{"doubled in PCR 4", func(l *Log) { l.Events = append(l.Events, l.Events[find(l, 4)]) }, ErrSeparator},
		{"doubled under another type", func(l *Log) {
			e := l.Events[find(l, 4)]
			e.Type = EVEFIAction
			l.Events = append(l.Events, e)
		}, ErrSeparator},
		{"hidden under another type", func(l *Log) { l.Events[find(l, 2)].Type = EVEFIAction }, ErrSeparator},
		{"type given to another event", func(l *Log) { l.Events[1].Type = EVSeparator }, ErrSeparator},
		{"error separator", func(l *Log) { l.Events[find(l, 1)] = event(1, EVSeparator, "\x01\x00\x00\x00", both...) }, ErrSeparator},
		{"followed in PCR 0", func(l *Log) { l.Events = append(l.Events, event(0, EVEFIPlatformFirmwareBlob, "x", both...)) }, ErrSeparator},
		{"followed in PCR 2", func(l *Log) { l.Events = append(l.Events, event(2, EVEFIBootServicesDriver, "x", both...)) }, ErrSeparator},
		{"followed in PCR 4, where boot loaders are", func(l *Log) { l.Events = append(l.Events, event(4, EVEFIBootServicesApp, "x", both...)) }, nil},
		{"of ones", func(l *Log) { l.Events[find(l, 3)] = event(3, EVSeparator, "\xff\xff\xff\xff", both...) }, nil},
	} {
		l, _ := firmware(t)
		tt.alter(&l)
		for _, bank := range both {
			if err := l.CheckSeparators(bank); !errors.Is(err, tt.want) {
				t.Errorf("%s: %v: want %v", tt.name, err, tt.want)
			}
		}
	}
}
