package findings

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"waxseal/agent/journal"
	"waxseal/agent/mirror"
	"waxseal/hw/tpm/tpmtest"
	"waxseal/measure"
	"waxseal/measure/finding"
)

// router is a TPM and a journal that outlive the agent.
type router struct {
	chip *tpmtest.PCRs
	dir  string
	open *journal.Journal // of the agent that runs
	kept map[[32]byte][]byte
}

func newRouter(t *testing.T) *router {
	return &router{chip: tpmtest.Fake(), dir: filepath.Join(t.TempDir(), "run"), kept: map[[32]byte][]byte{}}
}

func (r *router) Keep(content []byte) error {
	r.kept[sha256.Sum256(content)] = content
	return nil
}

// boots returns the book of the first agent of a boot.
func (r *router) boots(t *testing.T) (*Book, *measure.Recorder) {
	t.Helper()
	j, err := journal.Open(r.dir)
	if err != nil {
		t.Fatal(err)
	}
	r.open = j
	rec, err := measure.NewRecorder(t.Context(), r.chip, j, measure.Waxseal1.PCRs())
	if err != nil {
		t.Fatal(err)
	}
	return r.book(t, rec), rec
}

// restarts returns the book of an agent that takes up where a killed one was.
func (r *router) restarts(t *testing.T) (*Book, *measure.Recorder) {
	t.Helper()
	r.open.Close() // as the kernel does for the killed
	j, err := journal.Open(r.dir)
	if err != nil {
		t.Fatal(err)
	}
	r.open = j
	start, events, err := j.Load()
	if err != nil {
		t.Fatal(err)
	}
	rec, err := measure.Resume(t.Context(), r.chip, j, start, events)
	if err != nil {
		t.Fatal(err)
	}
	return r.book(t, rec), rec
}

func (r *router) book(t *testing.T, rec Recorder) *Book {
	t.Helper()
	b, err := New(Config{Recorder: rec, Keeper: r, Profile: measure.Waxseal1})
	if err != nil {
		t.Fatal(err)
	}
	return b
}

