package config

import (
	"testing"
	"time"

	"waxseal/agent/mirror"
)

func TestALedgerTellsWhatIsNew(t *testing.T) {
	at := time.Unix(1000, 0)
	one := func(detail string, by int, seen time.Time) finding {
		return finding{seen: seen, Observation: mirror.Observation{Subject: "s", Cause: "c", Detail: detail, Process: mirror.Process{PID: by}}}
	}
	for name, c := range map[string]struct {
		then finding
		want bool
	}{
		"the same":                       {one("d", 0, at.Add(time.Second)), false},
		"another text":                   {one("e", 0, at.Add(time.Minute)), true},
		"who did it, at once":            {one("d", 7, at.Add(time.Second/2)), true},
		"who touched it long afterwards": {one("d", 7, at.Add(time.Minute)), false},
	} {
		l := newLedger()
		if !l.see(one("d", 0, at)) {
			t.Fatal("the first is not news")
		}
		if got := l.see(c.then); got != c.want {
			t.Errorf("%s: news %v", name, got)
		}
	}
}

func TestALedgerIsNotFilledBeyondItsBound(t *testing.T) {
	l := newLedger()
	var many []finding
	for i := range maxFindings + 10 {
		many = append(many, finding{Observation: mirror.Observation{Subject: string(rune(i + 1))}})
	}
	if came, _ := l.replace(many); len(came) != maxFindings || !l.full {
		t.Errorf("%d came, full %v: want %d", len(came), l.full, maxFindings)
	}
	if _, went := l.replace(nil); len(went) != maxFindings || l.full {
		t.Errorf("%d went, full %v", len(went), l.full)
	}
}
