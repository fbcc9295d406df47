package mirror

import (
	"fmt"
	"net/netip"
	"strings"
	"testing"
	"time"
)

var three = []string{"r0", "r1", "r2"}

func rule(at time.Duration, subject string) Observation {
	return Observation{Kind: Rule, Time: start.Add(at), Detector: "tc", Subject: subject, In: "r0", Target: "r2", Cause: "tc mirred mirror"}
}

func duplicate(at time.Duration) Observation {
	return Observation{Kind: Duplicate, Time: start.Add(at), Detector: "tc-egress", In: "r0", Out: "r2", Copy: "r2", Count: 1}
}

func TestARuleThatCopiesIsAnAlarmBeforeItsFirstPacket(t *testing.T) {
	for _, baseline := range []bool{false, true} {
		o := rule(0, "tc/1")
		o.Baseline = baseline
		got := NewJudge(Config{Ports: three}).Observe(o)
		if len(got) != 1 || got[0].Severity != Alarm || got[0].State != Open || got[0].In != "r0" || got[0].Copy != "r2" {
			t.Errorf("baseline %v: %+v", baseline, got)
		}
	}
}

func TestThreeDuplicatesAreAnAlarmAndFewerAreNot(t *testing.T) {
	j := NewJudge(Config{Ports: three})
	for i, want := range []Severity{Notice, Notice, Alarm, ""} {
		got := j.Observe(duplicate(time.Duration(i) * 100 * time.Millisecond))
		if want == "" {
			if len(got) != 0 {
				t.Errorf("a fourth is told at once: %+v", got)
			}
			continue
		}
		if len(got) != 1 || got[0].Severity != want {
			t.Errorf("duplicate %d: %+v, want %s", i+1, got, want)
		}
	}
	if got := j.Tick(start.Add(2 * time.Second)); len(got) != 1 || got[0].Count != 4 || got[0].Rate == 0 {
		t.Errorf("the counters after a second: %+v", got)
	}
	if got := j.Tick(start.Add(2100 * time.Millisecond)); len(got) != 0 {
		t.Errorf("and before another: %+v", got)
	}
}

func TestWhatExplainsComesLaterIntoTheSameIncident(t *testing.T) {
	j := NewJudge(Config{Ports: three})
	first := j.Observe(duplicate(0))[0]
	got := j.Observe(rule(20*time.Millisecond, "tc/1"))
	if len(got) != 1 || got[0].ID != first.ID || got[0].Severity != Alarm || !strings.HasPrefix(got[0].Cause, "tc mirred mirror r0 → r2, confirmed by 1 duplicate") {
		t.Errorf("%+v after %s", got, first.ID)
	}
	if !strings.HasPrefix(first.ID, "duplicate-") || len(got[0].Evidence) != 2 {
		t.Errorf("%s, evidence %q", first.ID, got[0].Evidence)
	}
}

func TestIncidentsThatTurnOutToBeOneEndInOne(t *testing.T) {
	j := NewJudge(Config{Ports: three})
	other := duplicate(0)
	other.Kind, other.Encap, other.Outer.Destination = Inside, "vxlan", netip.MustParseAddr("192.0.2.9")
	a, b := j.Observe(duplicate(0))[0], j.Observe(other)[0]
	o := rule(0, "tc/1")
	o.Target = "" // to wherever
	got := j.Observe(o)
	if len(got) != 2 || got[0].ID != b.ID || got[0].State != Ended || got[0].Cause != "part of "+a.ID || got[1].ID != a.ID || got[1].Count != 2 {
		t.Errorf("%+v", got)
	}
}