func names(t *testing.T, rec *measure.Recorder) []string {
	t.Helper()
	var out []string
	err := rec.Freeze(func(log []measure.Event) error {
		for _, e := range log {
			if e.PCR != measure.Runtime {
				t.Errorf("%s is in PCR %d", e.Name, e.PCR)
			}
			out = append(out, e.Name)
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return out
}

func incident(id string, severity mirror.Severity) mirror.Incident {
	at := time.Date(2026, 11, 27, 1, 2, 3, 0, time.UTC)
	return mirror.Incident{
		ID: id, Kind: mirror.Duplicate, Severity: severity, State: mirror.Open, Cause: "tc mirred mirror", Ports: []string{"r0", "r2"},
		Time: at, First: at, Last: at, Detector: "rtnetlink",
	}
}

func TestAFindingIsRecordedOnceForEachStep(t *testing.T) {
	b, rec := newRouter(t).boots(t)
	in := incident("duplicate-1", mirror.Notice)
	for range 5 {
		report(t, b, in)
		in.Count++
	}
	in.Severity = mirror.Alarm
	report(t, b, in)
	report(t, b, in)
	in.State = mirror.Ended
	report(t, b, in)
	report(t, b, in)
	want := []string{"mirror/duplicate/duplicate-1/notice", "mirror/duplicate/duplicate-1/alarm", "mirror/duplicate/duplicate-1/ended"}
	if got := names(t, rec); !slices.Equal(got, want) {
		t.Errorf("records %q, want %q", got, want)
	}
}

func report(t *testing.T, b *Book, in mirror.Incident) {
	t.Helper()
	if err := b.Report(t.Context(), in); err != nil {
		t.Errorf("%s: %v", in.ID, err)
	}
}

func TestTheRecordSaysWhatWasFound(t *testing.T) {
	r := newRouter(t)
	b, rec := r.boots(t)
	report(t, b, incident("duplicate-1", mirror.Alarm))
	_ = rec.Freeze(func(log []measure.Event) error {
		f, err := finding.Parse(r.kept[log[0].Content])
		if err != nil || f.Cause != "tc mirred mirror" || !slices.Equal(f.Ports, []string{"r0", "r2"}) {
			t.Errorf("kept %+v, %v", f, err)
		}
		return nil
	})
}

func TestAKilledAgentsFindingsStayAndCount(t *testing.T) {
	r := newRouter(t)
	b, _ := r.boots(t)
	report(t, b, incident("duplicate-1", mirror.Alarm))
	// kill -9: nothing of the first agent is left but the journal and the TPM
	b, rec := r.restarts(t)
	if got := names(t, rec); !slices.Equal(got, []string{"mirror/duplicate/duplicate-1/alarm"}) {
		t.Errorf("after the restart: %q", got)
	}
	report(t, b, incident("duplicate-1", mirror.Alarm))
	if got := names(t, rec); len(got) != 1 {
		t.Errorf("the same step is recorded twice: %q", got)
	}
}

func TestProvokedFindingsDoNotFillTheLog(t *testing.T) {
	r := newRouter(t)
	b, rec := r.boots(t)
	for i := range 3 * maxSubjects {
		if i == 2*maxSubjects {
			b, rec = r.restarts(t)
		}
		err := b.Report(t.Context(), incident(fmt.Sprintf("duplicate-%d", i), mirror.Alarm))
		if i >= maxSubjects && !errors.Is(err, errFull) || i < maxSubjects && err != nil {
			t.Fatalf("finding %d: %v", i, err)
		}
	}
	got := names(t, rec)
	if len(got) != maxSubjects+1 || got[maxSubjects] != finding.Overflow {
		t.Errorf("%d records, the last is %q: want %d and one of %q", len(got), got[len(got)-1], maxSubjects, finding.Overflow)
	}
}

func TestAFlappingFindingDoesNotFillTheLog(t *testing.T) {
	b, rec := newRouter(t).boots(t)
	in := incident("duplicate-1", mirror.Notice)
	for i := range 100 {
		in.State = []mirror.State{mirror.Open, mirror.Ended}[i%2]
		_ = b.Report(t.Context(), in)
	}
	if got := names(t, rec); len(got) > maxSteps {
		t.Errorf("%d records of one finding: at most %d", len(got), maxSteps)
	}
	in.State, in.Severity = mirror.Open, mirror.Alarm
	report(t, b, in)
	if got := names(t, rec); !strings.HasSuffix(got[len(got)-1], "/alarm") {
		t.Errorf("an alarm after many changes is not recorded: %q", got)
	}
}

func TestInformationIsNoFindingButForDifferencesFromTheInventory(t *testing.T) {
	b, rec := newRouter(t).boots(t)
	flood := incident("flood-1", mirror.Info)
	flood.Kind = mirror.Flood
	report(t, b, flood)
	flood.State = mirror.Ended
	report(t, b, flood)
	module := incident("module-1", mirror.Info)
	module.Kind = mirror.Module
	report(t, b, module)
	there := module
	there.ID, there.Baseline = "module-2", true
	report(t, b, there)
	allowed := incident("duplicate-2", mirror.Info)
	allowed.Authorised = "TICKET-1"
	report(t, b, allowed)
	want := []string{"runtime/module/module-1/info", "mirror/duplicate/duplicate-2/authorised"}
	if got := names(t, rec); !slices.Equal(got, want) {
		t.Errorf("records %q, want %q", got, want)
	}
}

func TestCapabilitiesAreRecordedWhenTheyChange(t *testing.T) {
	b, rec := newRouter(t).boots(t)
	list := []mirror.Capability{{Name: "hooks/r0", State: mirror.Full, How: "tcx"}}
	for range 3 {
		if err := b.Capabilities(t.Context(), list); err != nil {
			t.Fatal(err)
		}
	}
	list[0].State = mirror.None
	if err := b.Capabilities(t.Context(), list); err != nil {
		t.Fatal(err)
	}
	if got := names(t, rec); !slices.Equal(got, []string{"mirror/capabilities/1", "mirror/capabilities/2"}) {
		t.Errorf("records %q", got)
	}
}

func TestFindingsAreRecordedBeforeTheyAreTold(t *testing.T) {
	b, rec := newRouter(t).boots(t)
	f, err := b.Follow()
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	go func() { _ = b.Report(context.Background(), incident("duplicate-1", mirror.Alarm)) }()
	e := <-f.Entries()
	if got := names(t, rec); e.Index < 0 || e.Index >= len(got) || got[e.Index] != e.Name {
		t.Errorf("told %s at %d, the log holds %q", e.Name, e.Index, got)
	}
}

func TestAFollowerThatComesLaterIsToldWhatIsOpen(t *testing.T) {
	b, _ := newRouter(t).boots(t)
	report(t, b, incident("duplicate-1", mirror.Alarm))
	over := incident("duplicate-2", mirror.Alarm)
	report(t, b, over)
	over.State = mirror.Ended
	report(t, b, over)
	f, err := b.Follow()
	if err != nil {
		t.Fatal(err)
	}
	f.Close()
	var told []string
	for e := range f.Entries() {
		told = append(told, e.Name)
	}
	if !slices.Equal(told, []string{"mirror/duplicate/duplicate-1/alarm"}) {
		t.Errorf("told %q", told)
	}
}

func TestASlowFollowerIsCutOffAndHoldsNobodyUp(t *testing.T) {
	b, _ := newRouter(t).boots(t)
	f, err := b.Follow()
	if err != nil {
		t.Fatal(err)
	}
	in := incident("duplicate-1", mirror.Alarm)
	for range maxBehind + 2 {
		report(t, b, in)
	}
	n := 0
	for range f.Entries() {
		n++
	}
	if n != maxBehind {
		t.Errorf("told %d entries before the end, want %d", n, maxBehind)
	}
	for range maxFollowers {
		if _, err := b.Follow(); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := b.Follow(); !errors.Is(err, ErrFollowers) {
		t.Errorf("one follower too many: %v", err)
	}
}

func TestWithoutATPMAFindingIsToldAndSaysThatItIsNotRecorded(t *testing.T) {
	b, err := New(Config{Profile: measure.Waxseal1})
	if err != nil {
		t.Fatal(err)
	}
	f, _ := b.Follow()
	defer f.Close()
	if err := b.Report(t.Context(), incident("duplicate-1", mirror.Alarm)); !errors.Is(err, errNotRecorded) {
		t.Errorf("report: %v", err)
	}
	if e := <-f.Entries(); e.Index != -1 || e.Problem == "" {
		t.Errorf("told %+v", e)
	}
}
