package measure

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"testing"
)

var ctx = context.Background()

func start(t *testing.T, banks ...Alg) (*Recorder, *fakeTPM, *fakeJournal) {
	t.Helper()
	tpm := newFakeTPM(banks...)
	journal := &fakeJournal{trace: tpm.trace}
	r, err := NewRecorder(ctx, tpm, journal, Waxseal1.PCRs())
	if err != nil {
		t.Fatal(err)
	}
	return r, tpm, journal
}

func record(t *testing.T, name string) Record {
	t.Helper()
	r, err := Waxseal1.Of(name, []byte("content of "+name))
	if err != nil {
		t.Fatal(err)
	}
	return r
}

// replay extends the digests of a log onto the start values.
func replay(t *testing.T, journal *fakeJournal, events []Event) map[PCR][]Digest {
	t.Helper()
	values := map[PCR][]Digest{}
	for _, s := range journal.start {
		values[s.PCR] = s.Values
	}
	for _, e := range events {
		for i, v := range values[e.PCR] {
			if !v.Alg.Computable() {
				continue
			}
			next, err := Extend(v, e.Digests[i])
			if err != nil {
				t.Fatal(err)
			}
			values[e.PCR] = slices.Clone(values[e.PCR])
			values[e.PCR][i] = next
		}
	}
	return values
}

func mustAgree(t *testing.T, tpm *fakeTPM, journal *fakeJournal, r *Recorder) {
	t.Helper()
	err := r.Freeze(func(log []Event) error {
		for pcr, want := range replay(t, journal, log) {
			if !sameValues(tpm.pcrs[pcr], want) {
				t.Errorf("PCR %d holds %v and the log leads to %v", pcr, tpm.pcrs[pcr], want)
			}
		}
		if !slices.EqualFunc(log, journal.events, sameEvent) {
			t.Errorf("log %v and journal %v differ", log, journal.events)
		}
		return nil
	})
	if err != nil {
		t.Error(err)
	}
}

func sameEvent(a, b Event) bool {
	return a.Record == b.Record && slices.EqualFunc(a.Digests, b.Digests, Digest.Equal)
}

func TestRecorderAgreesWithReplay(t *testing.T) {
	for _, banks := range [][]Alg{{SHA256}, {SHA256, SHA384}, {SHA1, SHA256, SHA384, SHA512}, {SHA256, SM3}} {
		t.Run(fmt.Sprint(banks), func(t *testing.T) {
			r, tpm, journal := start(t, banks...)
			for _, name := range []string{"agent/exe", "policy/measure", "kernel/uki/waxseal", "identity/serial", "mirror/eth0", "kernel/uki/waxseal"} {
				e, err := r.Record(ctx, record(t, name))
				if err != nil {
					t.Fatal(err)
				}
				if len(e.Digests) != len(banks) {
					t.Errorf("%s has %d digests for %d banks", name, len(e.Digests), len(banks))
				}
			}
			for _, c := range Waxseal1.Cap(Handoff + "switch_root") {
				if _, err := r.Record(ctx, c); err != nil {
					t.Fatal(err)
				}
			}
			mustAgree(t, tpm, journal, r)
			if len(journal.events) != 9 {
				t.Errorf("journal has %d events: want 9", len(journal.events))
			}
		})
	}
}

func TestRecorderStartsOnWhatThePCRsHold(t *testing.T) {
	tpm := newFakeTPM(SHA256)
	if err := tpm.Extend(ctx, Code, Record{Name: "some/loader"}.Digests(tpm.banks)); err != nil {
		t.Fatal(err)
	}
	journal := &fakeJournal{trace: tpm.trace}
	r, err := NewRecorder(ctx, tpm, journal, Waxseal1.PCRs())
	if err != nil {
		t.Fatal(err)
	}
	if _, err := r.Record(ctx, record(t, "agent/exe")); err != nil {
		t.Fatal(err)
	}
	mustAgree(t, tpm, journal, r)
}