func TestAnIncidentEndsWhenNothingOfItIsSeen(t *testing.T) {
	j := NewJudge(Config{Ports: three})
	id := j.Observe(duplicate(0))[0].ID
	if got := j.Tick(start.Add(29 * time.Second)); len(got) != 1 || got[0].State != Open {
		t.Errorf("after 29 s: %+v", got)
	}
	got := append(j.Tick(start.Add(30*time.Second)), j.Tick(start.Add(33*time.Second))...)
	if len(got) == 0 || got[len(got)-1].State != Ended || got[len(got)-1].ID != id {
		t.Fatalf("after 33 s: %+v", got)
	}

	// Soon again it is the same, and its count goes on.
	again := j.Observe(duplicate(40 * time.Second))
	if len(again) != 1 || again[0].ID != id || again[0].State != Open || again[0].Count != 2 || !again[0].First.Equal(start) {
		t.Errorf("7 s later: %+v", again)
	}

	// Later it is another one.
	j.Tick(start.Add(71 * time.Second))
	j.Tick(start.Add(74 * time.Second))
	j.Tick(start.Add(90 * time.Second))
	if other := j.Observe(duplicate(91 * time.Second)); len(other) != 1 || other[0].ID == id || other[0].Count != 1 {
		t.Errorf("17 s later: %+v", other)
	}
}

func TestARuleIsOverWhenItIsGone(t *testing.T) {
	j := NewJudge(Config{Ports: three})
	id := j.Observe(rule(0, "tc/1"))[0].ID
	if got := j.Tick(start.Add(time.Hour)); len(got) != 0 {
		t.Errorf("a rule that stands: %+v", got)
	}
	o := rule(time.Hour, "tc/1")
	o.Gone = true
	j.Observe(o)
	j.Observe(duplicate(time.Hour + time.Second)) // seen late
	j.Tick(start.Add(time.Hour + 40*time.Second))
	got := j.Tick(start.Add(time.Hour + 43*time.Second))
	if len(got) != 1 || got[0].ID != id || got[0].State != Ended || got[0].Count != 1 || got[0].Kind != Duplicate {
		t.Errorf("%+v, want the end of %s", got, id)
	}
	if len(j.facts)+len(j.order)+len(j.matters)+len(j.streams) != 0 {
		t.Errorf("it keeps %d facts", len(j.facts))
	}
	o.Subject = "tc/2"
	if got := j.Observe(o); len(got) != 0 {
		t.Errorf("the end of what was never there: %+v", got)
	}
}

func TestAFloodOfOneSortDoesNotHideAnother(t *testing.T) {
	j := NewJudge(Config{Ports: three})
	told := map[Kind]int{}
	for i := range 3 * maxOpen {
		for _, in := range j.Observe(Observation{Kind: Listener, Time: start, Subject: fmt.Sprint("tcp/", i), Cause: "listens"}) {
			told[in.Kind]++
		}
	}
	if told[Listener] != maxOpen || told[Pressure] != 1 || len(j.order) != maxOpen+1 {
		t.Errorf("told %v, kept %d", told, len(j.order))
	}
	if got := j.Observe(rule(0, "tc/1")); len(got) != 1 || got[0].Severity != Alarm {
		t.Errorf("a rule: %+v", got)
	}
	for i := range 10 * maxOpen {
		o := duplicate(time.Duration(i) * time.Microsecond)
		o.Kind, o.Encap, o.In, o.Copy = Inside, "udp", fmt.Sprint("p", i%100), fmt.Sprint("q", i%30)
		o.Outer.Destination = netip.AddrFrom4([4]byte{10, byte(i >> 16), byte(i >> 8), byte(i)})
		j.Observe(o)
	}
	if len(j.order) > 2*maxOpen+2 {
		t.Errorf("kept %d", len(j.order))
	}
	for i := range 10 * maxOpen {
		o := duplicate(0)
		o.Time = start.Add(time.Duration(i) * time.Millisecond)
		j.Observe(o)
	}
	for _, f := range j.order {
		if len(f.times) > maxSights || len(f.earliest) > enough {
			t.Fatalf("%d sights", len(f.times))
		}
	}
}