func TestRecorderJournalsBeforeItExtends(t *testing.T) {
	r, tpm, _ := start(t, SHA256)
	for range 3 {
		if _, err := r.Record(ctx, record(t, "agent/exe")); err != nil {
			t.Fatal(err)
		}
	}
	want := []string{"append", "extend", "append", "extend", "append", "extend"}
	if !slices.Equal(*tpm.trace, want) {
		t.Errorf("order was %v: want %v", *tpm.trace, want)
	}
}

func TestFailedExtendIsSettledByReadingThePCR(t *testing.T) {
	for _, tt := range []struct {
		name    string
		fail    []failure
		extends int   // calls of Extend that are expected
		want    error // nil: the record is in the log and in the PCR once
	}{
		{"the reply was lost", []failure{lostReply}, 1, nil},
		{"the command was lost", []failure{lostInput}, 2, nil},
		{"the command was lost twice", []failure{lostInput, lostInput}, 2, errTPM},
		{"the reply of the second try was lost", []failure{lostInput, lostReply}, 2, errTPM},
		{"another value was extended", []failure{scrambled}, 1, ErrDiverged},
	} {
		t.Run(tt.name, func(t *testing.T) {
			r, tpm, journal := start(t, SHA256, SHA384)
			tpm.fail = tt.fail
			_, err := r.Record(ctx, record(t, "agent/exe"))
			if !errors.Is(err, tt.want) {
				t.Fatalf("error %v: want %v", err, tt.want)
			}
			if n := len(*tpm.trace) - 1; n != tt.extends {
				t.Errorf("%d extends: want %d", n, tt.extends)
			}
			if tt.want == nil {
				mustAgree(t, tpm, journal, r)
			}
		})
	}
}

func TestExtendIsSettledAfterTheCallerIsGone(t *testing.T) {
	r, tpm, journal := start(t, SHA256)
	gone, cancel := context.WithCancel(ctx)
	cancel()
	if _, err := r.Record(gone, record(t, "agent/exe")); err != nil {
		t.Fatalf("a record that is in the journal was not extended: %v", err)
	}
	mustAgree(t, tpm, journal, r)
}

func TestBrokenRecorderFailsClosed(t *testing.T) {
	for _, tt := range []struct {
		name  string
		spoil func(*fakeTPM, *fakeJournal)
	}{
		{"extend lost twice", func(tpm *fakeTPM, _ *fakeJournal) { tpm.fail = []failure{lostInput, lostInput} }},
		{"extend lost, PCR unreadable", func(tpm *fakeTPM, _ *fakeJournal) { tpm.fail = []failure{lostReply}; tpm.noRead = true }},
		{"PCR holds something else", func(tpm *fakeTPM, _ *fakeJournal) { tpm.fail = []failure{scrambled} }},
		{"journal is full", func(_ *fakeTPM, j *fakeJournal) { j.fail = true }},
		{"TPM has other banks than at start", func(tpm *fakeTPM, _ *fakeJournal) {
			*tpm = fakeTPM{banks: []Alg{SHA256}, pcrs: newFakeTPM(SHA256).pcrs, trace: tpm.trace}
		}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			r, tpm, journal := start(t, SHA256, SHA384)
			tt.spoil(tpm, journal)
			if _, err := r.Record(ctx, record(t, "agent/exe")); err == nil {
				t.Fatal("record was accepted")
			}
			journal.fail, tpm.noRead, tpm.fail = false, false, nil
			before := len(*tpm.trace)
			if _, err := r.Record(ctx, record(t, "kernel/x")); !errors.Is(err, ErrStopped) {
				t.Errorf("next record: %v: want %v", err, ErrStopped)
			}
			if len(*tpm.trace) != before {
				t.Error("next record reached the journal or the TPM")
			}
			err := r.Freeze(func([]Event) error { t.Error("a log was given out for a quote"); return nil })
			if !errors.Is(err, ErrStopped) {
				t.Errorf("freeze: %v: want %v", err, ErrStopped)
			}
		})
	}
}

func TestRecorderRefusesWithoutTouchingTheTPM(t *testing.T) {
	for _, tt := range []struct {
		name string
		rec  Record
	}{
		{"PCR of the firmware", Record{PCR: 7, Name: "agent/exe"}},
		{"PCR that can be reset", Record{PCR: 16, Name: "agent/exe"}},
		{"PCR above 23", Record{PCR: 24, Name: "agent/exe"}},
		{"empty name", Record{PCR: Code}},
		{"name with a space", Record{PCR: Code, Name: "agent/a b"}},
		{"name with a newline", Record{PCR: Code, Name: "agent/a\nb"}},
		{"name that is not ASCII", Record{PCR: Code, Name: "agent/é"}},
		{"name without class", Record{PCR: Code, Name: "agent"}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			r, tpm, journal := start(t, SHA256)
			if _, err := r.Record(ctx, tt.rec); err == nil {
				t.Error("record was accepted")
			}
			if len(*tpm.trace) != 0 {
				t.Errorf("it led to %v", *tpm.trace)
			}
			if _, err := r.Record(ctx, record(t, "agent/exe")); err != nil {
				t.Errorf("a good record after it: %v", err)
			}
			mustAgree(t, tpm, journal, r)
		})
	}
}

func TestRecorderNeedsABankThatIsEvidence(t *testing.T) {
	tpm := newFakeTPM(SHA1)
	journal := &fakeJournal{trace: tpm.trace}
	if _, err := NewRecorder(ctx, tpm, journal, Waxseal1.PCRs()); !errors.Is(err, ErrNoBank) {
		t.Errorf("new: %v: want %v", err, ErrNoBank)
	}
	if _, err := Resume(ctx, tpm, journal, nil, nil); !errors.Is(err, ErrNoBank) {
		t.Errorf("resume: %v: want %v", err, ErrNoBank)
	}
}

func TestNewRecorderNeedsPCRsAndJournal(t *testing.T) {
	tpm := newFakeTPM(SHA256)
	if _, err := NewRecorder(ctx, tpm, &fakeJournal{fail: true}, Waxseal1.PCRs()); !errors.Is(err, errJournal) {
		t.Errorf("without journal: %v: want %v", err, errJournal)
	}
	tpm.noRead = true
	if _, err := NewRecorder(ctx, tpm, &fakeJournal{}, Waxseal1.PCRs()); !errors.Is(err, errTPM) {
		t.Errorf("without PCRs: %v: want %v", err, errTPM)
	}
}

// TestResumeAfterEachCrash kills the agent at each step of its third record
// and of a whole run before it.
func TestResumeAfterEachCrash(t *testing.T) {
	names := []string{"agent/exe", "policy/measure", "kernel/uki/waxseal"}
	for _, tt := range []struct {
		name             string
		written, extends int // of the three records
	}{
		{"before the first record", 0, 0},
		{"first written, not extended", 1, 0},
		{"first extended", 1, 1},
		{"second written, not extended", 2, 1},
		{"second extended", 2, 2},
		{"third written, not extended", 3, 2},
		{"third extended", 3, 3},
	} {
		t.Run(tt.name, func(t *testing.T) {
			_, tpm, journal := start(t, SHA1, SHA256, SHA384)
			for i, name := range names {
				rec := record(t, name)
				e := Event{rec, rec.Digests(tpm.banks)}
				if i < tt.written {
					journal.events = append(journal.events, e)
				}
				if i < tt.extends {
					if err := tpm.Extend(ctx, e.PCR, e.Digests); err != nil {
						t.Fatal(err)
					}
				}
			}
			r, err := Resume(ctx, tpm, journal, journal.start, journal.events)
			if err != nil {
				t.Fatal(err)
			}
			mustAgree(t, tpm, journal, r)
			if _, err := r.Record(ctx, record(t, "mirror/eth1")); err != nil {
				t.Fatal(err)
			}
			mustAgree(t, tpm, journal, r)
		})
	}
}