func TestAClockThatIsSetEndsNothing(t *testing.T) {
	j := NewJudge(Config{Ports: three})
	before := duplicate(0)
	before.Time = time.Unix(100, 0)
	id := j.Observe(before)[0].ID
	after := duplicate(0)
	if got := j.Observe(after); len(got) != 1 || got[0].ID != id || got[0].State != Open {
		t.Errorf("set forward: %+v", got)
	}
	for _, in := range j.Tick(start.Add(-time.Hour)) {
		if in.State == Ended {
			t.Errorf("set back: %+v", in)
		}
	}
	j.Tick(start.Add(-time.Hour + 31*time.Second))
	if got := j.Tick(start.Add(-time.Hour + 34*time.Second)); len(got) != 1 || got[0].State != Ended {
		t.Errorf("half a minute after that: %+v", got)
	}
}

func TestPortsThatAreMovedOrNamedAreJudgedAgain(t *testing.T) {
	j := NewJudge(Config{Ports: three})
	o := rule(0, "tc/1")
	o.Netns = "jail"
	if got := j.Observe(o); got[0].Severity != Info {
		t.Errorf("elsewhere: %+v", got)
	}
	if got := j.Near("jail"); len(got) != 1 || got[0].Severity != Alarm {
		t.Errorf("when that is near: %+v", got)
	}
	p := Observation{Kind: Program, Time: start, Subject: "bpf/9", In: "r9", Cause: "counts", Baseline: true}
	if got := j.Observe(p); got[0].Severity != Info {
		t.Errorf("a program on another device: %+v", got)
	}
	if got := j.Ports([]string{"r9"}); len(got) == 0 || got[len(got)-1].Severity != Notice {
		t.Errorf("when it is a port: %+v", got)
	}
}

func TestRulesThatAreLoadedAgainAreTheSame(t *testing.T) {
	j := NewJudge(Config{Ports: three})
	id := j.Observe(rule(0, "nft/handle/1"))[0].ID
	for i := 1; i <= 2000; i++ {
		at := time.Duration(i) * 10 * time.Millisecond
		o := rule(at, fmt.Sprint("nft/handle/", i))
		o.Gone = true
		j.Observe(o)
		for _, in := range j.Observe(rule(at+time.Millisecond, fmt.Sprint("nft/handle/", i+1))) {
			if in.ID != id || in.State != Open {
				t.Fatalf("%+v", in)
			}
		}
		j.Tick(start.Add(at + 2*time.Millisecond))
	}
	if len(j.order) != 1 || len(j.facts) != 1 {
		t.Errorf("keeps %d", len(j.order))
	}
	o := rule(30*time.Second, "nft/handle/2001")
	o.Gone = true
	j.Observe(o)
	if got := j.Tick(start.Add(33 * time.Second)); len(got) != 1 || got[0].State != Ended {
		t.Errorf("its end: %+v", got)
	}
}

func TestACopyThatIsAlsoMisroutedCountsOnce(t *testing.T) {
	j := NewJudge(Config{Ports: three})
	m := duplicate(0)
	m.Kind, m.FIB = Misroute, "r1"
	j.Observe(m)
	j.Observe(duplicate(time.Millisecond))
	got := j.Tick(start.Add(2 * time.Second))
	if len(got) != 1 || got[0].Count != 1 || got[0].Kind != Duplicate {
		t.Errorf("%+v", got)
	}
}

func BenchmarkObserveInAFullTable(b *testing.B) {
	j := NewJudge(Config{Ports: three})
	for i := range maxOpen {
		j.Observe(Observation{Kind: Listener, Time: start, Subject: fmt.Sprint("tcp/", i), Cause: "listens"})
		o := rule(0, fmt.Sprint("tc/", i))
		o.In = fmt.Sprint("p", i)
		j.Observe(o)
	}
	b.ResetTimer()
	for i := range b.N {
		j.Observe(duplicate(time.Duration(i) * time.Millisecond))
	}
}