func TestResumeRefusesAJournalThatDoesNotExplainThePCRs(t *testing.T) {
	for _, tt := range []struct {
		name  string
		alter func(*fakeTPM, *fakeJournal)
	}{
		{"last event removed", func(_ *fakeTPM, j *fakeJournal) { j.events = j.events[:2] }},
		{"first event removed", func(_ *fakeTPM, j *fakeJournal) { j.events = j.events[1:] }},
		{"all events removed", func(_ *fakeTPM, j *fakeJournal) { j.events = nil }},
		{"events swapped", func(_ *fakeTPM, j *fakeJournal) { j.events[0], j.events[2] = j.events[2], j.events[0] }},
		{"name altered", func(_ *fakeTPM, j *fakeJournal) { j.events[0].Name = "agent/other" }},
		{"name of the last event altered", func(_ *fakeTPM, j *fakeJournal) { j.events[2].Name = "kernel/other" }},
		{"content altered", func(_ *fakeTPM, j *fakeJournal) { j.events[0].Content[0] ^= 1 }},
		{"digests removed", func(_ *fakeTPM, j *fakeJournal) { j.events[0].Digests = nil }},
		{"start value altered", func(_ *fakeTPM, j *fakeJournal) { j.start[3].Values[0].Sum[0] ^= 1 }},
		{"start value removed", func(_ *fakeTPM, j *fakeJournal) { j.start = j.start[1:] }},
		{"an event that was not extended, before the last", func(tpm *fakeTPM, j *fakeJournal) {
			rec := Record{Runtime, "mirror/eth9", [32]byte{}}
			j.events = slices.Insert(j.events, 1, Event{rec, rec.Digests(tpm.banks)})
		}},
		{"someone else extended", func(tpm *fakeTPM, _ *fakeJournal) {
			_ = tpm.Extend(ctx, Runtime, Record{Name: "x/y"}.Digests(tpm.banks))
		}},
		{"someone else extended the last PCR", func(tpm *fakeTPM, _ *fakeJournal) {
			_ = tpm.Extend(ctx, Code, Record{Name: "x/y"}.Digests(tpm.banks))
		}},
		{"TPM was reset", func(tpm *fakeTPM, _ *fakeJournal) { tpm.pcrs = newFakeTPM(tpm.banks...).pcrs }},
		{"PCRs cannot be read", func(tpm *fakeTPM, _ *fakeJournal) { tpm.noRead = true }},
	} {
		t.Run(tt.name, func(t *testing.T) {
			r, tpm, journal := start(t, SHA256, SHA384)
			for _, name := range []string{"agent/exe", "policy/measure", "kernel/uki/waxseal"} {
				if _, err := r.Record(ctx, record(t, name)); err != nil {
					t.Fatal(err)
				}
			}
			tt.alter(tpm, journal)
			got, err := Resume(ctx, tpm, journal, journal.start, journal.events)
			if err == nil || got != nil {
				t.Errorf("resumed with %v, error %v", got, err)
			}
		})
	}
}

func TestFreezeHoldsRecordsBack(t *testing.T) {
	r, tpm, journal := start(t, SHA256)
	const writers, each = 8, 25
	var wg sync.WaitGroup
	for w := range writers {
		wg.Go(func() {
			for i := range each {
				if _, err := r.Record(ctx, record(t, fmt.Sprintf("mirror/eth%d/%d", w, i))); err != nil {
					t.Error(err)
				}
			}
		})
	}
	for range 50 {
		mustAgree(t, tpm, journal, r)
	}
	wg.Wait()
	mustAgree(t, tpm, journal, r)
	if len(journal.events) != writers*each {
		t.Errorf("%d events: want %d", len(journal.events), writers*each)
	}
}

func TestFreezeGivesACopyAndTheErrorOfItsFunction(t *testing.T) {
	r, tpm, journal := start(t, SHA256)
	if _, err := r.Record(ctx, record(t, "agent/exe")); err != nil {
		t.Fatal(err)
	}
	err := r.Freeze(func(log []Event) error {
		log[0] = Event{}
		return errTPM
	})
	if !errors.Is(err, errTPM) {
		t.Errorf("error %v: want %v", err, errTPM)
	}
	mustAgree(t, tpm, journal, r)
}
